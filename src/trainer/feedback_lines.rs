//! The distribution of feedback matrices, and how mirrors learn, as lines of text.

use crate::{
    activation::Activation,
    error::Result,
    feedback::Mirror,
    files::{Entry, Line},
    init::FeedbackInit,
};

/// Counters have to be below this. No real run gets there. Below it, sums of counters do not overflow
/// and `f64` represents each exactly.
pub(super) const MOST: u64 = 1 << 53;

/// Adds a distribution of feedback matrices to `line`.
pub(super) fn init_line(line: Line, init: FeedbackInit) -> Line {
    let named = |name| line.word("init", name);
    match init {
        FeedbackInit::Nokland => named("nokland"),
        FeedbackInit::Lillicrap => named("lillicrap"),
        FeedbackInit::Frenkel => named("frenkel"),
        FeedbackInit::LightOn => named("lighton"),
        FeedbackInit::Crafton => named("crafton"),
        FeedbackInit::Uniform { bound } => named("uniform").with("bound", bound),
        FeedbackInit::Normal { std } => named("normal").with("std", std),
    }
}

/// Reads what [`init_line`] writes.
pub(super) fn read_init(entry: &Entry) -> Result<FeedbackInit> {
    Ok(match entry.word("init")? {
        "nokland" => FeedbackInit::Nokland,
        "lillicrap" => FeedbackInit::Lillicrap,
        "frenkel" => FeedbackInit::Frenkel,
        "lighton" => FeedbackInit::LightOn,
        "crafton" => FeedbackInit::Crafton,
        "uniform" => FeedbackInit::Uniform { bound: entry.field("bound")? },
        "normal" => FeedbackInit::Normal { std: entry.field("std")? },
        _ => return Err(entry.refuse("'init=' with a distribution of feedback")),
    })
}

/// The settings of mirrors, the seed of their noise, and how many batches of it have been drawn.
pub(super) fn mirror_line((mirror, seed, seen): (Mirror, u64, u64)) -> Line {
    let Mirror { rate, decay, bound, batch, before, output } = mirror;
    let line = Line::new("mirror")
        .with("rate", rate)
        .with("decay", decay)
        .with("noise", bound)
        .with("batch", batch)
        .with("before", before)
        .with("seed", seed)
        .with("seen", seen)
        .word("output", output);
    output.constants(line)
}

/// Reads what [`mirror_line`] writes.
pub(super) fn read_mirror(entry: &Entry) -> Result<(Mirror, u64, u64)> {
    let output = entry.word("output")?.parse::<Activation>();
    let output = output.map_err(|_| entry.refuse("'output=' with an activation"))?;
    let mirror = Mirror {
        rate: entry.field("rate")?,
        decay: entry.field("decay")?,
        bound: entry.field("noise")?,
        batch: entry.field("batch")?,
        before: entry.field("before")?,
        output: output.with_constants(entry)?,
    };
    match entry.field("seen")? {
        seen if seen < MOST => Ok((mirror, entry.field("seed")?, seen)),
        _ => Err(entry.refuse(format!("'seen=' with less than {MOST}"))),
    }
}
