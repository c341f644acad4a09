//! What a run leaves behind: a file of JSON lines, which holds nothing but what the same command
//! would write again, and a checkpoint from which a later run goes on.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::lines::{Lines, STAND_IN};

/// The lines of one run.
pub type Record = Lines<Header, Point>;

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
    /// Training error of the weights as they stand after the epoch, without dropout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clean_train_error: Option<f64>,
    /// The angle between the rule's delta and that of backpropagation in each hidden layer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub angles: Option<Vec<Option<f64>>>,
}

impl Header {
    /// A run that has not begun; its file goes into `folder`.
    pub fn record(self, folder: &Path) -> Record {
        let Self { table, row, rule, seed, frozen, data, .. } = &self;
        let data = if data == STAND_IN { "-digits" } else { "" };
        let frozen = if *frozen == 0 { String::new() } else { format!("-frozen{frozen}") };
        let rule = rule.to_lowercase();
        let path = folder.join(format!("table{table}-{row}-{rule}{frozen}{data}-seed{seed}.jsonl"));
        Record::new(path, self)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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

    #[test]
    fn lines_of_another_run_and_without_a_checkpoint_are_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let header = |seed, data: &str| Header {
            table: 1,
            row: "1x800-tanh".into(),
            rule: "DFA".into(),
            seed,
            data: data.into(),
            frozen: 0,
            parameters: 1,
            version: "0".into(),
        };
        let of = |seed, data| header(seed, data).record(folder.path());
        assert_ne!(of(0, STAND_IN).path(), of(0, "MNIST").path());
        let fresh = of(0, "MNIST");
        assert!(fresh.earlier().unwrap().is_none());
        fresh.require_checkpoint().unwrap(); // Nothing has been made that could be lost.
        fresh.rewrite().unwrap();
        let mut kept = fresh.earlier().unwrap().unwrap();
        kept.points.push(serde_json::from_str(
            r#"{"epoch":1,"train_loss":1.0,"train_error":1.0,"test_loss":1.0,"test_error":1.0}"#,
        ).unwrap());
        let refused = kept.require_checkpoint().unwrap_err().to_string();
        assert!(refused.contains("no checkpoint") && refused.contains("--out"), "{refused}");
        fs::write(fresh.checkpoint(), "a checkpoint").unwrap();
        kept.require_checkpoint().unwrap();
        fs::copy(fresh.path(), of(1, "MNIST").path()).unwrap();
        let refused = of(1, "MNIST").earlier().err().unwrap().to_string();
        assert!(refused.contains("of another run") && refused.contains("--out"), "{refused}");
        // A run belongs to one process, or here to one open file, at a time.
        let claim = fresh.claim().unwrap();
        assert!(claim.is_some() && fresh.claim().unwrap().is_none());
        drop(claim);
        assert!(fresh.claim().unwrap().is_some());
    }
}
