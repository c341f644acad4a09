//! Saving a training run and going on with it.

use std::{
    io::{Read, Write},
    path::Path,
};

use nalgebra::DMatrix;

use super::{
    Trainer,
    settings::{Rule, Settings},
};
use crate::{
    adversarial::FastGradientSign,
    architecture::Architecture,
    error::{Error, Result},
    feedback::Feedback,
    files::{Contents, Draft, Expected, File, READER, WRITER, read, read_from},
    network::{Network, column_major, row_major},
    optimizer::{MOMENTS, Optimizer},
    parameters::{Parameters, Slot},
    route::Route,
    scalar::Scalar,
};

/// The kind of file that the description names.
const KIND: &str = "checkpoint";

impl<T: Scalar> Trainer<T> {
    /// Saves the whole training run as a safetensors file:
    ///
    /// - network with running statistics and frozen layers,
    /// - rule with feedback matrices and the settings by which they learn,
    /// - loss and class weights,
    /// - optimisers with moments, rate factors, schedule and max-norm,
    /// - stopping rule with its average, augmentation and perturbation,
    /// - batch size, seed, steps and epochs.
    ///
    /// A run that continues from this file ([`load`](Self::load)) is bit for bit the same as a run that
    /// was never interrupted. See [`files`](crate::files) for the format.
    ///
    /// It may be called between any two calls: after a single [`step`](Self::step) as well as after an
    /// [`epoch`](Self::epoch). The data are not saved.
    ///
    /// The file is first written under another name in the same folder and then replaces `path`. So at
    /// any time `path` holds either the old checkpoint or the new.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::DMatrix};
    ///
    /// let x = DMatrix::from_column_slice(2, 4, &[0.0_f32, 0., 0., 1., 1., 0., 1., 1.]);
    /// let xor = Dataset::new(x, vec![0, 1, 1, 0])?;
    /// let network = Network::builder(2).dense(8).tanh().dropout(0.2).dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).batch_size(2).build()?;
    /// trainer.epoch(&xor)?;
    ///
    /// let path = std::env::temp_dir().join(format!("run-{}.safetensors", std::process::id()));
    /// trainer.save(&path)?;
    /// let mut resumed = Trainer::<f32>::load(&path)?;
    /// assert_eq!(resumed.epoch(&xor)?, trainer.epoch(&xor)?);
    /// assert_eq!(resumed.network(), trainer.network());
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::NonFinite`](crate::Error::NonFinite) if a parameter or
    /// moment is not finite, as after training that diverged,
    /// [`Error::StageMismatch`](crate::Error::StageMismatch) if the network was replaced by one of
    /// other shapes. The old file then stays.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.draft(path.as_ref())?.save()
    }

    /// Writes the bytes of the file that [`save`](Self::save) makes.
    ///
    /// # Errors
    /// Those of [`save`](Self::save), found before anything is written; and
    /// [`Error::Io`](crate::Error::Io) if the writer fails.
    pub fn write_to(&self, writer: impl Write) -> Result<()> {
        self.draft(Path::new(WRITER))?.write_to(writer)
    }

    fn draft<'a>(&self, path: &'a Path) -> Result<Draft<'a>> {
        self.feedback.require_network(&self.network)?;
        self.optimizer.require_saved_with(&self.network)?;

        let mut lines = self.settings().lines();
        lines.extend(self.network.architecture().lines());
        let mut draft = Draft::new(path, KIND, &lines);
        self.network.add_to(&mut draft)?;
        let tensors = feedback_tensors(&self.network, self.feedback.route());
        for (tensor, matrix) in tensors.into_iter().zip(self.feedback.tensors()?) {
            draft.add(tensor, &row_major(matrix.as_slice(), matrix.nrows()))?;
        }
        let of_feedback = Feedback::<T>::learning_names(&self.network, self.feedback.route());
        let taught_by =
            self.optimizer.feedback_optimizer().unwrap_or_else(|| self.optimizer.config());
        for index in taught_by.moment_indices() {
            for ((name, _), (moment, (rows, columns))) in
                of_feedback.iter().zip(self.feedback.moments(index))
            {
                // Before the first step there are no moments, which is the same as zeros.
                let zeros = vec![T::zero(); rows * columns];
                let moment = if moment.is_empty() { &zeros } else { moment };
                let tensor =
                    Expected { name: feedback_moment(index, name), shape: vec![rows, columns] };
                draft.add(tensor, &row_major(moment, rows))?;
            }
        }
        for index in self.optimizer.config().moment_indices() {
            let moments = self.optimizer.moments(index);
            for slot in learned(&self.network) {
                let tensor = moment_tensor(&self.network, index, slot);
                draft.add(tensor, &row_major(moments.slot(slot), slot.rows))?;
            }
        }
        Ok(draft)
    }

    /// Loads a training run that [`save`](Self::save) saved, to continue it.
    ///
    /// # Errors
    /// As for [`Network::load`], for checkpoints.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_contents(path, &read(path)?)
    }

    /// [`load`](Self::load) from a reader. The reader has to end where the checkpoint ends; see
    /// [`files`](crate::files#readers-and-writers). Memory is taken only as bytes arrive.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn read_from(reader: impl Read) -> Result<Self> {
        let name = Path::new(READER);
        Self::from_contents(name, &read_from(reader, name)?)
    }

    fn from_contents(path: &Path, contents: &Contents) -> Result<Self> {
        let file = File::parse(path, contents)?;
        let mut lines = file.lines(KIND)?;
        let settings = Settings::read(&mut lines)?;
        let architecture = Architecture::read(&mut lines)?;
        let mut written = settings.lines();
        written.extend(architecture.lines());
        lines.require(&written)?;

        let mut expected = architecture.require_in::<T>(&file)?;
        let network = Network::<T>::from_file(&file, architecture)?;
        let route = match &settings.rule {
            Rule::Named(rule) => rule.route(network.layer_count())?,
            Rule::Route(route) => route.clone(),
        };
        Feedback::require_layers(&network, &route).map_err(|error| file.blame(error))?;
        let feedback = feedback_tensors(&network, &route);
        expected.extend(feedback.iter().cloned());
        let taught_by = settings.feedback_optimizer.unwrap_or(settings.optimizer);
        for index in settings.optimizer.moment_indices() {
            expected.extend(learned(&network).map(|slot| moment_tensor(&network, index, slot)));
        }
        for index in taught_by.moment_indices() {
            expected.extend(feedback_moments(&network, &route, index));
        }
        file.require_only(&expected, &[])?;

        let matrices = feedback.iter().map(|tensor| {
            let (rows, columns) = (tensor.shape[0], tensor.shape[1]);
            Ok(DMatrix::from_vec(rows, columns, column_major(&file.read(tensor)?, rows)))
        });
        let matrices: Vec<DMatrix<T>> = matrices.collect::<Result<_>>()?;
        let moments = read_moments(&file, &network, settings.optimizer)?;
        let mut of_feedback = [Vec::new(), Vec::new()];
        for index in taught_by.moment_indices() {
            for tensor in feedback_moments(&network, &route, index) {
                let is_square = taught_by.square() == Some(index);
                let values =
                    if is_square { file.read_squares(&tensor)? } else { file.read(&tensor)? };
                of_feedback[index].push(column_major(&values, tensor.shape[0]));
            }
        }
        if let Some((init, _)) = settings.magnitudes {
            init.check().map_err(|error| file.blame(error))?;
            if !route.draws_magnitudes() {
                return Err(file.blame(Error::Conflict {
                    first: format!("the route {route}"),
                    second: "the line of magnitudes".into(),
                    reason: "nothing on it is drawn anew",
                }));
            }
        }
        for (line, there, wanted) in [
            ("mirror", settings.mirror.is_some(), route.has_mirrors()),
            ("slopes", settings.slopes.is_some(), route.has_slopes()),
        ] {
            if there != wanted {
                return Err(file.blame(Error::Conflict {
                    first: format!("the route {route}"),
                    second: format!("the line '{line}', or its absence"),
                    reason: "there is one where a matrix learns from such noise",
                }));
            }
        }
        let (magnitudes, mirror, slopes) = (settings.magnitudes, settings.mirror, settings.slopes);
        let rule = match settings.rule {
            Rule::Named(rule) => Some(rule),
            Rule::Route(_) => None,
        };
        let feedback = Feedback::from_tensors(&network, rule, route, matrices);
        let trainer = feedback.and_then(|feedback| {
            let mut feedback = feedback;
            if let Some((init, seed)) = magnitudes {
                feedback.draw_magnitudes_from(init, seed);
            }
            if let Some((mirror, seed, seen)) = mirror {
                feedback.set_mirror(mirror)?;
                feedback.restore_mirror(seed, seen);
            }
            if let Some(seed) = slopes {
                feedback.draw_slopes_from(seed);
            }
            feedback.restore_moments(of_feedback);
            settings.build(network, feedback, moments)
        });
        trainer.map_err(|error| file.blame(error))
    }

    fn settings(&self) -> Settings {
        Settings {
            rule: match self.feedback.rule() {
                Some(rule) => Rule::Named(rule),
                None => Rule::Route(self.feedback.route().clone()),
            },
            loss: self.loss,
            class_weights: self.class_weights.clone(),
            batch_size: self.batch_size,
            drop_last: self.drop_last,
            seed: self.seed,
            epochs: self.epochs,
            steps: self.optimizer.steps(),
            feedback_init: self.feedback_init,
            magnitudes: self.feedback.magnitudes(),
            mirror: self.feedback.route().has_mirrors().then(|| {
                let (seed, seen) = self.feedback.mirrored();
                (self.feedback.mirror(), seed, seen)
            }),
            slopes: self.feedback.seed_of_slopes(),
            feedback_optimizer: self.optimizer.feedback_optimizer(),
            optimizer: self.optimizer.config(),
            schedule: self.optimizer.schedule(),
            max_norm: self.optimizer.max_norm(),
            rate_factors: (0..self.network.layer_count())
                .filter_map(|layer| Some((layer, self.optimizer.rate_factor(layer).ok()?)))
                .filter(|&(_, factor)| factor != 1.0)
                .collect(),
            adversarial: self.adversarial.as_ref().map(FastGradientSign::epsilon),
            stopping: self.stopping,
            running_error: self.running_error,
            augmentation: self.augmentation,
            frozen: self.network.frozen().collect(),
        }
    }
}

impl Settings {
    fn build<T: Scalar>(
        self,
        mut network: Network<T>,
        feedback: Feedback<T>,
        moments: [Parameters<T>; 2],
    ) -> Result<Trainer<T>> {
        self.frozen.into_iter().try_for_each(|layer| network.freeze(layer))?;
        let mut builder = Trainer::builder(network)
            .feedback(feedback)
            .drop_last(self.drop_last)
            .loss(self.loss)
            .optimizer(self.optimizer)
            .schedule(self.schedule)
            .batch_size(self.batch_size)
            .seed(self.seed);
        if let Some(optimizer) = self.feedback_optimizer {
            builder = builder.feedback_optimizer(optimizer);
        }
        if !self.class_weights.is_empty() {
            builder = builder.class_weights(self.class_weights);
        }
        if let Some(bound) = self.max_norm {
            builder = builder.max_norm(bound);
        }
        for (layer, factor) in self.rate_factors {
            builder = builder.rate_factor(layer, factor);
        }
        if let Some(epsilon) = self.adversarial {
            builder = builder.adversarial(epsilon);
        }
        if let Some(rule) = self.stopping {
            builder = builder.stopping(rule);
        }
        if let Some(augmentation) = self.augmentation {
            builder = builder.augmentation(augmentation);
        }
        self.feedback_init.check()?;
        let mut trainer = builder.build()?;
        trainer.feedback_init = self.feedback_init;
        trainer.optimizer.restore(self.steps, moments);
        trainer.epochs = self.epochs;
        trainer.running_error = self.running_error;
        Ok(trainer)
    }
}

/// The tensors of the feedback matrices of a route, from the first hidden layer up.
fn feedback_tensors<T: Scalar>(network: &Network<T>, route: &Route) -> Vec<Expected> {
    let tensors = Feedback::tensor_shapes(network, route).into_iter();
    tensors.map(|(name, (rows, columns))| Expected { name, shape: vec![rows, columns] }).collect()
}

/// The tensors of moment `index` of the matrices that learn.
fn feedback_moments<T: Scalar>(network: &Network<T>, route: &Route, index: usize) -> Vec<Expected> {
    let names = Feedback::<T>::learning_names(network, route).into_iter();
    let tensor = |(name, (rows, columns)): (String, _)| Expected {
        name: feedback_moment(index, &name),
        shape: vec![rows, columns],
    };
    names.map(tensor).collect()
}

fn feedback_moment(index: usize, name: &str) -> String {
    format!("{}.feedback.{name}", MOMENTS[index])
}

/// The parameters that have moments.
fn learned<T: Scalar>(network: &Network<T>) -> impl Iterator<Item = &Slot> {
    network.parameters().slots().iter().filter(|slot| slot.part.is_learned())
}

fn moment_tensor<T: Scalar>(network: &Network<T>, index: usize, slot: &Slot) -> Expected {
    let Expected { name, shape } = network.architecture().tensor(slot);
    Expected { name: format!("{}.{name}", MOMENTS[index]), shape }
}

/// Reads the moments that an optimiser has. The file has been checked to hold them.
fn read_moments<T: Scalar>(
    file: &File,
    network: &Network<T>,
    optimizer: Optimizer,
) -> Result<[Parameters<T>; 2]> {
    let table = network.parameters().table();
    let mut moments = [Parameters::none(table), Parameters::none(table)];
    for index in optimizer.moment_indices() {
        moments[index] = Parameters::zeros(table)?;
        for slot in learned(network) {
            let tensor = moment_tensor(network, index, slot);
            let is_square = optimizer.square() == Some(index);
            let values = if is_square { file.read_squares(&tensor)? } else { file.read(&tensor)? };
            moments[index].slot_mut(slot).copy_from_slice(&column_major(&values, slot.rows));
        }
    }
    Ok(moments)
}
