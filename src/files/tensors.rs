//! Files in the safetensors format: named arrays of little-endian numbers after a header in JSON,
//! with a description and a checksum of the whole in the header's metadata.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use safetensors::{
    Dtype, SafeTensorError,
    tensor::{Metadata, TensorInfo, TensorView},
};

use super::{
    description::{Line, Lines, text},
    replace::replace,
};
use crate::{
    error::{Error, Result},
    scalar::Scalar,
};

/// The entry of the metadata that holds the description: its own, so that it is no matter in which
/// order the entries of the metadata are written.
const KEY: &str = "feedback-alignment";

/// The version of the format that this version of the crate writes and reads.
const FORMAT: u32 = 1;

/// The longest header that is read, enough for 100,000 tensors: what parsing takes is many times
/// the header, which nobody needs to find out with a file made for it.
const LONGEST_HEADER: usize = 16 << 20;

/// Bytes of the length of the header, with which a file begins.
const LENGTH: usize = size_of::<u64>();

/// Name and shape of a tensor that a file should hold.
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
    /// By name, which is the order of the checksum.
    tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl<'a> Draft<'a> {
    /// A file of this kind, with what its description says.
    pub(crate) fn new(path: &'a Path, kind: &'static str, body: &[Line]) -> Self {
        Self { path, kind, body: text(body), tensors: BTreeMap::new() }
    }

    /// Adds a tensor whose numbers stand in the order of the last index first.
    pub(crate) fn add<T: Scalar>(&mut self, tensor: Expected, numbers: &[T]) -> Result<()> {
        let Expected { name, shape } = tensor;
        debug_assert_eq!(shape.iter().product::<usize>(), numbers.len(), "{name}");
        // What cannot be loaded must not take the place of what can.
        require_finite(self.path, &name, &shape, numbers)?;
        self.tensors.insert(name, (dtype::<T>(), shape, encode(numbers)));
        Ok(())
    }

    /// Writes the file in one step.
    pub(crate) fn save(self) -> Result<()> {
        let bad = |source| Error::Safetensors { path: self.path.to_owned(), source };
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
        header_of(&bytes).map_err(bad)?;
        replace(self.path, &bytes)
    }
}

/// The description of a file, without the line of its checksum.
struct Description {
    /// The lines before the checksum: format, crate and kind.
    head: String,
    /// The lines after it, which depend on the kind.
    body: String,
}

/// Lines of a description above its body.
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

/// A file of tensors that has been read and found to be well-formed and undamaged.
pub(crate) struct File<'a> {
    path: &'a Path,
    tensors: BTreeMap<String, TensorInfo>,
    data: &'a [u8],
    /// Kind and body of the description, where it has ours.
    description: Option<(String, String)>,
}

impl<'a> File<'a> {
    /// Parses the `bytes` of the file `path`, which need not be of this crate.
    pub(crate) fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        let bad = |source| Error::Safetensors { path: path.to_owned(), source };
        let header = header_of(bytes).map_err(bad)?;
        let data = &bytes[LENGTH + header.len()..];
        let parse_header = |header| -> Result<Metadata, SafeTensorError> {
            let text = str::from_utf8(header).map_err(SafeTensorError::InvalidHeader)?;
            serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)
        };
        let metadata = parse_header(header).map_err(bad)?;
        require_length(path, &metadata, LENGTH + header.len(), data.len())?;
        let tensors = metadata.tensors().into_iter().map(|(name, info)| (name, info.clone()));
        let mut file = Self { path, tensors: tensors.collect(), data, description: None };
        if let Some(text) = metadata.metadata().as_ref().and_then(|entries| entries.get(KEY)) {
            file.description = Some(file.unseal(text)?);
        }
        Ok(file)
    }

    /// Kind and body of a description whose checksum is right.
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

    /// The description of a file that this crate wrote as being of `kind`.
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
        if info.dtype != dtype::<T>() {
            let found = info.dtype.to_string();
            return Err(Error::TensorType { path, tensor, expected: T::NAME, found });
        }
        Ok(())
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
        let numbers = decode(self.bytes(self.info(&expected.name)?));
        require_finite(self.path, &expected.name, &expected.shape, &numbers)?;
        Ok(numbers)
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
    pub(crate) fn blame(&self, source: Error) -> Error {
        Error::Content { path: self.path.to_owned(), source: Box::new(source) }
    }

    fn info(&self, name: &str) -> Result<&TensorInfo> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor {
            path: self.path.to_owned(),
            expected: name.to_owned(),
            found: self.tensors.keys().cloned().collect(),
        })
    }

    fn bytes(&self, info: &TensorInfo) -> &'a [u8] {
        &self.data[info.data_offsets.0..info.data_offsets.1]
    }
}

/// The header of a file, as long as its beginning says.
fn header_of(bytes: &[u8]) -> Result<&[u8], SafeTensorError> {
    let (length, rest) =
        bytes.split_first_chunk::<LENGTH>().ok_or(SafeTensorError::HeaderTooSmall)?;
    let length = usize::try_from(u64::from_le_bytes(*length));
    let length = length.ok().filter(|&length| length <= LONGEST_HEADER);
    let length = length.ok_or(SafeTensorError::HeaderTooLarge)?;
    rest.get(..length).ok_or(SafeTensorError::InvalidHeaderLength)
}

/// Fails unless the tensors fill the `length` bytes after the header. The parser has made sure
/// that they follow each other without gaps and are as long as their shapes say.
fn require_length(path: &Path, metadata: &Metadata, header: usize, length: usize) -> Result<()> {
    let path = || path.to_owned();
    if metadata.data_len() < length {
        let expected = (header + metadata.data_len()) as u128;
        return Err(Error::TrailingBytes { path: path(), expected });
    }
    for tensor in metadata.offset_keys() {
        let Some(info) = metadata.info(&tensor) else { continue };
        let (start, end) = info.data_offsets;
        if end > length {
            let (expected, found) = (end - start, length.saturating_sub(start));
            return Err(Error::TensorCutOff { path: path(), tensor, expected, found });
        }
    }
    Ok(())
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

fn dtype<T: Scalar>() -> Dtype {
    if T::NAME == f32::NAME { Dtype::F32 } else { Dtype::F64 }
}

/// The bytes of the numbers, little-endian.
fn encode<T: Scalar>(numbers: &[T]) -> Vec<u8> {
    let numbers = numbers.iter().map(|value| value.as_f64());
    #[allow(clippy::cast_possible_truncation)] // An `f32` comes back exactly.
    match dtype::<T>() {
        Dtype::F32 => numbers.flat_map(|value| (value as f32).to_le_bytes()).collect(),
        _ => numbers.flat_map(f64::to_le_bytes).collect(),
    }
}

/// The numbers that little-endian bytes of type `T` stand for.
fn decode<T: Scalar>(bytes: &[u8]) -> Vec<T> {
    if dtype::<T>() == Dtype::F32 {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().map(|&bytes| T::of(f64::from(f32::from_le_bytes(bytes)))).collect()
    } else {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().map(|&bytes| T::of(f64::from_le_bytes(bytes))).collect()
    }
}
