//! All of a training run but its network and its numbers, as text in the metadata of a file.

use super::StoppingRule;
use crate::{
    data::{Augmentation, Flip},
    error::Result,
    files::{Entry, Line, Lines},
    init::FeedbackInit,
    loss::Loss,
    optimizer::{OPTIMIZER, Optimizer, SCHEDULE, Schedule},
    rule::FeedbackRule,
};

/// Counts beyond this are no counts: a step a nanosecond would take years. So nothing that is
/// added to them overflows, and a float has them exactly.
const MOST: u64 = 1 << 53;

/// What a trainer was set up with, and how far it has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) rule: FeedbackRule,
    pub(super) loss: Loss,
    pub(super) batch_size: usize,
    pub(super) seed: u64,
    pub(super) epochs: u64,
    pub(super) steps: u64,
    pub(super) feedback_init: FeedbackInit,
    pub(super) optimizer: Optimizer,
    pub(super) schedule: Schedule,
    pub(super) max_norm: Option<f64>,
    pub(super) adversarial: Option<f64>,
    /// With the running average.
    pub(super) stopping: Option<StoppingRule>,
    pub(super) running_error: f64,
    pub(super) augmentation: Option<Augmentation>,
}

impl Settings {
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![
            Line::new("trainer")
                .word("rule", self.rule)
                .word("loss", self.loss)
                .with("batch_size", self.batch_size)
                .with("seed", self.seed)
                .with("epochs", self.epochs)
                .with("steps", self.steps)
                .with("running_error", self.running_error),
            feedback_line(self.feedback_init),
            self.optimizer.line(),
            self.schedule.line(),
        ];
        lines.extend(self.max_norm.map(|bound| Line::new("max-norm").with("bound", bound)));
        let adversarial = |epsilon| Line::new("adversarial").with("epsilon", epsilon);
        lines.extend(self.adversarial.map(adversarial));
        lines.extend(self.stopping.map(|StoppingRule { momentum, threshold }| {
            Line::new("stopping").with("momentum", momentum).with("threshold", threshold)
        }));
        lines.extend(self.augmentation.map(augmentation_line));
        lines
    }

    /// Takes the lines of the settings; others may follow.
    pub(super) fn read(lines: &mut Lines) -> Result<Self> {
        let trainer = lines.take("trainer")?;
        let (feedback, optimizer, schedule) =
            (lines.take("feedback")?, lines.take(OPTIMIZER)?, lines.take(SCHEDULE)?);
        let count = |key| match trainer.field(key)? {
            count if count < MOST => Ok(count),
            _ => Err(trainer.refuse(format!("'{key}=' with less than {MOST}"))),
        };
        let running_error = trainer.field("running_error")?;
        if !(0.0..=1.0).contains(&running_error) {
            return Err(trainer.refuse("'running_error=' with a number from 0 to 1"));
        }
        let mut optional = |name: &str, key: &str| {
            lines.take_if(name).map(|entry| entry.field::<f64>(key)).transpose()
        };
        Ok(Self {
            rule: trainer
                .word("rule")?
                .parse()
                .map_err(|_| trainer.refuse("'rule=' with a feedback rule"))?,
            loss: trainer
                .word("loss")?
                .parse()
                .map_err(|_| trainer.refuse("'loss=' with a loss"))?,
            batch_size: trainer.field("batch_size")?,
            seed: trainer.field("seed")?,
            epochs: count("epochs")?,
            steps: count("steps")?,
            feedback_init: read_feedback(&feedback)?,
            optimizer: Optimizer::read(&optimizer)?,
            schedule: Schedule::read(&schedule)?,
            max_norm: optional("max-norm", "bound")?,
            adversarial: optional("adversarial", "epsilon")?,
            stopping: lines.take_if("stopping").map(|entry| read_stopping(&entry)).transpose()?,
            running_error,
            augmentation: lines
                .take_if("augmentation")
                .map(|entry| read_augmentation(&entry))
                .transpose()?,
        })
    }
}

fn feedback_line(init: FeedbackInit) -> Line {
    let named = |name| Line::new("feedback").word("init", name);
    match init {
        FeedbackInit::Nokland => named("nokland"),
        FeedbackInit::Lillicrap => named("lillicrap"),
        FeedbackInit::Frenkel => named("frenkel"),
        FeedbackInit::LightOn => named("lighton"),
        FeedbackInit::Uniform { bound } => named("uniform").with("bound", bound),
        FeedbackInit::Normal { std } => named("normal").with("std", std),
    }
}

fn read_feedback(entry: &Entry) -> Result<FeedbackInit> {
    Ok(match entry.word("init")? {
        "nokland" => FeedbackInit::Nokland,
        "lillicrap" => FeedbackInit::Lillicrap,
        "frenkel" => FeedbackInit::Frenkel,
        "lighton" => FeedbackInit::LightOn,
        "uniform" => FeedbackInit::Uniform { bound: entry.field("bound")? },
        "normal" => FeedbackInit::Normal { std: entry.field("std")? },
        _ => return Err(entry.refuse("'init=' with a distribution of feedback")),
    })
}

fn read_stopping(entry: &Entry) -> Result<StoppingRule> {
    Ok(StoppingRule { momentum: entry.field("momentum")?, threshold: entry.field("threshold")? })
}

fn augmentation_line(Augmentation { shape, flip, crop_padding }: Augmentation) -> Line {
    let flip = match flip {
        Flip::Never => "never",
        Flip::Horizontal => "horizontal",
    };
    Line::new("augmentation")
        .with("shape", shape)
        .word("flip", flip)
        .with("crop_padding", crop_padding)
}

fn read_augmentation(entry: &Entry) -> Result<Augmentation> {
    let flip = match entry.word("flip")? {
        "never" => Flip::Never,
        "horizontal" => Flip::Horizontal,
        _ => return Err(entry.refuse("'flip=' with never or horizontal")),
    };
    let (shape, crop_padding) = (entry.field("shape")?, entry.field("crop_padding")?);
    Ok(Augmentation { shape, flip, crop_padding })
}
