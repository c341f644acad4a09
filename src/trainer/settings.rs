//! The settings and counters of a training run as text in the metadata of a file.

use std::{fmt, str::FromStr};

use super::{
    StoppingRule,
    feedback_lines::{MOST, init_line, mirror_line, read_init, read_mirror},
};
use crate::{
    data::{Augmentation, Flip},
    error::{Error, Result},
    feedback::Mirror,
    files::{Entry, Line, Lines},
    init::FeedbackInit,
    loss::Loss,
    optimizer::{FEEDBACK_OPTIMIZER, OPTIMIZER, Optimizer, SCHEDULE, Schedule},
    route::Route,
    rule::FeedbackRule,
};

/// The settings of a trainer, and how far its run has come.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    pub(super) rule: Rule,
    pub(super) loss: Loss,
    /// One for each class, or empty.
    pub(super) class_weights: Vec<f64>,
    pub(super) batch_size: usize,
    pub(super) drop_last: bool,
    pub(super) seed: u64,
    pub(super) epochs: u64,
    pub(super) steps: u64,
    pub(super) feedback_init: FeedbackInit,
    /// The distribution and seed of brSF's magnitudes.
    pub(super) magnitudes: Option<(FeedbackInit, u64)>,
    /// The settings of mirrors, the seed of their noise, and how many batches of it have been drawn.
    pub(super) mirror: Option<(Mirror, u64, u64)>,
    /// The seed of the noise from which matrices learn the slopes of the outputs.
    pub(super) slopes: Option<u64>,
    pub(super) optimizer: Optimizer,
    /// The optimiser of feedback that learns, if it has its own.
    pub(super) feedback_optimizer: Option<Optimizer>,
    pub(super) schedule: Schedule,
    pub(super) max_norm: Option<f64>,
    /// Layers whose learning rate has a factor, in order, and the factor.
    pub(super) rate_factors: Vec<(usize, f64)>,
    pub(super) adversarial: Option<f64>,
    /// Its running average is `running_error`.
    pub(super) stopping: Option<StoppingRule>,
    pub(super) running_error: f64,
    pub(super) augmentation: Option<Augmentation>,
    /// The frozen layers, in order.
    pub(super) frozen: Vec<usize>,
}

/// The value of `rule=`: the name of a rule, or a route without a name.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Rule {
    Named(FeedbackRule),
    Route(Route),
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(rule) => rule.fmt(f),
            Self::Route(route) => route.fmt(f),
        }
    }
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(Self::Named).or_else(|_| text.parse().map(Self::Route))
    }
}

impl Settings {
    pub(super) fn lines(&self) -> Vec<Line> {
        let mut lines = vec![
            Line::new("trainer")
                .word("rule", &self.rule)
                .word("loss", self.loss)
                .with("batch_size", self.batch_size)
                .word("drop_last", if self.drop_last { "yes" } else { "no" })
                .with("seed", self.seed)
                .with("epochs", self.epochs)
                .with("steps", self.steps)
                .with("running_error", self.running_error),
            init_line(Line::new("feedback"), self.feedback_init),
            self.optimizer.line(OPTIMIZER),
            self.schedule.line(),
        ];
        lines.extend(self.feedback_optimizer.map(|optimizer| optimizer.line(FEEDBACK_OPTIMIZER)));
        lines.extend(self.max_norm.map(|bound| Line::new("max-norm").with("bound", bound)));
        let class_weight = |(class, &weight): (usize, &f64)| {
            Line::new("class-weight").with("class", class).with("weight", weight)
        };
        lines.extend(
            self.magnitudes
                .map(|(init, seed)| init_line(Line::new("magnitudes"), init).with("seed", seed)),
        );
        lines.extend(self.mirror.map(mirror_line));
        lines.extend(self.slopes.map(|seed| Line::new("slopes").with("seed", seed)));
        lines.extend(self.class_weights.iter().enumerate().map(class_weight));
        lines.extend(
            self.rate_factors.iter().map(|&(layer, factor)| {
                Line::new("rate").with("layer", layer).with("factor", factor)
            }),
        );
        let adversarial = |epsilon| Line::new("adversarial").with("epsilon", epsilon);
        lines.extend(self.adversarial.map(adversarial));
        lines.extend(self.stopping.map(|StoppingRule { momentum, threshold }| {
            Line::new("stopping").with("momentum", momentum).with("threshold", threshold)
        }));
        lines.extend(self.augmentation.map(augmentation_line));
        lines.extend(self.frozen.iter().map(|&layer| Line::new("frozen").with("layer", layer)));
        lines
    }

    /// Takes the lines of the settings. Lines of something else may follow them.
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
        Ok(Self {
            rule: trainer
                .word("rule")?
                .parse()
                .map_err(|_| trainer.refuse("'rule=' with a feedback rule or a route"))?,
            loss: trainer
                .word("loss")?
                .parse()
                .map_err(|_| trainer.refuse("'loss=' with a loss"))?,
            batch_size: trainer.field("batch_size")?,
            drop_last: match trainer.word("drop_last")? {
                "yes" => true,
                "no" => false,
                _ => return Err(trainer.refuse("'drop_last=' with yes or no")),
            },
            seed: trainer.field("seed")?,
            epochs: count("epochs")?,
            steps: count("steps")?,
            feedback_init: read_init(&feedback)?,
            optimizer: Optimizer::read(&optimizer)?,
            schedule: Schedule::read(&schedule)?,
            feedback_optimizer: lines
                .take_if(FEEDBACK_OPTIMIZER)
                .map(|entry| Optimizer::read(&entry))
                .transpose()?,
            max_norm: optional(lines, "max-norm", "bound")?,
            magnitudes: lines
                .take_if("magnitudes")
                .map(|entry| Ok((read_init(&entry)?, entry.field("seed")?)))
                .transpose()?,
            mirror: lines.take_if("mirror").map(|entry| read_mirror(&entry)).transpose()?,
            slopes: lines.take_if("slopes").map(|entry| entry.field("seed")).transpose()?,
            class_weights: read_class_weights(lines)?,
            rate_factors: read_rate_factors(lines)?,
            adversarial: optional(lines, "adversarial", "epsilon")?,
            stopping: lines.take_if("stopping").map(|entry| read_stopping(&entry)).transpose()?,
            running_error,
            augmentation: lines
                .take_if("augmentation")
                .map(|entry| read_augmentation(&entry))
                .transpose()?,
            frozen: read_frozen(lines)?,
        })
    }
}

/// The number in an optional line; `None` if the file has no such line.
fn optional(lines: &mut Lines, name: &str, key: &str) -> Result<Option<f64>> {
    lines.take_if(name).map(|entry| entry.field(key)).transpose()
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

/// Reads one line for each class, in order; there may be none.
fn read_class_weights(lines: &mut Lines) -> Result<Vec<f64>> {
    let mut weights = Vec::new();
    while let Some(entry) = lines.take_if("class-weight") {
        if entry.field::<usize>("class")? != weights.len() {
            return Err(entry.refuse(format!("'class=' with {}", weights.len())));
        }
        weights.push(entry.field("weight")?);
    }
    Ok(weights)
}

/// Reads one line for each layer with a factor, in order.
fn read_rate_factors(lines: &mut Lines) -> Result<Vec<(usize, f64)>> {
    let mut factors: Vec<(usize, f64)> = Vec::new();
    while let Some(entry) = lines.take_if("rate") {
        let (layer, factor) = (entry.field("layer")?, entry.field("factor")?);
        if factors.last().is_some_and(|&(last, _)| last >= layer) {
            return Err(entry.refuse("'layer=' with a later layer than the line before"));
        }
        if factor == 1.0 {
            return Err(entry.refuse("'factor=' with another number than 1"));
        }
        factors.push((layer, factor));
    }
    Ok(factors)
}

/// Reads one line for each frozen layer, in order.
fn read_frozen(lines: &mut Lines) -> Result<Vec<usize>> {
    let mut frozen = Vec::new();
    while let Some(entry) = lines.take_if("frozen") {
        let layer = entry.field("layer")?;
        if frozen.last().is_some_and(|&last| last >= layer) {
            return Err(entry.refuse("'layer=' with a later layer than the line before"));
        }
        frozen.push(layer);
    }
    Ok(frozen)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        Activation, Adam, AdamW, Decay, Momentum, RmsProp, Sgd, WeightDecay,
        error::{Error, Result},
        files::text,
    };

    fn plain() -> Settings {
        Settings {
            rule: Rule::Named(FeedbackRule::Dfa),
            loss: Loss::SoftmaxCrossEntropy,
            class_weights: Vec::new(),
            batch_size: 64,
            drop_last: false,
            seed: 7,
            epochs: 3,
            steps: 41,
            feedback_init: FeedbackInit::Nokland,
            magnitudes: None,
            mirror: None,
            slopes: None,
            feedback_optimizer: None,
            optimizer: RmsProp::default().into(),
            schedule: Schedule::default(),
            max_norm: None,
            rate_factors: Vec::new(),
            adversarial: None,
            stopping: None,
            running_error: 1.0,
            augmentation: None,
            frozen: Vec::new(),
        }
    }

    /// Every variant of everything that has variants, with numbers that are easily lost.
    fn variants() -> Vec<Settings> {
        let odd = 0.1 + 0.2;
        let mut variants = vec![plain()];
        variants.extend(
            FeedbackRule::all().map(|rule| Settings { rule: Rule::Named(rule), ..plain() }),
        );
        for route in ["1:", "3:B(e)->1,B(e)->0,R(1)->0"] {
            let rule = Rule::Route(route.parse().unwrap());
            variants.push(Settings { rule, ..plain() });
        }
        let rate_factors = vec![(0, 0.1 + 0.2), (7, 1e-300)];
        variants.push(Settings { rate_factors, ..plain() });
        variants.extend(Loss::all().map(|loss| Settings { loss, ..plain() }));
        variants.extend(
            [
                FeedbackInit::Nokland,
                FeedbackInit::Lillicrap,
                FeedbackInit::Frenkel,
                FeedbackInit::LightOn,
                FeedbackInit::Crafton,
                FeedbackInit::Uniform { bound: odd },
                FeedbackInit::Normal { std: 5e-324 },
            ]
            .map(|feedback_init| Settings {
                feedback_init,
                magnitudes: Some((feedback_init, u64::MAX)),
                ..plain()
            }),
        );
        let sgd = Sgd { learning_rate: odd, ..Sgd::default() };
        let adam = Adam { learning_rate: 1e300, beta1: 0.0, beta2: odd, epsilon: 1e-300 };
        let optimizers: [Optimizer; 8] = [
            sgd.into(),
            Sgd { momentum: Momentum::Classical(odd), ..sgd }.into(),
            Sgd { momentum: Momentum::Nesterov(0.9), ..sgd }.into(),
            Sgd { weight_decay: WeightDecay::L2(1e-4), ..sgd }.into(),
            Sgd {
                momentum: Momentum::Nesterov(0.5),
                weight_decay: WeightDecay::Decoupled(odd),
                ..sgd
            }
            .into(),
            RmsProp { learning_rate: odd, decay: 0.9, epsilon: 1e-7 }.into(),
            adam.into(),
            AdamW { adam, weight_decay: odd }.into(),
        ];
        variants.extend(optimizers.map(|optimizer| Settings { optimizer, ..plain() }));
        variants.extend(
            optimizers.map(|optimizer| Settings { feedback_optimizer: Some(optimizer), ..plain() }),
        );
        variants.extend(Activation::all().map(|output| {
            let mirror = Mirror { rate: odd, batch: usize::MAX, output, ..Mirror::default() };
            Settings { mirror: Some((mirror, u64::MAX, 41)), ..plain() }
        }));
        variants.push(Settings { slopes: Some(u64::MAX), ..plain() });
        let decays = [
            Decay::Constant,
            Decay::Step { every: 3, factor: odd },
            Decay::Exponential { every: u64::MAX, factor: 1.0 },
            Decay::Cosine { steps: 100 },
        ];
        variants.extend(decays.map(|decay| {
            let schedule = Schedule { warm_up: 17, decay };
            Settings { schedule, ..plain() }
        }));
        variants.extend([
            Settings { class_weights: vec![odd, 1e-300, 1e100], ..plain() },
            Settings { max_norm: Some(odd), ..plain() },
            Settings { drop_last: true, ..plain() },
            Settings { adversarial: Some(0.08), ..plain() },
            Settings { stopping: Some(StoppingRule::default()), running_error: odd, ..plain() },
            Settings { batch_size: usize::MAX, seed: u64::MAX, ..plain() },
            Settings { epochs: MOST - 1, steps: MOST - 1, ..plain() },
            Settings { frozen: vec![0, 2, 7], ..plain() },
        ]);
        variants.extend([Flip::Never, Flip::Horizontal].map(|flip| {
            let augmentation = Augmentation { flip, shape: (1, 8, 9), crop_padding: 2 };
            Settings { augmentation: Some(augmentation), ..plain() }
        }));
        variants.push(Settings {
            max_norm: Some(1.0),
            adversarial: Some(0.0),
            stopping: Some(StoppingRule { momentum: 0.5, threshold: f64::INFINITY }),
            augmentation: Some(Augmentation::default()),
            ..plain()
        });
        variants
    }

    fn read(text: &str) -> Result<Settings> {
        let mut lines = Lines::new(Path::new("file"), text, 0);
        let settings = Settings::read(&mut lines)?;
        lines.require(&settings.lines())?;
        Ok(settings)
    }

    #[test]
    fn all_settings_come_back() {
        let mut texts = std::collections::BTreeSet::new();
        for settings in variants() {
            let text = text(&settings.lines());
            assert_eq!(read(&text).unwrap(), settings, "{text}");
            texts.insert(text);
        }
        assert!(texts.len() > 30, "{} texts differ", texts.len());
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_line() {
        let good = text(&plain().lines());
        read(&good).unwrap();
        for (from, to, line, expected) in [
            ("trainer rule", "trainers rule", 1, "'trainer …'"),
            ("rule=DFA", "rule=XYZ", 1, "'rule=' with a feedback rule"),
            ("rule=DFA", "rule=dfa", 1, "rule=DFA"),
            ("loss=softmax", "loss=hinge", 1, "'loss=' with a loss"),
            ("batch_size=64", "batch_size=-1", 1, "'batch_size=' with a whole number"),
            ("drop_last=no", "drop_last=maybe", 1, "'drop_last=' with yes or no"),
            ("epochs=3", "epochs=9007199254740992", 1, "'epochs=' with less than"),
            ("steps=41", "steps=18446744073709551615", 1, "'steps=' with less than"),
            ("steps=41", "steps=041", 1, "steps=41"),
            ("running_error=1.0", "running_error=1.5", 1, "from 0 to 1"),
            ("running_error=1.0", "running_error=NaN", 1, "from 0 to 1"),
            ("init=nokland", "init=xavier", 2, "'init=' with"),
            ("init=nokland", "init=uniform", 2, "'bound=' with a number"),
            ("name=rmsprop", "name=lion", 3, "'name=' with sgd"),
            ("name=rmsprop", "name=adam", 3, "'beta1=' with a number"),
            ("name=rmsprop", "name=sgd", 3, "'momentum=' with"),
            ("decay=constant", "decay=linear", 4, "'decay=' with"),
            ("decay=constant", "decay=step", 4, "'every=' with a whole number"),
            ("decay=constant", "decay=constant every=3", 4, "decay=constant'"),
        ] {
            assert!(good.contains(from), "{from}");
            let refused = read(&good.replacen(from, to, 1)).unwrap_err();
            assert!(
                matches!(refused, Error::Description { line: found, .. } if found == line),
                "{from} → {to}: {refused}"
            );
            let message = refused.to_string();
            assert!(message.contains(expected), "'{message}' does not name '{expected}'");
        }
        let mirror = Settings { mirror: Some((Mirror::default(), 7, 41)), ..plain() };
        let endless = text(&mirror.lines()).replacen("seen=41", &format!("seen={}", u64::MAX), 1);
        let refused = read(&endless).unwrap_err().to_string();
        assert!(refused.contains("'seen=' with less than"), "{refused}");
        let skipped = read(&format!("{good}class-weight class=1 weight=2.0\n"));
        assert!(matches!(skipped, Err(Error::Description { line: 5, .. })));
        let extra = read(&format!("{good}max-norm bound=1.0\nmax-norm bound=1.0\n"));
        assert!(matches!(extra, Err(Error::Description { line: 6, .. })));
        let twice = read(&format!("{good}frozen layer=1\nfrozen layer=1\n"));
        assert!(matches!(twice, Err(Error::Description { line: 6, .. })));
    }
}
