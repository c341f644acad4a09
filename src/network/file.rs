//! Saving and loading a network.

use std::{
    io::{Read, Write},
    path::Path,
};

use super::{LoadOptions, Network, builder::assemble};
use crate::{
    architecture::Architecture,
    error::Result,
    files::{Contents, Draft, File, Precision, READER, WRITER, read, read_from},
    scalar::Scalar,
};

/// The kind of file that the description names.
const KIND: &str = "network";

impl<T: Scalar> Network<T> {
    /// Saves architecture and parameters as a safetensors file. [`load`](Self::load) makes the same
    /// network from it, bit for bit. The parameters have the names, shapes and order of PyTorch's
    /// `state_dict()` for an `nn.Sequential` with the same list of layers: see [`files`](crate::files).
    ///
    /// ```python
    /// model = torch.nn.Sequential(torch.nn.Linear(784, 800), torch.nn.Tanh(), torch.nn.Linear(800, 10))
    /// model.load_state_dict(safetensors.torch.load_file("network.safetensors"))
    /// ```
    ///
    /// The file is first written under another name in the same folder. Then it replaces `path`, or the
    /// file that a symbolic link leads to. So at any time `path` holds either the old content or the
    /// new. The new file keeps the access rights of the old one ([`files`](crate::files#saving)).
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let network = Network::<f32>::builder(4).dropout(0.1).dense(8).tanh().dense(3).build()?;
    /// let path = std::env::temp_dir().join(format!("network-{}.safetensors", std::process::id()));
    /// network.save(&path)?;
    /// assert_eq!(Network::load(&path)?, network);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), also for a read-only file and for anything that is not a
    /// regular file. [`Error::NonFinite`](crate::Error::NonFinite) if a parameter is not finite, as
    /// after training that diverged. The old file then stays.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.draft(path.as_ref())?.save()
    }

    /// Writes the bytes of the file that [`save`](Self::save) makes.
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let network = Network::<f32>::builder(4).dense(8).tanh().dense(3).build()?;
    /// let mut bytes = Vec::new();
    /// network.write_to(&mut bytes)?;
    /// assert_eq!(Network::read_from(&bytes[..])?, network);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) if a parameter is not finite; nothing is then
    /// written. [`Error::Io`](crate::Error::Io) if the writer fails.
    pub fn write_to(&self, writer: impl Write) -> Result<()> {
        self.draft(Path::new(WRITER))?.write_to(writer)
    }

    fn draft<'a>(&self, path: &'a Path) -> Result<Draft<'a>> {
        let mut draft = Draft::new(path, KIND, &self.architecture.lines());
        self.add_to(&mut draft)?;
        Ok(draft)
    }

    /// Loads a network that [`save`](Self::save) wrote, bit for bit. A network of `f32` can be loaded
    /// as `f64`. For the opposite direction, load it as `f64` and [`cast`](Self::cast) it.
    ///
    /// # Errors
    /// [`Error::Io`]; for a file that is cut off, damaged or no safetensors file
    /// [`Error::Safetensors`], [`Error::TensorCutOff`], [`Error::TrailingBytes`] or
    /// [`Error::Checksum`]; [`Error::FileKind`] for one that holds something else, as one from
    /// PyTorch does ([`load_parameters`](Self::load_parameters) reads it);
    /// [`Error::FormatVersion`] for one from a newer version of this crate. If the content does
    /// not make sense, [`Error::Description`], [`Error::Content`], [`Error::MissingTensor`],
    /// [`Error::UnexpectedTensor`], [`Error::TensorShape`], [`Error::TensorValue`] or
    /// [`Error::NonFinite`]; [`Error::TensorType`] if it is a network of `f64` and loaded as `f32`.
    /// [`Error::WrongFormat`] names what the file is if it is nothing like that.
    ///
    /// [`Error::Checksum`]: crate::Error::Checksum
    /// [`Error::Content`]: crate::Error::Content
    /// [`Error::Description`]: crate::Error::Description
    /// [`Error::FileKind`]: crate::Error::FileKind
    /// [`Error::FormatVersion`]: crate::Error::FormatVersion
    /// [`Error::Io`]: crate::Error::Io
    /// [`Error::MissingTensor`]: crate::Error::MissingTensor
    /// [`Error::NonFinite`]: crate::Error::NonFinite
    /// [`Error::Safetensors`]: crate::Error::Safetensors
    /// [`Error::TensorCutOff`]: crate::Error::TensorCutOff
    /// [`Error::TensorShape`]: crate::Error::TensorShape
    /// [`Error::TensorType`]: crate::Error::TensorType
    /// [`Error::TensorValue`]: crate::Error::TensorValue
    /// [`Error::TrailingBytes`]: crate::Error::TrailingBytes
    /// [`Error::UnexpectedTensor`]: crate::Error::UnexpectedTensor
    /// [`Error::WrongFormat`]: crate::Error::WrongFormat
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_contents(path, &read(path)?)
    }

    /// [`load`](Self::load) from a reader. The reader has to end where the network ends; see
    /// [`files`](crate::files#readers-and-writers). Memory is taken only as bytes arrive.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn read_from(reader: impl Read) -> Result<Self> {
        let name = Path::new(READER);
        Self::from_contents(name, &read_from(reader, name)?)
    }

    fn from_contents(path: &Path, contents: &Contents) -> Result<Self> {
        let file = File::parse(path, contents)?.with_precision(Precision::Widen);
        let mut lines = file.lines(KIND)?;
        let architecture = Architecture::read(&mut lines)?;
        lines.require(&architecture.lines())?;
        let expected = architecture.require_in::<T>(&file)?;
        file.require_only(&expected, &[])?;
        Self::from_file(&file, architecture)
    }

    /// Replaces all parameters by those of a file. The file is one that [`save`](Self::save) wrote, or
    /// one from PyTorch or elsewhere with the same names, shapes and order of tensors (see
    /// [`files`](crate::files)). Tensors of `f16`, `bf16` and `f32` are read exactly. Tensors of `f64`
    /// can only be read into a network of `f64`. Activations and other operations stay as they are: a
    /// file from elsewhere does not name them, and a file of this crate may belong to a network with,
    /// say, another dropout. If the names differ, use
    /// [`load_parameters_with`](Self::load_parameters_with).
    ///
    /// ```python
    /// safetensors.torch.save_file(model.state_dict(), "model.safetensors")
    /// ```
    ///
    /// ```
    /// use feedback_alignment::Network;
    ///
    /// let list = || Network::<f64>::builder(4).dense(8).relu().dense(3);
    /// let (trained, mut network) = (list().seed(1).build()?, list().seed(2).build()?);
    /// let path = std::env::temp_dir().join(format!("model-{}.safetensors", std::process::id()));
    /// trained.save(&path)?;
    /// network.load_parameters(&path)?;
    /// assert_eq!(network, trained);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`load`](Self::load). [`Error::MissingTensor`], [`Error::UnexpectedTensor`] and
    /// [`Error::TensorShape`] mean that the parameters belong to another network. After an error
    /// nothing has changed.
    ///
    /// [`Error::MissingTensor`]: crate::Error::MissingTensor
    /// [`Error::TensorShape`]: crate::Error::TensorShape
    /// [`Error::UnexpectedTensor`]: crate::Error::UnexpectedTensor
    pub fn load_parameters(&mut self, path: impl AsRef<Path>) -> Result<()> {
        self.load_parameters_with(path, &LoadOptions::default())
    }

    /// [`load_parameters`](Self::load_parameters) from a file with other names, with tensors to leave
    /// out, or with a layer of another size: see [`LoadOptions`].
    ///
    /// ```
    /// use feedback_alignment::{LoadOptions, Network};
    ///
    /// // Ten classes were learned; the same hidden layer is to learn three others.
    /// let trained = Network::<f64>::builder(4).dense(8).relu().dense(10).seed(1).build()?;
    /// let mut network = Network::<f32>::builder(4).dense(8).relu().dense(3).seed(2).build()?;
    /// let path = std::env::temp_dir().join(format!("head-{}.safetensors", std::process::id()));
    /// trained.save(&path)?;
    /// let options = LoadOptions { keep: vec![1], narrow: true, ..LoadOptions::default() };
    /// let before = network.clone();
    /// network.load_parameters_with(&path, &options)?;
    /// assert_eq!(network.layer(0)?, trained.cast::<f32>()?.layer(0)?);
    /// assert_eq!(network.layer(1)?, before.layer(1)?);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`load_parameters`](Self::load_parameters). Also [`Error::MissingTensor`] for a name in
    /// `rename` that no tensor has, [`Error::SameTensor`] if two tensors get the same name,
    /// [`Error::TensorValue`] for a number too large for `f32`, [`Error::NoSuchLayer`] if `keep` names
    /// a layer that does not exist, and [`Error::InvalidParameter`] if it names all layers. After an
    /// error nothing has changed.
    ///
    /// [`Error::InvalidParameter`]: crate::Error::InvalidParameter
    /// [`Error::MissingTensor`]: crate::Error::MissingTensor
    /// [`Error::NoSuchLayer`]: crate::Error::NoSuchLayer
    /// [`Error::SameTensor`]: crate::Error::SameTensor
    /// [`Error::TensorValue`]: crate::Error::TensorValue
    pub fn load_parameters_with(
        &mut self,
        path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<()> {
        let path = path.as_ref();
        self.take_contents(path, &read(path)?, options)
    }

    /// [`load_parameters_with`](Self::load_parameters_with) from a reader. The reader has to end where
    /// the file ends; see [`files`](crate::files#readers-and-writers).
    ///
    /// # Errors
    /// Those of [`load_parameters_with`](Self::load_parameters_with).
    pub fn load_parameters_from(&mut self, reader: impl Read, options: &LoadOptions) -> Result<()> {
        let name = Path::new(READER);
        self.take_contents(name, &read_from(reader, name)?, options)
    }

    fn take_contents(
        &mut self,
        path: &Path,
        contents: &Contents,
        options: &LoadOptions,
    ) -> Result<()> {
        let file = File::parse(path, contents)?;
        if file.is_ours() {
            file.lines(KIND)?;
        }
        self.take_parameters(file, options)
    }

    /// The network of an architecture whose parameters the file has been found to hold.
    pub(crate) fn from_file(file: &File, architecture: Architecture) -> Result<Self> {
        let mut network: Self = assemble(architecture).map_err(|error| file.blame(error))?;
        network.take_from(file, &[])?;
        Ok(network)
    }
}
