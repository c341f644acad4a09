//! Times one training step of many networks, beside what the machine can do at most:
//! `cargo bench --bench step -- [--list] [--only SUBSTRING] [--threads N] [--json] [--stages]`.
//!
//! Inputs are random in [0, 1), a pool of batches is cycled, the loss is softmax cross-entropy
//! (logistic with one output), gradients are means over the batch. `cases.rs` says how operations
//! are counted, `memory.rs` what a process should need.

#[path = "step/cases.rs"]
mod cases;
#[path = "step/machine.rs"]
mod machine;
#[path = "step/measure.rs"]
mod measure;
#[path = "step/memory.rs"]
mod memory;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use cases::Case;
use measure::Times;

/// Calls a generic function for the scalar of a case, in a pool of the case's threads.
macro_rules! for_scalar {
    ($case:expr, $module:ident::$call:ident $(, $argument:expr)*) => {
        on_threads($case.threads, || match $case.dtype {
            "f64" => $module::$call::<f64>($case $(, $argument)*),
            _ => $module::$call::<f32>($case $(, $argument)*),
        })
    };
}
/// Times one training step of every case.
#[derive(Parser)]
#[allow(clippy::struct_excessive_bools)] // Flags of a command line are just that.
struct Options {
    /// Only cases whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Only cases of so many threads.
    #[arg(long)]
    threads: Option<usize>,
    /// One line of JSON for each case instead of the table.
    #[arg(long)]
    json: bool,
    /// Print the names of the cases and stop.
    #[arg(long)]
    list: bool,
    /// Time the stages of a step instead of the whole.
    #[arg(long, conflicts_with = "json")]
    stages: bool,
    /// Seconds to spend on a case.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Train this case for some steps and print the peak of the process's memory.
    #[arg(long, hide = true)]
    peak_of: Option<String>,
    /// `cargo bench` passes this; it means nothing here.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let chosen = |case: &Case| {
        case.name().contains(&options.only)
            && options.threads.is_none_or(|threads| threads == case.threads)
            && options.peak_of.as_ref().is_none_or(|name| *name == case.name())
    };
    let cases: Vec<Case> = cases::cases().into_iter().filter(chosen).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name()));
    } else if options.peak_of.is_some() {
        cases.iter().for_each(|case| for_scalar!(case, memory::report));
    } else if options.json {
        each(&cases, |case| json_line(case, &time(case, options.seconds)));
    } else if options.stages {
        let heads: String = measure::STAGES.map(|name| format!(" {name:>15}")).concat();
        println!("{:<48}{heads}", "case");
        each(&cases, |case| {
            let stages = for_scalar!(case, measure::stages, options.seconds);
            let medians = stages.map(|times| format!(" {:>15}", readable(times.median)));
            format!("{:<48}{}", case.name(), medians.concat())
        });
    } else {
        table(&cases, options.seconds);
    }
}

fn time(case: &Case, seconds: f64) -> Times {
    for_scalar!(case, measure::step, seconds)
}

/// The ceilings, then a line for each case beside them.
fn table(cases: &[Case], seconds: f64) {
    let mut ceilings = Vec::new();
    let mut threads: Vec<usize> = cases.iter().map(|case| case.threads).collect();
    threads.sort_unstable();
    threads.dedup();
    for threads in threads {
        let f32 = on_threads(threads, || machine::product(1.0_f32));
        let f64 = on_threads(threads, || machine::product(1.0_f64));
        let copy = on_threads(threads, machine::copy);
        println!(
            "{threads} thread(s): large product {:.0} GFLOP/s in f32, {:.0} in f64; copy of 512 MiB {:.0} GB/s",
            f32 / 1e9,
            f64 / 1e9,
            copy / 1e9
        );
        ceilings.push((threads, f32, f64));
    }
    let ceiling = |case: &Case| {
        let found = ceilings.iter().find(|(threads, ..)| *threads == case.threads);
        let &(_, f32, f64) = found.expect("a ceiling for every number of threads");
        if case.dtype == "f64" { f64 } else { f32 }
    };
    println!(
        "\n{:<48} {:>10} {:>10} {:>10} {:>11} {:>8} {:>8} {:>9} {:>9}",
        "case", "median", "p10", "p90", "samples/s", "GFLOP/s", "ceiling", "peak MiB", "needed"
    );
    each(cases, |case| {
        let Times { p10, median, p90 } = time(case, seconds);
        let speed = case.operations() / median;
        let mib = |bytes: f64| format!("{:.1}", bytes / f64::from(1 << 20));
        let memory = memory::of(case);
        let [peak, needed] = memory
            .map_or(["-".into(), "-".into()], |memory| [mib(memory.peak), mib(memory.needed)]);
        format!(
            "{:<48} {:>10} {:>10} {:>10} {:>11.0} {:>8.1} {:>6.0} % {peak:>9} {needed:>9}",
            case.name(),
            readable(median),
            readable(p10),
            readable(p90),
            case.batch as f64 / median,
            speed / 1e9,
            100.0 * speed / ceiling(case),
        )
    });
}

fn json_line(case: &Case, times: &Times) -> String {
    let &Case { arch, batch, optimizer, dtype, threads, .. } = case;
    json!({
        "arch": arch, "act": "tanh", "batch": batch, "rule": case.rule_name().to_lowercase(),
        "opt": optimizer, "dtype": dtype, "threads": threads,
        "median_s": times.median, "p10_s": times.p10, "p90_s": times.p90,
        "samples_per_s": batch as f64 / times.median,
        "gflops": case.operations() / times.median / 1e9,
    })
    .to_string()
}

/// Prints a line for each case, with a bar on stderr that says how far it is.
fn each(cases: &[Case], mut line: impl FnMut(&Case) -> String) {
    let style = ProgressStyle::with_template("{pos}/{len}, {eta} left: {msg}").expect("a template");
    let bar = ProgressBar::new(cases.len() as u64).with_style(style);
    for case in cases {
        bar.set_message(case.name());
        let line = line(case);
        bar.suspend(|| println!("{line}"));
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// Runs something in a pool of so many threads.
fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
    pool.install(work)
}

fn readable(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.2} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}
