//! Opening files. The first bytes are checked first, and memory is taken only as bytes arrive.

use std::{
    fs::{self, File},
    io::{self, BufReader, Cursor, Read},
    path::{Path, PathBuf},
};

use super::recognise::{Kind, LOOKED_AT, Wanted, recognise};
use crate::error::{Error, Result};

/// Memory is taken in steps of at least this many bytes.
const STEP: usize = 1 << 16;

/// A file to be read. It is decompressed if it begins as gzip does. It may be a pipe, or any other
/// reader with a name for error messages.
pub(crate) struct OpenFile<'a> {
    path: &'a Path,
    wanted: Wanted,
    /// The first bytes, at most [`LOOKED_AT`].
    start: Vec<u8>,
    reader: Box<dyn Read + 'a>,
    /// How many more bytes can come at most; `None` if unknown, as for pipes and devices.
    left: Option<u128>,
    /// Whether fewer bytes may come, because the file is compressed.
    compressed: bool,
}

impl<'a> OpenFile<'a> {
    /// Opens a file. Fails if its first bytes belong to something other than `wanted`.
    pub(crate) fn open(path: &'a Path, wanted: Wanted) -> Result<Self> {
        let io = |cause| Error::Io { path: path.to_owned(), cause };
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        // Some files that the system generates claim to be empty.
        let known = metadata.is_file() && metadata.len() > 0;
        let left = known.then(|| u128::from(metadata.len()));
        Self::over(Box::new(BufReader::new(file)), left, path, wanted)
    }

    /// [`open`](Self::open) for a reader that holds at most `left` bytes, if that is known.
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

    /// How many more bytes can come at most, if that is known.
    #[cfg(feature = "safetensors")]
    pub(crate) fn left(&self) -> Option<u128> {
        self.left
    }

    /// The error that names what the file is.
    pub(crate) fn refuse(&self) -> Error {
        self.wanted.refuse(self.path, &self.start)
    }

    /// `error`, unless the first bytes show that the file is something else. That is then the reason to
    /// report.
    pub(crate) fn blame(&self, error: Error) -> Error {
        if recognise(&self.start) == Kind::Unknown { error } else { self.refuse() }
    }

    /// Appends the next `length` bytes, or fewer if the file ends.
    pub(crate) fn read_up_to(&mut self, length: usize, bytes: &mut Vec<u8>) -> Result<usize> {
        let mut found = 0;
        while found < length {
            // All at once only if the file certainly has that many.
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

    /// Whether the file has ended.
    pub(crate) fn is_at_end(&mut self) -> Result<bool> {
        Ok(self.read_up_to(1, &mut Vec::new())? == 0)
    }

    #[cfg(feature = "csv")]
    pub(crate) fn into_reader(self) -> Box<dyn Read + 'a> {
        self.reader
    }

    /// The error for bytes that do not fit into memory.
    fn too_large(&self, length: usize) -> Error {
        let cause = Box::new(Error::TooLarge { rows: length, columns: 1 });
        Error::Content { path: self.path.to_owned(), cause }
    }
}

/// The first bytes, and a reader that still begins with them.
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
            // Any bytes can be pixels. If the records make no sense, the loader names this kind as the
            // reason.
            (Self::Cifar, _) => true,
            // Text has no zero bytes.
            #[cfg(feature = "csv")]
            (Self::Csv, kind) => kind == Kind::Unknown && !start.contains(&0),
            #[cfg(feature = "safetensors")]
            (Self::Tensors, Kind::Unknown) => match start.get(8) {
                Some(&first) => first == b'{',
                // The file ends within the length of the header.
                None => start.iter().skip(4).all(|&byte| byte == 0),
            },
            #[cfg(feature = "safetensors")]
            (Self::Tensors, kind) => kind == Kind::Safetensors,
        }
    }
}

/// Fails unless the folder exists and can be read.
pub(crate) fn require_folder(folder: &Path) -> Result<()> {
    match fs::read_dir(folder) {
        Ok(_) => Ok(()),
        Err(cause) => Err(Error::Io { path: folder.to_owned(), cause }),
    }
}

/// The first of the files `names` that the folder holds.
pub(crate) fn first_of(folder: &Path, names: Vec<String>) -> Result<PathBuf> {
    let is_file = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| !metadata.is_dir());
    let found = names.iter().map(|name| folder.join(name)).find(is_file);
    found.ok_or_else(|| Error::MissingFile { path: folder.to_owned(), expected: names })
}
