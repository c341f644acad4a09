//! The table of a network: what it says is what network and feedback say.

use feedback_alignment::{
    Conv2d, Error, Feedback, FeedbackInit, FeedbackRule, MaxPool2d, Network, Shape, Through,
    Trainer, nalgebra::DMatrix,
};

fn convolutional() -> Network<f32> {
    let conv = Conv2d { padding: (2, 2), ..Conv2d::new(3, 5) };
    let builder = Network::builder((2, 8, 8)).dropout(0.1).conv2d(conv).batch_norm().relu();
    let builder = builder.max_pool2d(MaxPool2d::new(2, 2)).dense_without_bias(7).tanh();
    builder.dropout(0.5).dense(6).layer_norm().tanh().dense(4).build().unwrap()
}

#[test]
fn a_summary_agrees_with_network_and_feedback() {
    let network = convolutional();
    for rule in FeedbackRule::all() {
        let Ok(feedback) = Feedback::new(&network, rule, FeedbackInit::Nokland, 3) else {
            continue; // Some rules have no matrices for convolutions.
        };
        let summary = feedback.summary(&network).unwrap();
        assert_eq!(summary.parameters(), network.parameter_count());
        assert_eq!(summary.rule, Some(rule.to_string()));
        assert_eq!(summary.feedback_entries, feedback.matrix_entries());
        let hops = summary.layers.iter().flat_map(|row| &row.feedback);
        let shown: Vec<_> = hops.filter_map(|&(hop, shape)| Some((hop, shape?))).collect();
        let matrices =
            feedback.matrices().map(Result::unwrap).map(|(hop, matrix)| (hop, matrix.shape()));
        assert_eq!(shown, matrices.collect::<Vec<_>>(), "{rule}");
        for row in &summary.layers {
            assert!(row.feedback.iter().all(|(hop, _)| hop.to == row.layer));
        }
        let count: usize = summary.layers.iter().map(|row| row.feedback.len()).sum();
        assert_eq!(count, feedback.route().hops().len());
    }
}

/// Matrices of every form have the shape that they have in one piece.
#[test]
fn sparse_shared_and_small_matrices_have_their_shapes() {
    let builder = Network::<f64>::builder(9).dense(8).tanh().dense(7).tanh();
    let network = builder.dense(6).build().unwrap();
    let forms = [Through::Matrix, Through::Sparse(2), Through::LowRank(2), Through::Shared];
    for form in forms {
        let route = FeedbackRule::Dfa.route(3).unwrap().with(Through::Matrix, form).unwrap();
        let feedback = Feedback::with_route(&network, route, FeedbackInit::Nokland, 1).unwrap();
        let summary = feedback.summary(&network).unwrap();
        for layer in 0..2 {
            let (_, shape) = summary.layers[layer].feedback[0];
            assert_eq!(shape, Some(feedback.matrix(layer).unwrap().unwrap().shape()), "{form:?}");
        }
        assert_eq!(summary.feedback_entries, feedback.matrix_entries());
    }
}

/// What a layer yields is what comes out when a sample goes in.
#[test]
fn outputs_have_the_shapes_of_what_flows() {
    let network = convolutional();
    let mut activations = feedback_alignment::Activations::new();
    network.forward(&DMatrix::from_element(128, 2, 0.5), &mut activations).unwrap();
    let summary = network.summary();
    assert_eq!((summary.input, summary.rule), (Shape::from((2, 8, 8)), None));
    for row in &summary.layers[..3] {
        assert_eq!(row.output.len(), activations.output(row.layer).unwrap().nrows());
    }
    let shapes = summary.layers.iter().map(|row| row.output);
    assert!(shapes.eq([(3, 4, 4).into(), Shape::from(7), 6.into(), 4.into()]));
}

#[test]
fn the_table_has_a_row_for_each_layer_and_says_what_is_frozen() {
    let mut network = convolutional();
    network.freeze(1).unwrap();
    let trainer = Trainer::builder(network.clone()).rule(FeedbackRule::Fa).build().unwrap();
    let expected = "\
layer                                                                     output  parameters  feedback under FA
input  dropout 0.1                                                         2×8×8           –  –
0      conv2d 5×5 padding 2×2 batch-norm relu max-pool2d 2×2, stride 2×2   3×4×4         159  R(1) 48×7
1      dense tanh dropout 0.5 (frozen)                                         7         336  R(2) 7×6
2      dense layer-norm tanh                                                   6          60  R(e) 6×4
3      dense                                                                   4          28  –
all                                                                                      583  402 numbers";
    assert_eq!(trainer.summary().unwrap().to_string(), expected);
    let alone = network.summary().to_string();
    assert!(!alone.contains("feedback") && alone.lines().count() == 7, "{alone}");
    assert!(alone.lines().all(|line| line == line.trim_end()), "{alone}");
    assert!(alone.ends_with("583"), "{alone}");
}

#[test]
fn a_convolution_says_what_is_unusual_about_it() {
    let kind = |conv| {
        let network = Network::<f32>::builder((1, 9, 9)).conv2d(conv).dense(2).build().unwrap();
        network.summary().layers[0].kind.clone()
    };
    let plain = Conv2d::new(2, 3);
    assert_eq!(kind(plain), "conv2d 3×3");
    assert_eq!(kind(Conv2d { padding: (1, 1), ..plain }), "conv2d 3×3 padding 1×1");
    let odd = Conv2d { kernel: (3, 5), stride: (2, 1), padding: (0, 1), ..plain };
    assert_eq!(kind(odd), "conv2d 3×5 stride 2×1 padding 0×1");
}

#[test]
fn several_hops_to_a_layer_stand_in_its_row() {
    let network = Network::<f32>::builder(3).dense(5).tanh().dense(4).tanh().dense(2).build();
    let (network, route) = (network.unwrap(), "3:B(e)->1,W(1)->0,B(e)->0".parse().unwrap());
    let feedback = Feedback::with_route(&network, route, FeedbackInit::Nokland, 1).unwrap();
    let table = feedback.summary(&network).unwrap().to_string();
    assert!(table.lines().nth(2).unwrap().ends_with("  W(1) + B(e) 5×2"), "{table}");
}

#[test]
fn feedback_of_another_network_is_refused() {
    let other = Network::<f32>::builder(3).dense(2).tanh().dense(2).build().unwrap();
    let feedback = Feedback::new(&other, FeedbackRule::Dfa, FeedbackInit::Nokland, 0).unwrap();
    assert!(matches!(feedback.summary(&convolutional()), Err(Error::StageMismatch { .. })));
}
