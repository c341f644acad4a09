//! Every rule on a convolutional network, beside PyTorch.

use feedback_alignment::{
    Conv2d, Feedback, FeedbackInit, FeedbackRule, Network, Part, Route, Trainer,
};

use crate::helpers::{assert_weights, hundred_steps, magnitude, numpy_sgd, sines};

/// Two convolutions and a dense layer.
fn net() -> Network<f64> {
    let builder = Network::<f64>::builder((2, 5, 5)).conv2d(Conv2d::new(3, 3)).tanh();
    let mut network = builder.conv2d(Conv2d::new(4, 2)).tanh().dense(3).build().unwrap();
    for (layer, rows, columns) in [(0, 3, 18), (1, 4, 12), (2, 3, 16)] {
        network.set_weights(layer, sines(rows, columns)).unwrap();
        network.set_parameter(layer, Part::Bias, sines(rows, 1).as_slice()).unwrap();
    }
    network
}

/// Feedback on a route, with the matrices of the run.
fn feedback(network: &Network<f64>, route: &str) -> Feedback<f64> {
    let route: Route = route.parse().unwrap();
    let mut feedback = Feedback::with_route(network, route, FeedbackInit::Nokland, 1).unwrap();
    for layer in 0..2 {
        if let Some([r, c]) = feedback.factors(layer).unwrap() {
            let r = sines(r.nrows(), r.ncols()).add_scalar(0.1);
            let c = sines(c.nrows(), c.ncols()).add_scalar(-0.1);
            feedback.set_factors(layer, [r, c]).unwrap();
        } else if let Some(matrix) = feedback.matrix(layer).unwrap() {
            let (rows, columns) = matrix.shape();
            feedback.set_matrix(layer, sines(rows, columns).add_scalar(0.1)).unwrap();
        }
    }
    feedback
}

/// 100 steps of SGD with momentum and decay, computed with PyTorch in float64:
///
/// ```python
/// import torch, torch.nn.functional as F
/// torch.set_default_dtype(torch.float64)
/// def fill(*shape):
///     n = torch.Size(shape).numel()
///     return 0.5 * torch.sin(0.7 * torch.arange(1, n + 1)).reshape(shape)
/// def run(rule, steps=100, rate=0.1, mu=0.9, decay=0.01, k=2):
///     W = [fill(3, 2, 3, 3), fill(4, 3, 2, 2), fill(3, 16)]; b = [fill(3), fill(4), fill(3)]
///     x, t = fill(8, 2, 5, 5), torch.eye(3)[[0, 2, 1, 0, 2, 1, 0, 2]]
///     direct = rule in ("DFA", "sDFA", "DRTP", "DKP")
///     # To the end of each hidden layer: from the output, or in the shape of the weights above.
///     if direct: B = [fill(27, 3) + 0.1, fill(16, 3) + 0.1]
///     elif rule == "IFA": B = [fill(27, 3) + 0.1]
///     elif rule == "PFA": B = [fill(4 * k, 3, 2, 2) + 0.1, fill(3 * k, 16) + 0.1]; C = [fill(4, 4 * k) - 0.1, fill(3, 3 * k) - 0.1]
///     else: B = [fill(4, 3, 2, 2) + 0.1, fill(16, 3).T + 0.1]
///     v = [torch.zeros_like(p) for p in W + b + B]
///     for _ in range(steps):
///         h1 = torch.tanh(F.conv2d(x, W[0], b[0])); h2 = torch.tanh(F.conv2d(h1, W[1], b[1]))
///         e = (torch.softmax(F.linear(h2.flatten(1), W[2], b[2]), 1) - t) / 8
///         s = {"sDFA": torch.sign(e) / 8, "DRTP": t / 8}.get(rule, e)
///         gB = [torch.zeros_like(p) for p in B]
///         back = lambda d, K: F.conv_transpose2d(d, K)
///         if direct or rule == "IFA":
///             d1 = (s @ B[0].T).view_as(h1) * (1 - h1 ** 2)
///             d2 = (s @ B[1].T).view_as(h2) if direct else F.conv2d(d1, W[1])
///             d2 = d2 * (1 - h2 ** 2)
///             if rule == "DKP": gB = [h1.flatten(1).T @ e, h2.flatten(1).T @ e]
///         elif rule == "PFA":
///             m2 = e @ C[1]; gB[1] = m2.T @ h2.flatten(1)
///             d2 = (m2 @ B[1]).view_as(h2) * (1 - h2 ** 2)
///             m1 = torch.einsum("ncij,cm->nmij", d2, C[0]); gB[0] = torch.nn.grad.conv2d_weight(h1, B[0].shape, m1)
///             d1 = back(m1, B[0]) * (1 - h1 ** 2)
///         else:
///             M = {"BP": W[1:], "FA": B, "KP": B, "frSF": [B[l].abs() * torch.sign(W[l + 1]) for l in (0, 1)],
///                  "uSF": [(2 / f) ** 0.5 * torch.sign(W[l + 1]) for l, f in ((0, 28), (1, 19))]}[rule]
///             d2 = (e @ M[1]).view_as(h2) * (1 - h2 ** 2); d1 = back(d2, M[0]) * (1 - h1 ** 2)
///         g = [torch.nn.grad.conv2d_weight(x, W[0].shape, d1), torch.nn.grad.conv2d_weight(h1, W[1].shape, d2),
///              e.T @ h2.flatten(1), d1.sum((0, 2, 3)), d2.sum((0, 2, 3)), e.sum(0)]
///         if rule == "KP": gB = g[1:3]
///         learns = rule in ("KP", "DKP", "PFA")
///         for i, (p, gp) in enumerate(zip(W + b + B, g + gB)):
///             if i >= 6 and not learns: continue
///             v[i] = mu * v[i] + gp + (decay * p if i not in (3, 4, 5) else 0)
///             p -= rate * v[i]
///     return [p.abs().sum().item() for p in W] + [W[0][1, 0, 0, 2].item(), B[0].abs().sum().item()]
/// ```
#[test]
fn a_hundred_steps_are_those_of_pytorch() {
    let network = net();
    let x = sines(8, 50).transpose();
    for (rule, expected) in PYTORCH {
        let named = rule.parse::<FeedbackRule>().map(|rule| rule.route(3).unwrap().to_string());
        let feedback = feedback(&network, named.as_deref().unwrap_or(rule));
        let builder = Trainer::builder(network.clone()).feedback(feedback).optimizer(numpy_sgd());
        let trainer = hundred_steps(builder, &x);
        assert_weights(rule, &trainer, &expected, 1e-12);
        let learned = match trainer.feedback().factors(0).unwrap() {
            Some([r, _]) => Some(r),
            None => trainer.feedback().matrix(0).unwrap(),
        };
        // Those of BP are the weights, and the magnitudes of uniform signs are not drawn.
        if let Some(b) = learned.filter(|_| rule != "uSF") {
            let (found, expected) = (magnitude(&b), expected[4]);
            assert!((found / expected - 1.0).abs() < 1e-12, "{rule}: B {found}, {expected}");
        }
    }
}

/// `Σ|W_1|`, `Σ|W_2|`, `Σ|W_3|`, an entry of `W_1`, and `Σ|B_1|`.
const PYTORCH: [(&str, [f64; 5]); 11] = [
    (
        "BP",
        [
            15.453_177_763_694_947,
            15.768_898_977_019_99,
            23.901_702_017_001_423,
            0.414_783_338_664_974_4,
            16.329_959_107_134_45,
        ],
    ),
    (
        "FA",
        [
            12.605_934_983_832_364,
            15.083_008_491_994_764,
            27.015_376_713_199_306,
            0.192_870_775_280_815_4,
            16.329_959_107_134_45,
        ],
    ),
    (
        "DFA",
        [
            13.942_992_073_768_485,
            15.510_755_180_071_85,
            15.523_423_769_750_835,
            0.095_091_946_975_040_78,
            26.669_296_818_495_038,
        ],
    ),
    (
        "IFA",
        [
            13.536_145_958_959_015,
            9.105_955_440_574_547,
            14.058_830_430_250_47,
            0.248_662_747_183_552_52,
            26.669_296_818_495_038,
        ],
    ),
    (
        "sDFA",
        [
            6.392_810_579_991_32,
            15.055_851_977_886_665,
            6.033_361_620_639_319,
            0.078_258_780_072_831_6,
            26.669_296_818_495_038,
        ],
    ),
    (
        "DRTP",
        [
            6.155_891_639_378_271,
            15.022_351_918_307_002,
            7.056_417_135_962_614,
            0.023_408_717_978_766_29,
            26.669_296_818_495_038,
        ],
    ),
    (
        "uSF",
        [
            12.234_477_248_473_03,
            15.514_470_020_348_735,
            25.691_733_432_104_648,
            0.385_041_085_200_926_9,
            16.329_959_107_134_45,
        ],
    ),
    (
        "frSF",
        [
            13.709_592_514_949_497,
            18.559_098_023_437_556,
            26.457_801_964_334_5,
            0.485_861_044_599_061_9,
            16.329_959_107_134_45,
        ],
    ),
    (
        "KP",
        [
            18.442_475_406_213_73,
            16.456_338_632_756_62,
            21.392_454_102_324_72,
            0.117_845_314_318_594_88,
            16.501_211_725_637_148,
        ],
    ),
    (
        "DKP",
        [
            31.078_456_114_704_473,
            18.663_797_199_054_223,
            24.280_340_310_751_4,
            0.716_421_079_678_039_4,
            44.199_237_292_293_62,
        ],
    ),
    (
        "3:P2(1)->0,P2(e)->1",
        [
            14.729_345_951_035_851,
            20.132_616_503_122_996,
            22.987_909_459_030_77,
            -0.111_813_765_468_073_52,
            26.029_358_418_784_49,
        ],
    ),
];
