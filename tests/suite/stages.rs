//! A stage takes only what an earlier stage made for it: of this network and this forward pass.

use feedback_alignment::{
    Activation, Activations, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Gradients, Loss,
    Network, OptimizerState, Part, Result, Sgd, nalgebra::DMatrix,
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

fn network() -> Network<f64> {
    Network::builder(3).dense(4).tanh().dense(2).build().unwrap()
}

fn feedback(network: &Network<f64>) -> Feedback<f64> {
    Feedback::new(network, FeedbackRule::Fa, FeedbackInit::Nokland, 1).unwrap()
}

fn batch(shift: f64) -> DMatrix<f64> {
    DMatrix::from_fn(3, 2, |i, j| (i + 2 * j) as f64 / 4.0 - shift)
}

/// A forward pass and the error of it.
fn pass(network: &Network<f64>, x: &DMatrix<f64>) -> (Activations<f64>, Deltas<f64>) {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(x, &mut activations).unwrap();
    LOSS.error(&[0, 1], &activations, &mut deltas).unwrap();
    (activations, deltas)
}

fn refused<R>(result: Result<R>, part: &str) {
    let error = result.err().expect("should be refused");
    assert!(matches!(error, Error::StageMismatch { .. }), "{error}");
    assert!(error.to_string().contains(part), "'{error}' does not name '{part}'");
}

#[test]
fn deltas_of_another_batch_of_the_same_size_are_refused() {
    let network = network();
    let feedback = feedback(&network);
    let (activations, mut deltas) = pass(&network, &batch(0.0));
    let (others, _) = pass(&network, &batch(1.0));
    refused(feedback.deliver(&network, &others, &mut deltas), "deltas");
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    refused(network.gradients(&others, &deltas, &mut Gradients::new()), "deltas");
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    refused(optimizer.learn(&mut network.clone(), &others, &deltas), "deltas");
    let result =
        optimizer.deliver_and_learn(&mut network.clone(), &feedback, &others, &mut deltas.clone());
    refused(result, "deltas");
    assert_eq!(optimizer.steps(), 0);
    // The same scratch, after another pass.
    let mut activations = activations;
    network.forward(&batch(1.0), &mut activations).unwrap();
    refused(network.gradients(&activations, &deltas, &mut Gradients::new()), "deltas");
}

#[test]
fn deltas_without_feedback_are_refused() {
    let mut network = network();
    let (activations, mut deltas) = pass(&network, &batch(0.0));
    let mut optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    let mut gradients = Gradients::new();
    refused(network.gradients(&activations, &deltas, &mut gradients), "Feedback::deliver");
    refused(optimizer.learn(&mut network, &activations, &deltas), "Feedback::deliver");
    let feedback = feedback(&network);
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    // A new error has not been delivered, even of the same pass.
    LOSS.error(&[1, 1], &activations, &mut deltas).unwrap();
    refused(network.gradients(&activations, &deltas, &mut gradients), "Feedback::deliver");
    // Without hidden layers nothing has to be delivered.
    let single = Network::builder(3).dense(2).build().unwrap();
    let (activations, deltas) = pass(&single, &batch(0.0));
    single.gradients(&activations, &deltas, &mut Gradients::new()).unwrap();
}

/// Networks of the sizes of `network`, which differ in what the sizes do not show.
fn others() -> [Network<f64>; 4] {
    let builder = || Network::builder(3).dense(4);
    [
        builder().batch_norm().dense(2).build().unwrap(),
        builder().relu().dense(2).build().unwrap(),
        builder().dropout(0.5).dense(2).build().unwrap(),
        Network::builder(3).dense(4).tanh().dense_without_bias(2).build().unwrap(),
    ]
}

fn gradients(network: &Network<f64>) -> Gradients<f64> {
    let (activations, mut deltas) = pass(network, &batch(0.0));
    feedback(network).deliver(network, &activations, &mut deltas).unwrap();
    let mut gradients = Gradients::new();
    network.gradients(&activations, &deltas, &mut gradients).unwrap();
    gradients
}

#[test]
fn gradients_and_states_of_another_network_are_refused() {
    let own = network();
    for mut other in others() {
        let before = other.clone();
        let mut optimizer = OptimizerState::new(&other, Sgd::default()).unwrap();
        refused(optimizer.step(&mut other, &gradients(&own)), "gradients");
        let mut foreign = OptimizerState::new(&own, Sgd::default()).unwrap();
        let of_other = gradients(&other);
        refused(foreign.step(&mut other, &of_other), "moments");
        assert_eq!((other, optimizer.steps(), foreign.steps()), (before, 0, 0));
    }
}

/// What `Display` leaves out makes another network all the same.
#[test]
fn activations_of_another_slope_are_refused() {
    let with = |activation| {
        Network::<f64>::builder(3).dense(4).activation(activation).dense(2).build().unwrap()
    };
    for (one, other) in [
        (Activation::LeakyRelu { slope: 0.1 }, Activation::LeakyRelu { slope: 0.2 }),
        (Activation::Elu { alpha: 0.1 }, Activation::Elu { alpha: 0.2 }),
    ] {
        let (one, other) = (with(one), with(other));
        let (activations, mut deltas) = pass(&one, &batch(0.0));
        let result = feedback(&other).deliver(&other, &activations, &mut deltas);
        refused(result, "0.1");
        let (activations, mut deltas) = pass(&one.clone(), &batch(0.0));
        feedback(&one).deliver(&one, &activations, &mut deltas).unwrap();
    }
}

#[test]
fn batch_normalisation_is_missed_where_it_is_missing() {
    let mut network =
        Network::<f64>::builder(3).dense(4).batch_norm().tanh().dense(2).build().unwrap();
    assert!(network.parameters().get(0, Part::Scale).is_some());
    assert!(network.parameters().get(1, Part::Scale).is_none());
    let error = network.set_parameter(1, Part::Scale, &[1.0; 2]).unwrap_err();
    assert!(matches!(error, Error::NoSuchParameter { layer: 1, .. }));
    let message = "weighted layer 1 has no γ, and neither has an operation after it";
    assert_eq!(error.to_string(), message);
}
