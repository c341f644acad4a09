//! The results of a run as data: a line for each epoch.

use std::{fmt::Write as _, io::Write, path::Path};

use crate::{
    diagnostics::Diagnosis,
    error::{Error, Result},
    files::WRITER,
    trainer::{Epoch, Evaluation},
};

/// Writes the results of each epoch as a line of CSV or JSON, for programs that draw or compare runs.
///
/// The columns are `epoch`, `learning_rate`, `loss` and `error_rate`. With an evaluation there are also
/// `test_loss` and `test_error_rate`. With a diagnosis there are also the fields of
/// [`LayerDiagnosis`](crate::LayerDiagnosis) for each layer, counted from 0, with the layer in front:
/// `layer0_delta_angle`, `layer0_gradient_angle`, ... The units are those of the fields: rates are
/// fractions from 0 to 1, angles are in degrees. Numbers are written so that reading them gives exactly
/// the same numbers.
///
/// Every line is written as a whole and flushed, so a run that is killed keeps its lines. To continue
/// in the same file, open it to append. Use JSON lines for that, because CSV would write its header
/// again.
///
/// ```
/// use feedback_alignment::{Dataset, Log, Network, Trainer, nalgebra::DMatrix};
///
/// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
/// let data = Dataset::new(x, (0..40).map(|j| j % 2).collect())?;
/// let (train, test) = data.split(10, 1)?;
/// let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
/// let mut trainer = Trainer::builder(network).build()?;
/// let mut log = Log::csv(Vec::new()); // Or std::fs::File::create("run.csv")?
/// for _ in 0..3 {
///     let epoch = trainer.epoch(&train)?;
///     log.record(&epoch, Some(&trainer.evaluate(&test)?), None)?;
/// }
/// let text = String::from_utf8(log.into_inner()).expect("all of it is ASCII");
/// assert_eq!(
///     text.lines().next(),
///     Some("epoch,learning_rate,loss,error_rate,test_loss,test_error_rate")
/// );
/// assert_eq!(text.lines().count(), 1 + 3);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Log<W> {
    writer: W,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// The names of the columns; empty until the first line is written.
    Csv(Vec<String>),
    JsonLines,
}

/// A name and its number; `None` if there is no number.
type Cell = (String, Option<f64>);

impl<W: Write> Log<W> {
    /// Comma-separated values. The first line has the names, and a cell is empty if there is no number.
    ///
    /// The first record decides which columns there are. Later records may leave out the evaluation or
    /// the diagnosis.
    pub fn csv(writer: W) -> Self {
        Self { writer, form: Form::Csv(Vec::new()) }
    }

    /// JSON lines: each line is an object, with `null` if there is no number.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Log, Network, Trainer, nalgebra::DMatrix};
    ///
    /// let data = Dataset::new(DMatrix::from_element(2, 4, 0.5_f32), vec![0, 1, 1, 0])?;
    /// let network = Network::<f32>::builder(2).dense(2).build()?;
    /// let mut trainer = Trainer::builder(network).build()?;
    /// let mut log = Log::json_lines(Vec::new());
    /// log.record(&trainer.epoch(&data)?, None, None)?;
    /// assert!(log.into_inner().starts_with(br#"{"epoch":1,"learning_rate":0.0001,"loss":"#));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    pub fn json_lines(writer: W) -> Self {
        Self { writer, form: Form::JsonLines }
    }

    /// Writes the line of an epoch.
    ///
    /// # Errors
    /// [`Error::Io`] if writing fails. [`Error::Conflict`] if a CSV log has no column for a number of
    /// this record; nothing is then written.
    pub fn record(
        &mut self,
        epoch: &Epoch,
        test: Option<&Evaluation>,
        diagnosis: Option<&Diagnosis>,
    ) -> Result<()> {
        let cells = cells(epoch, test, diagnosis);
        match &mut self.form {
            Form::JsonLines => write_whole(&mut self.writer, &json_line(&cells)),
            Form::Csv(names) if names.is_empty() => {
                let first: Vec<String> = cells.iter().map(|(name, _)| name.clone()).collect();
                let text = first.join(",") + "\n" + &csv_line(&first, &cells)?;
                write_whole(&mut self.writer, &text)?;
                *names = first;
                Ok(())
            }
            Form::Csv(names) => write_whole(&mut self.writer, &csv_line(names, &cells)?),
        }
    }

    /// The writer, after the last line.
    pub fn into_inner(self) -> W {
        self.writer
    }
}

fn write_whole(writer: &mut impl Write, text: &str) -> Result<()> {
    let written = writer.write_all(text.as_bytes()).and_then(|()| writer.flush());
    written.map_err(|cause| Error::Io { path: Path::new(WRITER).to_owned(), cause })
}

fn cells(epoch: &Epoch, test: Option<&Evaluation>, diagnosis: Option<&Diagnosis>) -> Vec<Cell> {
    let mut cells = vec![
        ("epoch".into(), Some(epoch.number as f64)),
        ("learning_rate".into(), Some(epoch.learning_rate)),
        ("loss".into(), Some(epoch.loss)),
        ("error_rate".into(), epoch.error_rate),
    ];
    if let Some(test) = test {
        cells.push(("test_loss".into(), Some(test.loss)));
        cells.push(("test_error_rate".into(), test.error_rate));
    }
    for row in diagnosis.into_iter().flat_map(|diagnosis| &diagnosis.layers) {
        let numbers = row.numbers().into_iter();
        cells.extend(numbers.map(|(name, number)| (format!("layer{}_{name}", row.layer), number)));
    }
    cells
}

/// The cells in the order of the names; empty where there is no cell.
fn csv_line(names: &[String], cells: &[Cell]) -> Result<String> {
    let (mut line, mut cells) = (String::new(), cells.iter().peekable());
    for (place, name) in names.iter().enumerate() {
        let separator = if place == 0 { "" } else { "," };
        let number = cells.next_if(|(of, _)| of == name).and_then(|&(_, number)| number);
        let number = number.map(number_text).unwrap_or_default();
        write!(line, "{separator}{number}").expect("a string takes everything");
    }
    if let Some((name, _)) = cells.next() {
        return Err(Error::Conflict {
            first: format!("the column {name} of a later record"),
            second: "the first record of a CSV log".into(),
            reason: "it says which columns there are: evaluate and diagnose in the first epoch too",
        });
    }
    Ok(line + "\n")
}

fn json_line(cells: &[Cell]) -> String {
    let cell = |(name, number): &Cell| {
        let number = number.filter(|number| number.is_finite()).map(number_text);
        format!("\"{name}\":{}", number.unwrap_or_else(|| "null".into()))
    };
    format!("{{{}}}\n", cells.iter().map(cell).collect::<Vec<_>>().join(","))
}

/// The shortest text that is read back to the same bits; without a fraction if there is none.
fn number_text(number: f64) -> String {
    let text = format!("{number:?}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}
