//! Tables and pictures of all runs in a folder.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::{self, Write},
    path::Path,
};

use feedback_alignment::FeedbackRule;

use crate::{
    common::Result,
    lines::STAND_IN,
    plot,
    record::Record,
    rows::{ROWS, Row},
    summary::Summary,
};

/// Prints the tables as Markdown and draws a picture for each row into the folder.
pub fn report(folder: &Path) -> Result<()> {
    let mut out = io::stdout();
    let mut records = Record::read_all(folder)?;
    records.retain(|record| !record.points.is_empty());
    // The small digits that stand in for MNIST are another task: they are shown if there is nothing else.
    let is_real = |record: &Record| record.header.data != STAND_IN;
    if records.iter().any(is_real) {
        records.retain(is_real);
    }
    for table in 1..=3 {
        let rows: Vec<&Row> = ROWS.iter().filter(|row| row.table == table).collect();
        if of(&records, |record| record.header.table == table).is_empty() {
            continue;
        }
        writeln!(
            out,
            "Table {table}\n\n| row | | BP | FA | DFA | IFA |\n|---|---|---|---|---|---|"
        )?;
        for row in rows {
            let runs = of(&records, |record| is_of(record, row) && record.header.frozen == 0);
            if !runs.is_empty() {
                write!(out, "{}", lines(row, &runs)?)?;
                draw(row, &runs, folder, "")?;
            }
            for frozen in frozen(&records, row) {
                let runs =
                    of(&records, |record| is_of(record, row) && record.header.frozen == frozen);
                draw(row, &runs, folder, &format!(", first layer frozen for {frozen} epochs"))?;
            }
        }
        writeln!(out)?;
    }
    let named: BTreeSet<String> = FeedbackRule::nokland().iter().map(ToString::to_string).collect();
    let others = of(&records, |record| !named.contains(&record.header.rule));
    for record in others {
        writeln!(out, "Under another rule, in no table: {}", record.path().display())?;
    }
    Ok(())
}

fn of(records: &[Record], keep: impl Fn(&Record) -> bool) -> Vec<&Record> {
    records.iter().filter(|record| keep(record)).collect()
}

fn is_of(record: &Record, row: &Row) -> bool {
    record.header.table == row.table && record.header.row == row.name
}

/// Numbers of epochs for which some runs of a row froze the first layer.
fn frozen(records: &[Record], row: &Row) -> Vec<u64> {
    let mut counts: Vec<u64> =
        of(records, |record| is_of(record, row)).iter().map(|r| r.header.frozen).collect();
    counts.retain(|&count| count > 0);
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// What the paper reports, what the runs came to, and how long they were.
fn lines(row: &Row, runs: &[&Record]) -> Result<String> {
    let mut text = String::new();
    let summaries: Vec<_> = FeedbackRule::nokland()
        .into_iter()
        .map(|rule| {
            let name = rule.to_string();
            let runs: Vec<&Record> =
                runs.iter().copied().filter(|run| run.header.rule == name).collect();
            (rule, (!runs.is_empty()).then(|| Summary::of(row, rule, &runs)))
        })
        .collect();
    let published = !runs.iter().any(|run| run.header.data == STAND_IN);
    write!(text, "| {} | Nøkland (2016)", row.name)?;
    for (rule, _) in &summaries {
        let reported = row.reported(*rule).filter(|_| published);
        write!(text, " | {}", reported.map_or("–".into(), |it| it.to_string()))?;
    }
    write!(text, " |\n| | here")?;
    for (_, summary) in &summaries {
        write!(text, " | {}", summary.as_ref().map_or("–".into(), Summary::figure))?;
    }
    write!(text, " |\n| | runs")?;
    for (_, summary) in &summaries {
        write!(text, " | {}", summary.as_ref().map_or("–".into(), Summary::length))?;
    }
    writeln!(text, " |")?;
    Ok(text)
}

/// Draws all seeds under each rule, and the angles of the first that has some.
fn draw(row: &Row, runs: &[&Record], folder: &Path, note: &str) -> Result<()> {
    let of_rule = |rule: FeedbackRule| -> Vec<&Record> {
        let name = rule.to_string();
        runs.iter().copied().filter(|run| run.header.rule == name).collect()
    };
    let runs: Vec<_> = FeedbackRule::nokland().into_iter().map(of_rule).collect();
    let runs: Vec<_> = runs.into_iter().filter(|seeds| !seeds.is_empty()).collect();
    let Some(run) = runs.first().map(|seeds| seeds[0]) else { return Ok(()) };
    let stem = match run.header.frozen {
        0 => format!("table{}-{}", row.table, row.name),
        frozen => format!("table{}-{}-frozen{frozen}", row.table, row.name),
    };
    let title = format!("{}: {}{note}", run.header.data, row.words());
    plot::errors(&runs, &title, &folder.join(format!("{stem}.svg")))?;
    let measured = |run: &&&Record| run.points[0].angles.is_some();
    let with_angles: Vec<&Record> =
        runs.iter().filter_map(|seeds| seeds.iter().find(measured).copied()).collect();
    if with_angles.is_empty() {
        return Ok(());
    }
    let title = format!("{title}: angle of each hidden layer's delta to backpropagation's");
    plot::angles(&with_angles, &title, &folder.join(format!("{stem}-angles.svg")))
}
