//! Feedback matrices of other kinds: sparse, of low rank, shared.

use crate::helpers::numbers;
use feedback_alignment::{
    Activations, Conv2d, Deltas, Error, Feedback, FeedbackInit, FeedbackRule, Init, Loss,
    MaxPool2d, Network, Route, Sgd, Through, Trainer, nalgebra::DMatrix,
};

const LOSS: Loss = Loss::SoftmaxCrossEntropy;

fn labels(samples: usize, classes: usize) -> Vec<usize> {
    (0..samples).map(|j| j * 2 % classes).collect()
}

fn nets() -> [Network<f64>; 2] {
    let dense = Network::builder(7).dense(9).tanh().dense(6).logistic().dense(8).tanh().dense(5);
    let conv = Network::builder((2, 7, 6))
        .conv2d(Conv2d { padding: (1, 0), ..Conv2d::new(3, 3) })
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(4, 2))
        .logistic()
        .dense(6)
        .tanh()
        .dense(5);
    [dense, conv].map(|builder| builder.seed(3).build().unwrap())
}

const KINDS: [Through; 6] = [
    Through::Sparse(1),
    Through::Sparse(3),
    Through::Sparse(5),
    Through::LowRank(1),
    Through::LowRank(3),
    Through::Shared,
];

/// DFA and FA through matrices of another kind.
fn routes(kind: Through) -> [Route; 2] {
    let of = |rule: FeedbackRule, old| rule.route(4).unwrap().with(old, kind).unwrap();
    [of(FeedbackRule::Dfa, Through::Matrix), of(FeedbackRule::Fa, Through::LikeWeights)]
}

fn deltas(network: &Network<f64>, feedback: &Feedback<f64>, samples: usize) -> Vec<DMatrix<f64>> {
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&numbers(network.input_len(), samples, 1), &mut activations).unwrap();
    LOSS.error(&labels(samples, 5), &activations, &mut deltas).unwrap();
    feedback.deliver(network, &activations, &mut deltas).unwrap();
    (0..4).map(|layer| deltas.delta(layer).unwrap().into_owned()).collect()
}

/// Each brings what a full matrix with its entries brings.
#[test]
fn they_are_the_full_matrices_that_they_stand_for() {
    for network in nets() {
        for kind in KINDS {
            for route in routes(kind) {
                let init = FeedbackInit::Lillicrap;
                let some = Feedback::with_route(&network, route.clone(), init, 5).unwrap();
                let full = route.with(kind, Through::Matrix).unwrap();
                let mut full = Feedback::with_route(&network, full, init, 5).unwrap();
                for layer in 0..3 {
                    full.set_matrix(layer, some.matrix(layer).unwrap().unwrap()).unwrap();
                }
                for samples in [1, 2, 9] {
                    let found = deltas(&network, &some, samples);
                    for (found, expected) in found.iter().zip(deltas(&network, &full, samples)) {
                        let error = (found - &expected).amax() / expected.amax();
                        assert!(error < 1e-13, "{kind}: {error}");
                    }
                }
            }
        }
    }
}

/// A step in one and a step by stages have the same bits, on any number of threads.
#[test]
fn a_step_in_one_is_a_step_by_stages() {
    let wide = Network::<f32>::builder(60).dense(300).tanh().dense(200).tanh().dense(150).tanh();
    let network = wide.dense(40).build().unwrap();
    for kind in KINDS {
        for route in routes(kind) {
            let own = Feedback::with_route(&network, route, FeedbackInit::Nokland, 5).unwrap();
            let with = |threads| {
                let builder = Trainer::builder(network.clone()).feedback(own.clone());
                builder.optimizer(Sgd::default()).threads(threads).build().unwrap()
            };
            let (mut one, mut stages, mut many) = (with(1), with(1), with(3));
            for step in 0..2 {
                let (x, y) = (numbers(60, 70, step).cast::<f32>(), labels(70, 40));
                one.step(&x, &y).unwrap();
                stages.step_with(&x, &y, |_| Ok(())).unwrap();
                many.step(&x, &y).unwrap();
            }
            assert_eq!(one.network(), stages.network(), "{kind}");
            assert_eq!(one.network(), many.network(), "{kind}");
        }
    }
}

#[test]
fn each_has_the_entries_and_the_size_that_it_promises() {
    let builder = Network::<f64>::builder(4).dense(60).tanh().dense(40).tanh();
    let network = builder.dense(50).tanh().dense(20).build().unwrap();
    let draw = |kind, init| {
        let [dfa, _] = routes(kind);
        Feedback::with_route(&network, dfa, init, 3).unwrap()
    };
    let deviation = |m: &DMatrix<f64>| (m.norm_squared() / m.len() as f64).sqrt();
    let full = draw(Through::Matrix, FeedbackInit::LightOn);
    assert_eq!(full.matrix_entries(), 150 * 20);

    let sparse = draw(Through::Sparse(3), FeedbackInit::Crafton);
    assert_eq!(sparse.matrix_entries(), 150 * 3);
    for (layer, rows) in [(0, 60.0), (1, 40.0), (2, 50.0_f64)] {
        let matrix = sparse.matrix(layer).unwrap().unwrap();
        let mut used = DMatrix::<f64>::zeros(1, 20);
        for row in matrix.row_iter() {
            assert_eq!(row.iter().filter(|&&b| b != 0.0).count(), 3);
            used += row.abs();
        }
        assert!(used.min() > 0.0, "some unit is never seen");
        let bound = (20.0_f64 * 3.0).sqrt().sqrt() / rows.sqrt();
        assert!(matrix.amax() <= bound && matrix.amax() > 0.95 * bound);
    }

    let low = draw(Through::LowRank(2), FeedbackInit::Crafton);
    assert_eq!(low.matrix_entries(), 2 * (150 + 3 * 20));
    for (layer, rows) in [(0, 60.0), (1, 40.0), (2, 50.0_f64)] {
        let matrix = low.matrix(layer).unwrap().unwrap();
        let values = matrix.clone().svd(false, false).singular_values;
        assert!(values[1] > 1e-3 && values[2] < 1e-12, "{values}");
        let expected = rows.sqrt().recip();
        assert!((deviation(&matrix) / expected - 1.0).abs() < 0.3, "{}", deviation(&matrix));
        let [u, v] = low.factors(layer).unwrap().unwrap();
        assert!((u * v - matrix).amax() < 1e-14);
    }

    let shared = draw(Through::Shared, FeedbackInit::LightOn);
    assert_eq!(shared.matrix_entries(), 60 * 20);
    let all = [0, 1, 2].map(|layer| shared.matrix(layer).unwrap().unwrap());
    for (layer, rows) in [(0, 60), (1, 40), (2, 50)] {
        // `1/√(n_l n_L)`, from the same numbers.
        let factor = (60.0 / rows as f64).sqrt();
        let expected = all[0].rows(0, rows) * factor;
        assert!((&all[layer] - expected).amax() < 1e-15);
        let expected = (rows as f64 * 20.0).sqrt().recip();
        assert!((deviation(&all[layer]) / expected - 1.0).abs() < 0.1);
    }
}

/// What cannot be is refused, with the hop and the reason.
#[test]
fn impossible_ones_are_refused() {
    let [network, _] = nets();
    for (route, reason) in
        [("4:Bs6(e)->0", "fewer units"), ("4:Br6(e)->0", "rank"), ("4:B(e)->2,Br7(2)->1", "rank")]
    {
        let route: Route = route.parse().unwrap();
        let refused = Feedback::with_route(&network, route, FeedbackInit::Nokland, 1);
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(reason), "{message}");
    }
    let feedback = |kind| {
        let [dfa, _] = routes(kind);
        Feedback::with_route(&network, dfa, FeedbackInit::Nokland, 1).unwrap()
    };
    for kind in [Through::LowRank(2), Through::Shared, Through::Product(2)] {
        let mut feedback = match kind {
            Through::Product(_) => {
                Feedback::new(&network, FeedbackRule::Pfa, FeedbackInit::Nokland, 1).unwrap()
            }
            _ => feedback(kind),
        };
        let before = feedback.clone();
        let own = feedback.matrix(0).unwrap().unwrap();
        assert!(matches!(feedback.set_matrix(0, own), Err(Error::Conflict { .. })), "{kind}");
        if kind == Through::Shared {
            let factors = [DMatrix::zeros(1, 1), DMatrix::zeros(1, 1)];
            assert!(matches!(feedback.set_factors(0, factors), Err(Error::NoFeedback { .. })));
        } else {
            let [u, v] = feedback.factors(0).unwrap().unwrap();
            let nan = v.map(|_| f64::NAN);
            assert!(matches!(
                feedback.set_factors(0, [u.clone(), nan]),
                Err(Error::NonFinite { .. })
            ));
            let other = feedback.set_factors(0, [v, u]);
            assert!(matches!(other, Err(Error::ShapeMismatch { .. })), "{kind}");
        }
        assert_eq!(feedback, before);
    }
    let mut sparse = feedback(Through::Sparse(2));
    let mut own = DMatrix::zeros(9, 5);
    (own[(1, 3)], own[(1, 0)], own[(8, 4)]) = (0.5, -2.0, 3.0);
    sparse.set_matrix(0, own.clone()).unwrap();
    assert_eq!(sparse.matrix(0).unwrap().unwrap(), own);
    own[(1, 4)] = 1.0;
    let refused = sparse.set_matrix(0, own.clone()).unwrap_err();
    assert!(refused.to_string().contains("row 1"), "{refused}");
    own[(1, 4)] = 0.0;
    assert_eq!(sparse.matrix(0).unwrap().unwrap(), own);
}

/// A checkpoint has the numbers, and not more.
#[cfg(feature = "safetensors")]
#[test]
fn they_are_saved_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run");
    for network in nets() {
        for kind in KINDS {
            for route in routes(kind) {
                let own = Feedback::with_route(&network, route, FeedbackInit::Crafton, 5).unwrap();
                let builder = Trainer::builder(network.clone()).feedback(own);
                let mut trainer = builder.optimizer(Sgd::default()).build().unwrap();
                trainer.save(&path).unwrap();
                let mut resumed = Trainer::<f64>::load(&path).unwrap();
                assert_eq!(resumed.feedback(), trainer.feedback(), "{kind}");
                for trainer in [&mut trainer, &mut resumed] {
                    trainer.step(&numbers(network.input_len(), 9, 1), &labels(9, 5)).unwrap();
                }
                assert_eq!(resumed.network(), trainer.network(), "{kind}");
            }
        }
    }
}

/// A checkpoint stores the columns of a sparse matrix as numbers of its scalar.
#[test]
fn a_sparse_matrix_has_no_more_columns_than_its_scalar_can_count() {
    let refused = |outputs| {
        let network = Network::<f32>::builder(1).init(Init::Zeros).dense(1).dense(outputs);
        let route = "2:Bs1(e)->0".parse().unwrap();
        Feedback::with_route(&network.build().unwrap(), route, FeedbackInit::default(), 1).is_err()
    };
    assert!(refused((1 << 24) + 1) && !refused(1 << 24));
}
