//! The ledger: published numbers beside ours, from the lines of all runs.

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use feedback_alignment::FeedbackRule;
use serde::{Deserialize, Serialize};

use crate::{
    common::Result,
    curves::{self, Curve},
    figures::{FIGURES, Reported, reported},
    lines::{End, Lines, STAND_IN},
    rows::{Figure, Quantity, Record, Row},
    spread::{deviation, mean},
};

/// Between these lines of a file stands the table.
const BEGIN: &str = "<!-- The table begins: `--table` writes it. -->\n";
const END: &str = "<!-- The table ends. -->\n";

/// Stands where a number of ours would.
const NOT_RUN: &str = "not run so far";

/// Writes the table into a file, from the lines of the ledger and those of the example `nokland`, and
/// draws the errors of each row beside its lines.
pub fn write(file: &Path, ledger: &Path, nokland: &Path) -> Result<()> {
    let blame = |error| format!("{}: {error}", file.display());
    let text = fs::read_to_string(file).map_err(blame)?;
    let (Some((before, rest)), Some((_, after))) = (text.split_once(BEGIN), text.split_once(END))
    else {
        return Err(blame(std::io::Error::other(format!("there is no line {BEGIN}"))).into());
    };
    if !rest.contains(END) {
        return Err(blame(std::io::Error::other("the table ends before it begins")).into());
    }
    let mut runs = Record::read_all(ledger)?;
    // The small digits that stand in for MNIST are another task.
    runs.retain(|run| run.header.data != STAND_IN);
    let mut table = Table::default();
    table.nokland(nokland)?;
    for row in Row::all() {
        table.row(&row, &runs)?;
        draw(&row, &runs, ledger)?;
    }
    fs::write(file, format!("{before}{BEGIN}\n{}\n{END}{after}", table.finished()?))
        .map_err(blame)?;
    Ok(())
}

/// Draws all seeds of each arm of a row that counts epochs.
fn draw(row: &Row, runs: &[Record], folder: &Path) -> Result<()> {
    let curve = |&arm: &&str| {
        let seeds = runs.iter().filter(|run| run.header.row == row.name && run.header.arm == arm);
        let errors = seeds.map(|run| run.points.iter().map(|point| point.error).collect());
        let mut test: Vec<Vec<f64>> = errors.collect();
        let longest = test.iter().map(Vec::len).max()?;
        test.retain(|run| run.len() == longest); // A run that was interrupted is none.
        let name = arm.to_uppercase();
        Some(Curve { name, test, training: Vec::new() })
    };
    let curves: Vec<Curve> = row.arms.iter().filter_map(curve).collect();
    if curves.is_empty() || row.length < 10 || row.unit() != "epochs" {
        return Ok(());
    }
    let source = row.source.split_inclusive(')').next().unwrap_or(row.name); // Who and when.
    let title = format!("Test error, as in {source}");
    curves::save(&curves, &title, &folder.join(format!("{}.svg", row.name)))
}

/// What several runs came to.
struct Ours {
    mean: f64,
    deviation: Option<f64>,
    runs: usize,
    /// The shortest of them.
    length: u64,
}

/// The text so far, and how often numbers agree.
#[derive(Default)]
struct Table {
    text: String,
    sources: BTreeSet<&'static str>,
    numbers: usize,
    reproduced: usize,
    compared: usize,
    close: usize,
}

impl Table {
    fn finished(&self) -> Result<String> {
        let Self { numbers, reproduced, compared, close, text, .. } = self;
        let mut all = String::new();
        let sources = self.sources.len();
        writeln!(
            all,
            "{numbers} numbers from {sources} sources, of which {reproduced} have been run."
        )?;
        writeln!(all, "Of {compared} with a standard deviation, {close} are within two of it.")?;
        write!(all, "{text}")?;
        Ok(all)
    }

    fn head(&mut self, title: &str, source: &'static str, command: &str) -> Result<()> {
        writeln!(self.text, "\n### {title}\n\nSource: {source}.  \nCommand: `{command}`\n")?;
        writeln!(self.text, "| arm | quantity | published | ours | runs | difference |")?;
        writeln!(self.text, "|---|---|---|---|---|---|")?;
        Ok(())
    }

    fn row(&mut self, row: &Row, runs: &[Record]) -> Result<()> {
        let command = format!("--row {} --rule {} --seeds 3", row.name, row.arms.join(","));
        self.head(row.name, row.source, &command)?;
        if row.figures.iter().any(|figure| !matches!(figure.quantity, Quantity::Bound)) {
            self.sources.insert(row.source);
        }
        for figure in &row.figures {
            let of_it = |run: &&Record| run.header.row == row.name && run.header.arm == figure.arm;
            let runs: Vec<&Record> = runs.iter().filter(of_it).collect();
            let ours = ours(figure.quantity, &runs);
            let diverged = diverged(runs.iter().map(|run| run.end));
            let length = |ours: &Ours| match figure.quantity {
                Quantity::Accuracy(_) | Quantity::Angle(_) => String::new(),
                _ => format!(" × {} of {} {}", ours.length, row.length, row.unit()),
            };
            self.line(figure.arm, figure, (ours.as_ref(), diverged), length)?;
        }
        Ok(())
    }

    /// Table 1 of the example `nokland`.
    fn nokland(&mut self, folder: &Path) -> Result<()> {
        #[derive(Clone, Serialize, Deserialize)]
        struct Header {
            table: u8,
            row: String,
            rule: String,
            data: String,
            #[serde(default)]
            frozen: u64,
        }
        #[derive(Clone, Serialize, Deserialize)]
        struct Point {
            epoch: u64,
            test_error: f64,
        }
        let runs = Lines::<Header, Point>::read_all(folder)?;
        let command = "cargo run --release --example nokland -- --row ROW --rule RULE --data DIR";
        let source = "Nøkland (2016), table 1; see results.md";
        self.head("nokland", source, command)?;
        self.sources.insert(source);
        for (table, row, _) in FIGURES.iter().filter(|figure| figure.0 == 1) {
            for rule in [FeedbackRule::Bp, FeedbackRule::Fa, FeedbackRule::Dfa] {
                let Some(reported) = reported(*table, row, rule) else { continue };
                let name = rule.to_string();
                let of_it = |run: &&Lines<Header, Point>| {
                    let Header { table: of, row: name_of, rule, data, frozen } = &run.header;
                    data != STAND_IN && (of, &**name_of, rule, frozen) == (table, *row, &name, &0)
                };
                let runs: Vec<_> = runs.iter().filter(of_it).collect();
                let arm = format!("{row} {}", name.to_lowercase());
                let Reported::Error(value, deviation, _) = reported else {
                    let ends: Vec<End> = runs.iter().filter_map(|run| run.end).collect();
                    let count = ends.len();
                    let same = ends.iter().all(|&end| end == End::DoesNotConverge);
                    let ours = match (count, same) {
                        (0, _) => NOT_RUN,
                        (_, true) => "does not converge",
                        (_, false) => "converges",
                    };
                    self.numbers += 1;
                    self.reproduced += usize::from(count > 0);
                    writeln!(
                        self.text,
                        "| {arm} | test error | does not converge | {ours} | {count} | – |"
                    )?;
                    continue;
                };
                let diverged = diverged(runs.iter().map(|run| run.end));
                let converged =
                    |run: &&&Lines<Header, Point>| run.end != Some(End::DoesNotConverge);
                let runs: Vec<_> = runs.iter().filter(converged).collect();
                let last = |run: &&&Lines<Header, Point>| Some(run.points.last()?.test_error);
                let values: Vec<f64> = runs.iter().filter_map(last).collect();
                let epochs = runs.iter().filter_map(|run| Some(run.points.last()?.epoch));
                let ours = Ours::of(values, epochs.min().unwrap_or(0), mean);
                let quantity = Quantity::FinalError;
                let figure = Figure { arm: "", quantity, value, deviation: Some(deviation) };
                let length = |ours: &Ours| format!(" × {} epochs", ours.length);
                self.line(&arm, &figure, (ours.as_ref(), diverged), length)?;
            }
        }
        Ok(())
    }

    fn line(
        &mut self,
        arm: &str,
        figure: &Figure,
        (ours, diverged): (Option<&Ours>, usize),
        length: impl Fn(&Ours) -> String,
    ) -> Result<()> {
        let Figure { quantity, value, deviation, .. } = *figure;
        let digits = match quantity {
            Quantity::StepsTo(_) | Quantity::Bound => 0,
            Quantity::LargestCosine => 3,
            _ => 2,
        };
        let number = |mean: f64, deviation: Option<f64>| match deviation {
            Some(deviation) => format!("{mean:.digits$} ± {deviation:.digits$}"),
            None => format!("{mean:.digits$}"),
        };
        let bound = matches!(quantity, Quantity::Bound);
        self.numbers += usize::from(!bound);
        let difference = match ours {
            Some(ours) if bound => if ours.mean < value { "holds" } else { "**fails**" }.into(),
            Some(ours) => {
                self.reproduced += 1;
                self.difference(ours.mean - value, deviation, ours.deviation)
            }
            None if bound && diverged > 0 => "**fails**".into(),
            None => "–".into(),
        };
        let (found, runs) = match ours {
            Some(ours) => {
                let digits = if bound { 2 } else { digits };
                let mean = format!("{:.digits$}", ours.mean);
                let spread = ours.deviation.map(|d| format!(" ± {d:.digits$}")).unwrap_or_default();
                (mean + &spread, ours.runs.to_string() + &length(ours))
            }
            None if diverged > 0 => {
                self.reproduced += usize::from(!bound);
                ("does not converge".into(), diverged.to_string())
            }
            None => (NOT_RUN.into(), "–".into()),
        };
        let runs = match ours {
            Some(_) if diverged > 0 => format!("{runs}, {diverged} more did not converge"),
            _ => runs,
        };
        let published = number(value, deviation);
        let name = quantity.name();
        writeln!(self.text, "| {arm} | {name} | {published} | {found} | {runs} | {difference} |")?;
        Ok(())
    }

    /// The difference in standard deviations of a single run: `√((s² + s'²)/2)` of the published one
    /// and ours, or the one that there is.
    fn difference(&mut self, difference: f64, published: Option<f64>, ours: Option<f64>) -> String {
        let squares: Vec<f64> = [published, ours].into_iter().flatten().map(|d| d * d).collect();
        let deviation = mean(&squares).sqrt();
        // Without a deviation, or among runs that all came to the same, there is nothing to count in.
        if squares.is_empty() || deviation == 0.0 {
            return "–".into();
        }
        self.compared += 1;
        let count = difference / deviation;
        let shown = format!("{count:+.1}");
        // What is shown as 2.0 counts as two.
        if (count.abs() * 10.0).round() <= 20.0 {
            self.close += 1;
            shown
        } else {
            format!("**{shown}**")
        }
    }
}

/// How many of these runs did not converge. They are in no mean.
fn diverged(ends: impl Iterator<Item = Option<End>>) -> usize {
    ends.filter(|&end| end == Some(End::DoesNotConverge)).count()
}

/// Of all runs that have the quantity.
fn ours(quantity: Quantity, runs: &[&Record]) -> Option<Ours> {
    let values = runs.iter().filter_map(|run| quantity.of(run)).collect();
    let converged = runs.iter().filter(|run| run.end != Some(End::DoesNotConverge));
    let reached = converged.filter_map(|run| Some(run.points.last()?.at));
    let length = reached.min().unwrap_or(0);
    let middle = if matches!(quantity, Quantity::StepsTo(_)) { median } else { mean };
    Ours::of(values, length, middle)
}

impl Ours {
    fn of(values: Vec<f64>, length: u64, middle: fn(&[f64]) -> f64) -> Option<Self> {
        let (runs, deviation) = (values.len(), deviation(&values));
        (runs > 0).then(|| Self { mean: middle(&values), deviation, runs, length })
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { mean(&values[middle - 1..=middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_counted_in_deviations_of_a_single_run() {
        let mut table = Table::default();
        assert_eq!(table.difference(0.3, Some(0.3), None), "+1.0");
        assert_eq!(table.difference(-1.0, Some(0.6), Some(0.8)), "-1.4"); // √((0.36 + 0.64) / 2)
        assert_eq!(table.difference(0.9, None, Some(0.3)), "**+3.0**");
        assert_eq!(table.difference(0.9, None, None), "–");
        assert_eq!((table.compared, table.close), (3, 2));
    }

    #[test]
    fn several_runs_have_a_middle_and_a_deviation() {
        let ours = Ours::of(vec![4.0, 1.0, 2.0, 9.0], 7, median).unwrap();
        assert_eq!((ours.mean, ours.runs, ours.length), (3.0, 4, 7));
        assert!((ours.deviation.unwrap() - (38.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        let one = Ours::of(vec![4.0], 7, mean).unwrap();
        assert_eq!((one.mean, one.deviation), (4.0, None));
        assert!(Ours::of(vec![], 7, mean).is_none());
    }
}
