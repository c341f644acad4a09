//! Files in the safetensors format: named arrays of little-endian numbers after a header in JSON,
//! with a description and a checksum of the whole in the header's metadata.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    path::Path,
};

use safetensors::{
    Dtype,
    tensor::{TensorInfo, TensorView},
};

use super::{
    contents::{Contents, header_length, refuse},
    description::{Line, Lines, text},
    numbers::{decode, dtype, encode},
    replace::replace,
};
use crate::{
    error::{Error, Result},
    scalar::Scalar,
};

/// The entry of the metadata that holds the description. There is only one, because several entries
/// would be written in random order.
const KEY: &str = "feedback-alignment";

/// The version of the format that this version of the crate writes and reads.
const FORMAT: u32 = 1;

/// Name and shape of a tensor that a file has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
}

/// A file that is being put together.
pub(crate) struct Draft<'a> {
    path: &'a Path,
    kind: &'static str,
    body: String,
    /// Sorted by name, as the checksum needs them.
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl<'a> Draft<'a> {
    /// An empty file of this kind with this description.
    pub(crate) fn new(path: &'a Path, kind: &'static str, body: &[Line]) -> Self {
        Self { path, kind, body: text(body), tensors: BTreeMap::new() }
    }

    /// Adds a tensor. The last index of its numbers runs fastest.
    pub(crate) fn add<T: Scalar>(&mut self, tensor: Expected, numbers: &[T]) -> Result<()> {
        let Expected { name, shape } = tensor;
        debug_assert_eq!(shape.iter().product::<usize>(), numbers.len(), "{name}");
        // A file that cannot be loaded must not replace one that can.
        require_finite(self.path, &name, &shape, numbers)?;
        self.tensors.insert(name, (dtype::<T>(), shape, encode(numbers)));
        Ok(())
    }

    /// Writes the file and replaces the old one in one step.
    pub(crate) fn save(self) -> Result<()> {
        let path = self.path;
        replace(path, &self.bytes()?)
    }

    /// Writes the file to a writer.
    pub(crate) fn write_to(self, mut writer: impl Write) -> Result<()> {
        let path = self.path;
        let bytes = self.bytes()?;
        let written = writer.write_all(&bytes).and_then(|()| writer.flush());
        written.map_err(|cause| Error::Io { path: path.to_owned(), cause })
    }

    /// The whole file.
    fn bytes(self) -> Result<Vec<u8>> {
        let bad = |error| refuse(self.path, error);
        let contents = self.tensors.iter().map(|(name, (_, _, bytes))| (&**name, &**bytes));
        let description = Description {
            head: head(FORMAT, env!("CARGO_PKG_VERSION"), self.kind),
            body: self.body,
        };
        let sealed = description.seal(contents);
        let views = self.tensors.iter().map(|(name, (dtype, shape, bytes))| {
            Ok((name, TensorView::new(*dtype, shape.clone(), bytes)?))
        });
        let views = views.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        let metadata = [(KEY.to_owned(), sealed)].into_iter().collect();
        let bytes = safetensors::serialize(views, Some(metadata)).map_err(bad)?;
        let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length));
        header_length(length).map_err(bad)?;
        Ok(bytes)
    }
}

/// The description of a file, without the line of its checksum.
struct Description {
    /// The lines before the checksum: format, crate and kind.
    head: String,
    /// The lines after it, which depend on the kind.
    body: String,
}

/// How many lines of a description come before its body.
const LINES_ABOVE: usize = 4;

fn head(format: u32, writer: &str, kind: &str) -> String {
    format!("format {format}\ncrate {writer}\nkind {kind}\n")
}

impl Description {
    /// The CRC-32 of the description and of the tensors, which come by name.
    fn checksum<'a>(&self, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(self.head.as_bytes());
        sum.update(self.body.as_bytes());
        for (name, bytes) in tensors {
            sum.update(name.as_bytes());
            sum.update(bytes);
        }
        sum.finalize()
    }

    /// The description with its checksum.
    fn seal<'a>(&self, tensors: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
        format!("{}checksum {:08x}\n{}", self.head, self.checksum(tensors), self.body)
    }
}

/// Which types of numbers can be read as `T`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Only `T`.
    Exact,
    /// Also types of which `T` represents every number.
    Widen,
    /// All types, rounded to `T`.
    Narrow,
}

/// A file of tensors that has been read and checked.
pub(crate) struct File<'a> {
    path: &'a Path,
    tensors: BTreeMap<String, TensorInfo>,
    data: &'a [u8],
    precision: Precision,
    /// Kind and body of the description, if this crate wrote the file.
    description: Option<(String, String)>,
}

impl<'a> File<'a> {
    /// Checks the `contents` of the file `path`.
    pub(crate) fn parse(path: &'a Path, contents: &'a Contents) -> Result<Self> {
        let Contents { metadata, data } = contents;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone()));
        let (tensors, precision) = (tensors.collect(), Precision::Exact);
        let mut file = Self { path, tensors, data, precision, description: None };
        if let Some(text) = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)) {
            file.description = Some(file.unseal(text)?);
        }
        Ok(file)
    }

    /// The file, read with this precision; without this call it is [`Precision::Exact`].
    pub(crate) fn with_precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// The file with other names for its tensors. Tensors for which `name` returns `None` are left out.
    pub(crate) fn renamed(self, name: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        let mut sources = BTreeMap::new();
        for (old, info) in self.tensors {
            let Some(new) = name(&old) else { continue };
            if let Some(other) = sources.insert(new.clone(), old.clone()) {
                let path = self.path.to_owned();
                return Err(Error::SameTensor { path, tensor: new, found: [other, old] });
            }
            tensors.insert(new, info);
        }
        Ok(Self { tensors, ..self })
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.tensors.keys()
    }

    /// Kind and body of a description, after its checksum was found to be right.
    fn unseal(&self, text: &str) -> Result<(String, String)> {
        let mut lines = text.splitn(LINES_ABOVE + 1, '\n');
        let mut number = 0;
        let mut next = |name: &str| {
            number += 1;
            let line = lines.next().unwrap_or_default();
            let value = line.strip_prefix(name).and_then(|rest| rest.strip_prefix(' '));
            value.ok_or_else(|| Error::Description {
                path: self.path.to_owned(),
                line: number,
                expected: format!("'{name} …'"),
                found: line.to_owned(),
            })
        };
        let (format, writer) = (next("format")?, next("crate")?);
        if format != FORMAT.to_string() {
            return Err(Error::FormatVersion {
                path: self.path.to_owned(),
                expected: FORMAT,
                found: format.to_owned(),
                writer: writer.to_owned(),
            });
        }
        let (kind, checksum) = (next("kind")?, next("checksum")?);
        let body = lines.next().unwrap_or_default();
        let description = Description { head: head(FORMAT, writer, kind), body: body.to_owned() };
        let contents = self.tensors.iter().map(|(name, info)| (&**name, self.bytes(info)));
        let found = format!("{:08x}", description.checksum(contents));
        if checksum != found {
            let (path, expected) = (self.path.to_owned(), checksum.to_owned());
            return Err(Error::Checksum { path, expected, found });
        }
        Ok((kind.to_owned(), description.body))
    }

    /// The lines of the description, if this crate wrote the file as one of this kind.
    pub(crate) fn lines(&self, kind: &'static str) -> Result<Lines<'_>> {
        match &self.description {
            Some((found, body)) if found == kind => Ok(Lines::new(self.path, body, LINES_ABOVE)),
            other => Err(Error::FileKind {
                path: self.path.to_owned(),
                expected: kind,
                found: match other {
                    Some((found, _)) => format!("a {found}"),
                    None => "no description, as in files of other programs".into(),
                },
            }),
        }
    }

    /// Whether this crate wrote the file.
    pub(crate) fn is_ours(&self) -> bool {
        self.description.is_some()
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, name: &str) -> Result<&[usize]> {
        self.info(name).map(|info| &*info.shape)
    }

    /// Fails unless the file has a tensor of numbers of type `T` as expected.
    pub(crate) fn require<T: Scalar>(&self, expected: &Expected) -> Result<()> {
        let info = self.info(&expected.name)?;
        let (path, tensor) = (self.path.to_owned(), expected.name.clone());
        if info.shape != expected.shape {
            let (expected, found) = (expected.shape.clone(), info.shape.clone());
            return Err(Error::TensorShape { path, tensor, expected, found });
        }
        if self.admits::<T>(info.dtype) {
            return Ok(());
        }
        let is_wider = self.precision == Precision::Widen && info.dtype == Dtype::F64;
        let advice =
            if is_wider { ": narrow it with load_parameters_with, or load it as f64" } else { "" };
        let found = info.dtype.to_string();
        Err(Error::TensorType { path, tensor, expected: T::NAME, found, advice })
    }

    fn admits<T: Scalar>(&self, found: Dtype) -> bool {
        let is_short = matches!(found, Dtype::F16 | Dtype::BF16 | Dtype::F32);
        match self.precision {
            Precision::Exact => found == dtype::<T>(),
            Precision::Widen => is_short || found == dtype::<T>(),
            Precision::Narrow => is_short || found == Dtype::F64,
        }
    }

    /// Fails if the file has a tensor that is neither `expected` nor among the `ignored` names.
    pub(crate) fn require_only(&self, expected: &[Expected], ignored: &[String]) -> Result<()> {
        let expected: BTreeSet<&String> = expected.iter().map(|tensor| &tensor.name).collect();
        let known = |name: &&String| expected.contains(name) || ignored.contains(name);
        match self.tensors.keys().find(|name| !known(name)) {
            Some(name) => Err(Error::UnexpectedTensor {
                path: self.path.to_owned(),
                tensor: name.clone(),
                expected: expected.into_iter().cloned().collect(),
            }),
            None => Ok(()),
        }
    }

    /// The finite numbers of a tensor, in the order of the last index first.
    pub(crate) fn read<T: Scalar>(&self, expected: &Expected) -> Result<Vec<T>> {
        self.require::<T>(expected)?;
        let info = self.info(&expected.name)?;
        let bytes = self.bytes(info);
        let numbers = decode::<T>(info.dtype, bytes);
        let finite = require_finite(self.path, &expected.name, &expected.shape, &numbers);
        finite.map_err(|error| self.overflow(expected, decode(info.dtype, bytes), error))?;
        Ok(numbers)
    }

    /// `error`, or that a number is too large for `T` where all `numbers` in the file are finite.
    fn overflow(&self, tensor: &Expected, numbers: Vec<f64>, error: Error) -> Error {
        let largest = numbers.into_iter().max_by(|a, b| a.abs().total_cmp(&b.abs()));
        match largest {
            Some(found) if found.is_finite() => Error::TensorValue {
                path: self.path.to_owned(),
                tensor: tensor.name.clone(),
                expected: "numbers that fit into f32",
                found,
            },
            _ => error,
        }
    }

    /// [`read`](Self::read) for numbers of at least 0.
    pub(crate) fn read_squares<T: Scalar>(&self, expected: &Expected) -> Result<Vec<T>> {
        let numbers = self.read::<T>(expected)?;
        match numbers.iter().find(|&&number| number < T::zero()) {
            Some(negative) => Err(Error::TensorValue {
                path: self.path.to_owned(),
                tensor: expected.name.clone(),
                expected: "at least 0",
                found: negative.as_f64(),
            }),
            None => Ok(numbers),
        }
    }

    /// An error of what was made of the content of this file.
    pub(crate) fn blame(&self, cause: Error) -> Error {
        Error::Content { path: self.path.to_owned(), cause: Box::new(cause) }
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| self.missing(name))
    }

    /// The error of a tensor that is not there.
    pub(crate) fn missing(&self, name: &str) -> Error {
        Error::MissingTensor {
            path: self.path.to_owned(),
            expected: name.to_owned(),
            found: self.names().cloned().collect(),
        }
    }

    fn bytes(&self, info: &TensorInfo) -> &'a [u8] {
        &self.data[info.data_offsets.0..info.data_offsets.1]
    }
}

/// Fails with row and column, the first index and all others, of the first number that is none.
fn require_finite<T: Scalar>(
    path: &Path,
    name: &str,
    shape: &[usize],
    numbers: &[T],
) -> Result<()> {
    let Some(at) = numbers.iter().position(|number| !number.is_finite()) else { return Ok(()) };
    let columns = shape.iter().skip(1).product::<usize>();
    Err(Error::NonFinite {
        what: format!("{}: tensor '{name}'", path.display()),
        row: at / columns,
        column: at % columns,
        found: numbers[at].as_f64(),
    })
}
