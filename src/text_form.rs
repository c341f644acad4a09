//! serde's traits for types whose text form says everything.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{
    loss::Loss,
    route::{Hop, Route},
    rule::FeedbackRule,
    signal::Signal,
};

/// Implements `Serialize` by `Display`, and `Deserialize` by `FromStr`, which checks its input.
macro_rules! text_form {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

text_form!(FeedbackRule, Hop, Loss, Route, Signal);
