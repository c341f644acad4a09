//! Processes that `mpirun` has started: the same bits on one, two and four of them, in every mode, and
//! what happens when one is killed. Each test starts this program again under `mpirun`.

use std::{
    env,
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use feedback_alignment::{
    Conv2d, Dataset, FeedbackRule, MaxPool2d, Network, Optimizer, Result, RmsProp, Sgd, Trainer,
    distributed::{DataParallel, Group, LayerParallel, MpiGroup, Pipeline, fingerprint},
    nalgebra::DMatrix,
};

/// The variable that tells a process of the group where its checkpoint is.
const CHECKPOINT: &str = "FEEDBACK_ALIGNMENT_TEST_CHECKPOINT";

fn data() -> Dataset<f32> {
    let x = DMatrix::from_fn(36, 45, |i, j| ((i * 7 + j * 13 + i * j) % 23) as f32 / 11.0 - 1.0);
    Dataset::new(x, (0..45).map(|j| j % 3).collect()).unwrap()
}

fn networks() -> [Network<f32>; 2] {
    let dense = Network::builder((1, 6, 6)).dense(9).tanh().dropout(0.2).dense(8).tanh().dense(7);
    let convolutional = Network::builder((1, 6, 6))
        .conv2d(Conv2d::new(3, 3))
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .conv2d(Conv2d::new(4, 2))
        .tanh()
        .dense(6)
        .logistic();
    [
        dense.tanh().dense(3).seed(4).build().unwrap(),
        convolutional.dense(3).seed(5).build().unwrap(),
    ]
}

fn trainer(network: Network<f32>, rule: FeedbackRule, optimizer: Optimizer) -> Trainer<f32> {
    Trainer::builder(network).rule(rule).optimizer(optimizer).batch_size(8).seed(3).build().unwrap()
}

/// Trains in every mode that promises equal bits, and prints a hash for each run.
fn bits() -> Result<()> {
    use FeedbackRule::{Bp, Dfa, Drtp, Fa, Ifa, Kp};

    let (group, data) = (MpiGroup::join()?, data());
    let say = |mode: &str, trainer: &Trainer<f32>| {
        if group.rank() == 0 {
            let (rule, network) = (trainer.feedback().rule_name(), trainer.network());
            println!("\nweights {mode} {rule} {:016x}", fingerprint(network));
        }
    };
    let sgd = Sgd { learning_rate: 0.05, ..Sgd::default() };
    for network in networks() {
        for optimizer in [sgd.into(), RmsProp::default().into()] {
            for rule in [Bp, Fa, Dfa, Ifa, Kp, Drtp] {
                let trainer = || trainer(network.clone(), rule, optimizer);
                let mut shared = DataParallel::new(&group, trainer(), 4)?;
                shared.epoch(&data)?;
                shared.evaluate(&data)?;
                say("data", shared.trainer());
                for delay in [0, 3] {
                    let mut shared = LayerParallel::new(&group, trainer(), delay)?;
                    shared.epoch(&data)?;
                    say("layers", shared.trainer()?);
                }
                if [Dfa, Drtp].contains(&rule) {
                    let mut shared = Pipeline::new(&group, trainer(), 3)?;
                    shared.epoch(&data)?;
                    say("pipeline", shared.trainer()?);
                }
            }
        }
    }
    Ok(())
}

/// Trains for ever and saves after every epoch; each process says who it is.
fn for_ever(path: &std::ffi::OsStr) -> Result<()> {
    let (group, data) = (MpiGroup::join()?, data());
    let [network, _] = networks();
    let trainer = trainer(network, FeedbackRule::Dfa, RmsProp::default().into());
    let mut shared = DataParallel::new(&group, trainer, 4)?;
    for epoch in 0.. {
        shared.epoch(&data)?;
        shared.save(path)?;
        if epoch == 1 {
            println!("\nprocess {} {}", group.rank(), std::process::id());
        }
    }
    Ok(())
}

#[test]
#[ignore = "the processes that the tests below start"]
fn member() {
    match env::var_os(CHECKPOINT) {
        // Nothing to do for one who runs all that is ignored.
        None => {}
        Some(path) if path.is_empty() => bits().unwrap(),
        Some(path) => for_ever(&path).unwrap(),
    }
}

fn start(processes: usize, checkpoint: &str) -> Child {
    Command::new("mpirun")
        .args(["--oversubscribe", "--allow-run-as-root", "-n", &processes.to_string()])
        .arg(env::current_exe().unwrap())
        .args(["mpi::member", "--exact", "--ignored", "--nocapture"])
        .env(CHECKPOINT, checkpoint)
        .stdout(Stdio::piped())
        .spawn()
        .expect("mpirun, of the package openmpi-bin")
}

#[test]
fn one_two_and_four_processes_have_the_same_bits() {
    let lines = [1, 2, 4].map(|processes| {
        let Output { status, stdout, .. } = start(processes, "").wait_with_output().unwrap();
        assert!(status.success());
        let text = String::from_utf8(stdout).unwrap();
        let lines = text.lines().filter(|line| line.starts_with("weights "));
        lines.map(str::to_owned).collect::<Vec<_>>()
    });
    assert_eq!(lines[0].len(), 2 * 2 * (6 * 3 + 2));
    assert_eq!(lines[0], lines[1]);
    assert_eq!(lines[0], lines[2]);
}

#[cfg(feature = "safetensors")]
#[test]
fn a_killed_process_ends_the_others_and_the_checkpoint_loads() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.safetensors");
    let mut job = start(2, path.to_str().unwrap());
    let mut lines = BufReader::new(job.stdout.take().unwrap()).lines().map_while(Result::ok);
    let victim = lines
        .find_map(|line| line.strip_prefix("process 1 ").map(str::to_owned))
        .expect("the second process says who it is");
    assert!(Command::new("kill").args(["-9", &victim]).status().unwrap().success());
    let killed = Instant::now();
    let status = loop {
        match job.try_wait().unwrap() {
            Some(status) => break status,
            None if killed.elapsed() > Duration::from_secs(60) => {
                job.kill().unwrap();
                panic!("the other process waits for ever");
            }
            None => sleep(Duration::from_millis(20)),
        }
    };
    assert!(!status.success(), "the job ends with an error");
    let trainer = Trainer::<f32>::load(&path).unwrap();
    assert!(trainer.epochs() >= 2);
}
