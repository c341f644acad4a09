//! Forward direct feedback alignment: matrices that learn from noise what hidden layers do to the outputs.

use feedback_alignment::{
    Activations, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients, Init, Loss,
    Network, Sgd, Trainer, nalgebra::DMatrix,
};

use crate::helpers::{numbers, sines};

fn feedback(network: &Network<f64>, seed: u64) -> Feedback<f64> {
    Feedback::new(network, FeedbackRule::Fdfa, FeedbackInit::Nokland, seed).unwrap()
}

/// The gradients of all `B` after one pass over `x`, by the stages.
fn pass(
    network: &Network<f64>,
    feedback: &mut Feedback<f64>,
    (x, activations): (&DMatrix<f64>, &mut Activations<f64>),
) -> Vec<DMatrix<f64>> {
    let (mut deltas, mut gradients) = (Deltas::new(), Gradients::new());
    let labels: Vec<usize> = (0..x.ncols()).map(|j| j % network.output_len()).collect();
    network.forward(x, activations).unwrap();
    feedback.follow(network, activations).unwrap();
    Loss::SoftmaxCrossEntropy.error(&labels, activations, &mut deltas).unwrap();
    feedback.deliver(network, activations, &mut deltas).unwrap();
    network.gradients(activations, &deltas, &mut gradients).unwrap();
    feedback.gradients(network, activations, &deltas, &mut gradients).unwrap();
    let mut of_layers: Vec<_> =
        feedback.route().hops().iter().zip(gradients.feedback_values()).collect();
    of_layers.sort_by_key(|(hop, _)| hop.to);
    let shapes = feedback.matrices().map(|matrix| matrix.unwrap().1.shape());
    let all = shapes.zip(of_layers);
    all.map(|((rows, columns), (_, values))| DMatrix::from_column_slice(rows, columns, values))
        .collect()
}

#[test]
fn it_starts_from_zero_and_a_zero_matrix_teaches_hidden_layers_nothing() {
    let network =
        Network::<f64>::builder(3).dense(6).tanh().dense(5).tanh().dense(2).build().unwrap();
    let feedback = feedback(&network, 1);
    assert!(feedback.matrices().all(|matrix| matrix.unwrap().1.amax() == 0.0));
    let shapes: Vec<_> = feedback.matrices().map(|matrix| matrix.unwrap().1.shape()).collect();
    assert_eq!(shapes, [(6, 2), (5, 2)]);
    let mut trainer = Trainer::builder(network.clone()).feedback(feedback).build().unwrap();
    trainer.step(&numbers(3, 8, 1), &[0, 1, 0, 1, 0, 1, 0, 1]).unwrap();
    let weights = |network: &Network<f64>, l| network.layer(l).unwrap().weights().clone_owned();
    assert_eq!(weights(trainer.network(), 0), weights(&network, 0));
    assert_ne!(weights(trainer.network(), 2), weights(&network, 2));
    assert!(trainer.feedback().matrices().all(|matrix| matrix.unwrap().1.amax() > 0.0));
}

/// On a linear network the mean of `v dᵀ` is `(W_L … W_{l+1})ᵀ`, whatever the inputs.
#[test]
fn the_mean_is_the_product_of_the_weights_above() {
    let mut network = Network::<f64>::builder(4)
        .dense(5)
        .identity()
        .dense(3)
        .identity()
        .dense(2)
        .build()
        .unwrap();
    for (layer, rows, columns) in [(0, 5, 4), (1, 3, 5), (2, 2, 3)] {
        network.set_weights(layer, sines(rows, columns)).unwrap();
    }
    let mut feedback = feedback(&network, 3);
    let mut activations = Activations::new();
    let (x, passes) = (numbers(4, 500, 1), 200);
    let mut sums = [DMatrix::zeros(5, 2), DMatrix::zeros(3, 2)];
    for _ in 0..passes {
        // B stays 0, so the gradient is −v dᵀ.
        let gradients = pass(&network, &mut feedback, (&x, &mut activations));
        sums.iter_mut().zip(gradients).for_each(|(sum, gradient)| *sum -= gradient);
    }
    let (w2, w3) = (sines(3, 5), sines(2, 3));
    for (sum, expected) in sums.iter().zip([(&w3 * &w2).transpose(), w3.transpose()]) {
        let error = (sum / f64::from(passes) - &expected).amax();
        assert!(error < 0.02 && expected.amax() > 0.1, "off by {error}");
    }
}

/// `B ← B − η (B − v dᵀ)`: the step of plain SGD by the trainer is that of the stages.
#[test]
fn a_step_moves_the_matrices_along_the_gradient() {
    let network = Network::<f64>::builder(3).dense(6).tanh().dense(2).seed(2).build().unwrap();
    let sgd = Sgd { learning_rate: 0.25, ..Sgd::default() };
    let (x, labels) = (numbers(3, 8, 1), [0, 1, 0, 1, 0, 1, 0, 1]);
    let builder = Trainer::builder(network.clone()).rule(FeedbackRule::Fdfa).optimizer(sgd).seed(4);
    let mut trainer = builder.build().unwrap();
    let mut by_stages = trainer.feedback().clone();
    let mut activations = Activations::seeded(4);
    for _ in 0..3 {
        let before = by_stages.matrix(0).unwrap().unwrap();
        let gradients = pass(trainer.network(), &mut by_stages, (&x, &mut activations));
        by_stages.set_matrix(0, before - &gradients[0] * 0.25).unwrap();
        trainer.step(&x, &labels).unwrap();
        let (found, expected) =
            (trainer.feedback().matrix(0).unwrap().unwrap(), by_stages.matrix(0).unwrap().unwrap());
        assert!((found - &expected).amax() < 1e-14 && expected.amax() > 0.0);
    }
}

#[test]
fn gradients_want_the_noise_of_their_own_pass() {
    let network = Network::<f64>::builder(3).dense(4).tanh().dense(2).build().unwrap();
    let mut feedback = feedback(&network, 1);
    let (mut activations, mut deltas, mut gradients) =
        (Activations::new(), Deltas::new(), Gradients::new());
    let mut stages = |feedback: &mut Feedback<f64>, follow: bool| {
        network.forward(&numbers(3, 4, 1), &mut activations).unwrap();
        if follow {
            feedback.follow(&network, &activations).unwrap();
        }
        Loss::SoftmaxCrossEntropy.error(&[0, 1, 0, 1], &activations, &mut deltas).unwrap();
        feedback.deliver(&network, &activations, &mut deltas).unwrap();
        network.gradients(&activations, &deltas, &mut gradients).unwrap();
        feedback.gradients(&network, &activations, &deltas, &mut gradients)
    };
    assert!(matches!(stages(&mut feedback, false), Err(Error::StageMismatch { .. })));
    stages(&mut feedback, true).unwrap();
    assert!(matches!(stages(&mut feedback, false), Err(Error::StageMismatch { .. })));
}

/// From zeros there would be no slopes to learn.
#[test]
fn the_weights_of_the_paper_are_drawn_for_it() {
    let init = Init::nokland(FeedbackRule::Fdfa);
    let network = Network::<f64>::builder(3).dense(4).tanh().dense(2).init(init).build().unwrap();
    assert!(network.layer(0).unwrap().weights().amax() > 0.0);
}
