//! Loading parameters from files with other tensor names, or with further tensors.

use super::Network;
use crate::{
    error::{Error, Result, require},
    files::{File, Precision},
    parameters::Slot,
    scalar::Scalar,
};

/// How [`Network::load_parameters_with`] takes the tensors of a file for the parameters of a
/// network. By default it takes them as [`Network::load_parameters`] does.
///
/// The fields apply in their order. A name in `ignore` or `rename` stands for the tensor with exactly
/// that name and for all tensors whose name continues with a dot. For example, `fc1` stands for
/// `fc1.weight` and `fc1.bias`.
///
/// ```
/// use feedback_alignment::LoadOptions;
///
/// // A classifier of `fc1` and `fc2` that was trained by several processes and compiled, whose
/// // output layer had other classes than ours.
/// let options = LoadOptions {
///     strip: vec!["module.".into(), "_orig_mod.".into()],
///     ignore: vec!["fc2".into()],
///     rename: vec![("fc1".into(), "0".into())],
///     keep: vec![1],
///     ..LoadOptions::default()
/// };
/// assert!(!options.narrow);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct LoadOptions {
    /// Prefixes to remove from the names in the file, as often as they occur, such as `module.` of
    /// `DataParallel` and `_orig_mod.` of `torch.compile`.
    pub strip: Vec<String>,
    /// Tensors of the file to leave out.
    pub ignore: Vec<String>,
    /// Pairs of a name in the file and the new name. The new name is the place in the network's list
    /// (`"2"`), or the whole name (`"2.weight"`). The first pair that fits is used.
    pub rename: Vec<(String, String)>,
    /// Weighted layers, counted from 0, that keep their present parameters, with the normalisations
    /// after them. Tensors of the file for these layers are left out.
    pub keep: Vec<usize>,
    /// Whether `f64` tensors may be rounded to `f32`. Otherwise they are an error.
    pub narrow: bool,
}

impl LoadOptions {
    /// The name of a tensor without its prefixes; `None` if the tensor is left out.
    fn stripped<'a>(&self, mut name: &'a str) -> Option<&'a str> {
        let prefixes = self.strip.iter().filter(|prefix| !prefix.is_empty());
        while let Some(rest) = prefixes.clone().find_map(|prefix| name.strip_prefix(&**prefix)) {
            name = rest;
        }
        let is_ignored = self.ignore.iter().any(|ignored| part(name, ignored).is_some());
        (!is_ignored).then_some(name)
    }

    /// The name that a tensor of the file gets; `None` if the tensor is left out.
    fn name(&self, name: &str) -> Option<String> {
        let name = self.stripped(name)?;
        let mut renamed = self.rename.iter().filter_map(|(from, to)| Some((to, part(name, from)?)));
        Some(renamed.next().map_or(name.to_owned(), |(to, rest)| format!("{to}{rest}")))
    }

    /// The file with its tensors renamed.
    fn apply<'a>(&self, file: File<'a>) -> Result<File<'a>> {
        for (from, _) in &self.rename {
            let mut names = file.names().filter_map(|name| self.stripped(name));
            if !names.any(|name| part(name, from).is_some()) {
                return Err(file.missing(from));
            }
        }
        let precision = if self.narrow { Precision::Narrow } else { Precision::Widen };
        file.renamed(|name| self.name(name)).map(|file| file.with_precision(precision))
    }
}

/// The rest of `name` after `start`: nothing, or a dot and more. `None` if `name` does not begin so.
fn part<'a>(name: &'a str, start: &str) -> Option<&'a str> {
    name.strip_prefix(start).filter(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl<T: Scalar> Network<T> {
    /// Takes the parameters from a file, with the names that `options` give them.
    pub(super) fn take_parameters(&mut self, file: File, options: &LoadOptions) -> Result<()> {
        let count = self.layer_count();
        if let Some(&layer) = options.keep.iter().find(|&&layer| layer >= count) {
            return Err(Error::NoSuchLayer { what: "weighted layer", layer, count });
        }
        let file = options.apply(file)?;
        let is_kept = |layer: usize| options.keep.contains(&layer);
        let wanted = (0..count).filter(|&layer| !is_kept(layer)).count();
        require(wanted > 0, "keep", count as f64, "fewer layers than the network has")?;
        let (kept, taken): (Vec<_>, Vec<_>) =
            self.parameters.slots().iter().partition(|slot| is_kept(slot.layer));
        let tensor = |slot: &Slot| self.architecture.tensor(slot);
        let taken: Vec<_> = taken.into_iter().map(tensor).collect();
        taken.iter().try_for_each(|tensor| file.require::<T>(tensor))?;
        let mut ignored = self.architecture().counters();
        ignored.extend(kept.into_iter().map(|slot| tensor(slot).name));
        file.require_only(&taken, &ignored)?;
        self.take_from(&file, &options.keep)
    }
}
