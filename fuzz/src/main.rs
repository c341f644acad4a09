//! Feeds damaged and made-up files to every reader of the library and uses what it takes.
//!
//! Inputs are made from whole files by changes that know their structure: lines, numbers and words of
//! a description, shapes, types and values of tensors, sizes of a header, cells of a table. Checksums
//! are set right again, so that the changes are seen. Everything follows from the seed.
//!
//! ```sh
//! cargo run --release -- --target checkpoint --inputs 100000 --seed 1
//! ```

mod change;
#[path = "../../tests/common/craft.rs"]
mod craft;
mod targets;

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use clap::Parser;
use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

use targets::Target;

/// Feeds damaged and made-up files to the readers of feedback-alignment
#[derive(Parser)]
struct Arguments {
    /// Which reader; all of them in turn without it
    #[arg(long, value_enum, ignore_case = true)]
    target: Option<Target>,
    /// How many inputs for each target
    #[arg(long, default_value_t = 10_000)]
    inputs: u64,
    /// The seed of the first input
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() {
    let Arguments { target, inputs, seed } = Arguments::parse();
    let all = <Target as clap::ValueEnum>::value_variants();
    let chosen = target.map_or(all.to_vec(), |target| vec![target]);
    // In memory where there is such a folder: the disk is not what is tested.
    let memory = PathBuf::from("/dev/shm");
    let folder = match memory.is_dir() {
        true => tempfile::tempdir_in(memory),
        false => tempfile::tempdir(),
    };
    let folder = folder.expect("a temporary folder");
    let mut total = 0;
    for target in chosen {
        let start = Instant::now();
        let seeds = target.whole_files(folder.path());
        let mut answers = BTreeMap::<String, u64>::new();
        for number in seed..seed + inputs {
            let mut rng = Xoshiro256PlusPlus::seed_from_u64(number);
            let input = target.input(&seeds, &mut rng);
            let path = folder.path().join("input");
            fs::write(&path, &input).expect("a file in the temporary folder");
            let answer = std::panic::catch_unwind(|| target.read(&path));
            let Ok(answer) = answer else {
                let kept = std::env::temp_dir().join(format!("fuzz-{target:?}-{number}"));
                fs::write(&kept, &input).expect("a file in the temporary folder");
                eprintln!(
                    "--target {target:?} --inputs 1 --seed {number} panics: {}",
                    kept.display()
                );
                std::process::exit(1);
            };
            *answers.entry(answer).or_default() += 1;
        }
        total += inputs;
        let seconds = start.elapsed().as_secs_f64();
        println!("{target:?}: {inputs} inputs, {:.0} a second", inputs as f64 / seconds);
        answers.iter().for_each(|(answer, count)| println!("{count:>10}  {answer}"));
    }
    println!("{total} inputs in all, no panic");
}
