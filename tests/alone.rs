//! A trainer of one thread stays on it. The only test of its process, since it asks whether
//! anybody has ever woken rayon's own threads.
#![cfg(feature = "parallel")]

use feedback_alignment::{
    Conv2d, Dataset, FeedbackRule, MaxPool2d, Network, Trainer, nalgebra::DMatrix,
};

#[test]
fn one_thread_means_the_callers() {
    let dense = || Network::<f32>::builder(1024).dense(700).tanh().dense(600).tanh();
    let conv = || {
        let conv = Conv2d { padding: (2, 2), ..Conv2d::new(16, 5) };
        Network::<f32>::builder((1, 32, 32)).conv2d(conv).tanh().max_pool2d(MaxPool2d::new(2, 2))
    };
    let x = DMatrix::from_fn(1024, 96, |i, j| ((i * 31 + j * 17) % 29) as f32 / 29.0);
    let data = Dataset::new(x.clone(), (0..96).map(|j| j % 10).collect()).unwrap();
    for rule in FeedbackRule::nokland() {
        for builder in [dense(), conv()] {
            let network = builder.dense(10).build().unwrap();
            let builder = Trainer::builder(network).rule(rule).batch_size(48);
            let mut trainer = if rule == FeedbackRule::Bp {
                builder.threads(1).build().unwrap()
            } else {
                let mut trainer = builder.build().unwrap();
                trainer.set_threads(1).unwrap();
                trainer
            };
            trainer.step(&x, &[3; 96]).unwrap();
            trainer.step(&x.columns(0, 1).into_owned(), &[3]).unwrap();
            trainer.epoch(&data).unwrap();
            trainer.evaluate(&data).unwrap();
            trainer.predict_classes(&x).unwrap();
            trainer.top_k_error(&data, 2).unwrap();
        }
    }
    // Rayon's threads start when they are first asked for, and can be set up only before that.
    let unused = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    assert!(unused.is_ok(), "a trainer of one thread has asked rayon for its threads");
}
