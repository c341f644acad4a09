//! How much memory a process takes that does nothing but train one case.

use std::{env, process::Command};

use feedback_alignment::{Activations, Scalar};

use crate::cases::Case;

/// Bytes at the peak of a fresh process, and bytes of what it cannot do without.
pub struct Memory {
    pub peak: f64,
    pub needed: f64,
}

/// Starts this program once more for one case; nothing where the system does not tell.
pub fn of(case: &Case) -> Option<Memory> {
    let child = Command::new(env::current_exe().ok()?).arg("--peak-of").arg(case.name()).output();
    let text = String::from_utf8(child.ok()?.stdout).ok()?;
    let (peak, needed) = text.trim().split_once(' ')?;
    Some(Memory { peak: peak.parse().ok()?, needed: needed.parse().ok()? })
}

/// What the fresh process does: some steps, then two numbers of bytes on one line.
pub fn report<T: Scalar>(case: &Case) {
    let pool = case.pool::<T>(); // First, because it looks at a network of its own.
    let mut trainer = case.trainer::<T>();
    for (x, labels) in &pool[..5] {
        trainer.step(x, labels).expect("a step");
    }
    let Some(peak) = peak() else { return };

    // Counted only now, since counting takes memory too.
    let network = trainer.network();
    let parameters = network.parameter_count();
    let moments = if case.optimizer == "sgd" { 0 } else { parameters };
    let mut activations = Activations::new();
    network.forward(&pool[0].0, &mut activations).expect("a pass");
    let (feedback, mut values) = (trainer.feedback().matrix_entries(), 0);
    for l in 0..network.layer_count() {
        // `a`, and what every operation after it puts out; all but the last keep its shape here.
        let a = activations.pre_activation(l).map_or(0, |a| a.len());
        let h = activations.output(l).map_or(0, |h| h.len());
        values += match network.layer(l).map_or(0, |layer| layer.operations().len()) {
            0 => a,
            operations => operations * a + h,
        };
    }
    let data: usize = pool
        .iter()
        .map(|(x, labels)| size_of_val(x.as_slice()) + size_of_val(labels.as_slice()))
        .sum();
    let needed = (parameters + moments + feedback + values) * size_of::<T>() + data;
    println!("{peak} {needed}");
}

/// The most memory that this process had in use so far, as Linux tells it.
fn peak() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok().map(|kib| kib * 1024)
}
