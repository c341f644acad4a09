//! The log of a run: its numbers are those that training returned, in CSV and in JSON lines.

use std::io::{self, Write};

use feedback_alignment::{
    Dataset, Diagnosis, Diagnostics, Epoch, Error, Evaluation, Log, Loss, Network, Trainer,
    nalgebra::DMatrix,
};

/// What three epochs come to, tested on other samples than they learned from.
fn run(values: bool) -> Vec<(Epoch, Evaluation, Diagnosis)> {
    let x = DMatrix::from_fn(3, 20, |i, j| ((i * 7 + j * 3) % 11) as f64 / 11.0);
    let data = if values {
        Dataset::with_values(x.clone(), &x.rows(0, 2).into_owned()).unwrap()
    } else {
        Dataset::new(x.clone(), (0..20).map(|j| j % 2).collect()).unwrap()
    };
    let builder = Network::builder(3).dense(5).tanh().dense(4).relu().dense(2);
    let loss = if values { Loss::MeanSquaredError } else { Loss::SoftmaxCrossEntropy };
    let mut trainer = Trainer::builder(builder.build().unwrap()).loss(loss).build().unwrap();
    let mut diagnostics = Diagnostics::new(trainer.network()).unwrap();
    let test = data.subset(&[1, 3, 4, 5]).unwrap();
    (0..3)
        .map(|_| {
            let epoch = trainer.epoch(&data).unwrap();
            let diagnosis = diagnostics.observe(&trainer, &x, data.targets()).unwrap();
            (epoch, trainer.evaluate(&test).unwrap(), diagnosis)
        })
        .collect()
}

fn text(log: Log<Vec<u8>>) -> String {
    String::from_utf8(log.into_inner()).unwrap()
}

/// The columns and the rows of a log in CSV, read without any library.
fn read_csv(text: &str) -> (Vec<&str>, Vec<Vec<Option<f64>>>) {
    let mut lines = text.lines();
    let names = lines.next().unwrap().split(',').collect();
    let cell = |cell: &str| (!cell.is_empty()).then(|| cell.parse().unwrap());
    (names, lines.map(|line| line.split(',').map(cell).collect()).collect())
}

#[test]
fn both_forms_hold_the_numbers_to_the_bit() {
    for values in [false, true] {
        let (mut csv, mut json) = (Log::csv(Vec::new()), Log::json_lines(Vec::new()));
        let epochs = run(values);
        for (epoch, test, diagnosis) in &epochs {
            csv.record(epoch, Some(test), Some(diagnosis)).unwrap();
            json.record(epoch, Some(test), Some(diagnosis)).unwrap();
        }
        let (csv, json) = (text(csv), text(json));
        let (names, rows) = read_csv(&csv);
        assert_eq!((rows.len(), json.lines().count()), (3, 3));
        for (((epoch, test, diagnosis), row), line) in epochs.iter().zip(rows).zip(json.lines()) {
            let object: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(line).unwrap();
            assert_eq!((row.len(), object.len()), (names.len(), names.len()));
            for (name, cell) in names.iter().zip(&row) {
                assert_eq!(object[*name].as_f64(), *cell, "{name}");
            }
            let of = |name: &str| row[names.iter().position(|&other| other == name).unwrap()];
            assert_eq!(of("epoch"), Some(epoch.number as f64));
            assert_eq!(of("learning_rate"), Some(epoch.learning_rate));
            assert_eq!((of("loss"), of("error_rate")), (Some(epoch.loss), epoch.error_rate));
            assert_eq!(
                (of("test_loss"), of("test_error_rate")),
                (Some(test.loss), test.error_rate)
            );
            assert_eq!(of("error_rate").is_none(), values);
            assert_eq!(of("error_rate") == of("test_error_rate"), values);
            for (layer, row) in diagnosis.layers.iter().enumerate() {
                assert_eq!(of(&format!("layer{layer}_delta_angle")), row.delta_angle);
                assert_eq!(of(&format!("layer{layer}_common_mode")), row.common_mode);
            }
        }
    }
}

/// Letter by letter, with numbers that are whole, not there and not finite.
#[test]
fn a_line_is_written_as_its_form_demands() {
    let (mut epoch, mut test, _) = run(false).remove(0);
    (epoch.number, epoch.learning_rate) = (7, 1e-4);
    (epoch.loss, epoch.error_rate) = (f64::INFINITY, None);
    (test.loss, test.error_rate) = (f64::NAN, Some(0.25));
    let (mut csv, mut json) = (Log::csv(Vec::new()), Log::json_lines(Vec::new()));
    csv.record(&epoch, Some(&test), None).unwrap();
    json.record(&epoch, Some(&test), None).unwrap();
    let names = "epoch,learning_rate,loss,error_rate,test_loss,test_error_rate";
    assert_eq!(text(csv), format!("{names}\n7,0.0001,inf,,NaN,0.25\n"));
    let object = r#"{"epoch":7,"learning_rate":0.0001,"loss":null,"error_rate":null,"test_loss":null,"test_error_rate":0.25}"#;
    assert_eq!(text(json), format!("{object}\n"));
}

/// The columns of a diagnosis are its fields: all of them, and under their names.
#[cfg(feature = "serde")]
#[test]
fn a_layer_has_a_column_for_each_field() {
    let (epoch, _, diagnosis) = run(false).remove(0);
    let mut log = Log::json_lines(Vec::new());
    log.record(&epoch, None, Some(&diagnosis)).unwrap();
    let object: serde_json::Value = serde_json::from_str(&text(log)).unwrap();
    let mut count = 4;
    for row in &diagnosis.layers {
        let fields = serde_json::to_value(row).unwrap();
        for (name, value) in fields.as_object().unwrap().iter().filter(|(name, _)| *name != "layer")
        {
            let column = &object[format!("layer{}_{name}", row.layer)];
            assert_eq!(column.as_f64(), value.as_f64(), "{name}");
            count += 1;
        }
    }
    assert_eq!(object.as_object().unwrap().len(), count);
}

#[test]
fn a_later_line_of_csv_may_have_less_but_not_more() {
    let epochs = run(false);
    let (epoch, test, diagnosis) = &epochs[0];
    let mut log = Log::csv(Vec::new());
    log.record(epoch, Some(test), None).unwrap();
    log.record(epoch, None, None).unwrap();
    let refused = log.record(epoch, Some(test), Some(diagnosis)).unwrap_err();
    assert!(matches!(refused, Error::Conflict { .. }), "{refused}");
    assert!(refused.to_string().contains("layer0_delta_angle"), "{refused}");
    let text = text(log);
    let (_, rows) = read_csv(&text);
    assert_eq!(rows.len(), 2, "what is refused is not written");
    assert_eq!(rows[0][..4], rows[1][..4]);
    assert_eq!((rows[0][4], &rows[1][4..]), (Some(test.loss), &[None, None][..]));
}

/// Keeps what has been flushed. Takes `room` bytes; what is more fails, and after the failure there are
/// `freed` bytes more.
#[derive(Debug, Default)]
struct Disk {
    unflushed: Vec<u8>,
    flushed: Vec<u8>,
    room: usize,
    freed: usize,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room {
            self.room += self.freed;
            return Err(io::Error::other("the disk is full"));
        }
        self.room -= bytes.len();
        self.unflushed.extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let bytes = std::mem::take(&mut self.unflushed);
        self.flushed.extend(bytes);
        Ok(())
    }
}

#[test]
fn every_line_is_flushed_and_a_full_disk_is_an_error() {
    let (epoch, test, _) = run(false).remove(0);
    let mut disk = Disk { room: 250, ..Disk::default() };
    let mut log = Log::csv(&mut disk);
    let results = [(); 9].map(|()| log.record(&epoch, Some(&test), None));
    let written = results.iter().filter(|result| result.is_ok()).count();
    assert!((1..9).contains(&written), "{written}");
    assert!(results.iter().flat_map(Result::as_ref).count() == written);
    let message = results[8].as_ref().unwrap_err().to_string();
    assert_eq!(message, "the writer: the disk is full");
    let text = String::from_utf8(disk.flushed).unwrap();
    assert_eq!(text.lines().count(), 1 + written);
    assert!(disk.unflushed.is_empty() && text.ends_with('\n'));
}

/// The names and the first line are one piece: what could not be written is not half there, and comes again.
#[test]
fn a_first_line_that_failed_is_written_the_next_time() {
    let (epoch, test, _) = run(false).remove(0);
    let mut disk = Disk { room: 70, freed: 300, ..Disk::default() }; // Enough for the names alone.
    let mut log = Log::csv(&mut disk);
    assert!(log.record(&epoch, Some(&test), None).is_err());
    log.record(&epoch, Some(&test), None).unwrap();
    let text = String::from_utf8(disk.flushed).unwrap();
    assert!(text.starts_with("epoch,") && text.lines().count() == 2, "{text}");
}
