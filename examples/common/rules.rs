//! Learning rules on the command line.

use feedback_alignment::{Error, FeedbackRule};

/// One rule, or all of them.
#[derive(Clone)]
pub struct Rules(pub Vec<FeedbackRule>);

impl std::str::FromStr for Rules {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self(FeedbackRule::all().collect())),
            _ => text.parse().map(|rule| Self(vec![rule])),
        }
    }
}
