//! Requests, and what is answered.

use feedback_alignment::{Adam, FeedbackInit, FeedbackRule, Momentum, Optimizer, RmsProp, Sgd};
use serde::Deserialize;

use crate::bench::{Bench, Result};

/// What the page may ask. Nets are counted from 0, in the order of the rules in [`Settings`].
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Request {
    /// New nets.
    Start(Settings),
    /// One epoch of one net.
    Train(usize),
    /// What some units of one net's first hidden layer have learned.
    Features(usize),
    /// What each net makes of an image.
    Classify(Vec<f32>),
    /// One of the images that no training sees.
    Sample(usize),
}

/// How nets are made.
#[derive(Deserialize)]
pub struct Settings {
    pub rules: Vec<FeedbackRule>,
    /// Units of each hidden layer.
    pub width: usize,
    /// How many hidden layers.
    pub depth: usize,
    pub activation: String,
    pub optimizer: Choice,
    pub rate: f64,
    /// What `B` is drawn from.
    pub feedback: FeedbackInit,
    pub seed: u64,
}

/// The optimisers, with the constants that they have by themselves.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    RmsProp,
    Adam,
    /// With a momentum of 0.9.
    Sgd,
}

impl Choice {
    pub fn at(self, learning_rate: f64) -> Optimizer {
        match self {
            Self::RmsProp => RmsProp { learning_rate, ..RmsProp::default() }.into(),
            Self::Adam => Adam { learning_rate, ..Adam::default() }.into(),
            Self::Sgd => {
                let momentum = Momentum::Classical(0.9);
                Sgd { learning_rate, momentum, ..Sgd::default() }.into()
            }
        }
    }
}

/// Answers a request; an error is an object with nothing but a message.
pub fn answer(bench: &mut Bench, request: &[u8]) -> String {
    try_answer(bench, request)
        .unwrap_or_else(|error| serde_json::json!({ "error": error.to_string() }).to_string())
}

fn try_answer(bench: &mut Bench, request: &[u8]) -> Result<String> {
    Ok(match serde_json::from_slice(request)? {
        Request::Start(settings) => serde_json::to_string(&bench.start(&settings)?)?,
        Request::Train(net) => serde_json::to_string(&bench.train(net)?)?,
        Request::Features(net) => serde_json::to_string(&bench.features(net)?)?,
        Request::Classify(image) => serde_json::to_string(&bench.classify(&image)?)?,
        Request::Sample(number) => serde_json::to_string(&bench.sample(number)?)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const PAGE: &str = include_str!("../index.html");

    fn ask(bench: &mut Bench, request: &Value) -> Value {
        serde_json::from_str(&answer(bench, request.to_string().as_bytes())).unwrap()
    }

    fn settings(change: impl FnOnce(&mut Value)) -> Value {
        let mut settings = json!({
            "rules": ["BP", "DFA"], "width": 16, "depth": 2, "activation": "tanh",
            "optimizer": "rmsprop", "rate": 0.003, "feedback": "nokland", "seed": 0,
        });
        change(&mut settings);
        json!({ "start": settings })
    }

    /// The values of the options of a list in the page.
    fn options(name: &str) -> impl Iterator<Item = &'static str> {
        let list = PAGE.split_once(&format!(r#"<select name="{name}">"#)).unwrap().1;
        let list = list.split_once("</select>").unwrap().0;
        list.split("<option").skip(1).map(|option| {
            let (tag, text) = option.split_once('>').unwrap();
            tag.split_once("value=\"").map_or_else(
                || text.split_once('<').unwrap().0,
                |(_, value)| value.split_once('"').unwrap().0,
            )
        })
    }

    #[test]
    fn the_page_offers_every_rule_and_nothing_unknown() {
        let boxes = PAGE.split(r#"name="rule" value=""#).skip(1);
        let offered: Vec<_> =
            boxes.map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect();
        assert_eq!(offered, FeedbackRule::all().map(|rule| rule.to_string()).collect::<Vec<_>>());

        let mut bench = Bench::default();
        for name in ["activation", "feedback", "optimizer", "rate"] {
            assert!(options(name).count() >= 3, "{name}");
            for option in options(name) {
                let value = option.parse().map_or_else(|_| json!(option), |rate: f64| json!(rate));
                let made = ask(&mut bench, &settings(|settings| settings[name] = value));
                assert!(made.is_array(), "{name} {option}: {made}");
            }
        }
    }

    #[test]
    fn nets_learn_and_answer() {
        let mut bench = Bench::default();
        let made = ask(&mut bench, &settings(|_| ()));
        assert_eq!(made[1]["rule"], "DFA");
        assert!(made[1]["picture"].as_str().unwrap().starts_with("<svg"));
        assert_eq!(made[0]["score"]["test_error"], made[1]["score"]["test_error"]);
        for epoch in 1..=20 {
            for net in 0..2 {
                assert_eq!(ask(&mut bench, &json!({ "train": net }))["epoch"], epoch);
            }
        }
        let score = ask(&mut bench, &json!({ "train": 1 }));
        assert!(score["test_error"].as_f64().unwrap() < 10.0, "{score}");
        assert!(score["angles"][0].as_f64().unwrap() < 80.0, "{score}");

        let units = ask(&mut bench, &json!({ "features": 1 }));
        assert_eq!(units.as_array().unwrap().len(), 16);
        assert_eq!(units[15].as_array().unwrap().len(), 64);

        let sample = ask(&mut bench, &json!({ "sample": 500 })); // The first one again.
        let classes = ask(&mut bench, &json!({ "classify": sample["image"] }));
        let label = usize::try_from(sample["label"].as_u64().unwrap()).unwrap();
        assert!(classes[0][label].as_f64().unwrap() > 0.5, "{label}: {classes}");
    }

    #[test]
    fn what_makes_no_sense_is_an_error_in_words() {
        let mut bench = Bench::default();
        let mut message = |request| {
            let answer = ask(&mut bench, &request);
            answer["error"].as_str().expect("an error").to_owned()
        };
        assert!(message(settings(|settings| settings["width"] = json!(0))).contains("from 1 to"));
        assert!(message(settings(|settings| settings["depth"] = json!(9))).contains("hidden"));
        assert!(message(settings(|settings| settings["rate"] = json!(-1.0))).contains("rate"));
        assert!(message(settings(|settings| settings["rules"] = json!(["X"]))).contains("'X'"));
        assert!(message(settings(|settings| settings["seed"] = Value::Null)).contains("u64"));
        assert!(message(json!({ "train": 0 })).contains("no such net"));
        assert!(message(json!({ "classify": [1.0] })).contains("64 pixels"));
        assert!(message(json!("nothing")).contains("nothing"));
    }
}
