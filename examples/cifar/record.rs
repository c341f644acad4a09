//! The lines of a run.

use std::{fs::File, path::Path};

use feedback_alignment::{Dataset, Diagnostics, Epoch, Error, Evaluation, Trainer};
use serde::{Deserialize, Serialize};

use crate::{
    common::Result,
    lines::{End, Lines, Writer},
};

/// Images over which angles are measured, the first of those to learn from.
const OBSERVED: usize = 128;

/// The first line: what was run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub net: String,
    pub rule: String,
    pub rate: f64,
    /// What it is multiplied by in the hidden layers, if not by 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hidden_rate: Option<f64>,
    pub seed: u64,
    pub data: String,
    /// Learned from in an epoch.
    pub images: usize,
    pub parameters: usize,
    pub version: String,
}

/// What one epoch came to, as in the lines of the example `nokland`.
#[derive(Clone, Debug, Serialize, Deserialize)]
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

/// Watches a run: measures angles and writes lines, as far as they are wanted.
pub struct Observer {
    /// What angles are measured with, and over.
    angles: Option<(Diagnostics<f32>, Dataset<f32>)>,
    /// Where lines go, and the claim to the file.
    file: Option<(Writer, File)>,
}

impl Header {
    /// A run that has not begun; its file goes into `folder`.
    fn lines(self, folder: &Path) -> Lines<Self, Point> {
        let Self { net, rule, rate, hidden_rate, images, seed, data, .. } = &self;
        let rule = rule.to_lowercase();
        let hidden = hidden_rate.map_or(String::new(), |rate| format!("-hidden{rate:e}"));
        let data = match &**data {
            "CIFAR-10" => String::new(),
            other => format!("-{}", other.replace(' ', "-").to_lowercase()),
        };
        let name = format!("{net}-{rule}-rate{rate}{hidden}{data}-images{images}-seed{seed}.jsonl");
        Lines::new(folder.join(name), self)
    }
}

impl Observer {
    pub fn new(
        trainer: &Trainer<f32>,
        train: &Dataset<f32>,
        angles: bool,
        out: Option<&Path>,
        header: Header,
    ) -> Result<Self> {
        let observed: Vec<usize> = (0..OBSERVED.min(train.len())).collect();
        let angles = angles
            .then(|| {
                Ok::<_, Error>((Diagnostics::new(trainer.network())?, train.subset(&observed)?))
            })
            .transpose()?;
        let Some(folder) = out else { return Ok(Self { angles, file: None }) };
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("cannot make the folder {}: {error}", folder.display()))?;
        let lines = header.lines(folder);
        let Some(claim) = lines.claim()? else {
            return Err("another process makes this run".into());
        };
        if lines.earlier()?.is_some_and(|run| run.end.is_some() || !run.points.is_empty()) {
            // This example writes no checkpoints, so the run could not be continued.
            let path = lines.path().display();
            return Err(format!(
                "{path} is a run that has begun: give another --out, or remove it"
            )
            .into());
        }
        Ok(Self { angles, file: Some((lines.rewrite()?, claim)) })
    }

    /// After an epoch; the angles in words.
    pub fn after(
        &mut self,
        trainer: &Trainer<f32>,
        epoch: &Epoch,
        test: &Evaluation,
    ) -> Result<Option<String>> {
        let mut angles: Option<Vec<Option<f64>>> = None;
        if let Some((diagnostics, observed)) = &mut self.angles {
            let diagnosis = diagnostics.observe(trainer, &observed.inputs(), observed.targets())?;
            angles = Some(diagnosis.hidden().iter().map(|layer| layer.delta_angle).collect());
        }
        let percent = |rate: Option<f64>| 100.0 * rate.unwrap_or(f64::NAN);
        let words = angles.as_deref().map(in_words);
        if let Some((writer, _)) = &mut self.file {
            writer.line(&Point {
                epoch: epoch.number,
                train_loss: epoch.loss,
                train_error: percent(epoch.error_rate),
                test_loss: test.loss,
                test_error: percent(test.error_rate),
                angles,
            })?;
        }
        Ok(words)
    }

    /// Writes why the run ended.
    pub fn end(&mut self, end: End) -> Result<()> {
        self.file.as_mut().map_or(Ok(()), |(writer, _)| writer.end(end))
    }
}

/// Of the first hidden layer up; nothing has arrived where there is none.
fn in_words(angles: &[Option<f64>]) -> String {
    let word = |angle: &Option<f64>| angle.map_or("–".into(), |angle| format!("{angle:.1}°"));
    let words: Vec<String> = angles.iter().map(word).collect();
    format!("           angles to BP {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use feedback_alignment::{Network, nalgebra::DMatrix};

    use super::*;

    fn header(data: &str) -> Header {
        Header {
            net: "lenet".into(),
            rule: "DFA".into(),
            rate: 0.001,
            hidden_rate: Some(1e-12),
            seed: 3,
            data: data.into(),
            images: 20,
            parameters: 1,
            version: "0".into(),
        }
    }

    #[test]
    fn files_tell_runs_of_different_data_apart() {
        let name =
            |data: &str| header(data).lines(Path::new("")).path().to_str().unwrap().to_owned();
        assert_eq!(name("CIFAR-10"), "lenet-dfa-rate0.001-hidden1e-12-images20-seed3.jsonl");
        assert_ne!(name("CIFAR-10"), name("synthetic images"));
        assert_ne!(name("the UCI digits"), name("synthetic images"));
    }

    #[test]
    fn lines_of_a_run_that_has_begun_are_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let trainer = Trainer::builder(Network::builder(2).dense(2).build().unwrap()).build();
        let (trainer, data) = (trainer.unwrap(), Dataset::new(DMatrix::zeros(2, 1), vec![0]));
        let observe = || {
            let out = Some(folder.path());
            Observer::new(&trainer, data.as_ref().unwrap(), false, out, header("CIFAR-10"))
        };
        let mut observer = observe().unwrap();
        assert!(observe().is_err(), "two runs write to one file");
        let writer = &mut observer.file.as_mut().unwrap().0;
        let (epoch, error, loss) = (1, 90.0, 2.0);
        let point = Point {
            epoch,
            train_loss: loss,
            train_error: error,
            test_loss: loss,
            test_error: error,
            angles: None,
        };
        writer.line(&point).unwrap();
        drop(observer);
        let path = header("CIFAR-10").lines(folder.path()).path().to_owned();
        let before = std::fs::read(&path).unwrap();
        let refused = observe().err().unwrap().to_string();
        assert!(refused.contains("has begun") && refused.contains("--out"), "{refused}");
        assert_eq!(std::fs::read(path).unwrap(), before);
    }
}
