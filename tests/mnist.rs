//! What only the real MNIST can show. Ignored by default; to run:
//! `MNIST_DIR=path/to/folder cargo test --release --test mnist -- --ignored`

use feedback_alignment::{
    FeedbackRule, Init, Loss, Network, RmsProp, Targets, Trainer,
    data::idx::{self, Mnist},
};

fn mnist() -> Mnist<f32> {
    let folder = std::env::var_os("MNIST_DIR").expect("MNIST_DIR names the folder of MNIST");
    idx::load_dir(folder).unwrap()
}

#[test]
#[ignore = "needs the MNIST files in MNIST_DIR"]
fn the_files_hold_what_they_are_known_to_hold() {
    let Mnist { train, test } = mnist();
    assert_eq!((train.len(), train.features(), train.classes()), (60_000, 784, Some(10)));
    assert_eq!((test.len(), test.features(), test.classes()), (10_000, 784, Some(10)));
    let Targets::Labels(labels) = train.targets() else { panic!("MNIST has labels") };
    assert_eq!(labels[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    let ones = labels.iter().filter(|&&label| label == 1).count();
    assert_eq!(ones, 6742);
    let x = test.inputs();
    assert_eq!((x.min(), x.max()), (0.0, 1.0));
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len() as f64;
    assert!((mean - 0.132_514_6).abs() < 1e-6, "{mean}");
}

/// The paper's protocol for as many epochs as are quick; the measured error of 20 epochs is 2.4 %.
#[test]
#[ignore = "needs the MNIST files in MNIST_DIR"]
fn dfa_learns_mnist_from_zero_as_well_as_was_measured() {
    let Mnist { train, test } = mnist();
    let network = Network::<f32>::builder(784)
        .dense(800)
        .tanh()
        .dense(800)
        .tanh()
        .dense(10)
        .init(Init::nokland(FeedbackRule::Dfa))
        .build()
        .unwrap();
    let mut trainer = Trainer::builder(network)
        .rule(FeedbackRule::Dfa)
        .loss(Loss::LogisticCrossEntropy)
        .optimizer(RmsProp { learning_rate: 1e-4, ..RmsProp::default() })
        .seed(1)
        .build()
        .unwrap();
    for _ in 0..20 {
        let epoch = trainer.epoch(&train).unwrap();
        println!("{epoch}  test {}", trainer.evaluate(&test).unwrap());
    }
    let error = trainer.evaluate(&test).unwrap().error_rate.unwrap();
    assert!(error <= 0.027, "test error {:.2} %", 100.0 * error);
}
