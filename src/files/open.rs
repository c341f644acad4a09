//! Reading files: what they are is looked at first, and memory is taken only as bytes arrive.

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use super::recognise::{Kind, LOOKED_AT, Wanted, recognise};
use crate::error::{Error, Result};

/// Memory is taken in steps of at least this many bytes.
const STEP: usize = 1 << 16;

/// A file that is being read, through decompression where it starts as gzip does. It may be a pipe,
/// or any other reader under the name that errors give it.
pub(crate) struct OpenFile<'a> {
    path: &'a Path,
    wanted: Wanted,
    /// The first bytes, [`LOOKED_AT`] at most.
    start: Vec<u8>,
    reader: Box<dyn Read + 'a>,
    /// How many bytes can still come at most; unknown for pipes and devices.
    left: Option<u128>,
    /// Whether fewer may come, since they are compressed.
    compressed: bool,
}

impl<'a> OpenFile<'a> {
    /// Opens a file and refuses what is known to be something else than `wanted`.
    pub(crate) fn open(path: &'a Path, wanted: Wanted) -> Result<Self> {
        let io = |cause| Error::Io { path: path.to_owned(), cause };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        // Some files that the system makes up say that they are empty.
        let known = metadata.is_file() && metadata.len() > 0;
        let left = known.then(|| u128::from(metadata.len()));
        Self::over(Box::new(BufReader::new(file)), left, path, wanted)
    }

    /// [`open`](Self::open) for a reader that holds so many bytes at most, if that is known.
    pub(crate) fn over(
        reader: Box<dyn Read + 'a>,
        left: Option<u128>,
        path: &'a Path,
        wanted: Wanted,
    ) -> Result<Self> {
        let (start, reader) =
            peek(reader).map_err(|cause| Error::Io { path: path.to_owned(), cause })?;
        let mut source = Self { path, wanted, start, reader, left, compressed: false };
        if recognise(&source.start) == Kind::Gzip && wanted.is_decompressed() {
            source = source.decompressed()?;
        }
        let kind = recognise(&source.start);
        if wanted.takes(kind, &source.start) { Ok(source) } else { Err(source.refuse()) }
    }

    #[cfg(feature = "gzip")]
    fn decompressed(self) -> Result<Self> {
        let members = super::gzip::Members::new(BufReader::new(self.reader));
        let (start, reader) = peek(Box::new(members))
            .map_err(|cause| Error::Io { path: self.path.to_owned(), cause })?;
        let left = self.left.map(|left| left * super::gzip::LARGEST_RATIO);
        Ok(Self { start, reader, left, compressed: true, ..self })
    }

    #[cfg(not(feature = "gzip"))]
    fn decompressed(self) -> Result<Self> {
        Err(Error::GzipDisabled { path: self.path.to_owned() })
    }

    /// How many bytes can still come at most, where that is known.
    #[cfg(feature = "safetensors")]
    pub(crate) fn left(&self) -> Option<u128> {
        self.left
    }

    /// The error that names what the file is.
    pub(crate) fn refuse(&self) -> Error {
        self.wanted.refuse(self.path, &self.start)
    }

    /// `error`, unless the file is known to be something else, which then is the reason for it.
    pub(crate) fn blame(&self, error: Error) -> Error {
        if recognise(&self.start) == Kind::Unknown { error } else { self.refuse() }
    }

    /// Appends the next bytes, `length` unless the file ends before.
    pub(crate) fn read_up_to(&mut self, length: usize, bytes: &mut Vec<u8>) -> Result<usize> {
        let mut found = 0;
        while found < length {
            // All at once only where the file has them.
            let is_there =
                !self.compressed && self.left.is_some_and(|left| left >= (length - found) as u128);
            let step = if is_there { length } else { found.max(STEP) }.min(length - found);
            bytes.try_reserve_exact(step).map_err(|_| self.too_large(length))?;
            let part = self.reader.by_ref().take(step as u64).read_to_end(bytes);
            let part = part.map_err(|cause| Error::Io { path: self.path.to_owned(), cause })?;
            found += part;
            if part < step {
                break;
            }
        }
        self.left = self.left.map(|left| left.saturating_sub(found as u128));
        Ok(found)
    }

    /// The next `length` bytes.
    pub(crate) fn read_exactly(&mut self, length: u128) -> Result<Vec<u8>> {
        let path = self.path;
        let truncated = |found| Error::Truncated { path: path.to_owned(), expected: length, found };
        if let Some(left) = self.left.filter(|&left| left < length) {
            return Err(truncated(left));
        }
        let wanted = usize::try_from(length).map_err(|_| self.too_large(usize::MAX))?;
        let mut bytes = Vec::new();
        match self.read_up_to(wanted, &mut bytes)? {
            found if found == wanted => Ok(bytes),
            found => Err(truncated(found as u128)),
        }
    }

    /// Whether no byte follows.
    pub(crate) fn is_at_end(&mut self) -> Result<bool> {
        Ok(self.read_up_to(1, &mut Vec::new())? == 0)
    }

    #[cfg(feature = "csv")]
    pub(crate) fn into_reader(self) -> Box<dyn Read + 'a> {
        self.reader
    }

    /// The error of bytes for which there is no memory.
    fn too_large(&self, length: usize) -> Error {
        let cause = Box::new(Error::TooLarge { rows: length, columns: 1 });
        Error::Content { path: self.path.to_owned(), cause }
    }
}

/// The first bytes, and a reader that begins with them.
fn peek<'a>(mut reader: Box<dyn Read + 'a>) -> io::Result<(Vec<u8>, Box<dyn Read + 'a>)> {
    let mut start = Vec::new();
    reader.by_ref().take(LOOKED_AT as u64).read_to_end(&mut start)?;
    let whole = Cursor::new(start.clone()).chain(reader);
    Ok((start, Box::new(whole)))
}

impl Wanted {
    fn is_decompressed(self) -> bool {
        match self {
            Self::Idx | Self::Cifar => true,
            #[cfg(feature = "csv")]
            Self::Csv => true,
            #[cfg(feature = "safetensors")]
            Self::Tensors => false,
        }
    }

    /// Whether a file of this kind can be what is wanted.
    fn takes(self, kind: Kind, start: &[u8]) -> bool {
        match (self, kind) {
            (_, Kind::Empty) => false,
            (Self::Idx, kind) => kind == Kind::Idx || start.len() < 4,
            // Any bytes can be pixels: the loader blames the kind if the records make no sense.
            (Self::Cifar, _) => true,
            // No text has a zero in it.
            #[cfg(feature = "csv")]
            (Self::Csv, kind) => kind == Kind::Unknown && !start.contains(&0),
            #[cfg(feature = "safetensors")]
            (Self::Tensors, Kind::Unknown) => match start.get(8) {
                Some(&first) => first == b'{',
                // Cut off within the length of a header.
                None => start.iter().skip(4).all(|&byte| byte == 0),
            },
            #[cfg(feature = "safetensors")]
            (Self::Tensors, kind) => kind == Kind::Safetensors,
        }
    }
}

/// Fails unless there is such a folder and it can be read.
pub(crate) fn require_folder(folder: &Path) -> Result<()> {
    match fs::read_dir(folder) {
        Ok(_) => Ok(()),
        Err(cause) => Err(Error::Io { path: folder.to_owned(), cause }),
    }
}

/// The first of the files `names` that `folder` holds.
pub(crate) fn first_of(folder: &Path, names: Vec<String>) -> Result<PathBuf> {
    let is_file = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir());
    let found = names.iter().map(|name| folder.join(name)).find(is_file);
    found.ok_or_else(|| Error::MissingFile { path: folder.to_owned(), expected: names })
}
