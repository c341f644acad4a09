//! Which threads a trainer works on.

use crate::error::{Result, require};

/// Where a trainer's steps run.
#[derive(Clone, Debug, Default)]
pub(crate) enum Threads {
    /// In the pool that the caller is in, or in rayon's global one.
    #[default]
    Shared,
    /// On the caller's thread alone.
    One,
    #[cfg(feature = "parallel")]
    Own(std::sync::Arc<rayon::ThreadPool>),
}

impl Threads {
    /// So many threads of one's own.
    pub(crate) fn new(count: usize) -> Result<Self> {
        require(count > 0, "threads", count as f64, "at least 1")?;
        #[cfg(feature = "parallel")]
        if count > 1 {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(count).build();
            let expected = "as many threads as the system can start";
            require(pool.is_ok(), "threads", count as f64, expected)?;
            return Ok(pool.map_or(Self::One, |pool| Self::Own(pool.into())));
        }
        Ok(Self::One)
    }

    /// Runs `work`, of which a step is worth so many multiply-adds.
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

/// What waking a thread, some microseconds, has to be small beside.
const MULTIPLY_ADDS_PER_PIECE: usize = 1 << 18;

fn is_worth_sharing(multiply_adds: usize) -> bool {
    multiply_adds / MULTIPLY_ADDS_PER_PIECE > 1
}

/// Into how many pieces a computation of so many elements, each worth `cost` multiply-adds of a
/// matrix product, is worth splitting.
pub(crate) fn pieces(elements: usize, cost: usize) -> usize {
    let multiply_adds = elements.saturating_mul(cost);
    if is_worth_sharing(multiply_adds) {
        (multiply_adds / MULTIPLY_ADDS_PER_PIECE).min(count())
    } else {
        1
    }
}

/// Does both, at once if they are worth it together: so many multiply-adds.
pub(crate) fn both(work: usize, left: impl FnOnce() + Send, right: impl FnOnce() + Send) {
    if pieces(work, 1) > 1 {
        join(left, right);
    } else {
        left();
        right();
    }
}

#[cfg(not(feature = "parallel"))]
fn count() -> usize {
    1
}

/// Does one, then the other.
#[cfg(not(feature = "parallel"))]
pub(crate) fn join(left: impl FnOnce(), right: impl FnOnce()) {
    left();
    right();
}

#[cfg(feature = "parallel")]
fn count() -> usize {
    if ALONE.get() > 0 { 1 } else { rayon::current_num_threads() }
}

/// Does both, at once where a thread is free.
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
        /// Above 0 while this thread is to do all by itself.
        pub(super) static ALONE: Cell<usize> = const { Cell::new(0) };
        /// How many pieces of work are on this thread's stack.
        pub(super) static BUSY: Cell<usize> = const { Cell::new(0) };
    }

    /// Runs `work` with a counter of this thread raised.
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
        let _lower = Lower(counter); // Even if `work` panics.
        work()
    }

    /// Runs `work` with so many threads of the pool kept awake to share it: one that has fallen
    /// asleep takes tens of microseconds to lend a hand, longer than many a layer.
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
            let _done = Done(&done); // Even if `work` panics.
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

    /// Takes on whatever there is to do until `done`, and leaves the core to other programs while
    /// there is nothing.
    fn help(done: &AtomicBool) {
        // Not on top of a piece of the very work that it would wait for.
        while BUSY.get() == 0 && !done.load(Ordering::Acquire) {
            if rayon::yield_now() != Some(rayon::Yield::Executed) {
                std::thread::yield_now();
            }
        }
    }
}
