//! The ledger of published numbers: what others report for these rules, and what comes out here.
//!
//! ```text
//! cargo run --release --example ledger
//! cargo run --release --example ledger -- --list
//! cargo run --release --example ledger -- --row stall --rule dfa,bp --seeds 5 --data data/mnist
//! cargo run --release --example ledger -- --table docs/ledger.md --out docs/results/ledger
//! ```
//!
//! Each source has a row, and a file under `rows/` that says what it did and how that is said here.
//! Every epoch becomes a line of JSON in a file of the run, beside a checkpoint: interrupt it as
//! you like, the same command goes on from there. Without `--row` all rules learn the small digits
//! that the examples carry, and the result is checked.

#[path = "../common/bands.rs"]
mod bands;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/curves.rs"]
mod curves;
mod data;
#[path = "../nokland/figures.rs"]
mod figures;
#[path = "../common/folders.rs"]
mod folders;
#[path = "../common/glorot.rs"]
mod glorot;
#[path = "../common/lines.rs"]
mod lines;
#[path = "../common/spread.rs"]
mod spread;
mod record;
mod rows;
mod run;
mod table;

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Parser;
use common::Result;
use lines::{End, STAND_IN};
use rows::{Quantity, Record, Row};
use run::Run;

/// Shows what others report for these rules beside what comes out here. Without --row all rules learn the
/// small digits, and the result is checked.
#[derive(Parser)]
struct Args {
    /// A row of the ledger; --list shows them
    #[arg(long)]
    row: Option<String>,

    /// Rules, or other arms of the row, separated by commas [default: all of the row]
    #[arg(long, value_delimiter = ',', requires = "row")]
    rule: Vec<String>,

    /// How many seeds, counted from --first-seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 0)]
    first_seed: u64,

    /// Epochs, or steps, of a run in all [default: those of the source]
    #[arg(long, requires = "row", value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,

    /// Folder with the files of MNIST or CIFAR-10; without it, the small digits stand in for MNIST
    #[arg(long, requires = "row", value_name = "DIR")]
    data: Option<PathBuf>,

    /// Folder of the lines and checkpoints
    #[arg(long, value_name = "DIR", default_value = "target/ledger")]
    out: PathBuf,

    /// Write the table of all runs in --out into this file and stop
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,

    /// Folder with the lines of the example nokland, for --table
    #[arg(long, value_name = "DIR", default_value = "docs/results")]
    nokland: PathBuf,

    /// Show the rows and stop
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    common::exit(act(&Args::parse()))
}

fn act(args: &Args) -> Result<()> {
    if args.list {
        return list();
    }
    if let Some(file) = &args.table {
        return table::write(file, &args.out, &args.nokland);
    }
    let Some(name) = &args.row else { return check() };
    fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot make the folder {}: {error}", args.out.display()))?;
    let row = Row::find(name)?;
    let length = args.epochs.unwrap_or(row.length);
    if length < row.round() {
        let (round, unit) = (row.round(), row.unit());
        return Err(
            format!("row {name} looks every {round} {unit}: --epochs {length} is less").into()
        );
    }
    let arms = arms(&row, &args.rule)?;
    if args.first_seed.checked_add(args.seeds).is_none_or(|end| end > run::SEEDS) {
        return Err(format!("seeds are below {}", run::SEEDS).into());
    }
    for seed in (0..args.seeds).map(|index| args.first_seed + index) {
        let (name, split) = row.task.load(args.data.as_deref(), seed)?;
        for &arm in &arms {
            let run = Run { row: &row, arm, seed, name, split: &split };
            if let Some(record) = run.make(length, &args.out)? {
                show(&run, &record)?;
            }
        }
    }
    Ok(())
}

/// The arms that are asked for, or all.
fn arms<'a>(row: &'a Row, asked: &[String]) -> Result<Vec<&'a str>> {
    if asked.is_empty() {
        return Ok(row.arms.clone());
    }
    let find = |name: &String| {
        let found = row.arms.iter().find(|arm| arm.eq_ignore_ascii_case(name));
        let missing = || format!("row {} has no {name}, only {}", row.name, row.arms.join(", "));
        Ok(*found.ok_or_else(missing)?)
    };
    asked.iter().map(find).collect()
}

/// What a run came to beside what is published, where the data is the source's.
fn show(run: &Run, record: &Record) -> Result<()> {
    let mut out = io::stdout();
    let Run { row, arm, seed, name, .. } = *run;
    let unit = row.unit();
    if record.end == Some(End::DoesNotConverge) {
        let at = record.points.last().map_or(0, |last| last.at);
        let name = format!("{name} {} {arm}, seed {seed}", row.name);
        writeln!(out, "{name}: does not converge, after {at} {unit} that did")?;
        return Ok(());
    }
    let Some(last) = record.points.last() else { return Ok(()) };
    let at = last.at;
    write!(out, "{name} {} {arm}, seed {seed}: {:.2} % after {at} {unit}", row.name, last.error)?;
    let figures = row.figures.iter().filter(|figure| figure.arm == arm);
    for figure in figures.filter(|_| name != STAND_IN) {
        if let Some(ours) = figure.quantity.of(record) {
            write!(out, "; {} {ours:.2} ({})", figure.quantity.name(), figure.value)?;
        }
    }
    writeln!(out)?;
    Ok(())
}

fn list() -> Result<()> {
    let mut out = io::stdout();
    for row in &Row::all() {
        let (unit, Row { name, source, arms, length, figures, .. }) = (row.unit(), row);
        let count = figures.iter().filter(|f| !matches!(f.quantity, Quantity::Bound)).count();
        writeln!(out, "{name:<18} {length:>4} {unit:<6} {count:>2} numbers: {source}")?;
        writeln!(out, "{:18} {}", "", arms.join(", "))?;
    }
    Ok(())
}

/// Nobody else knows the folder of the small runs.
const TAKEN: &str = "another process is at a run of the check";

/// Small runs on the digits that have to come out as they should: every rule learns, and a run that
/// was interrupted ends as one that was not.
fn check() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let row = Row::find("check")?;
    let (name, split) = row.task.load(None, 0)?;
    for figure in &row.figures {
        let run = Run { row: &row, arm: figure.arm, seed: 0, name, split: &split };
        let record = run.make(30, folder.path())?.ok_or(TAKEN)?;
        show(&run, &record)?;
        let error = figure.quantity.of(&record);
        if error.is_none_or(|error| error >= figure.value) {
            return Err(format!("{} has not learned: {error:?}", figure.arm).into());
        }
    }
    interrupt(folder.path())
}

/// Makes a run in one go and another in two.
fn interrupt(folder: &Path) -> Result<()> {
    let row = Row::find("stall")?;
    let (name, split) = row.task.load(None, 0)?;
    let run = Run { row: &row, arm: "output-rate", seed: 0, name, split: &split };
    let (whole, halves) = (folder.join("whole"), folder.join("halves"));
    fs::create_dir(&whole)?;
    fs::create_dir(&halves)?;
    let whole = run.make(200, &whole)?.ok_or(TAKEN)?;
    run.make(90, &halves)?;
    let halves = run.make(200, &halves)?.ok_or(TAKEN)?;
    show(&run, &halves)?;
    if whole.points != halves.points || whole.points.len() != 20 {
        return Err("a run that was interrupted ends otherwise".into());
    }
    Ok(())
}
