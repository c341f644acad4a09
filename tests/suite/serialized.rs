//! Settings and results through serde: their names are part of the public face.

use std::fmt::Debug;

use feedback_alignment::{
    Activation, Adam, AdamW, AvgPool2d, Bias, Conv2d, Dataset, Decay, Diagnosis, Diagnostics,
    Epoch, Error, Evaluation, FeedbackInit, FeedbackRule, GradientCheck, GradientReport, Init,
    Loss, MaxPool2d, Momentum, Network, Optimizer, Plateau, RmsProp, Route, Schedule, Sgd, Shape,
    Step, StoppingRule, Summary, Trainer, WeightDecay,
    data::{
        Augmentation, Flip, Whitening,
        cifar::Labels,
        idx::Emnist,
        whitening::{Progress, Stage},
    },
    nalgebra::DMatrix,
};
use serde::{Serialize, de::DeserializeOwned};

fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, json: &str) {
    assert_eq!(serde_json::to_string(&value).unwrap(), json);
    assert_eq!(serde_json::from_str::<T>(json).unwrap(), value);
}

fn refusal<T: DeserializeOwned + Debug>(json: &str) -> String {
    serde_json::from_str::<T>(json).unwrap_err().to_string()
}

#[test]
fn settings_are_written_by_their_names_and_read_back() {
    round_trip(
        Optimizer::from(Sgd {
            learning_rate: 0.5,
            momentum: Momentum::Classical(0.9),
            weight_decay: WeightDecay::L2(1e-4),
        }),
        r#"{"sgd":{"learning_rate":0.5,"momentum":{"classical":0.9},"weight_decay":{"l2":0.0001}}}"#,
    );
    round_trip(Momentum::Nesterov(0.5), r#"{"nesterov":0.5}"#);
    round_trip(WeightDecay::Decoupled(0.5), r#"{"decoupled":0.5}"#);
    round_trip(
        Optimizer::from(RmsProp::default()),
        r#"{"rmsprop":{"learning_rate":0.0001,"decay":0.99,"epsilon":1e-8}}"#,
    );
    round_trip(
        Optimizer::from(AdamW::default()),
        r#"{"adamw":{"adam":{"learning_rate":0.001,"beta1":0.9,"beta2":0.999,"epsilon":1e-8},"weight_decay":0.01}}"#,
    );
    round_trip(
        Schedule { warm_up: 7, decay: Decay::Cosine { steps: 12 } },
        r#"{"warm_up":7,"decay":{"cosine":{"steps":12}}}"#,
    );
    round_trip(Init::Nokland { rule: FeedbackRule::Fa }, r#"{"nokland":{"rule":"FA"}}"#);
    Init::presets().for_each(|init| round_trip(init, &format!("\"{init}\"")));
    FeedbackInit::presets().for_each(|init| round_trip(init, &format!("\"{init}\"")));
    round_trip(Init::HeNormal, r#""he-normal""#);
    round_trip(FeedbackInit::LightOn, r#""lighton""#);
    round_trip(FeedbackInit::Uniform { bound: 0.25 }, r#"{"uniform":{"bound":0.25}}"#);
    for activation in Activation::all() {
        let json = serde_json::to_string(&activation).unwrap();
        assert!(json.contains(activation.to_string().split('(').next().unwrap()), "{json}");
        assert_eq!(serde_json::from_str::<Activation>(&json).unwrap(), activation);
    }
    round_trip(
        Conv2d { bias: Bias::Without, ..Conv2d::new(8, 3) },
        r#"{"channels":8,"kernel":[3,3],"stride":[1,1],"padding":[0,0],"bias":"without"}"#,
    );
    round_trip(MaxPool2d::new(3, 2), r#"{"kernel":[3,3],"stride":[2,2]}"#);
    round_trip(AvgPool2d::new(2, 2), r#"{"kernel":[2,2],"stride":[2,2]}"#);
    round_trip(Shape::from((3, 8, 9)), r#"{"channels":3,"height":8,"width":9}"#);
    round_trip(
        Augmentation { flip: Flip::Never, ..Augmentation::default() },
        r#"{"shape":[3,32,32],"flip":"never","crop_padding":4}"#,
    );
    round_trip(StoppingRule::default(), r#"{"momentum":0.75,"threshold":0.0001}"#);
    round_trip(
        Plateau::new(0.5, 3).unwrap(),
        r#"{"learning_rate":0.5,"patience":3,"factor":0.1,"threshold":0.0001,"lowest":0.0,"waited":0,"best":null}"#,
    );
    round_trip(GradientCheck { step: 1e-4, entries: 20 }, r#"{"step":0.0001,"entries":20}"#);
    round_trip(Labels::Coarse, r#""coarse""#);
    round_trip(Emnist::ByClass, r#""byclass""#);
}

#[test]
fn rules_routes_and_losses_are_their_texts() {
    for rule in FeedbackRule::nokland() {
        round_trip(rule, &format!("\"{rule}\""));
        let route = rule.route(4).unwrap();
        let text = format!("\"{route}\"");
        round_trip(route.clone(), &text);
        route.hops().iter().for_each(|hop| round_trip(*hop, &format!("\"{hop}\"")));
    }
    for loss in Loss::all() {
        round_trip(loss, &format!("\"{loss}\""));
    }
    assert!(refusal::<FeedbackRule>("\"backprop\"").contains("'backprop'"));
    assert!(refusal::<Route>("\"3:W(e)->0\"").contains("neighbouring"));
}

#[test]
fn what_is_left_out_has_its_default_and_what_is_misspelt_is_refused() {
    let adam = Adam { learning_rate: 0.01, ..Adam::default() };
    assert_eq!(serde_json::from_str::<Adam>(r#"{"learning_rate":0.01}"#).unwrap(), adam);
    assert_eq!(serde_json::from_str::<Schedule>("{}").unwrap(), Schedule::default());
    assert!(refusal::<Adam>(r#"{"learning-rate":0.01}"#).contains("learning-rate"));
    assert!(refusal::<Optimizer>(r#"{"lion":{}}"#).contains("lion"));
}

/// Reading does not check ranges: whoever takes the setting does.
#[test]
fn a_setting_out_of_its_range_is_refused_where_it_is_used() {
    let builder = || {
        let network = Network::<f32>::builder(2).dense(2).build().unwrap();
        Trainer::builder(network)
    };
    let adam: Adam = serde_json::from_str(r#"{"beta1":1.0}"#).unwrap();
    let refused = builder().optimizer(adam).build();
    assert!(matches!(refused, Err(Error::InvalidParameter { name: "beta1", .. })));
    let decay: Decay = serde_json::from_str(r#"{"step":{"every":0,"factor":0.5}}"#).unwrap();
    let refused = builder().schedule(decay).build();
    assert!(matches!(refused, Err(Error::InvalidParameter { name: "every", .. })));
    let rule: StoppingRule = serde_json::from_str(r#"{"momentum":-1}"#).unwrap();
    let refused = builder().stopping(rule).build();
    assert!(matches!(refused, Err(Error::InvalidParameter { name: "momentum", .. })));
    let conv: Conv2d = serde_json::from_str(
        r#"{"channels":1,"kernel":[3,3],"stride":[0,1],"padding":[0,0],"bias":"with"}"#,
    )
    .unwrap();
    let refused = Network::<f32>::builder((1, 4, 4)).conv2d(conv).dense(2).build();
    assert!(matches!(refused, Err(Error::Window { .. })));
}

#[test]
fn results_are_read_back_as_they_were() {
    fn same<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> String {
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), value);
        json
    }
    let x = DMatrix::from_fn(3, 12, |i, j| ((i * 5 + j * 3) % 7) as f64 / 3.0 - 1.0);
    let labels: Vec<usize> = (0..12).map(|j| j % 3).collect();
    let data = Dataset::new(x.clone(), labels.clone()).unwrap();
    let network = Network::<f64>::builder(3).dense(5).tanh().dense(3).build().unwrap();
    let mut trainer = Trainer::builder(network).build().unwrap();
    let mut diagnostics = Diagnostics::new(trainer.network()).unwrap();
    same::<Summary>(trainer.summary().unwrap());
    same::<Diagnosis>(diagnostics.observe(&trainer, &x, &labels).unwrap());
    same::<Step>(trainer.step(&x, &labels).unwrap());
    let epoch = same::<Epoch>(trainer.epoch(&data).unwrap());
    assert!(epoch.starts_with(r#"{"number":1,"loss":"#), "{epoch}");
    let evaluation = trainer.evaluate(&data).unwrap();
    assert_eq!(evaluation.confusion.as_ref().unwrap().samples(), 12);
    same::<Evaluation>(evaluation);
    let check = GradientCheck { entries: 3, ..GradientCheck::default() };
    let report = check.run(trainer.network(), Loss::SoftmaxCrossEntropy, &x, &labels).unwrap();
    same::<GradientReport>(report);
    let mut reports = Vec::new();
    Whitening::fit(&data, 1e-5, |progress| reports.push(progress)).unwrap();
    assert_eq!(reports[0].stage, Stage::Covariance);
    same::<Vec<Progress>>(reports);
}

#[test]
fn a_confusion_matrix_that_nothing_made_is_refused() {
    use feedback_alignment::ConfusionMatrix;

    let matrix = |counts: &str| format!(r#"{{"classes":2,"counts":[{counts}]}}"#);
    let count = |actual: usize, predicted: usize, samples: usize| {
        format!(r#"{{"actual":{actual},"predicted":{predicted},"samples":{samples}}}"#)
    };
    let good = matrix(&[count(0, 0, 3), count(1, 0, 1)].join(","));
    let read: ConfusionMatrix = serde_json::from_str(&good).unwrap();
    assert_eq!((read.samples(), read.count(1, 0), read.precision(0)), (4, 1, Some(0.75)));
    assert_eq!(serde_json::to_string(&read).unwrap(), good);
    let huge: ConfusionMatrix = serde_json::from_str(&matrix(&count(1, 1, usize::MAX))).unwrap();
    assert_eq!((huge.f1(1), huge.macro_f1(), huge.recall(0)), (Some(1.0), Some(1.0), None));
    for (counts, part) in [
        (count(0, 2, 1), "2 classes"),
        (count(0, 1, 0), "at least 1"),
        ([count(0, 1, 1), count(0, 1, 2)].join(","), "one count"),
        ([count(0, 1, usize::MAX), count(1, 1, 1)].join(","), "more samples"),
    ] {
        let message = refusal::<ConfusionMatrix>(&matrix(&counts));
        assert!(message.contains(part), "'{message}' does not name '{part}'");
    }
}

#[cfg(feature = "csv")]
#[test]
fn the_format_of_a_table_is_a_setting() {
    use feedback_alignment::data::csv::{Column, Format, Header, RowNumbers, Target};

    let format = Format {
        header: Header::Absent,
        target: Target::OneOf(4.into(), vec!["setosa".into()]),
        leave_out: vec!["id".into()],
        row_numbers: RowNumbers::Keep,
        ..Format::default()
    };
    round_trip(
        format,
        r#"{"header":"absent","delimiter":44,"target":{"one-of":[{"index":4},["setosa"]]},"leave_out":[{"name":"id"}],"row_numbers":"keep"}"#,
    );
    round_trip(Column::Index(1), r#"{"index":1}"#);
    assert_eq!(serde_json::from_str::<Format>("{}").unwrap(), Format::default());
}

#[cfg(feature = "safetensors")]
#[test]
fn how_parameters_are_loaded_is_a_setting() {
    use feedback_alignment::LoadOptions;

    round_trip(
        LoadOptions { rename: vec![("fc1".into(), "0".into())], ..LoadOptions::default() },
        r#"{"strip":[],"ignore":[],"rename":[["fc1","0"]],"keep":[],"narrow":false}"#,
    );
}
