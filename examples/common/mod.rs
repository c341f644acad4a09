//! What the larger examples share: the data they carry, a progress bar, a canvas.

pub mod canvas;
mod digits;

use std::{error::Error, process::ExitCode};

use feedback_alignment::Dataset;
use indicatif::{ProgressBar, ProgressStyle};

pub use digits::digits;

/// Any error, to be shown to the user.
pub type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// What to learn from, and what to be judged by.
pub struct Split {
    pub train: Dataset<f32>,
    pub test: Dataset<f32>,
}

/// A bar on stderr, where that is a terminal, for so many epochs in all.
pub fn progress(epochs: u64) -> Result<ProgressBar> {
    let style = "{msg} {wide_bar:.cyan/dim} epoch {pos}/{len}, {eta} left";
    Ok(ProgressBar::new(epochs).with_style(ProgressStyle::with_template(style)?))
}

/// Ends the program: an error is shown as a sentence, not as a dump.
pub fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
