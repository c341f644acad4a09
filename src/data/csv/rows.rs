//! Reading the rows of a file one after the other, with the line that each begins in.

use std::{
    io::{self, Read},
    path::Path,
};

use ::csv::{ByteRecord, ErrorKind, Reader, ReaderBuilder};

use crate::{
    error::{Error, Result},
    files::{OpenFile, Wanted},
};

/// The most bytes of a row, so that a file without line ends is not read into memory as a single row.
const LONGEST_ROW: usize = 64 << 20;

/// Reads a file row by row. It works for a pipe too, because nothing is read twice.
pub(super) struct Rows<'a> {
    path: &'a Path,
    reader: Reader<Kept<'a>>,
    record: ByteRecord,
}

impl<'a> Rows<'a> {
    pub(super) fn open(path: &'a Path, delimiter: u8) -> Result<Self> {
        let file = OpenFile::open(path, Wanted::Csv)?.into_reader();
        let reader = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .delimiter(delimiter)
            .from_reader(Kept { file, bytes: Vec::new(), released: 0, lines: Lines::new() });
        Ok(Self { path, reader, record: ByteRecord::new() })
    }

    /// The next row; `None` at the end. Blank lines are skipped.
    pub(super) fn next(&mut self) -> Result<Option<Row<'_>>> {
        let start = self.reader.position().byte();
        self.reader.get_mut().release(start);
        let found = self.reader.read_byte_record(&mut self.record);
        let found = found.map_err(|error| Error::Io {
            path: self.path.to_owned(),
            cause: match error.into_kind() {
                ErrorKind::Io(cause) => cause,
                other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")),
            },
        })?;
        let row = Row { path: self.path, kept: self.reader.get_ref(), record: &self.record };
        Ok(found.then_some(row))
    }
}

/// A row that has been read.
pub(super) struct Row<'a> {
    path: &'a Path,
    kept: &'a Kept<'a>,
    record: &'a ByteRecord,
}

impl<'a> Row<'a> {
    /// The text of a cell, without white space around it.
    pub(super) fn cell(&self, column: usize) -> Result<&'a str> {
        let bytes = self.record.get(column).unwrap_or_default();
        let text = str::from_utf8(bytes).map(str::trim);
        text.map_err(|_| self.refuse(column, "text in UTF-8", &String::from_utf8_lossy(bytes)))
    }

    /// The texts of all cells.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        (0..self.record.len()).map(|column| self.cell(column).map(str::to_owned)).collect()
    }

    pub(super) fn require_length(&self, expected: usize) -> Result<()> {
        match self.record.len() {
            found if found == expected => Ok(()),
            found => Err(Error::RowLength {
                path: self.path.to_owned(),
                line: self.kept.line(),
                expected,
                found,
            }),
        }
    }

    /// An error for a cell that is not what its column needs.
    pub(super) fn refuse(&self, column: usize, expected: &'static str, found: &str) -> Error {
        Error::Cell {
            path: self.path.to_owned(),
            line: self.kept.line(),
            column: column + 1,
            expected,
            found: shortened(found),
        }
    }

    pub(super) fn too_large(&self) -> Error {
        let cause = Error::TooLarge { rows: self.record.len(), columns: usize::MAX };
        Error::Content { path: self.path.to_owned(), cause: Box::new(cause) }
    }
}

/// The beginning of a text that may be too long for a message.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A reader that keeps the bytes since the beginning of a row, to count the line of the row. The
/// parser's own count is wrong after `\r\n` and after blank lines.
struct Kept<'a> {
    file: Box<dyn Read + 'a>,
    /// The bytes read last.
    bytes: Vec<u8>,
    /// How many of them come before the row.
    released: usize,
    /// The lines that end before the row.
    lines: Lines,
}

impl Kept<'_> {
    /// Notes that the row begins at byte `start` of the file.
    fn release(&mut self, start: u64) {
        let before = start.saturating_sub(self.lines.position);
        let before = usize::try_from(before).unwrap_or(usize::MAX);
        let end = self.bytes.len().min(self.released.saturating_add(before));
        self.lines.pass(&self.bytes[self.released..end]);
        self.released = end;
    }

    /// The line, counted from 1, of the first cell of the row.
    fn line(&self) -> u64 {
        let mut lines = self.lines;
        let rest = &self.bytes[self.released..];
        let ends = rest.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        lines.pass(&rest[..ends]);
        lines.line
    }
}

impl Read for Kept<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.bytes.drain(..self.released);
        self.released = 0;
        if self.bytes.len() > LONGEST_ROW {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("the row of line {} is longer than 64 MiB", self.line()),
            ));
        }
        let count = self.file.read(to)?;
        self.bytes.try_reserve(count).map_err(|_| io::ErrorKind::OutOfMemory)?;
        self.bytes.extend_from_slice(&to[..count]);
        Ok(count)
    }
}

/// Counts lines.
#[derive(Clone, Copy)]
struct Lines {
    /// Counted from 1.
    line: u64,
    /// Bytes counted so far.
    position: u64,
    last: u8,
}

impl Lines {
    fn new() -> Self {
        Self { line: 1, position: 0, last: 0 }
    }

    fn pass(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            // `\r\n` ends one line, not two.
            self.line += u64::from(byte == b'\r' || byte == b'\n' && self.last != b'\r');
            self.last = byte;
        }
        self.position += bytes.len() as u64;
    }
}
