//! What a run leaves behind: a file of JSON lines, which holds nothing but what the same command
//! would write again, and a checkpoint from which a later run goes on.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::common::Result;

/// The first line of a file: what was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub table: u8,
    pub row: String,
    pub rule: String,
    pub seed: u64,
    pub data: String,
    /// Epochs for which the first hidden layer was frozen.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub frozen: u64,
    pub parameters: usize,
    pub version: String,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde calls it.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// What one epoch came to; errors are in percent. The training figures were counted on the passes
/// as they happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Point {
    pub epoch: u64,
    pub train_loss: f64,
    pub train_error: f64,
    pub test_loss: f64,
    pub test_error: f64,
    /// The angle between the rule's delta and that of backpropagation in each hidden layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angles: Option<Vec<Option<f64>>>,
}

/// The last line: why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The stopping rule said so.
    Stopped,
    /// All epochs that were asked for have been made.
    Epochs,
    /// See [`crate::run::DIVERGED`].
    DoesNotConverge,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Header(Header),
    Point(Point),
    End { end: End },
}

/// The lines of one run, in memory and in its file.
pub struct Record {
    pub header: Header,
    pub points: Vec<Point>,
    pub end: Option<End>,
    path: PathBuf,
}

impl Record {
    /// A run that has not begun; its file goes into `folder`.
    pub fn new(folder: &Path, header: Header) -> Self {
        let Header { table, row, rule, seed, frozen, .. } = &header;
        let frozen = if *frozen == 0 { String::new() } else { format!("-frozen{frozen}") };
        let rule = rule.to_lowercase();
        let path = folder.join(format!("table{table}-{row}-{rule}{frozen}-seed{seed}.jsonl"));
        Self { header, points: Vec::new(), end: None, path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.path.with_extension("safetensors")
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

    /// Writes the file anew, so that it holds what is in memory, and opens it to be continued.
    pub fn rewrite(&self) -> Result<Writer> {
        let beside = self.path.with_extension("jsonl.new");
        let mut writer = Writer(File::create(&beside)?);
        writer.line(&Line::Header(self.header.clone()))?;
        for point in &self.points {
            writer.point(point)?;
        }
        fs::rename(beside, &self.path)?;
        Ok(Writer(OpenOptions::new().append(true).open(&self.path)?))
    }
}

/// Adds lines to a file.
pub struct Writer(File);

impl Writer {
    pub fn point(&mut self, point: &Point) -> Result<()> {
        self.line(&Line::Point(point.clone()))
    }

    pub fn end(&mut self, end: End) -> Result<()> {
        self.line(&Line::End { end })
    }

    fn line(&mut self, line: &Line) -> Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        self.0.write_all(text.as_bytes())?; // In one go, so that a line is whole or not there.
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_and_written_again_stays_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"table":1,"row":"1x800-tanh","rule":"DFA","seed":0,"data":"MNIST","parameters":1,"version":"0"}"#;
        let point = |error: &str| {
            format!(
                r#"{{"epoch":1,"train_loss":1.4810205087423325,"train_error":{error},"test_loss":0.6,"test_error":{error}}}"#
            )
        };
        // Numbers that a reader in a hurry takes for their neighbours.
        let lines = [header.into(), point("10.100000000000001"), point("10.396666666666667")];
        let path = folder.path().join("run.jsonl");
        fs::write(&path, lines.join("\n") + "\n").unwrap();
        let before = fs::read(&path).unwrap();

        Record::read(&path).unwrap().rewrite().unwrap();
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
