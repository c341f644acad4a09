//! Opening files, plain or compressed.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use crate::error::{Error, Result};

/// Opens a file, through decompression where it starts as gzip does; with the number of bytes
/// that can come out of it at most.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn Read>, u128)> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let length = u128::from(file.metadata().map_err(io)?.len());
    let mut start = Vec::new();
    file.by_ref().take(2).read_to_end(&mut start).map_err(io)?;
    file.rewind().map_err(io)?;
    let buffered = io::BufReader::new(file);
    if start != [0x1f, 0x8b] {
        return Ok((Box::new(buffered), length));
    }
    #[cfg(feature = "gzip")]
    {
        // Deflate cannot make more than 1032 bytes of one (zlib's technical notes).
        const LARGEST_RATIO: u128 = 1032;
        Ok((Box::new(flate2::bufread::MultiGzDecoder::new(buffered)), length * LARGEST_RATIO))
    }
    #[cfg(not(feature = "gzip"))]
    {
        drop(buffered);
        Err(Error::GzipDisabled { path: path.to_owned() })
    }
}

/// The first of the files `names` that `folder` holds.
pub(crate) fn first_of(folder: &Path, names: Vec<String>) -> Result<PathBuf> {
    let found = names.iter().map(|name| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| Error::MissingFile { path: folder.to_owned(), expected: names })
}
