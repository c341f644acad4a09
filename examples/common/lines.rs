//! A file of JSON lines: what was run, a line for each point on its way, and why it ended. It
//! holds nothing but what the same command would write again.

use std::{
    fmt::Debug,
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::common::Result;

/// What the lines call the small digits that stand in for MNIST. Published figures are not of them.
pub const STAND_IN: &str = "UCI digits";

/// The last line: why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The stopping rule said so.
    Stopped,
    /// All epochs that were asked for have been made.
    Epochs,
    /// The loss overflowed, or nothing was learned.
    DoesNotConverge,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line<H, P> {
    Header(H),
    Point(P),
    End { end: End },
}

/// The lines of one run, in memory and in its file.
pub struct Lines<H, P> {
    pub header: H,
    pub points: Vec<P>,
    pub end: Option<End>,
    path: PathBuf,
}

impl<H: Clone + Serialize + DeserializeOwned, P: Clone + Serialize + DeserializeOwned> Lines<H, P> {
    /// A run that has not begun.
    pub fn new(path: PathBuf, header: H) -> Self {
        Self { header, points: Vec::new(), end: None, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.path.with_extension("safetensors")
    }

    /// Takes the run, unless another process has it. The claim goes with its process, so that what was
    /// killed can be taken again.
    pub fn claim(&self) -> Result<Option<File>> {
        let path = self.path.with_extension("claim");
        let cannot = |error: io::Error| format!("cannot claim {}: {error}", path.display());
        let file = File::create(&path).map_err(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                eprintln!("another process is at {}", self.path.display());
                Ok(None)
            }
            Err(TryLockError::Error(error)) => Err(cannot(error).into()),
        }
    }

    /// What an earlier run left in the file of this one, if anything.
    pub fn earlier(&self) -> Result<Option<Self>>
    where
        H: PartialEq + Debug,
    {
        if !self.path.exists() {
            return Ok(None);
        }
        let earlier = Self::read(&self.path)?;
        if earlier.header == self.header {
            return Ok(Some(earlier));
        }
        let (path, header) = (self.path.display(), earlier.header);
        Err(format!("{path} is of another run; give another --out, or remove it: {header:?}")
            .into())
    }

    /// Fails if there are lines, but no checkpoint to go on from.
    pub fn require_checkpoint(&self) -> Result<()> {
        if self.points.is_empty() || self.checkpoint().exists() {
            return Ok(());
        }
        let path = self.path.display();
        Err(format!("{path} has no checkpoint to go on from; give another --out, or remove it")
            .into())
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self> {
        let blame = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(path).map_err(|error| blame(&error))?;
        let (mut header, mut points, mut end) = (None, Vec::new(), None);
        for (number, line) in text.lines().enumerate() {
            match serde_json::from_str(line) {
                Ok(Line::Header(first)) => header = Some(first),
                Ok(Line::Point(point)) => points.push(point),
                Ok(Line::End { end: last }) => end = Some(last),
                // A run that was killed may have left half a line.
                Err(_) if number + 1 == text.lines().count() => break,
                Err(error) => return Err(blame(&format!("line {}: {error}", number + 1)).into()),
            }
        }
        let header = header.ok_or_else(|| blame(&"the first line does not say what was run"))?;
        Ok(Self { header, points, end, path: path.into() })
    }

    /// Reads all files of a folder, in order of their names.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let blame = |error| format!("cannot read the folder {}: {error}", folder.display());
        let mut paths: Vec<PathBuf> = fs::read_dir(folder)
            .map_err(blame)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Opens the file to be continued. A run that has no points yet first makes a checkpoint with `save`.
    /// So it can go on even if it is killed before its next checkpoint.
    pub fn begin(
        &self,
        save: impl FnOnce(&Path) -> feedback_alignment::Result<()>,
    ) -> Result<Writer> {
        if self.points.is_empty() {
            save(&self.checkpoint())?;
        }
        self.rewrite()
    }

    /// Writes the file anew, so that it holds what is in memory, and opens it to be continued.
    pub fn rewrite(&self) -> Result<Writer> {
        let blame = |error: io::Error| format!("cannot write {}: {error}", self.path.display());
        let beside = self.path.with_extension("jsonl.new");
        let mut writer = Writer(File::create(&beside).map_err(blame)?);
        writer.line(&self.header)?;
        for point in &self.points {
            writer.line(point)?;
        }
        fs::rename(beside, &self.path).map_err(blame)?;
        Ok(Writer(OpenOptions::new().append(true).open(&self.path).map_err(blame)?))
    }
}

/// Adds lines to a file.
pub struct Writer(File);

impl Writer {
    pub fn end(&mut self, end: End) -> Result<()> {
        self.line(&Line::<(), ()>::End { end })
    }

    pub fn line(&mut self, line: &impl Serialize) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0.write_all(text.as_bytes())?; // In one go, so that a line is whole or not there.
        Ok(())
    }
}
