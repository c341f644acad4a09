//! The loaders: what they read, and how they refuse everything else.

use crate::{common, helpers::labels_in};

use std::{
    fs,
    path::{Path, PathBuf},
};

use common::{Folder, idx};
use feedback_alignment::{
    Dataset, Error,
    data::idx::{load, load_dir},
};
use proptest::{prelude::*, test_runner::TestRunner};

/// Three images of 2 × 4 pixels.
fn images() -> Vec<u8> {
    idx(&[3, 2, 4], &(0..24).map(|pixel| 10 * pixel).collect::<Vec<_>>())
}

/// The labels of three images.
fn three_labels() -> Vec<u8> {
    idx(&[3], &[7, 0, 2])
}

/// How a file can be stored: its name's end, and what happens to its bytes.
type Packing = (&'static str, fn(&[u8]) -> Vec<u8>);

const PACKINGS: &[Packing] = &[
    ("", <[u8]>::to_vec),
    #[cfg(feature = "gzip")]
    (".gz", common::gzip),
];

fn assert_names(error: &Error, parts: &[&str]) {
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "'{message}' does not name '{part}'");
    }
}

#[test]
fn every_pixel_value_is_divided_by_255_exactly() {
    let pixels: Vec<u8> = (0..=255).collect();
    for (end, pack) in PACKINGS {
        let folder = Folder::new();
        let images = folder.write("images", pack(&idx(&[2, 16, 8], &pixels)));
        let targets = folder.write("labels", pack(&idx(&[2], &[255, 3])));
        let double: Dataset<f64> = load(&images, &targets).unwrap();
        let single: Dataset<f32> = load(&images, &targets).unwrap();
        assert_eq!((double.len(), double.features(), double.classes()), (2, 128, Some(256)));
        assert_eq!(labels_in(&double), [255, 3]);
        for (byte, (d, s)) in (0..=255_u8).zip(double.inputs().iter().zip(single.inputs().iter())) {
            assert_eq!(d.to_bits(), (f64::from(byte) / 255.0).to_bits(), "{byte}{end}");
            assert_eq!(s.to_bits(), (f32::from(byte) / 255.0).to_bits(), "{byte}{end}");
        }
    }
}

#[test]
fn a_folder_is_read_under_every_spelling_of_its_files() {
    let sets =
        [("train", images(), three_labels()), ("t10k", idx(&[1, 2, 4], &[9; 8]), idx(&[1], &[4]))];
    for separator in ['-', '.'] {
        for (end, pack) in PACKINGS {
            let folder = Folder::new();
            for (set, images, labels) in &sets {
                folder.write(&format!("{set}-images{separator}idx3-ubyte{end}"), pack(images));
                folder.write(&format!("{set}-labels{separator}idx1-ubyte{end}"), pack(labels));
            }
            let mnist = load_dir::<f32>(folder.path("")).unwrap();
            assert_eq!((labels_in(&mnist.train), labels_in(&mnist.test)), (vec![7, 0, 2], vec![4]));
            assert_eq!(mnist.train.inputs()[(7, 2)], 230.0 / 255.0);
            assert_eq!(mnist.test.inputs().as_slice(), [9.0 / 255.0; 8]);
        }
    }
}

#[test]
fn a_missing_file_is_named_with_its_folder_and_every_spelling() {
    let names = |set: &str, kind: &str, dimensions: u8| {
        ["-", "."].map(|mark| format!("{set}-{kind}{mark}idx{dimensions}-ubyte"))
    };
    let folder = Folder::new();
    let refuse = |missing: [String; 2]| {
        let error = load_dir::<f32>(folder.path("")).unwrap_err();
        assert!(matches!(error, Error::MissingFile { .. }), "{error:?}");
        assert_names(&error, &[folder.path("").to_str().unwrap(), &missing[0], &missing[1], ".gz"]);
    };
    refuse(names("train", "images", 3));
    folder.write("train-images-idx3-ubyte", images());
    refuse(names("train", "labels", 1));
    folder.write("train-labels-idx1-ubyte", three_labels());
    refuse(names("t10k", "images", 3));
    fs::create_dir(folder.path("t10k-images-idx3-ubyte")).unwrap(); // A folder is not a file.
    refuse(names("t10k", "images", 3));
    folder.write("t10k-images.idx3-ubyte", images());
    refuse(names("t10k", "labels", 1));
    let error = load_dir::<f32>(folder.path("nowhere")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
    assert_names(&error, &["nowhere"]);
}

#[test]
fn what_is_no_file_is_named_with_the_systems_reason() {
    let folder = Folder::new();
    let good = folder.write("labels", three_labels());
    for (path, reason) in [(folder.path(""), "directory"), (folder.path("nowhere"), "No such file")]
    {
        let error = load::<f32>(&path, &good).unwrap_err();
        assert!(matches!(error, Error::Io { .. }), "{error:?}");
        let reason = if cfg!(unix) { reason } else { "" };
        assert_names(&error, &[path.to_str().unwrap(), reason]);
    }
}

/// Loads `images` with the three labels, in every packing; each must fail as `expected` says.
fn refuse_images(images: &[u8], expected: impl Fn(&Error) -> bool, parts: &[&str]) {
    refuse(images, &three_labels(), expected, parts);
}

fn refuse(images: &[u8], labels: &[u8], expected: impl Fn(&Error) -> bool, parts: &[&str]) {
    for (end, pack) in PACKINGS {
        let folder = Folder::new();
        let images = folder.write("images", pack(images));
        let labels = folder.write("labels", pack(labels));
        let error = load::<f32>(images, labels).unwrap_err();
        assert!(expected(&error), "{end}: {error:?}");
        assert_names(&error, parts);
    }
}

#[test]
fn a_foreign_start_is_refused_and_shown() {
    let changed = |index: usize, byte: u8| {
        let mut file = images();
        file[index] = byte;
        file
    };
    // The first two bytes are zero, the third is the type of the numbers.
    for (index, byte, found) in [
        (0, 1, "[01, 00, 08"),
        (1, 0xfe, "[00, fe, 08"),
        (2, 0x0a, "[00, 00, 0a"),
        (2, 0, "[00, 00, 00"),
    ] {
        refuse_images(
            &changed(index, byte),
            |error| matches!(error, Error::WrongFormat { .. }),
            &["images", "an IDX file", found],
        );
    }
    let text = b"PNG and more than four bytes";
    refuse_images(text, |e| matches!(e, Error::WrongFormat { .. }), &["'PNG and more"]);
    for dimensions in [0, 1, 2, 4, 255] {
        refuse_images(
            &changed(3, dimensions),
            |error| matches!(error, Error::IdxDimensions { expected: 3, .. }),
            &["images", "expected 3", &format!("says {dimensions}")],
        );
    }
}

#[test]
fn images_and_labels_are_not_taken_for_each_other() {
    refuse_images(
        &three_labels(),
        |error| matches!(error, Error::IdxDimensions { expected: 3, found: 1, .. }),
        &["images", "3", "1"],
    );
    refuse(
        &images(),
        &images(),
        |error| matches!(error, Error::IdxDimensions { expected: 1, found: 3, .. }),
        &["labels", "1", "3"],
    );
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    for (bytes, is_images) in [(images(), true), (three_labels(), false)] {
        for length in 0..bytes.len() {
            let cut = &bytes[..length];
            let truncated = |error: &Error| match error {
                Error::WrongFormat { found, .. } => length == 0 && found == "an empty file",
                error => matches!(error, Error::Truncated { .. }),
            };
            if is_images {
                refuse_images(cut, truncated, &["images", "expected"]);
            } else {
                refuse(&images(), cut, truncated, &["labels", "expected"]);
            }
        }
    }
}

#[test]
fn one_byte_too_many_is_refused() {
    let longer = |mut file: Vec<u8>| {
        file.push(0);
        file
    };
    refuse_images(
        &longer(images()),
        |error| matches!(error, Error::TrailingBytes { expected: 24, .. }),
        &["images", "24"],
    );
    refuse(
        &images(),
        &longer(three_labels()),
        |error| matches!(error, Error::TrailingBytes { expected: 3, .. }),
        &["labels", "3"],
    );
}

#[test]
fn a_header_that_promises_the_impossible_is_truncated() {
    for (sizes, promise) in [
        ([1 << 30, 1 << 15, 1 << 15], 1_u128 << 60),
        ([u32::MAX; 3], u128::from(u32::MAX).pow(3)),
        ([1 << 31, 1 << 31, 1 << 2], 1 << 64), // Zero, were it counted in 64 bits.
    ] {
        refuse_images(
            &idx(&sizes, &[1; 24]),
            |error| matches!(error, Error::Truncated { expected, .. } if *expected == promise),
            &["images", &promise.to_string()],
        );
    }
    let promise = u128::from(u32::MAX);
    refuse(
        &images(),
        &idx(&[u32::MAX], &[1; 3]),
        |error| matches!(error, Error::Truncated { expected, .. } if *expected == promise),
        &["labels", &promise.to_string()],
    );
}

#[test]
fn images_and_labels_must_be_as_many_and_at_least_one_with_a_pixel() {
    refuse(
        &images(),
        &idx(&[2], &[0, 1]),
        |error| matches!(error, Error::SampleCount { inputs: 3, targets: 2 }),
        &["3 inputs", "2 targets"],
    );
    let empty = |error: &Error| matches!(error, Error::Empty { .. });
    for (sizes, labels) in
        [([0, 2, 4], 0), ([3, 0, 4], 3), ([3, 2, 0], 3), ([0, u32::MAX, u32::MAX], 0)]
    {
        let (images, labels) = (idx(&sizes, &[]), idx(&[labels], &vec![0; labels as usize]));
        refuse(&images, &labels, empty, &["empty"]);
    }
    refuse_images(
        &idx(&[u32::MAX, 0, 0], &[]),
        |error| matches!(error, Error::SampleCount { targets: 3, .. }),
        &["4294967295 inputs"],
    );
}

#[cfg(not(feature = "gzip"))]
#[test]
fn a_compressed_file_names_the_feature_that_reads_it() {
    refuse_images(
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0],
        |error| matches!(error, Error::GzipDisabled { .. }),
        &["images", "gzip"],
    );
}

#[cfg(feature = "gzip")]
mod gzip {
    use super::{common::gzip, *};

    fn load_packed(images: &[u8]) -> Result<Dataset<f32>, Error> {
        let folder = Folder::new();
        load(folder.write("images.gz", images), folder.write("labels", three_labels()))
    }

    #[test]
    fn damage_never_goes_unnoticed() {
        let good = gzip(&images());
        let intact = load_packed(&good).unwrap();
        // Flags, time stamp, compression level and system; what fills up the last compressed byte.
        let harmless = |byte| (3..10).contains(&byte) || byte == good.len() - 9;
        for bit in 0..8 * good.len() {
            let mut damaged = good.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match load_packed(&damaged) {
                Ok(data) => assert!(harmless(bit / 8) && data == intact, "bit {bit}"),
                Err(error) => assert_names(&error, &["images.gz"]),
            }
        }
    }

    #[test]
    fn a_compressed_file_cut_anywhere_is_refused() {
        let good = gzip(&images());
        for length in 0..good.len() {
            let error = load_packed(&good[..length]).unwrap_err();
            let empty = matches!(&error, Error::WrongFormat { .. } if length == 0);
            let cut = matches!(error, Error::Truncated { .. } | Error::Io { .. });
            assert!(empty || cut, "{length}: {error:?}");
            assert_names(&error, &["images.gz"]);
        }
    }

    #[test]
    fn zeros_may_follow_the_end_and_nothing_else() {
        let good = gzip(&images());
        let expected = load_packed(&good).unwrap();
        for zeros in [1, 7, 512, 10_240, 1 << 20] {
            let padded = [&good[..], &vec![0; zeros]].concat();
            assert_eq!(load_packed(&padded).unwrap(), expected, "{zeros}");
        }
        // Zeros between members, as gzip refuses them too, and other bytes.
        for rest in [&[0, 0, 1][..], &[0, 0x1f], b"more", &[&[0; 9000][..], &good].concat()] {
            let error = load_packed(&[&good, rest].concat()).unwrap_err();
            assert!(matches!(error, Error::Io { .. }), "{error:?}");
            assert_names(&error, &["images.gz", "end of the compressed data"]);
        }
        let endless = [&good[..], &vec![0; (64 << 20) + 1]].concat();
        assert_names(&load_packed(&endless).unwrap_err(), &["end of the compressed data"]);
    }

    #[test]
    fn a_file_in_several_members_is_read_to_its_end() {
        let (first, second) = (images()[..10].to_vec(), images()[10..].to_vec());
        let members = [gzip(&first), gzip(&second)].concat();
        assert_eq!(load_packed(&members).unwrap(), load_packed(&gzip(&images())).unwrap());
    }

    /// The last member is broken: who inflates everything finds that, who stops in time does not.
    #[test]
    fn a_bomb_is_left_as_soon_as_it_is_too_long() {
        let zeros = gzip(&vec![0; 1 << 22]);
        let bomb: Vec<u8> = std::iter::once(gzip(&images()))
            .chain(std::iter::repeat_n(zeros.clone(), 256))
            .chain([zeros[..zeros.len() / 2].to_vec()])
            .flatten()
            .collect();
        let error = load_packed(&bomb).unwrap_err();
        assert!(matches!(error, Error::TrailingBytes { expected: 24, .. }), "{error:?}");

        let promising = [gzip(&idx(&[1 << 30, 1 << 15, 1 << 15], &[])), bomb].concat();
        let error = load_packed(&promising).unwrap_err();
        assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
        assert_names(&error, &[&(1_u128 << 60).to_string()]);
    }
}

#[cfg(feature = "csv")]
mod csv {
    use feedback_alignment::data::csv::{Format, Header, Target, load, load_features};

    use super::*;

    fn index(header: Header, label: usize) -> Format {
        Format { header, target: Target::Class(label.into()), ..Format::default() }
    }

    fn load_text(text: impl AsRef<[u8]>, format: &Format) -> Result<Dataset<f64>, Error> {
        load(Folder::new().write("table.csv", text), format)
    }

    fn features_of(text: impl AsRef<[u8]>, header: Header) -> Result<Vec<f64>, Error> {
        let format = Format { header, ..Format::default() };
        let path = Folder::new();
        let path = path.write("table.csv", text);
        load_features(path, &format).map(|x| x.as_slice().to_vec())
    }

    /// As the Digit Recognizer comes: `label,pixel0,…,pixel783`.
    #[test]
    fn the_digit_recognizer_is_read_as_it_comes_and_stays_bytes() {
        let pixels =
            |sample: usize| (0..784).map(move |k| u8::try_from((sample * 91 + k) % 256).unwrap());
        let comma = |cells: Vec<String>| cells.join(",") + "\n";
        let header = (0..784).map(|k| format!("pixel{k}"));
        let mut text = comma(std::iter::once("label".to_owned()).chain(header).collect());
        for (sample, label) in [1, 0, 9].into_iter().enumerate() {
            let cells = pixels(sample).map(|pixel| pixel.to_string());
            text += &comma(std::iter::once(label.to_string()).chain(cells).collect());
        }
        let digits = load_text(&text, &Format::default()).unwrap();
        let bytes = (0..3).flat_map(pixels).collect();
        assert_eq!(digits, Dataset::from_bytes(784, bytes, vec![1, 0, 9]).unwrap());
        assert_eq!(digits, load_text(&text, &index(Header::Present, 0)).unwrap());
        let rows = text.split_once('\n').unwrap().1;
        assert_eq!(digits, load_text(rows, &index(Header::Absent, 0)).unwrap());
    }

    #[test]
    fn the_label_column_may_stand_anywhere() {
        let bytes = vec![1, 2, 4, 5];
        let expected = Dataset::from_bytes(2, bytes, vec![3, 6]).unwrap();
        let named = |name: &str| Format { target: Target::Class(name.into()), ..Format::default() };
        for (text, format) in [
            ("digit,a,b\n3,1,2\n6,4,5\n", named("digit")),
            ("a,digit,b\n1,3,2\n4,6,5\n", named("digit")),
            ("a,b,digit\n1,2,3\n4,5,6\n", index(Header::Present, 2)),
            ("1,3,2\n4,6,5\n", index(Header::Absent, 1)),
        ] {
            assert_eq!(load_text(text, &format).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn the_same_table_is_read_in_every_dress() {
        let expected = load_text("label,a,b\n1,2,3\n0,5,6\n", &Format::default()).unwrap();
        for text in [
            "label,a,b\n1,2,3\n0,5,6",
            "label,a,b\r\n1,2,3\r\n0,5,6\r\n",
            "label,a,b\r1,2,3\r0,5,6\r",
            "\n\nlabel,a,b\n\n1,2,3\n\n\n0,5,6\n\n",
            "\"label\",\"a\",\"b\"\n\"1\",\"2\",\"3\"\n0,\"5\",6\n",
            " label , a , b \n 1,\t2, 3\n0 ,5 ,6 \n",
            "\u{feff}label,a,b\n1,2,3\n0,5,6\n",
            "label,\"a, or\n\"\"first\"\"\",b\n1,2,3\n0,5,6\n",
            "label,a,b\n1,2.0,3e0\n0,+5,06\n",
        ] {
            assert_eq!(load_text(text, &Format::default()).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn any_finite_number_is_a_feature_and_keeps_its_bits() {
        let values = [0.0, 255.0, -0.0, 256.0, -1.0, 0.5, 1e-3, 123_456.789, 5e-324, f64::MAX, 0.1];
        // One sample after the other: the numbers before the first that is no byte change too.
        let rows = values.map(|value| format!("1,{value:?}\n")).concat();
        let data = load_text(&rows, &index(Header::Absent, 0)).unwrap();
        let bits = |x: &[f64]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(data.inputs().as_slice()), bits(&values));
        let unlabelled = values.map(|value| format!("{value:?},7\n")).concat();
        let found = features_of(format!("x,y\n{unlabelled}"), Header::Present).unwrap();
        assert_eq!(bits(&found), bits(&values.iter().flat_map(|&x| [x, 7.0]).collect::<Vec<_>>()));
    }

    #[test]
    fn features_alone_are_read_without_labels() {
        let folder = Folder::new();
        let path = folder.write("test.csv", "a,b,c\n1,2,3\n4,5,6\n");
        let format = Format::default();
        let x = load_features::<f32>(&path, &format).unwrap();
        assert_eq!((x.shape(), x.as_slice()), ((3, 2), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0][..]));
        assert!(matches!(
            load_features::<f32>(&path, &Format { header: Header::Absent, ..format }),
            Err(Error::Cell { line: 1, column: 1, .. })
        ));
        for (text, header) in
            [("", Header::Absent), ("", Header::Present), ("a,b\n", Header::Present)]
        {
            let error = features_of(text, header).unwrap_err();
            let is_empty = matches!(error, Error::Empty { .. } | Error::WrongFormat { .. });
            assert!(is_empty, "{text:?}: {error:?}");
            assert_names(&error, &["table.csv"]);
        }
    }

    #[test]
    fn a_bad_cell_is_named_with_line_and_column() {
        let number = "a finite number";
        let class = "a class, a whole number from 0";
        for (text, line, column, expected, found) in [
            ("label,a,b\n1,2,x\n", 2, 3, number, "x"),
            ("label,a,b\n1,2,3\n1,,3\n", 3, 2, number, ""),
            ("label,a,b\r\n1,2,3\r\n1,2,3\r\n1,0x1f,3\r\n", 4, 2, number, "0x1f"),
            ("label,a,b\n\n\n1,2,3\n\n1,2,1 000\n", 6, 3, number, "1 000"),
            ("\u{feff}label,a,b\r\n\r\n1,2,3\r\n1,2,3\r\n1,2,_\r\n", 5, 3, number, "_"),
            ("label,a,b\r1,2,3\r1,!,3\r", 3, 2, number, "!"),
            ("\n\nlabel,a,b\n1,2,#", 4, 3, number, "#"),
            ("label,a,\"b\nb\"\n1,2,3\n1,2,?\n", 4, 3, number, "?"),
            ("label,a,b\n1,NaN,3\n", 2, 2, number, "NaN"),
            ("label,a,b\n1,2,inf\n", 2, 3, number, "inf"),
            ("label,a,b\n1,2,-infinity\n", 2, 3, number, "-infinity"),
            ("label,a,b\n1,2,1e999\n", 2, 3, number, "1e999"),
            ("label,a,b\n-1,2,3\n", 2, 1, class, "-1"),
            ("label,a,b\n1.5,2,3\n", 2, 1, class, "1.5"),
            ("label,a,b\ncat,2,3\n", 2, 1, class, "cat"),
            ("label,a,b\n,2,3\n", 2, 1, class, ""),
            ("label,a,b\n4294967296,2,3\n", 2, 1, class, "4294967296"),
            ("label,a,b\n-0,2,3\n", 2, 1, class, "-0"),
            ("label,a,b\n1e300,2,3\n", 2, 1, class, "1e300"),
            ("label,a,b\nNaN,2,3\n", 2, 1, class, "NaN"),
            ("label,a,b\ninf,2,3\n", 2, 1, class, "inf"),
        ] {
            let error = load_text(text, &Format::default()).unwrap_err();
            assert!(matches!(error, Error::Cell { .. }), "{text:?}: {error:?}");
            let place = format!("line {line}, column {column}");
            assert_names(&error, &["table.csv", &place, expected, &format!("'{found}'")]);
        }
        // 1e39 is a number in one scalar and infinite in the other.
        let path = Folder::new();
        let path = path.write("table.csv", "label,a\n1,1e39\n");
        assert!(load::<f64>(&path, &Format::default()).is_ok());
        assert!(matches!(load::<f32>(&path, &Format::default()), Err(Error::Cell { .. })));
    }

    #[test]
    fn a_ragged_row_is_named_with_both_lengths() {
        for (text, line, found) in [
            ("label,a,b\n1,2,3\n1,2\n", 3, 2),
            ("label,a,b\n1,2,3\n1,2,3,4\n", 3, 4),
            ("label,a,b\r\n\r\n1,2,3\r\n1,2,3,4\r\n", 4, 4),
            ("label,a,b\n1\n", 2, 1),
        ] {
            let error = load_text(text, &Format::default()).unwrap_err();
            assert!(matches!(error, Error::RowLength { expected: 3, .. }), "{error:?}");
            let parts = [format!("line {line} "), format!("has {found} cells")];
            assert_names(&error, &["table.csv", &parts[0], &parts[1], "has 3"]);
        }
    }

    #[test]
    fn a_missing_label_column_is_named_beside_those_there_are() {
        for (text, format, name) in [
            ("digit,a\n1,2\n", Format::default(), "'label'"),
            ("Label,a\n1,2\n", Format::default(), "'label'"),
            ("digit,a\n1,2\n", index(Header::Present, 2), "2"),
            ("digit,a\n1,2\n", index(Header::Absent, usize::MAX), "18446744073709551615"),
        ] {
            let error = load_text(text, &format).unwrap_err();
            assert!(matches!(error, Error::NoSuchColumn { .. }), "{text:?}: {error:?}");
            let first = text.lines().next().unwrap();
            assert_names(&error, &["table.csv", name, first]);
        }
        assert!(matches!(load_text("", &Format::default()), Err(Error::WrongFormat { .. })));
        assert!(matches!(load_text("\n\n", &Format::default()), Err(Error::Empty { .. })));
    }

    /// A first row that is a sample names nothing, even where a cell reads like the name.
    #[test]
    fn without_a_header_no_column_has_a_name() {
        let target = Target::Class("5".into());
        let format = Format { header: Header::Absent, target, ..Format::default() };
        let error = load_text("1,5\n2,6\n", &format).unwrap_err();
        assert!(matches!(error, Error::NoSuchColumn { .. }), "{error:?}");
        assert_names(&error, &["'5'"]);
    }

    #[test]
    fn a_table_without_samples_or_features_is_empty() {
        for text in ["label,a\n", "label\n1\n2\n", "label,a"] {
            let error = load_text(text, &Format::default()).unwrap_err();
            assert!(matches!(error, Error::Empty { .. }), "{text:?}: {error:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_refused_with_their_line() {
        let error = load_text(b"label,a\n1,2\n1,\xff\xfe\n", &Format::default()).unwrap_err();
        assert!(matches!(error, Error::Cell { .. }), "{error:?}");
        assert_names(&error, &["table.csv", "line 3, column 2", "UTF-8"]);
    }

    #[test]
    fn what_is_no_file_is_named() {
        let folder = Folder::new();
        for path in [folder.path("nowhere.csv"), folder.path("")] {
            let error = load::<f32>(&path, &Format::default()).unwrap_err();
            assert_names(&error, &[path.to_str().unwrap()]);
        }
    }
}

/// What happens to a file on its way: bytes change, the end is lost, something is added.
#[derive(Clone, Debug)]
struct Damage {
    changes: Vec<(prop::sample::Index, u8)>,
    keep: prop::sample::Index,
    cut: bool,
    extra: Vec<u8>,
}

impl Damage {
    fn any() -> impl Strategy<Value = Self> {
        let changes = prop::collection::vec(any::<(prop::sample::Index, u8)>(), 0..4);
        let extra = prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any::<u8>(), 1..40)];
        (changes, any::<prop::sample::Index>(), prop::bool::weighted(0.2), extra)
            .prop_map(|(changes, keep, cut, extra)| Self { changes, keep, cut, extra })
    }

    fn done_to(&self, mut file: Vec<u8>) -> Vec<u8> {
        for (index, byte) in &self.changes {
            *index.get_mut(&mut file) = *byte;
        }
        if self.cut {
            file.truncate(self.keep.index(file.len()));
        }
        [file, self.extra.clone()].concat()
    }
}

/// A dataset that came out of a loader is whole, whatever went in.
fn assert_sound(data: &Dataset<f32>) {
    let inputs = data.inputs();
    assert_eq!((data.features(), data.len()), inputs.shape());
    assert_eq!(data.len(), labels_in(data).len());
    assert!(inputs.iter().all(|x| x.is_finite()));
}

fn load_every_way(path: &Path, [images, labels]: &[PathBuf; 2]) {
    let _ = load::<f32>(path, labels).inspect(assert_sound);
    let _ = load::<f32>(images, path).inspect(assert_sound);
    #[cfg(feature = "csv")]
    {
        use feedback_alignment::data::csv;

        let _ = csv::load::<f32>(path, &csv::Format::default()).inspect(assert_sound);
        let target = csv::Target::Text(0.into());
        let mut format = csv::Format { header: csv::Header::Absent, target, ..<_>::default() };
        let _ = csv::load::<f32>(path, &format).inspect(assert_sound);
        let _ = csv::load_features::<f32>(path, &format);
        format.target = csv::Target::Values(vec![1.into(), 0.into()]);
        let _ = csv::load::<f32>(path, &format);
    }
}

#[test]
fn no_file_makes_a_loader_panic() {
    let folder = Folder::new();
    let whole = [folder.write("images", images()), folder.write("labels", three_labels())];
    let table = b"label,a,b\n1,2,3\r\n0,\"4\",0.5\n".to_vec();
    let noise = prop::collection::vec(any::<u8>(), 0..200);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(2_000));
    let result = runner.run(&(noise, Damage::any()), |(noise, damage)| {
        let texts =
            noise.iter().map(|byte| b"0123456789.,-+e\"\r\n ainfx"[usize::from(*byte) % 24]);
        let mut files = vec![texts.collect(), noise.clone()];
        for good in [images(), three_labels(), table.clone()] {
            files.push(damage.done_to(good.clone()));
            #[cfg(feature = "gzip")]
            files
                .extend([damage.done_to(common::gzip(&good)), common::gzip(&damage.done_to(good))]);
        }
        for file in files {
            let path = folder.write("file", file);
            load_every_way(&path, &whole);
            // Some file systems flush a file that is written over; a new one costs less.
            fs::remove_file(path).unwrap();
        }
        Ok(())
    });
    result.unwrap();
}
