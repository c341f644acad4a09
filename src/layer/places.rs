//! Lists of places in memory, by which a convolution finds the terms of its sums.

use std::cell::RefCell;

/// `a·steps[0] + b·steps[1] + c·steps[2]` for every `a`, `b` and `c` below their counts, the last the
/// fastest.
pub(super) fn grid(counts: [usize; 3], steps: [usize; 3]) -> impl Iterator<Item = usize> {
    (0..counts[0]).flat_map(move |a| {
        (0..counts[1]).flat_map(move |b| {
            (0..counts[2]).map(move |c| a * steps[0] + b * steps[1] + c * steps[2])
        })
    })
}

/// Gives `work` a list of these places. It is kept in memory of the thread, so that a step allocates
/// nothing.
///
/// # Panics
/// If `work` calls this function itself, because there is one list for each thread.
pub(super) fn with_places<R>(
    places: impl Iterator<Item = usize>,
    work: impl FnOnce(&[usize]) -> R,
) -> R {
    thread_local! {
        static PLACES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    }
    PLACES.with_borrow_mut(|list| {
        list.clear();
        list.extend(places);
        work(list)
    })
}
