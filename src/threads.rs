//! The threads that a trainer uses, and how work is divided among them.

use std::ops::Range;

use crate::error::{Result, require};

/// Where a trainer's steps run.
#[derive(Clone, Debug, Default)]
pub(crate) enum Threads {
    /// In the pool that the caller runs in, or in rayon's global pool.
    #[default]
    Shared,
    /// On the caller's thread only.
    One,
    #[cfg(feature = "parallel")]
    Own(std::sync::Arc<rayon::ThreadPool>),
}

impl Threads {
    /// A pool of `count` threads of its own.
    pub(crate) fn new(count: usize) -> Result<Self> {
        let valid = (1..=MOST_THREADS).contains(&count);
        require(valid, "threads", count as f64, "a number from 1 to 1024")?;
        #[cfg(feature = "parallel")]
        if count > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
            let expected = "as many threads as the system can start";
            require(pool.is_ok(), "threads", count as f64, expected)?;
            return Ok(pool.map_or(Self::One, |pool| Self::Own(pool.into())));
        }
        Ok(Self::One)
    }

    /// Runs `work`, in which a step takes about `step` multiply-adds.
    #[cfg(feature = "parallel")]
    pub(crate) fn run<R: Send>(&self, step: usize, work: impl FnOnce() -> R + Send) -> R {
        match self {
            Self::One => raised(&ALONE, work),
            _ if !is_worth_sharing(step) => work(),
            Self::Shared => awake(pieces(step, 1), work),
            Self::Own(pool) => pool.install(|| awake(pieces(step, 1), work)),
        }
    }

    /// Runs `work`.
    #[cfg(not(feature = "parallel"))]
    #[allow(clippy::unused_self)] // As above.
    pub(crate) fn run<R>(&self, _: usize, work: impl FnOnce() -> R) -> R {
        work()
    }
}

/// More threads than any machine has cores. Starting more would take minutes.
const MOST_THREADS: usize = 1024;

/// The least work for a thread, in multiply-adds. It has to take much longer than waking a thread,
/// which is some microseconds.
const MULTIPLY_ADDS_PER_PIECE: usize = 1 << 18;

fn is_worth_sharing(multiply_adds: usize) -> bool {
    multiply_adds / MULTIPLY_ADDS_PER_PIECE > 1
}

/// Into how many pieces it pays to split a computation of `elements` elements. Each costs `cost`
/// multiply-adds of a matrix product.
pub(crate) fn pieces(elements: usize, cost: usize) -> usize {
    match worth(elements, cost) {
        1 => 1,
        pieces => pieces.min(count()),
    }
}

/// [`pieces`] for any number of threads.
fn worth(elements: usize, cost: usize) -> usize {
    let multiply_adds = elements.saturating_mul(cost);
    if is_worth_sharing(multiply_adds) { multiply_adds / MULTIPLY_ADDS_PER_PIECE } else { 1 }
}

/// Twice as many [`pieces`] as threads. Some core may be busy with another program, and then the
/// threads that finish first can take over pieces.
pub(crate) fn small_pieces(elements: usize, cost: usize) -> usize {
    match pieces(elements, cost) {
        1 => 1,
        pieces => 2 * pieces,
    }
}

/// Data that can be cut after a number of chunks, so that threads can work on both parts.
pub(crate) trait Divide: Send + Sized {
    fn divide(self, chunks: usize) -> (Self, Self);
}

/// A slice in chunks of `size`. The last chunk may be shorter, and the slice may be empty.
pub(crate) struct Chunks<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) size: usize,
}

impl<T: Send> Divide for Chunks<'_, T> {
    fn divide(self, chunks: usize) -> (Self, Self) {
        let Self { data, size } = self;
        let cut = (chunks * size).min(data.len());
        let (left, right) = data.split_at_mut(cut);
        (Self { data: left, size }, Self { data: right, size })
    }
}

impl<A: Divide, B: Divide> Divide for (A, B) {
    fn divide(self, chunks: usize) -> (Self, Self) {
        let ((a_left, a_right), (b_left, b_right)) = (self.0.divide(chunks), self.1.divide(chunks));
        ((a_left, b_left), (a_right, b_right))
    }
}

/// Calls `work` on the chunks of `out`, whose numbers are `chunks`, in `parts` parts on several
/// threads.
pub(crate) fn share_out<D: Divide>(
    out: D,
    chunks: Range<usize>,
    parts: usize,
    work: &(impl Fn(Range<usize>, D) + Sync),
) {
    if parts < 2 || chunks.len() < 2 {
        return work(chunks, out);
    }
    let half = parts / 2;
    let cut = (chunks.len() * half / parts).max(1);
    let (left, right) = out.divide(cut);
    let middle = chunks.start + cut;
    join(
        || share_out(left, chunks.start..middle, half, work),
        || share_out(right, middle..chunks.end, parts - half, work),
    );
}

#[cfg(not(feature = "parallel"))]
fn count() -> usize {
    1
}

/// Does `left`, then `right`.
#[cfg(not(feature = "parallel"))]
pub(crate) fn join(left: impl FnOnce(), right: impl FnOnce()) {
    left();
    right();
}

#[cfg(feature = "parallel")]
fn count() -> usize {
    if ALONE.get() > 0 { 1 } else { rayon::current_num_threads() }
}

/// Does both; at the same time if a thread is free.
#[cfg(feature = "parallel")]
pub(crate) fn join(left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
    rayon::join(left, || raised(&BUSY, right));
}

#[cfg(feature = "parallel")]
use keeping_awake::{ALONE, BUSY, awake, raised};

#[cfg(feature = "parallel")]
mod keeping_awake {
    use std::{
        cell::Cell,
        sync::atomic::{AtomicBool, Ordering},
        thread::LocalKey,
    };

    thread_local! {
        /// Above 0 while this thread has to do everything itself.
        pub(super) static ALONE: Cell<usize> = const { Cell::new(0) };
        /// How many pieces of work this thread is in the middle of.
        pub(super) static BUSY: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs `work` while a counter of this thread is one higher.
    pub(super) fn raised<R>(
        counter: &'static LocalKey<Cell<usize>>,
        work: impl FnOnce() -> R,
    ) -> R {
        struct Lower(&'static LocalKey<Cell<usize>>);
        impl Drop for Lower {
            fn drop(&mut self) {
                self.0.set(self.0.get() - 1);
            }
        }
        counter.set(counter.get() + 1);
        let _lower = Lower(counter); // Lowers the counter even if `work` panics.
        work()
    }

    /// Runs `work` while `threads` threads of the pool stay awake to help. A thread that has fallen
    /// asleep needs tens of microseconds to start, which is longer than many layers take.
    pub(super) fn awake<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Release);
            }
        }
        let done = AtomicBool::new(false);
        let (mut work, mut result) = (Some(work), None);
        with_helpers(threads - 1, &done, &mut || {
            let _done = Done(&done); // Releases the helpers even if `work` panics.
            result = work.take().map(|work| raised(&BUSY, work));
        });
        result.expect("work has been done")
    }

    fn with_helpers(helpers: usize, done: &AtomicBool, work: &mut (dyn FnMut() + Send)) {
        if helpers == 0 {
            return work();
        }
        rayon::join(|| with_helpers(helpers - 1, done, work), || help(done));
    }

    /// Takes on work of the pool until `done`. While there is none, leaves the core to other programs.
    fn help(done: &AtomicBool) {
        // Never inside a piece of work: it would wait for the work that it interrupts.
        while BUSY.get() == 0 && !done.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::yield_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_out_work_covers_every_chunk_once() {
        for (length, size, parts) in [(10, 3, 4), (10, 3, 1), (7, 7, 3), (100, 1, 7), (0, 3, 2)] {
            let (mut seen, mut with) = (vec![0; length], vec![0; length]);
            let out =
                (Chunks { data: &mut seen, size }, Chunks { data: &mut with[..length / 2], size });
            share_out(out, 0..length.div_ceil(size), parts, &|range, (seen, _)| {
                assert_eq!(seen.data.len().div_ceil(size), range.len());
                for (index, chunk) in range.zip(seen.data.chunks_mut(size)) {
                    chunk.iter_mut().for_each(|seen| *seen += index + 1);
                }
            });
            assert!(seen.iter().enumerate().all(|(i, &seen)| seen == i / size + 1), "{seen:?}");
        }
    }

    #[test]
    fn no_threads_at_all_is_an_error() {
        let error = Threads::new(0).unwrap_err().to_string();
        assert!(error.contains("threads is 0") && error.contains("from 1 to 1024"), "{error}");
        assert!(Threads::new(1025).is_err() && Threads::new(usize::MAX).is_err());
    }

    #[test]
    fn alone_means_one_piece_and_only_until_the_end() {
        let huge = 1 << 30;
        let before = pieces(huge, 1);
        assert_eq!(Threads::new(1).unwrap().run(huge, || pieces(huge, 1)), 1);
        assert_eq!(pieces(huge, 1), before);
    }

    #[cfg(feature = "parallel")]
    #[test]
    fn own_threads_survive_work_that_panics() {
        let threads = Threads::new(3).unwrap();
        let panics = std::panic::AssertUnwindSafe(|| threads.run(1 << 30, || panic!("on purpose")));
        assert!(std::panic::catch_unwind(panics).is_err());
        assert_eq!(threads.run(1 << 30, || pieces(1 << 30, 1)), 3);
    }
}
