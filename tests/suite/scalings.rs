//! Scalings of extreme numbers, made of constants, applied, inverted and kept in files.

use feedback_alignment::{
    Dataset, Error, Scalar, Scaling,
    nalgebra::{DMatrix, DVector},
};

fn row<T: Scalar>(numbers: &[f64]) -> Dataset<T> {
    let x = DMatrix::from_iterator(1, numbers.len(), numbers.iter().map(|&x| T::of(x)));
    Dataset::new(x, vec![0; numbers.len()]).unwrap()
}

fn standardized(numbers: &[f64]) -> Vec<f64> {
    let data = row::<f64>(numbers);
    let scaling = Scaling::standardize(&data).unwrap();
    data.scaled(&scaling).unwrap().inputs().as_slice().to_vec()
}

#[test]
fn a_range_that_the_scalar_cannot_represent_is_an_error() {
    let data = row::<f32>(&[3e38, -3e38, 0.0]);
    for fitted in [Scaling::min_max(&data), Scaling::min_max_per_feature(&data)] {
        assert!(matches!(fitted, Err(Error::NonFinite { found: f64::INFINITY, .. })));
    }
    // The deviation is within reach, and so is what it makes of the numbers.
    let scaling = Scaling::standardize(&data).unwrap();
    let scaled = data.clone().scaled(&scaling).unwrap().inputs();
    let expected = 1.5_f32.sqrt();
    assert!((scaled[0] - expected).abs() < 1e-6 && (scaled[1] + expected).abs() < 1e-6);
    let data = row::<f64>(&[1.7e308, -1.7e308]);
    assert!(Scaling::min_max(&data).is_err());
    assert!(Scaling::standardize(&data).is_ok_and(|s| s.divisor()[0] > 1.6e308));
}

#[test]
fn deviations_whose_squares_are_out_of_range_are_found() {
    for unit in [1e-200, 1e-160, 1e150, 1e200, 1e-308] {
        let found = standardized(&[unit, 0.0]);
        assert!(
            (found[0] - 1.0).abs() < 1e-14 && (found[1] + 1.0).abs() < 1e-14,
            "{unit}: {found:?}"
        );
        let many: Vec<f64> = (0..5).map(|i| f64::from(i) * unit).collect();
        let found = standardized(&many);
        let expected = standardized(&[0.0, 1.0, 2.0, 3.0, 4.0]);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{found:?}");
    }
    // Two pixels of a channel, each with numbers of its own size.
    let x = DMatrix::from_column_slice(2, 2, &[1e-200, 3e-200, 2e-200, 4e-200]);
    let data = Dataset::new(x, vec![0; 2]).unwrap();
    let scaling = Scaling::standardize_per_channel(&data, 1).unwrap();
    let expected = 1.25_f64.sqrt() * 1e-200;
    assert!(scaling.divisor().iter().all(|d| (d / expected - 1.0).abs() < 1e-14));
}

/// What only rounding tells apart is one constant.
#[test]
fn a_feature_that_varies_by_rounding_is_constant() {
    let nearly = row::<f64>(&[0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2]);
    for scaling in [Scaling::standardize(&nearly), Scaling::min_max(&nearly)] {
        let scaling = scaling.unwrap();
        assert_eq!(scaling.divisor(), [0.0]);
        assert_eq!(nearly.clone().scaled(&scaling).unwrap().inputs().as_slice(), [0.0; 4]);
        let unseen = row(&[0.31, 5.0, -1.0]);
        assert_eq!(unseen.scaled(&scaling).unwrap().inputs().as_slice(), [0.0; 3]);
    }
    let per_feature = Scaling::min_max_per_feature(&nearly).unwrap();
    assert_eq!(nearly.scaled(&per_feature).unwrap().inputs().as_slice(), [0.0; 4]);
    // Some digits more are a difference.
    let apart = [0.3, 0.3 + 1e-13];
    assert!((standardized(&apart)[0] + 1.0).abs() < 1e-2);
    let single = row::<f32>(&[1_000.0, 1_000.000_06]);
    assert_eq!(Scaling::standardize(&single).unwrap().divisor(), [0.0]);
}

#[test]
fn a_scaling_of_one_feature_is_for_one_feature() {
    let one = row::<f64>(&[1.0, 2.0]);
    let four = Dataset::new(DMatrix::<f64>::identity(4, 3), vec![0; 3]).unwrap();
    for scaling in [Scaling::standardize(&one), Scaling::min_max_per_feature(&one)] {
        let scaling = scaling.unwrap();
        assert_eq!(scaling.features(), Some(1));
        let refused = four.clone().scaled(&scaling).unwrap_err();
        assert!(matches!(refused, Error::ShapeMismatch { expected: (1, 3), found: (4, 3), .. }));
        assert!(scaling.apply(&four.inputs()).is_err() && scaling.invert(&four.inputs()).is_err());
    }
    // What treats all features alike serves any number of them.
    let alike = Scaling::min_max(&one).unwrap();
    assert_eq!(alike.features(), None);
    four.scaled(&alike).unwrap();
}

#[test]
fn what_overflows_as_it_is_scaled_is_an_error() {
    let tiny = Scaling::<f32>::constant(0.0, 1e-30).unwrap();
    let large = row::<f32>(&[1.0, 1e20]);
    assert!(matches!(large.clone().scaled(&tiny), Err(Error::NonFinite { column: 1, .. })));
    assert!(matches!(tiny.apply(&large.inputs()), Err(Error::NonFinite { .. })));
    let huge = Scaling::<f32>::constant(3e38, 3e38).unwrap();
    assert!(matches!(huge.invert(&large.inputs()), Err(Error::NonFinite { .. })));
    // Bytes become numbers later; whether they can is found out at once.
    let bytes = Dataset::<f32>::from_bytes(2, vec![0, 255, 1, 2], vec![0, 1]).unwrap();
    let once = bytes.scaled(&tiny).unwrap();
    assert!(matches!(once.scaled(&tiny), Err(Error::NonFinite { .. })));
    for bad in [f64::NAN, f64::INFINITY, 1e39] {
        assert!(Scaling::<f32>::constant(bad, 1.0).is_err());
        assert!(Scaling::<f32>::constant(0.0, bad).is_err());
    }
    for bad in [0.0, -1.0, 1e-60] {
        assert!(matches!(Scaling::<f32>::constant(0.0, bad), Err(Error::InvalidParameter { .. })));
    }
    assert!(Scaling::<f32>::per_feature(&[1.0, 2.0], &[1.0]).is_err());
    assert!(Scaling::<f32>::per_feature(&[], &[]).is_err());
    assert!(Scaling::<f32>::per_channel(&[1.0], &[1.0], 0).is_err());
    assert!(Scaling::<f32>::per_channel(&[1.0; 9], &[1.0; 9], usize::MAX / 3).is_err());
    let none = DMatrix::<f32>::zeros(0, 0);
    assert!(matches!(tiny.apply(&none), Err(Error::Empty { .. })));
}

#[test]
fn known_constants_scale_by_feature_channel_or_all_alike() {
    let x = DMatrix::from_column_slice(4, 1, &[1.0, 2.0, 3.0, 4.0]);
    let all = Scaling::constant(1.0, 2.0).unwrap().apply(&x).unwrap();
    assert_eq!(all.as_slice(), [0.0, 0.5, 1.0, 1.5]);
    let each = Scaling::per_feature(&[1.0, 1.0, 0.0, 0.0], &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(each.apply(&x).unwrap().as_slice(), [0.0, 0.5, 1.0, 1.0]);
    let channels = Scaling::per_channel(&[1.0, 3.0], &[1.0, 2.0], 2).unwrap();
    assert_eq!(channels.apply(&x).unwrap().as_slice(), [0.0, 1.0, 0.0, 0.5]);
    assert_eq!((channels.features(), channels.offset()), (Some(4), &[1.0, 1.0, 3.0, 3.0][..]));
    for scaling in [Scaling::constant(1.0, 2.0).unwrap(), each, channels] {
        assert_eq!(scaling.invert(&scaling.apply(&x).unwrap()).unwrap(), x);
        let data = Dataset::new(x.clone(), vec![0]).unwrap().scaled(&scaling).unwrap();
        assert_eq!(data.inputs(), scaling.apply(&x).unwrap());
    }
    // A constant feature goes back to its constant.
    let data = Dataset::new(DMatrix::from_row_slice(2, 2, &[5.0, 5.0, 1.0, 3.0]), vec![0; 2]);
    let data = data.unwrap();
    let scaling = Scaling::standardize(&data).unwrap();
    let scaled = scaling.apply(&data.inputs()).unwrap();
    assert_eq!(scaling.invert(&scaled).unwrap(), data.inputs());
}

#[cfg(feature = "safetensors")]
#[test]
fn scalings_come_back_from_files_to_the_bit() {
    use crate::craft::{Craft, Tensor};

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scaling");
    let x = DMatrix::from_fn(6, 9, |i, j| if i == 2 { 7.0 } else { ((i * 5 + j * 3) % 11) as f32 });
    let data = Dataset::new(x, vec![0; 9]).unwrap();
    for scaling in [
        Scaling::min_max(&data).unwrap(),
        Scaling::min_max_per_feature(&data).unwrap(),
        Scaling::standardize(&data).unwrap(),
        Scaling::standardize_per_channel(&data, 3).unwrap(),
        Scaling::constant(0.1307, 0.3081).unwrap(),
        Scaling::standardize(&row::<f32>(&[1.0, 2.0])).unwrap(),
    ] {
        scaling.save(&path).unwrap();
        assert_eq!(Scaling::<f32>::load(&path).unwrap(), scaling);
        let other = Scaling::<f64>::load(&path).unwrap_err();
        assert!(matches!(other, Error::TensorType { .. }), "{other}");
    }
    let whitening = feedback_alignment::data::Whitening::fit(&data, 1e-5, |_| ()).unwrap();
    whitening.save(&path).unwrap();
    let refused = Scaling::<f32>::load(&path).unwrap_err();
    assert!(matches!(refused, Error::FileKind { expected: "scaling", .. }), "{refused}");

    let good = Craft::new("scaling", "scaling for=each\n")
        .with("offset", Tensor::of(&[2], &[1.0, 2.0]))
        .with("divisor", Tensor::of(&[2], &[3.0, 0.0]));
    let load = |craft: &Craft| {
        craft.write(&path);
        Scaling::<f32>::load(&path)
    };
    assert_eq!(load(&good).unwrap().features(), Some(2));
    for bad in [
        good.clone().replace("each", "all"),
        good.clone().replace("each", "some"),
        good.clone().replace("for=each", "for=each for=each"),
        good.clone().with("divisor", Tensor::of(&[2], &[3.0, -1.0])),
        good.clone().with("divisor", Tensor::of(&[1], &[3.0])),
        good.clone().with("offset", Tensor::of(&[2], &[1.0, f32::NAN])),
        good.clone().with("offset", Tensor::of(&[0], &[])),
        good.clone().with("other", Tensor::of(&[1], &[1.0])),
    ] {
        let refused = load(&bad).unwrap_err().to_string();
        assert!(refused.contains("scaling"), "{refused}");
    }
}

/// The means that whitening subtracts are those of the same pass.
#[test]
fn whitening_of_a_constant_feature_subtracts_the_constant() {
    let data = Dataset::new(DMatrix::from_element(2, 5, 0.1_f64), vec![0; 5]).unwrap();
    let whitening = feedback_alignment::data::Whitening::fit(&data, 1e-5, |_| ()).unwrap();
    assert_eq!(whitening.mean(), &DVector::from_element(2, 0.1));
}

#[cfg(feature = "safetensors")]
#[test]
fn a_whitening_whose_matrix_is_not_symmetric_is_refused() {
    use crate::craft::{Craft, Tensor};
    use feedback_alignment::data::Whitening;

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("whitening");
    let write = |matrix: [f32; 4]| {
        let craft = Craft::new("whitening", "").with("mean", Tensor::of(&[2], &[0.0; 2]));
        craft.with("matrix", Tensor::of(&[2, 2], &matrix)).write(&path);
    };
    write([1.0, 0.5, 0.5, 2.0]);
    Whitening::<f32>::load(&path).unwrap();
    write([1.0, 0.5, 0.25, 2.0]);
    let refused = Whitening::<f32>::load(&path).unwrap_err();
    assert!(matches!(refused, Error::TensorValue { .. }), "{refused}");
}
