//! Comma-separated files of every dialect, and those that are not what they are said to be.
#![allow(clippy::format_collect)] // Short texts.

use crate::{common, helpers::labels_in};

use common::Folder;
use feedback_alignment::{
    Dataset, Error, Targets,
    data::csv::{
        Column, Format, Header, RowNumbers, Table, Target, load, load_features, load_table,
    },
    nalgebra::DMatrix,
};

fn table(text: impl AsRef<[u8]>, format: &Format) -> Result<Table<f64>, Error> {
    load_table(Folder::new().write("table.csv", text), format)
}

fn absent(target: Target) -> Format {
    Format { header: Header::Absent, target, ..Format::default() }
}

fn class(column: impl Into<Column>) -> Target {
    Target::Class(column.into())
}

#[track_caller]
fn refuse(text: &str, format: &Format, parts: &[&str]) {
    let error = table(text, format).unwrap_err();
    assert!(matches!(error, Error::Columns { .. }), "{text:?}: {error:?}");
    let message = error.to_string();
    for part in parts.iter().chain(&["table.csv"]) {
        assert!(message.contains(part), "'{message}' does not name '{part}'");
    }
}

#[test]
fn every_delimiter_and_packing_gives_the_same_table() {
    let expected = table("label,a,b\n1,2.5,3\n0,5,6\n", &Format::default()).unwrap();
    assert_eq!(expected.columns, ["a", "b"]);
    assert_eq!(expected.classes, [""; 0]);
    for delimiter in *b";\t| :,~&" {
        let text = "label,a,b\n1,2.5,3\n0,5,6\n".replace(',', &char::from(delimiter).to_string());
        let format = Format { delimiter, ..Format::default() };
        let found = table(&text, &format).unwrap();
        assert_eq!(found, expected, "{delimiter}");
        #[cfg(feature = "gzip")]
        assert_eq!(table(common::gzip(text.as_bytes()), &format).unwrap(), expected);
    }
    // Nothing that may stand in a cell, or ends a line, and no part of a character.
    for delimiter in (0..=u8::MAX).filter(|byte| {
        byte.is_ascii_alphanumeric() || !byte.is_ascii() || b"\"+-.\r\n\0".contains(byte)
    }) {
        let error =
            table("label,a\n1,2\n", &Format { delimiter, ..Format::default() }).unwrap_err();
        let named = matches!(error, Error::InvalidParameter { name: "delimiter", .. });
        assert!(named, "{delimiter}: {error:?}");
    }
    // The wrong one shows the row.
    let error = table("label;a\n1;2\n", &Format::default()).unwrap_err();
    assert!(error.to_string().contains("label;a"), "{error}");
}

#[test]
fn columns_are_left_out_by_name_and_index() {
    let text = "a,name,label,b,note\n1,Ann,0,2,\n3,Bob,1,4,x y\n";
    let leave_out: Vec<Column> = vec!["name".into(), 4.into()];
    let found = table(text, &Format { leave_out, ..Format::default() }).unwrap();
    assert_eq!(found.columns, ["a", "b"]);
    assert_eq!(found.data, Dataset::from_bytes(2, vec![1, 2, 3, 4], vec![0, 1]).unwrap());

    let rows = text.split_once('\n').unwrap().1;
    let leave_out: Vec<Column> = vec![1.into(), 4.into()];
    let format = Format { leave_out: leave_out.clone(), ..absent(class(2)) };
    let without = table(rows, &format).unwrap();
    assert_eq!((without.data, without.columns), (found.data, vec![]));

    let path = Folder::new();
    let path = path.write("test.csv", "a,name,b\n1,Ann,2\n3,Bob,4\n");
    let format = Format { leave_out: vec!["name".into()], ..Format::default() };
    let x = load_features::<f64>(path, &format).unwrap();
    assert_eq!(x, DMatrix::from_column_slice(2, 2, &[1.0, 2.0, 3.0, 4.0]));

    for missing in [Column::from("c"), 5.into(), usize::MAX.into()] {
        let format = Format { leave_out: vec![missing], ..Format::default() };
        assert!(matches!(table(text, &format), Err(Error::NoSuchColumn { .. })));
    }
    let format = Format { leave_out: vec!["label".into()], ..Format::default() };
    refuse(text, &format, &["'label' is a target and left out"]);
}

#[test]
fn classes_may_be_written_as_numbers_of_any_kind() {
    for (text, expected) in [
        ("0", 0),
        ("1.0", 1),
        ("7.", 7),
        ("1e2", 100),
        ("+3", 3),
        ("65536", 65_536),
        ("4294967295", 4_294_967_295),
        ("4294967295.0", 4_294_967_295),
    ] {
        let found = table(format!("label,a\n{text},2\n"), &Format::default()).unwrap();
        assert_eq!(labels_in(&found.data), [expected], "{text}");
    }
    for text in ["0.5", "-1.0", "4294967296", "1e20", "1,0", "one", "", "0x1", "NaN", "-inf"] {
        let error = table(format!("label,a\n\"{text}\",2\n"), &Format::default()).unwrap_err();
        assert!(matches!(error, Error::Cell { line: 2, column: 1, .. }), "{text}: {error:?}");
    }
}

#[test]
fn classes_by_name_are_sorted_and_kept() {
    let text = "length,species\n5.1,setosa\n7.0,versicolor\n6.3, Virginica \n4.9,setosa\n";
    let format = Format { target: Target::Text("species".into()), ..Format::default() };
    let found = table(text, &format).unwrap();
    assert_eq!(found.classes, ["Virginica", "setosa", "versicolor"]);
    assert_eq!(labels_in(&found.data), [1, 2, 0, 1]);
    assert_eq!(found.data.classes(), Some(3));

    // Without a header, and whatever the order of the rows.
    let rows = "4.9,setosa\n6.3,Virginica\n5.1,setosa\n7.0,versicolor\n";
    let other = table(rows, &absent(Target::Text(1.into()))).unwrap();
    assert_eq!((&other.classes, labels_in(&other.data)), (&found.classes, vec![1, 0, 1, 2]));

    // A test set in which not all of them occur.
    let target = Target::OneOf("species".into(), found.classes.clone());
    let format = Format { target, ..format };
    let test = table("length,species\n1,versicolor\n2,setosa\n", &format).unwrap();
    assert_eq!((&test.classes, labels_in(&test.data)), (&found.classes, vec![2, 1]));
    let error = table("length,species\n1,versicolour\n", &format).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("one of the classes, found 'versicolour'"), "{message}");
    let error =
        table("a,species\n1,\n", &Format { target: Target::Text(1.into()), ..format.clone() });
    assert!(error.unwrap_err().to_string().contains("the name of a class"));
    let target = Target::OneOf("species".into(), vec!["a".into(), "b".into(), "a ".into()]);
    refuse(text, &Format { target, ..format }, &["two classes 'a"]);
}

#[test]
fn real_valued_targets_come_in_the_order_asked_for() {
    let text = "x,u,y,v\n1,0.5,2,-1\n3,1.5,4,1e3\n";
    let target = Target::Values(vec!["v".into(), 1.into()]);
    let found = table(text, &Format { target, ..Format::default() }).unwrap();
    assert_eq!(found.columns, ["x", "y"]);
    let x = DMatrix::from_column_slice(2, 2, &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(found.data.inputs(), x);
    let Targets::Values(values) = found.data.targets() else { panic!("labels") };
    assert_eq!(values, DMatrix::from_column_slice(2, 2, &[-1.0, 0.5, 1000.0, 1.5]));

    let values =
        |columns: Vec<Column>| Format { target: Target::Values(columns), ..<_>::default() };
    refuse(text, &values(vec!["u".into(), 1.into()]), &["column 1 is a target twice"]);
    assert!(matches!(table(text, &values(vec![])), Err(Error::Empty { .. })));
    let error = table("x,y\n1,nan\n", &values(vec!["y".into()])).unwrap_err();
    assert!(matches!(error, Error::Cell { line: 2, column: 2, .. }), "{error:?}");
    // Nothing is left to learn from.
    let error = table("x,y\n1,2\n", &values(vec!["y".into(), "x".into()])).unwrap_err();
    assert!(matches!(error, Error::Empty { .. }), "{error:?}");
}

#[test]
fn a_header_that_is_a_sample_is_refused() {
    for text in
        ["5,0,0\n1,2,3\n", "1,2\n3,4\n", "0,1,3\n0,1,2\n", "5.1,3.5,1\n4,3,2\n", "-1,1e3\n1,2\n"]
    {
        let format = Format { target: class(0), ..Format::default() };
        let row = text.lines().next().unwrap();
        refuse(text, &format, &["is a sample", row, "Header::Absent", "Header::Numbers"]);
        let path = Folder::new();
        let path = path.write("table.csv", text);
        assert!(matches!(load_features::<f64>(&path, &format), Err(Error::Columns { .. })));
        let format = Format { header: Header::Numbers, ..format };
        let columns: Vec<&str> = row.split(',').skip(1).collect();
        assert_eq!(load_table::<f64>(&path, &format).unwrap().columns, columns);
        assert_eq!(load::<f64>(&path, &format).unwrap().len(), 1);
    }
    // Names of classes, and what is left out, look like names in every row.
    let iris = "5.1,3.5,1.4,0.2,Iris-setosa\n7.0,3.2,4.7,1.4,Iris-versicolor\n";
    let format = Format { target: Target::Text(4.into()), ..Format::default() };
    refuse(iris, &format, &["is a sample", "5.1,3.5"]);
    let format = Format { leave_out: vec![4.into()], target: class(3), ..Format::default() };
    refuse(iris, &format, &["is a sample"]);
    // What pandas calls columns without names, and names that are found.
    for (text, target) in [
        ("0,1,2\n7,5,6\n", class(0)),
        ("0,1,2\n7,5,6\n", class("0")),
        ("0,1,2\n7,5,6\n", Target::Text("0".into())),
        ("label,0,1\n7,5,6\n", class("label")),
        ("label,400.5,401\n7,5,6\n", class("label")),
        ("label,400.5,401\n7,5,6\n", Target::Text("label".into())),
    ] {
        let found = table(text, &Format { target, ..Format::default() }).unwrap();
        assert_eq!(found.data.inputs().as_slice(), [5.0, 6.0], "{text}");
    }
    // Names where there should be none.
    let error = table("a,b\n1,2\n", &absent(class(0))).unwrap_err();
    assert!(matches!(error, Error::Cell { line: 1, column: 1, .. }), "{error:?}");
}

#[test]
fn a_second_column_of_the_targets_name_is_refused() {
    let default = Format::default();
    refuse("label,a,label\n1,2,1\n", &default, &["two columns are called 'label'"]);
    refuse("a,label,label.1\n1,2,2\n", &default, &["'label.1'", "leave_out"]);
    let by_index = Format { target: class(0), ..Format::default() };
    refuse("label,a,label\n1,2,1\n", &by_index, &["column 3", "leave_out"]);
    let values = Target::Values(vec!["y".into()]);
    refuse("x,y,y.2\n1,2,2\n", &Format { target: values, ..Format::default() }, &["'y.2'"]);
    // Which one it is can be said.
    let format = Format { leave_out: vec![2.into()], ..Format::default() };
    let found = table("label,a,label\n1,2,5\n", &format).unwrap();
    assert_eq!((labels_in(&found.data), found.columns), (vec![1], vec!["a".to_owned()]));
    // Other names are others.
    for text in
        ["label,labels,Label,label.x,label.\n1,2,3,4,5\n", "label,1.label,xlabel,a,b\n1,2,3,4,5\n"]
    {
        assert_eq!(table(text, &default).unwrap().data.features(), 4);
    }
    // Features alone have no target among them.
    let path = Folder::new();
    let path = path.write("table.csv", "label,a\n1,2\n");
    let error = load_features::<f64>(&path, &default).unwrap_err();
    assert!(matches!(error, Error::Columns { .. }), "{error:?}");
    let format = Format { leave_out: vec!["label".into()], ..default };
    assert_eq!(load_features::<f64>(&path, &format).unwrap().as_slice(), [2.0]);
}

#[test]
fn row_numbers_are_refused_unless_they_are_kept() {
    // As pandas, R and others write them; in any order, as in a part of a shuffled file.
    for (name, numbers) in [
        ("", ["0", "1", "2"]),
        ("Unnamed: 0", ["0", "1", "2"]),
        ("Unnamed: 0.1", ["17", "4", "2"]),
        ("\"\"", ["\"1\"", "\"2\"", "\"3\""]),
        ("id", ["1", "2", "3"]),
        ("Id", ["5", "1", "9"]),
        ("ID", ["100000", "100001", "100002"]),
        ("index", ["0.0", "1.0", "2.0"]),
        ("PassengerId", ["892", "893", "894"]),
        ("sample_id", ["3", "2", "1"]),
    ] {
        let rows = numbers.map(|number| format!("1,{number},2.5\n")).concat();
        let text = format!("label,{name},a\n{rows}");
        let shown = name.trim_matches('"');
        let named = format!("column 2 ('{shown}') numbers the rows");
        refuse(&text, &Format::default(), &[&named, "leave_out", "RowNumbers::Keep"]);
        let kept = Format { row_numbers: RowNumbers::Keep, ..Format::default() };
        assert_eq!(table(&text, &kept).unwrap().columns, [shown, "a"]);
        let leave_out = vec![Column::from(1)];
        let left_out = table(&text, &Format { leave_out, ..Format::default() }).unwrap();
        assert_eq!(left_out.columns, ["a"]);
    }
    // Features of these names that number nothing, and others that do by chance.
    for (name, numbers) in [
        ("id", ["1", "2", "1"]),
        ("id", ["1", "2", "2.5"]),
        ("id", ["-1", "0", "1"]),
        ("humid", ["1", "2", "3"]),
        ("GRID", ["1", "2", "3"]),
        ("day", ["1", "2", "3"]),
    ] {
        let rows = numbers.map(|number| format!("1,{number},2.5\n")).concat();
        let found = table(format!("label,{name},a\n{rows}"), &Format::default()).unwrap();
        assert_eq!(found.data.features(), 2, "{name}");
    }
    // A target may be called so.
    let target = Target::Values(vec!["id".into()]);
    assert!(table("id,a\n1,2\n2,3\n", &Format { target, ..Format::default() }).is_ok());
}

#[test]
fn a_first_column_that_counts_ten_rows_is_refused_without_a_header() {
    let rows = |first: u32, count: u32, step: u32| -> String {
        (0..count).map(|row| format!("{},{}.5,1\n", first + row * step, row * 7 % 5)).collect()
    };
    let format = absent(class(2));
    for first in [0, 1, 1000, 16_777_216] {
        refuse(&rows(first, 10, 1), &format, &["column 1 numbers the rows"]);
        refuse(&rows(first, 50, 1), &format, &["column 1 numbers the rows"]);
        assert!(table(rows(first, 9, 1), &format).is_ok());
        assert!(table(rows(first, 50, 2), &format).is_ok());
        let broken = rows(first, 20, 1) + "5,5,1\n";
        assert!(table(broken, &format).is_ok());
        let kept = Format { row_numbers: RowNumbers::Keep, ..format.clone() };
        assert_eq!(table(rows(first, 10, 1), &kept).unwrap().data.features(), 2);
        let left = Format { leave_out: vec![0.into()], ..format.clone() };
        assert_eq!(table(rows(first, 10, 1), &left).unwrap().data.features(), 1);
        // In `f32`, where large numbers are equal.
        let path = Folder::new();
        let path = path.write("table.csv", rows(first, 10, 1));
        assert!(matches!(load::<f32>(&path, &format), Err(Error::Columns { .. })));
        assert!(matches!(load_features::<f32>(&path, &format), Err(Error::Columns { .. })));
    }
    // Elsewhere, or as the class, it says something.
    let counted: String = (0..20).map(|row| format!("{row},7.5,{row}\n")).collect();
    assert!(table(counted, &absent(class(0))).is_ok());
}

/// Messages stay readable whatever stands in a file.
#[test]
fn long_cells_are_shortened() {
    let long = "ä".repeat(100_000);
    for text in
        [format!("label,a\n1,{long}\n"), format!("{long},a\n1,2\n"), format!("label,a\n{long},1\n")]
    {
        let message = table(text, &Format::default()).unwrap_err().to_string();
        assert!(message.len() < 600, "{} bytes", message.len());
    }
}
