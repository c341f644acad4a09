//! Nøkland's tables (2016), row by row, by his protocol.
//!
//! ```text
//! cargo run --release --example nokland
//! cargo run --release --example nokland -- --list
//! cargo run --release --example nokland -- --data data/mnist --row 2x800-tanh --rule dfa
//! cargo run --release --example nokland -- --help
//! ```
//!
//! Logistic outputs, RMSprop at 1e-4, batches of 64, weights that start at zero for FA and DFA, at
//! most 300 epochs, and an end when the running average of the training error reaches 1e-4. Every
//! epoch becomes a line of JSON in a file of the run, beside a checkpoint: interrupt it as you
//! like, the same command goes on from there, and comes to the same bits. Several processes with the same
//! command and folder share out the runs: each takes the next that none has, so that `mpirun -n 16` before
//! the command, or starting it on several machines, makes a grid of runs of it. Without `--data` the
//! small digits that the examples carry stand in for MNIST.

#[path = "../common/axes.rs"]
mod axes;
#[path = "../common/bands.rs"]
mod bands;
#[path = "../common/mod.rs"]
mod common;
#[path = "../common/curves.rs"]
mod curves;
mod data;
mod figures;
#[path = "../common/folders.rs"]
mod folders;
#[path = "../common/lines.rs"]
mod lines;
#[path = "../common/pixels.rs"]
mod pixels;
#[path = "../common/spread.rs"]
mod spread;
mod plot;
mod record;
mod report;
mod rows;
mod run;
mod summary;

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::Parser;
use common::Result;
use feedback_alignment::FeedbackRule;
use rows::ROWS;
use summary::Summary;

/// Shows how close the library comes to the tables of Nøkland (2016): trains their rows by the paper's
/// protocol, with the paper's figures beside, and goes on where it was interrupted.
#[derive(Parser)]
struct Args {
    /// 1 is MNIST, 2 CIFAR-10 and 3 CIFAR-100
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=3))]
    table: u8,

    /// Rows of the table, separated by commas; --list shows them [default: 2x800-tanh of table 1,
    /// 3x1000-tanh of the others]
    #[arg(long, value_delimiter = ',')]
    row: Vec<String>,

    /// Learning rules, separated by commas
    #[arg(long, value_delimiter = ',', default_value = "bp,fa,dfa,ifa")]
    rule: Vec<FeedbackRule>,

    /// Epochs at most [default: 300 with --data, 40 without]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    epochs: Option<u64>,

    /// How many seeds, counted from --first-seed
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,

    /// The first seed
    #[arg(long, default_value_t = 0)]
    first_seed: u64,

    /// Folder with the files of MNIST, CIFAR-10 or CIFAR-100
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Folder of the lines and checkpoints
    #[arg(long, value_name = "DIR", default_value = "target/nokland")]
    out: PathBuf,

    /// Epochs between two checkpoints
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    save_every: u64,

    /// Measure the angle between the rule's deltas and backpropagation's after every epoch
    #[arg(long)]
    angles: bool,

    /// Count the training error without dropout too, after every epoch
    #[arg(long)]
    clean: bool,

    /// Freeze the first hidden layer, at random weights, for so many epochs, then release it
    /// (figure 2)
    #[arg(long, value_name = "EPOCHS", default_value_t = 0)]
    freeze_first: u64,

    /// Print the tables of all runs in this folder as Markdown, draw them, and stop
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,

    /// Show the rows with the figures of the paper and stop
    #[arg(long)]
    list: bool,
}

impl Args {
    fn epochs(&self) -> u64 {
        self.epochs.unwrap_or(if self.data.is_some() { 300 } else { 40 })
    }

    fn rows(&self) -> Result<Vec<&'static rows::Row>> {
        match (&self.row[..], self.table) {
            ([], 1) => Ok(vec![rows::find(1, "2x800-tanh")?]),
            ([], table) => Ok(vec![rows::find(table, "3x1000-tanh")?]),
            (names, table) => names.iter().map(|name| rows::find(table, name)).collect(),
        }
    }
}

fn main() -> ExitCode {
    common::exit(reproduce(&Args::parse()))
}

fn reproduce(args: &Args) -> Result<()> {
    let mut out = io::stdout();
    if args.list {
        return list(&mut out);
    }
    if let Some(folder) = &args.report {
        return report::report(folder);
    }
    let rows = args.rows()?;
    fs::create_dir_all(&args.out)
        .map_err(|error| format!("cannot make the folder {}: {error}", args.out.display()))?;
    for row in rows {
        let data = data::load(row, args.data.as_deref())?;
        for &rule in &args.rule {
            let seeds = (0..args.seeds).map(|index| args.first_seed.wrapping_add(index));
            let records: Result<Vec<_>> =
                seeds.map(|seed| run::run(args, row, rule, seed, &data)).collect();
            // Some may be under way in another process.
            let Some(records) = records?.into_iter().collect::<Option<Vec<_>>>() else { continue };
            let records: Vec<_> = records.iter().collect();
            writeln!(out, "{}", Summary::of(row, rule, &records))?;
        }
    }
    Ok(())
}

fn list(out: &mut impl Write) -> Result<()> {
    writeln!(
        out,
        "Test error in percent (training error in brackets) as reported by Nøkland (2016)\n"
    )?;
    writeln!(out, "table  {:<24} {:<24} {:<24} DFA", "row", "BP", "FA")?;
    for row in &ROWS {
        write!(out, "{:>5}  {:<24}", row.table, row.name)?;
        for rule in [FeedbackRule::Bp, FeedbackRule::Fa, FeedbackRule::Dfa] {
            if let Some(reported) = row.reported(rule) {
                write!(out, " {reported:<24}")?;
            }
        }
        writeln!(out)?;
    }
    Ok(())
}
