//! Opening files, plain or compressed; replacing them in one step.

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

/// Writes a file so that a reader, or a crash, sees either the old content or the new and nothing
/// in between: into another file of the same folder, which then takes the place of `path`.
#[cfg(feature = "safetensors")]
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let io = |source| Error::Io { path: path.to_owned(), source };
    let (mut file, temporary) = create_beside(path).map_err(io)?;
    let written = io::Write::write_all(&mut file, bytes).and_then(|()| file.sync_all());
    drop(file); // Some systems do not rename open files.
    let done = written.and_then(|()| std::fs::rename(&temporary, path));
    if done.is_err() {
        // The first error is the one to report, whether or not this works too.
        let _ = std::fs::remove_file(&temporary);
    }
    done.map_err(io)
}

/// Creates a new file in the folder of `path`.
#[cfg(feature = "safetensors")]
fn create_beside(path: &Path) -> io::Result<(File, PathBuf)> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?;
    let process = std::process::id();
    for attempt in 0_u32.. {
        let mut temporary = std::ffi::OsString::from(".");
        temporary.push(name);
        temporary.push(format!(".{process}-{attempt}.tmp"));
        let temporary = path.with_file_name(temporary);
        match File::create_new(&temporary) {
            // Another thread is saving to the same path, or one was killed in the middle.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return Ok((created?, temporary)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
