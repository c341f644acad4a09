//! The CIFAR loaders, on files in the exact format that the tests write, and the files of a
//! whitening.

#[cfg(feature = "safetensors")]
use crate::craft;
use crate::helpers::labels_in;

use std::{
    fs,
    path::{Path, PathBuf},
};

use feedback_alignment::{
    Dataset, Error,
    data::cifar::{self, Labels, load10, load10_dir, load100, load100_dir},
};
use proptest::prelude::*;

const PIXELS: usize = 3072;

/// A new empty folder for the test `name`.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cifar-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Pixel `at` of image `number`, different in every channel, row and column.
fn pixel(number: usize, at: usize) -> u8 {
    u8::try_from((number * 101 + at * 7 + at / 32 * 13 + at / 1024 * 57) % 256).unwrap()
}

/// A record of the image `number` with these label bytes.
fn record(labels: &[u8], number: usize) -> Vec<u8> {
    let pixels = (0..PIXELS).map(|at| pixel(number, at));
    labels.iter().copied().chain(pixels).collect()
}

/// CIFAR-10 records numbered from `first`, each labelled with the last digit of its number.
fn records10(first: usize, count: usize) -> Vec<u8> {
    let label = |number: usize| u8::try_from(number % 10).unwrap();
    (first..first + count).flat_map(|number| record(&[label(number)], number)).collect()
}

/// Whether the images are those numbered from `first`, divided by 255.
fn assert_images(data: &Dataset<f32>, first: usize) {
    for (number, image) in (first..).zip(data.inputs().column_iter()) {
        for (at, &x) in image.iter().enumerate() {
            assert_eq!(x, f32::from(pixel(number, at)) / 255.0, "image {number}, pixel {at}");
        }
    }
}

#[test]
fn a_file_of_cifar_10_loads() {
    let path = folder("single").join("some.bin");
    fs::write(&path, records10(3, 12)).unwrap();
    let data = load10::<f32>(&path).unwrap();
    assert_eq!((data.len(), data.features(), data.classes()), (12, PIXELS, Some(10)));
    assert_eq!(cifar::SHAPE, (3, 32, 32));
    assert_eq!(labels_in(&data), [3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3, 4]);
    assert_images(&data, 3);
}

#[test]
fn a_folder_of_cifar_10_loads_in_the_order_of_its_batches() {
    let folder = folder("folder10");
    for batch in 1..=5 {
        let name = format!("data_batch_{batch}.bin");
        fs::write(folder.join(name), records10(batch * 2, 2)).unwrap();
    }
    let missing = load10_dir::<f32>(&folder).unwrap_err();
    let Error::MissingFile { path, expected } = &missing else { panic!("{missing}") };
    assert_eq!(
        (path, &expected[..]),
        (&folder, &["test_batch.bin", "test_batch.bin.gz"].map(String::from)[..])
    );
    fs::write(folder.join("test_batch.bin"), records10(0, 2)).unwrap();
    let cifar = load10_dir::<f32>(&folder).unwrap();
    assert_eq!(labels_in(&cifar.train), [2, 3, 4, 5, 6, 7, 8, 9, 0, 1]);
    assert_images(&cifar.train, 2);
    assert_images(&cifar.test, 0);
    fs::remove_file(folder.join("data_batch_3.bin")).unwrap();
    let missing = load10_dir::<f32>(&folder).unwrap_err().to_string();
    assert!(missing.contains("data_batch_3.bin, data_batch_3.bin.gz"), "{missing}");
}

#[test]
fn cifar_100_loads_with_fine_or_coarse_labels() {
    let folder = folder("folder100");
    let bytes = [record(&[19, 99], 0), record(&[0, 42], 1)].concat();
    fs::write(folder.join("train.bin"), &bytes).unwrap();
    fs::write(folder.join("test.bin"), record(&[7, 8], 5)).unwrap();
    let fine = load100_dir::<f32>(&folder, Labels::Fine).unwrap();
    let coarse = load100_dir::<f32>(&folder, Labels::Coarse).unwrap();
    assert_eq!((labels_in(&fine.train), labels_in(&fine.test)), (vec![99, 42], vec![8]));
    assert_eq!((labels_in(&coarse.train), labels_in(&coarse.test)), (vec![19, 0], vec![7]));
    assert_images(&fine.train, 0);
    assert_images(&coarse.test, 5);
    let alone = load100::<f32>(folder.join("train.bin"), Labels::Fine).unwrap();
    assert_eq!(alone, fine.train);
}

#[test]
fn truncated_files_are_refused_with_the_place() {
    let path = folder("truncated").join("some.bin");
    let bytes = records10(0, 3);
    for (kept, at, left) in [(1, 0, 1), (3072, 0, 3072), (3074, 3073, 1), (9000, 6146, 2854)] {
        fs::write(&path, &bytes[..kept]).unwrap();
        let refused = load10::<f64>(&path).unwrap_err();
        let Error::PartialRecord { offset, expected: 3073, found, path: named } = &refused else {
            panic!("{refused}")
        };
        assert_eq!((*offset, *found, named), (at, left, &path));
    }
    // The length of CIFAR-10 records is not that of CIFAR-100's.
    fs::write(&path, &bytes).unwrap();
    let refused = load100::<f64>(&path, Labels::Fine).unwrap_err();
    assert!(matches!(refused, Error::LabelByte { .. } | Error::PartialRecord { .. }), "{refused}");
    fs::write(&path, []).unwrap();
    assert!(matches!(load10::<f64>(&path), Err(Error::WrongFormat { .. })));
    assert!(matches!(load100::<f64>(&path, Labels::Coarse), Err(Error::WrongFormat { .. })));
}

#[test]
fn labels_out_of_range_are_refused_with_the_place() {
    let path = folder("labels").join("some.bin");
    let check = |labels: &[u8], at: u64, most: u8, byte: u8, loaded: Result<_, Error>| {
        let refused = loaded.map(|_: Dataset<f32>| ()).unwrap_err();
        let Error::LabelByte { offset, expected, found, .. } = refused else {
            panic!("{labels:?}: {refused}")
        };
        assert_eq!((offset, expected, found), (at, most, byte), "{labels:?}");
    };
    fs::write(&path, [records10(0, 1), record(&[10], 1)].concat()).unwrap();
    check(&[10], 3073, 10, 10, load10(&path));
    for labels in [Labels::Fine, Labels::Coarse] {
        fs::write(&path, [record(&[19, 99], 0), record(&[20, 99], 0)].concat()).unwrap();
        check(&[20, 99], 3074, 20, 20, load100(&path, labels));
        fs::write(&path, record(&[19, 100], 0)).unwrap();
        check(&[19, 100], 1, 100, 100, load100(&path, labels));
    }
}

/// A file of zeros, sparse where the system can, that is longer than any of the format.
#[test]
fn oversized_files_are_refused() {
    let path = folder("oversized").join("some.bin");
    let file = fs::File::create(&path).unwrap();
    file.set_len(100_000 * 3073 + 1).unwrap();
    let refused = load10::<f32>(&path).unwrap_err();
    fs::remove_file(&path).unwrap();
    let Error::TooManyRecords { expected: 100_000, offset: 307_300_000, .. } = refused else {
        panic!("{refused}")
    };
}

#[test]
fn files_that_are_not_there_are_named() {
    let folder = folder("missing");
    let refused = load10::<f32>(folder.join("nothing.bin")).unwrap_err();
    assert!(matches!(&refused, Error::Io { .. }) && refused.to_string().contains("nothing.bin"));
    assert!(matches!(load10::<f32>(&folder), Err(Error::Io { .. })));
    for refused in [
        load10_dir::<f32>(folder.join("nowhere")).unwrap_err(),
        load100_dir::<f32>(folder.join("nowhere"), Labels::Fine).unwrap_err(),
    ] {
        let Error::Io { path, cause } = &refused else { panic!("{refused}") };
        assert_eq!((&path, cause.kind()), (&&folder.join("nowhere"), std::io::ErrorKind::NotFound));
    }
}

#[cfg(feature = "gzip")]
mod gzip {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn compressed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compressed_files_load_as_plain_ones_do() {
        let folder = folder("gzip");
        let (train, test) = (record(&[3, 14], 1), record(&[1, 59], 2));
        fs::write(folder.join("train.bin.gz"), compressed(&train)).unwrap();
        fs::write(folder.join("test.bin"), &test).unwrap();
        let cifar = load100_dir::<f32>(&folder, Labels::Fine).unwrap();
        assert_eq!((labels_in(&cifar.train), labels_in(&cifar.test)), (vec![14], vec![59]));
        assert_images(&cifar.train, 1);
    }

    #[test]
    fn broken_compressed_files_are_refused() {
        let path = folder("broken-gzip").join("some.bin.gz");
        let whole = compressed(&records10(0, 2));
        fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert!(matches!(load10::<f32>(&path), Err(Error::Io { .. })));
        fs::write(&path, compressed(&records10(0, 2)[..4000])).unwrap();
        let refused = load10::<f32>(&path).unwrap_err();
        assert!(matches!(refused, Error::PartialRecord { offset: 3073, found: 927, .. }));
        fs::write(&path, compressed(&[])).unwrap();
        assert!(matches!(load10::<f32>(&path), Err(Error::WrongFormat { .. })));
    }

    /// A small file that unpacks to more than any of the format.
    #[test]
    fn compressed_files_do_not_unpack_without_end() {
        let path = folder("bomb").join("some.bin.gz");
        let part = compressed(&vec![0; 3073 * 1000]);
        fs::write(&path, part.repeat(101)).unwrap();
        assert!(fs::metadata(&path).unwrap().len() < 3_000_000);
        let refused = load10::<f32>(&path).unwrap_err();
        assert!(matches!(refused, Error::TooManyRecords { expected: 100_000, .. }), "{refused}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in a file, loading it gives a dataset or an error.
    #[test]
    fn damaged_files_never_panic(
        compress in 0..2_usize,
        kept in 0..9300_usize,
        changes in prop::collection::vec((0..9300_usize, any::<u8>()), 0..6),
    ) {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cifar-damaged.bin");
        let mut bytes = records10(0, 3);
        bytes.truncate(kept);
        if compress == 1 {
            bytes.splice(..0, [0x1f, 0x8b, 8, 0]);
        }
        for (at, byte) in changes {
            if let Some(changed) = bytes.get_mut(at) {
                *changed = byte;
            }
        }
        fs::write(&path, &bytes).unwrap();
        for loaded in [load10::<f32>(&path), load100(&path, Labels::Fine)] {
            match loaded {
                Ok(data) => prop_assert!(data.inputs().max() <= 1.0),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}

#[cfg(feature = "safetensors")]
mod whitening {
    use feedback_alignment::{Scalar, data::Whitening, nalgebra::DMatrix};

    use super::{
        craft::{Craft, Tensor},
        *,
    };

    fn fitted<T: Scalar>() -> Whitening<T> {
        let x = DMatrix::from_fn(3, 7, |i, j| T::of(((i * 5 + j * 3) % 7) as f64 / 3.0));
        Whitening::fit(&Dataset::new(x, vec![0; 7]).unwrap(), 1e-5, |_| ()).unwrap()
    }

    #[test]
    fn what_is_saved_comes_back_bit_by_bit() {
        let folder = folder("whitening");
        let path = folder.join("zca.safetensors");
        fitted::<f32>().save(&path).unwrap();
        assert_eq!(Whitening::load(&path).unwrap(), fitted::<f32>());
        // Over the old file, and nothing else is left in the folder.
        fitted::<f64>().save(&path).unwrap();
        assert_eq!(Whitening::load(&path).unwrap(), fitted::<f64>());
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        let refused = Whitening::<f32>::load(&path).unwrap_err();
        assert!(
            matches!(&refused, Error::TensorType { tensor, expected: "f32", .. } if tensor == "mean"),
            "{refused}"
        );
    }

    #[test]
    fn a_folder_that_is_not_there_or_no_file_is_refused() {
        let folder = folder("whitening-io");
        let inner = folder.join("folder");
        fs::create_dir(&inner).unwrap();
        for path in [folder.join("none/zca"), inner, PathBuf::from("/"), PathBuf::new()] {
            assert!(matches!(fitted::<f32>().save(&path), Err(Error::Io { .. })), "{path:?}");
            assert!(matches!(Whitening::<f32>::load(&path), Err(Error::Io { .. })), "{path:?}");
        }
        // No temporary file is left beside the folder that could not be replaced.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }

    #[test]
    fn every_cut_is_refused() {
        let path = folder("whitening-cut").join("zca");
        fitted::<f32>().save(&path).unwrap();
        let bytes = fs::read(&path).unwrap();
        let header = 8 + usize::from(bytes[0]) + 256 * usize::from(bytes[1]);
        for kept in 0..bytes.len() {
            fs::write(&path, &bytes[..kept]).unwrap();
            let refused = Whitening::<f32>::load(&path).unwrap_err();
            if kept < header {
                let empty = matches!(&refused, Error::WrongFormat { .. } if kept == 0);
                let cut = matches!(refused, Error::Safetensors { .. });
                assert!(empty || cut, "{kept}: {refused}");
            } else {
                assert!(matches!(refused, Error::TensorCutOff { .. }), "{kept}: {refused}");
            }
        }
        fs::write(&path, [&bytes[..], &[0]].concat()).unwrap();
        assert!(matches!(Whitening::<f32>::load(&path), Err(Error::TrailingBytes { .. })));
    }

    #[test]
    fn files_of_something_else_are_refused() {
        let path = folder("whitening-other").join("zca");
        let load = || Whitening::<f32>::load(&path);
        let write = |kind: &str, tensors: &[(&str, &[usize], &[f32])]| {
            let with = |file: Craft, &(name, shape, numbers): &_| {
                file.with(name, Tensor::of(shape, numbers))
            };
            tensors.iter().fold(Craft::new(kind, ""), with).write(&path);
        };
        let (two, four) = (&[1.0, 2.0][..], &[1.0, 0.0, 0.0, 1.0][..]);
        let mean = ("mean", &[2][..], two);
        write("whitening", &[mean, ("matrix", &[2, 2], four)]);
        assert_eq!(load().unwrap().mean().as_slice(), two);
        write("network", &[mean, ("matrix", &[2, 2], four)]);
        let refused = load().unwrap_err();
        assert!(matches!(&refused, Error::FileKind { found, .. } if found == "a network"));
        write("whitening", &[mean]);
        let refused = load().unwrap_err();
        assert!(
            matches!(&refused, Error::MissingTensor { expected, found, .. } if expected == "matrix" && found == &["mean"])
        );
        write("whitening", &[mean, ("matrix", &[2, 2], four), ("median", &[2], two)]);
        let refused = load().unwrap_err();
        assert!(
            matches!(&refused, Error::UnexpectedTensor { tensor, .. } if tensor == "median"),
            "{refused}"
        );
        for shape in [&[4][..], &[1, 4], &[2, 2, 1]] {
            write("whitening", &[mean, ("matrix", shape, four)]);
            let refused = load().unwrap_err();
            let Error::TensorShape { tensor, expected, found, .. } = &refused else {
                panic!("{refused}")
            };
            assert_eq!((&**tensor, &expected[..], &found[..]), ("matrix", &[2, 2][..], shape));
        }
        write("whitening", &[("mean", &[2, 1], two), ("matrix", &[2, 2], four)]);
        assert!(matches!(load(), Err(Error::TensorShape { tensor, .. }) if tensor == "mean"));
        write("whitening", &[("mean", &[0], &[]), ("matrix", &[0, 0], &[])]);
        assert!(matches!(load(), Err(Error::Empty { .. })));
        for bad in [f32::NAN, f32::INFINITY] {
            write("whitening", &[mean, ("matrix", &[2, 2], &[1.0, 0.0, bad, 1.0])]);
            let refused = load().unwrap_err();
            assert!(matches!(refused, Error::NonFinite { row: 1, column: 0, .. }), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            changes in prop::collection::vec((0..400_usize, any::<u8>()), 1..6),
        ) {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whitening-damaged");
            fitted::<f32>().save(&path).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            for (at, byte) in changes {
                if let Some(changed) = bytes.get_mut(at) {
                    *changed = byte;
                }
            }
            fs::write(&path, &bytes).unwrap();
            match Whitening::<f32>::load(&path) {
                Ok(loaded) => prop_assert_eq!(loaded, fitted::<f32>()),
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}

/// A whitening of CIFAR's size. Ignored by default; to run:
/// `cargo test --release --test suite a_whitening_of_3072 -- --ignored --nocapture`
#[test]
#[ignore = "takes minutes"]
fn a_whitening_of_3072_features_takes_minutes_at_most() {
    use std::time::Instant;

    use feedback_alignment::data::Whitening;

    // Neighbouring pixels alike, as in photographs.
    let (mut state, mut level) = (1_u64, 128);
    let bytes: Vec<u8> = (0..10_000 * PIXELS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            level = (15 * level + (state >> 56)) / 16;
            u8::try_from(level).unwrap()
        })
        .collect();
    let data = Dataset::<f32>::from_bytes(PIXELS, bytes, vec![0; 10_000]).unwrap();
    let data = data.clone().scaled(&feedback_alignment::Scaling::min_max(&data).unwrap()).unwrap();
    let start = Instant::now();
    let whitening = Whitening::fit(&data, 1e-5, |now| {
        println!("{:6.1} s  {now:?}", start.elapsed().as_secs_f64());
    })
    .unwrap();
    let start = Instant::now();
    let x = data.whitened(&whitening).unwrap().inputs();
    println!("applied to 10,000 images in {:.1} s", start.elapsed().as_secs_f64());
    // The covariance is C·(C + ε·I)⁻¹ = I − ε·W².
    for feature in [0, 1000, 3071] {
        let expected = 1.0 - 1e-5 * whitening.matrix().column(feature).norm_squared();
        let variance = x.row(feature).variance();
        assert!((variance - expected).abs() < 1e-3, "{feature}: {variance}, {expected}");
    }
}
