//! IDX files of every type of numbers, those of EMNIST, and hostile ones.

use crate::{common, helpers::labels_in};

use common::{Folder, idx};
use feedback_alignment::{
    Error, Scalar,
    data::idx::{Emnist, load, load_dir, load_emnist, read},
};

/// A file of numbers of this type and size, given as big-endian bytes.
fn file(kind: u8, sizes: &[u32], numbers: &[u8]) -> Vec<u8> {
    let mut file = idx(sizes, numbers);
    file[2] = kind;
    file
}

fn bytes<T, const SIZE: usize>(numbers: &[T], convert: impl Fn(&T) -> [u8; SIZE]) -> Vec<u8> {
    numbers.iter().flat_map(convert).collect()
}

/// Numbers at the ends of every type and their bytes.
fn every_type() -> Vec<(u8, Vec<u8>, [f64; 4])> {
    let (i16s, i32s) = ([0, -1, i16::MIN, i16::MAX], [0, -1, i32::MIN, i32::MAX]);
    let f32s = [0.1_f32, -0.0, f32::MAX, f32::MIN_POSITIVE / 4.0];
    let f64s = [0.1_f64, -0.0, 1e300, 5e-324];
    vec![
        (0x08, vec![0, 1, 128, 255], [0.0, 1.0, 128.0, 255.0]),
        (0x09, vec![0, 1, 128, 255], [0.0, 1.0, -128.0, -1.0]),
        (0x0b, bytes(&i16s, |x| x.to_be_bytes()), i16s.map(f64::from)),
        (0x0c, bytes(&i32s, |x| x.to_be_bytes()), i32s.map(f64::from)),
        (0x0d, bytes(&f32s, |x| x.to_be_bytes()), f32s.map(f64::from)),
        (0x0e, bytes(&f64s, |x| x.to_be_bytes()), f64s),
    ]
}

#[test]
fn numbers_of_every_type_and_dimension_are_read() {
    let folder = Folder::new();
    let bits = |numbers: &[f64]| numbers.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    for (kind, data, expected) in every_type() {
        for sizes in [&[4][..], &[2, 2], &[1, 4, 1], &[2, 1, 2, 1, 1]] {
            let path = folder.write("file", file(kind, sizes, &data));
            let (found, numbers) = read::<f64>(&path).unwrap();
            assert!(found.iter().zip(sizes).all(|(&a, &b)| a == b as usize));
            assert_eq!(bits(&numbers), bits(&expected), "{kind:02x}");
            if kind != 0x0e {
                let (_, numbers) = read::<f32>(&path).unwrap();
                assert_eq!(numbers, expected.map(<f32 as Scalar>::of));
            }
            // One byte less and one more.
            let cut = folder.write("cut", file(kind, sizes, &data[1..]));
            assert!(matches!(read::<f64>(cut), Err(Error::Truncated { .. })));
            let long = folder.write("long", file(kind, sizes, &[&data[..], &[0]].concat()));
            assert!(matches!(read::<f64>(long), Err(Error::TrailingBytes { .. })));
        }
    }
    // A single number without any dimension.
    let (sizes, numbers) = read::<f32>(folder.write("one", file(0x08, &[], &[7]))).unwrap();
    assert_eq!((sizes, numbers), (vec![], vec![7.0]));
    let empty = read::<f32>(folder.write("none", file(0x0d, &[3, 0], &[]))).unwrap();
    assert_eq!(empty, (vec![3, 0], vec![]));
}

#[test]
fn what_is_no_number_is_named_with_its_place() {
    let folder = Folder::new();
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let data = bytes(&[1.0, 2.0, 3.0, 4.0, bad, 6.0], |x| x.to_be_bytes());
        let path = folder.write("bad", file(0x0e, &[2, 3], &data));
        let error = read::<f64>(&path).unwrap_err();
        assert!(matches!(error, Error::NonFinite { row: 1, column: 1, .. }), "{error:?}");
        let labels = folder.write("labels", idx(&[2], &[0, 1]));
        let images = folder.write("images", file(0x0e, &[2, 3, 1], &data));
        let error = load::<f64>(&images, labels).unwrap_err();
        assert!(matches!(error, Error::Content { .. }), "{error:?}");
        assert!(error.to_string().contains(images.to_str().unwrap()), "{error}");
    }
    // Infinite in one scalar only.
    let path = folder.write("large", file(0x0e, &[1], &1e39_f64.to_be_bytes()));
    assert!(read::<f64>(&path).is_ok());
    assert!(matches!(read::<f32>(&path), Err(Error::NonFinite { .. })));
}

#[test]
fn images_of_other_numbers_are_taken_as_they_are() {
    let folder = Folder::new();
    let targets = folder.write("labels", idx(&[2], &[3, 0]));
    for (kind, data, expected) in every_type() {
        let images = folder.write("images", file(kind, &[2, 1, 2], &data));
        let found = load::<f64>(&images, &targets).unwrap();
        let scale = if kind == 0x08 { 255.0 } else { 1.0 };
        assert_eq!(found.inputs().as_slice(), expected.map(|x| x / scale), "{kind:02x}");
        assert_eq!(labels_in(&found), [3, 0]);
    }
}

#[test]
fn labels_are_whole_numbers_of_any_type() {
    let folder = Folder::new();
    let images = folder.write("images", idx(&[3, 1, 1], &[1, 2, 3]));
    let with =
        |kind, data: Vec<u8>| load::<f32>(&images, folder.write("labels", file(kind, &[3], &data)));
    for (kind, data) in [
        (0x08, vec![0, 9, 7]),
        (0x09, vec![0, 9, 7]),
        (0x0b, bytes(&[0_i16, 9, 7], |x| x.to_be_bytes())),
        (0x0c, bytes(&[0_i32, 9, 7], |x| x.to_be_bytes())),
        (0x0d, bytes(&[0_f32, 9.0, 7.0], |x| x.to_be_bytes())),
        (0x0e, bytes(&[0_f64, 9.0, 7.0], |x| x.to_be_bytes())),
    ] {
        assert_eq!(labels_in(&with(kind, data).unwrap()), [0, 9, 7], "{kind:02x}");
    }
    let large = with(0x0e, bytes(&[0.0, 4_294_967_295.0, 1.0], |x: &f64| x.to_be_bytes())).unwrap();
    assert_eq!(labels_in(&large)[1], u32::MAX as usize);
    for (kind, data) in [
        (0x09, vec![0, 255, 7]),
        (0x0c, bytes(&[0, i32::MIN, 1], |x| x.to_be_bytes())),
        (0x0d, bytes(&[0.0, 0.5_f32, 1.0], |x| x.to_be_bytes())),
        (0x0d, bytes(&[0.0, f32::NAN, 1.0], |x| x.to_be_bytes())),
        (0x0e, bytes(&[0.0, 4_294_967_296.0_f64, 1.0], |x| x.to_be_bytes())),
        (0x0e, bytes(&[0.0, f64::INFINITY, 1.0], |x| x.to_be_bytes())),
    ] {
        let error = with(kind, data).unwrap_err();
        assert!(matches!(error, Error::LabelNumber { sample: 1, .. }), "{kind:02x}: {error:?}");
        assert!(error.to_string().contains("labels: the label of sample 1"), "{error}");
    }
}

#[test]
fn emnist_is_read_under_its_names_with_its_images_upright() {
    // An image of 2 × 3 pixels as the eye sees it, and as the file has it.
    let (upright, stored) = ([1, 2, 3, 4, 5, 6], [1, 4, 2, 5, 3, 6]);
    for (split, name) in [
        (Emnist::ByClass, "byclass"),
        (Emnist::ByMerge, "bymerge"),
        (Emnist::Balanced, "balanced"),
        (Emnist::Letters, "letters"),
        (Emnist::Digits, "digits"),
        (Emnist::Mnist, "mnist"),
    ] {
        let folder = Folder::new();
        let missing = load_emnist::<f64>(folder.path(""), split).unwrap_err();
        let first = format!("emnist-{name}-train-images-idx3-ubyte");
        assert!(missing.to_string().contains(&first), "{missing}");
        folder.write(&first, idx(&[2, 3, 2], &[stored, stored.map(|byte| 10 * byte)].concat()));
        let labels_of = |set: &str| format!("emnist-{name}-{set}-labels-idx1-ubyte");
        folder.write(&labels_of("train"), idx(&[2], &[26, 1]));
        folder.write(&format!("emnist-{name}-test-images-idx3-ubyte"), idx(&[1, 3, 2], &stored));
        folder.write(&labels_of("test"), idx(&[1], &[1]));
        let sets = load_emnist::<f64>(folder.path(""), split).unwrap();
        assert_eq!(labels_in(&sets.train), [26, 1]);
        assert_eq!(labels_in(&sets.test), [1]);
        assert_eq!(sets.test.inputs().as_slice(), upright.map(|byte| f64::from(byte) / 255.0));
        assert_eq!(sets.train.inputs()[(1, 1)], 20.0 / 255.0);
        // MNIST's own names are others.
        assert!(matches!(load_dir::<f64>(folder.path("")), Err(Error::MissingFile { .. })));
    }
    let error = load_emnist::<f32>(Folder::new().path("nowhere"), Emnist::Digits).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
}

/// Sizes whose product is more than any machine counts, in headers of up to 255 of them.
#[test]
fn hostile_sizes_are_refused_at_once() {
    let folder = Folder::new();
    for kind in [0x08, 0x09, 0x0b, 0x0c, 0x0d, 0x0e] {
        for sizes in
            [&[u32::MAX; 255][..], &[u32::MAX; 4], &[u32::MAX, u32::MAX], &[1 << 31, 1 << 31, 4]]
        {
            let path = folder.write("file", file(kind, sizes, &[1; 64]));
            let error = read::<f32>(path).unwrap_err();
            assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
        }
        let path = folder.write("file", file(kind, &[u32::MAX, 0, u32::MAX], &[]));
        let labels = folder.write("labels", file(kind, &[0], &[]));
        assert_eq!(read::<f32>(&path).unwrap().1, [0.0; 0]);
        assert!(matches!(load::<f32>(&path, &labels), Err(Error::SampleCount { .. })));
        let path = folder.write("file", file(kind, &[0, u32::MAX, u32::MAX], &[]));
        assert!(matches!(load::<f32>(&path, &labels), Err(Error::Empty { .. })));
    }
    // The dimensions themselves are cut off.
    let mut short = file(0x08, &[1; 200], &[1]);
    short.truncate(300);
    assert!(matches!(read::<f32>(folder.write("file", short)), Err(Error::Truncated { .. })));
}
