//! Arrays of numbers in the safetensors format: little-endian, named, with a header in JSON.

use std::{borrow::Cow, path::Path};

use safetensors::{Dtype, SafeTensors, View, tensor::Metadata};

use crate::{
    data::file::replace,
    error::{Error, Result, require_finite},
    scalar::Scalar,
};

/// An array to be saved, in the order of its memory.
pub(crate) struct Tensor<'a, T> {
    pub(crate) shape: &'a [usize],
    pub(crate) data: &'a [T],
}

impl<T: Scalar> View for Tensor<'_, T> {
    fn dtype(&self) -> Dtype {
        dtype::<T>()
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let numbers = self.data.iter().map(|value| value.as_f64());
        #[allow(clippy::cast_possible_truncation)] // An `f32` comes back exactly.
        let bytes = match dtype::<T>() {
            Dtype::F32 => numbers.flat_map(|value| (value as f32).to_le_bytes()).collect(),
            _ => numbers.flat_map(f64::to_le_bytes).collect(),
        };
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        size_of_val(self.data)
    }
}

fn dtype<T: Scalar>() -> Dtype {
    if T::NAME == f32::NAME { Dtype::F32 } else { Dtype::F64 }
}

/// Writes the tensors to `path` in one step, marked as `format`.
pub(crate) fn save<T: Scalar>(
    path: &Path,
    format: &'static str,
    tensors: Vec<(&'static str, Tensor<T>)>,
) -> Result<()> {
    let metadata = [("format".to_owned(), format.to_owned())].into_iter().collect();
    let bytes = safetensors::serialize(tensors, Some(metadata))
        .map_err(|source| Error::Safetensors { path: path.to_owned(), source })?;
    replace(path, &bytes)
}

/// A file of tensors that has been read and found to be well-formed.
pub(crate) struct File<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
}

impl<'a> File<'a> {
    /// Parses the `bytes` of the file `path`, which has to be marked as `format`.
    pub(crate) fn parse(path: &'a Path, bytes: &'a [u8], format: &'static str) -> Result<Self> {
        let bad = |source| Error::Safetensors { path: path.to_owned(), source };
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(bad)?;
        let found = format_of(&metadata);
        if found != format {
            return Err(Error::FileFormat { path: path.to_owned(), expected: format, found });
        }
        Ok(Self { path, tensors: SafeTensors::deserialize(bytes).map_err(bad)? })
    }

    /// The shape of a tensor.
    pub(crate) fn shape(&self, name: &'static str) -> Result<Vec<usize>> {
        let tensor = self.tensors.tensor(name).map_err(|_| Error::MissingTensor {
            path: self.path.to_owned(),
            expected: name,
            found: self.tensors.names().into_iter().map(str::to_owned).collect(),
        })?;
        Ok(tensor.shape().to_vec())
    }

    /// The finite numbers of a tensor that has this shape.
    pub(crate) fn read<T: Scalar>(&self, name: &'static str, shape: &[usize]) -> Result<Vec<T>> {
        let path = || self.path.to_owned();
        let found = self.shape(name)?;
        if found != shape {
            return Err(Error::TensorShape {
                path: path(),
                tensor: name,
                expected: shape.to_vec(),
                found,
            });
        }
        let tensor = self.tensors.tensor(name).expect("its shape has been read");
        if tensor.dtype() != dtype::<T>() {
            let found = tensor.dtype().to_string();
            return Err(Error::TensorType { path: path(), tensor: name, expected: T::NAME, found });
        }
        let numbers = decode(tensor.data());
        let what = || format!("{}: tensor '{name}'", self.path.display());
        require_finite(what, shape.last().copied().unwrap_or(1), &numbers)?;
        Ok(numbers)
    }
}

fn format_of(metadata: &Metadata) -> String {
    let entries = metadata.metadata().as_ref();
    entries.and_then(|entries| entries.get("format")).cloned().unwrap_or_default()
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
