//! A process that saves checkpoints is killed again and again: what it leaves can always be loaded
//! and is a state that the run was in.
#![cfg(all(unix, feature = "safetensors"))]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::Instant,
};

use feedback_alignment::{Dataset, Network, Trainer, nalgebra::DMatrix};

/// How often a process is killed.
const KILLS: u32 = 100;

/// The variable that tells the child where its checkpoint is.
const CHECKPOINT: &str = "FEEDBACK_ALIGNMENT_TEST_CHECKPOINT";

fn trainer() -> Trainer<f32> {
    let network = Network::builder(100).dense(200).tanh().dropout(0.2).dense(50).tanh().dense(3);
    Trainer::builder(network.build().unwrap()).build().unwrap()
}

fn step(trainer: &mut Trainer<f32>, data: &Dataset<f32>) {
    let first = usize::try_from(trainer.optimizer().steps()).unwrap();
    let batch = data.subset(&[0, 1, 2, 3].map(|i| (first * 3 + i) % data.len())).unwrap();
    trainer.step(&batch.inputs(), batch.targets()).unwrap();
}

fn data() -> Dataset<f32> {
    let x = DMatrix::from_fn(100, 30, |i, j| ((i * 3 + j * 7) % 17) as f32 / 17.0);
    Dataset::new(x, (0..30).map(|j| j % 3).collect()).unwrap()
}

/// Goes on with the run of its parent and saves after every step, until it is killed.
#[test]
#[ignore = "the process that the test below starts and kills"]
fn writer() {
    // Nothing to do for one who runs all that is ignored.
    let Some(path) = env::var_os(CHECKPOINT).map(PathBuf::from) else { return };
    let (mut trainer, data) = (Trainer::<f32>::load(&path).unwrap(), data());
    loop {
        step(&mut trainer, &data);
        trainer.save(&path).unwrap();
        println!("\nsaved");
    }
}

/// Starts a writer and kills it in the third round of step and save, at this part of it.
fn start_and_kill(path: &Path, part: f64) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["writer", "--exact", "--ignored", "--nocapture"])
        .env(CHECKPOINT, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut wait = || assert!(lines.any(|line| line == "saved"), "the writer could not go on");
    wait();
    let start = Instant::now();
    wait();
    sleep(start.elapsed().mul_f64(part));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn whenever_a_writer_is_killed_its_checkpoint_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let (mut reference, data) = (trainer(), data());
    reference.save(&path).unwrap();
    let mut caught_writing = 0;
    for kill in 0..KILLS {
        start_and_kill(&path, f64::from(kill * 37 % KILLS) / f64::from(KILLS));
        let found = Trainer::<f32>::load(&path).unwrap();
        assert!(found.optimizer().steps() >= reference.optimizer().steps() + 2, "steps were lost");
        while reference.optimizer().steps() < found.optimizer().steps() {
            step(&mut reference, &data);
        }
        assert_eq!(found.network(), reference.network());
        assert_eq!(found.optimizer(), reference.optimizer());
        // What the one before left is gone.
        let others = fs::read_dir(folder.path()).unwrap().count() - 1;
        assert!(others <= 1, "{others} files are left over");
        caught_writing += others;
    }
    println!("{caught_writing} of {KILLS} writers were killed while they wrote");
    assert!(caught_writing > 0, "no writer was killed while it wrote");
    reference.save(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
