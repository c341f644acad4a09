//! Learning rules on the command line.

use feedback_alignment::{Error, FeedbackRule};

/// Rules with commas between them, or all of them.
#[derive(Clone)]
pub struct Rules(pub Vec<FeedbackRule>);

impl std::str::FromStr for Rules {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self(FeedbackRule::all().collect())),
            _ => text.split(',').map(str::parse).collect::<Result<_, _>>().map(Self),
        }
    }
}
