//! Reading a file in the safetensors format: a length, a header in JSON, and the tensors it lists.

use std::{io::Read, path::Path};

use safetensors::{SafeTensorError, tensor::Metadata};

use super::{open::OpenFile, recognise::Wanted};
use crate::error::{Error, Result};

/// The longest header that is read, enough for 100,000 tensors. Parsing takes many times the memory of
/// the header, so without this limit a hostile file could exhaust the memory.
const LONGEST_HEADER: usize = 16 << 20;

/// A file begins with the length of its header in this many bytes.
const LENGTH: usize = size_of::<u64>();

/// The content of a file: its header, and tensors of exactly the length that the header gives.
pub(crate) struct Contents {
    pub(super) metadata: Metadata,
    pub(super) data: Vec<u8>,
}

/// Reads a file, which need not be written by this crate: the length, the header, and then exactly the
/// bytes that the header promises. It may be a pipe.
pub(crate) fn read(path: &Path) -> Result<Contents> {
    contents(OpenFile::open(path, Wanted::Tensors)?, path)
}

/// [`read`] from a reader. It has to end where the file ends. Error messages call it `name`.
pub(crate) fn read_from(reader: impl Read, name: &Path) -> Result<Contents> {
    contents(OpenFile::over(Box::new(reader), None, name, Wanted::Tensors)?, name)
}

fn contents(mut source: OpenFile, path: &Path) -> Result<Contents> {
    let bad = |error| refuse(path, error);
    let mut length = Vec::new();
    source.read_up_to(LENGTH, &mut length)?;
    let length = length.first_chunk().ok_or(SafeTensorError::HeaderTooSmall).map_err(bad)?;
    let length = header_length(u64::from_le_bytes(*length)).map_err(bad)?;
    let mut header = Vec::new();
    let is_short = source.left().is_some_and(|left| left < length as u128);
    if is_short || source.read_up_to(length, &mut header)? < length {
        return Err(bad(SafeTensorError::InvalidHeaderLength));
    }
    let metadata = parse_header(&header).map_err(bad)?;
    // If the length of the file is known, a wrong one is refused before reading.
    if let Some(left) = source.left() {
        require_length(path, &metadata, LENGTH + length, left)?;
    }
    let mut data = Vec::new();
    let found = source.read_up_to(metadata.data_len(), &mut data)?;
    let more = u128::from(!source.is_at_end()?);
    require_length(path, &metadata, LENGTH + length, found as u128 + more)?;
    Ok(Contents { metadata, data })
}

/// The error for a file that the parser refuses.
pub(super) fn refuse(path: &Path, error: SafeTensorError) -> Error {
    Error::Safetensors { path: path.to_owned(), reason: error.to_string() }
}

/// The length of a header, from the first bytes of a file.
pub(super) fn header_length(length: u64) -> Result<usize, SafeTensorError> {
    let length = usize::try_from(length).ok().filter(|&length| length <= LONGEST_HEADER);
    length.ok_or(SafeTensorError::HeaderTooLarge)
}

fn parse_header(header: &[u8]) -> Result<Metadata, SafeTensorError> {
    let text = str::from_utf8(header).map_err(SafeTensorError::InvalidHeader)?;
    serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)
}

/// Fails unless the tensors fill the `length` bytes after the header. The parser has already checked
/// that they follow each other without gaps and have the lengths of their shapes.
fn require_length(path: &Path, metadata: &Metadata, header: usize, length: u128) -> Result<()> {
    let path = || path.to_owned();
    if (metadata.data_len() as u128) < length {
        let expected = (header + metadata.data_len()) as u128;
        return Err(Error::TrailingBytes { path: path(), expected });
    }
    for tensor in metadata.offset_keys() {
        let Some(info) = metadata.info(&tensor) else { continue };
        let (start, end) = info.data_offsets;
        if end as u128 > length {
            let found = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(start);
            return Err(Error::TensorCutOff { path: path(), tensor, expected: end - start, found });
        }
    }
    Ok(())
}
