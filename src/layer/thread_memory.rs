//! The memory that a thread keeps for its work on a network, so that a step allocates nothing.

use std::cell::RefCell;

use crate::{
    error::{Error, Result},
    scalar::Scalar,
};

thread_local! {
    static PLACES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static OFFSETS: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// How much of each kind a thread needs. The memory is used deep inside a pass, where an error could no
/// longer be returned, so a stage makes it before it begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadMemory {
    /// Numbers of scratch memory.
    pub(crate) scratch: usize,
    /// Places of numbers that a convolution reads.
    pub(crate) places: usize,
    /// Offsets within the windows of a max-pooling.
    pub(crate) offsets: usize,
}

impl ThreadMemory {
    /// Makes this enough for another layer too. Layers use the memory one after the other, so the larger of
    /// their needs counts.
    pub(crate) fn include(&mut self, other: Self) {
        self.scratch = self.scratch.max(other.scratch);
        self.places = self.places.max(other.places);
        self.offsets = self.offsets.max(other.offsets);
    }

    /// Makes sure that this thread has it, or fails.
    pub(crate) fn reserve<T: Scalar>(self) -> Result<()> {
        let Self { scratch, places, offsets } = self;
        let made = [
            (scratch, T::reserve_scratch(scratch)),
            (places, PLACES.with_borrow_mut(|list| has_room(list, places))),
            (offsets, OFFSETS.with_borrow_mut(|list| has_room(list, offsets))),
        ];
        match made.into_iter().find(|&(_, made)| !made) {
            Some((rows, _)) => Err(Error::TooLarge { rows, columns: 1 }),
            None => Ok(()),
        }
    }
}

/// Makes room for a list of this length, and says whether that worked.
fn has_room<T>(list: &mut Vec<T>, length: usize) -> bool {
    list.try_reserve_exact(length.saturating_sub(list.len())).is_ok()
}

/// Gives `work` a list of these places.
///
/// # Panics
/// If `work` calls this function itself, because there is one list for each thread.
pub(super) fn with_places<R>(
    places: impl Iterator<Item = usize>,
    work: impl FnOnce(&[usize]) -> R,
) -> R {
    PLACES.with_borrow_mut(|list| {
        list.clear();
        list.extend(places);
        work(list)
    })
}

/// Gives `work` a list of this many offsets, in which any numbers may stand.
///
/// # Panics
/// If `work` calls this function itself, because there is one list for each thread.
pub(super) fn with_offsets<R>(length: usize, work: impl FnOnce(&mut [u32]) -> R) -> R {
    OFFSETS.with_borrow_mut(|list| {
        if list.len() < length {
            list.resize(length, 0);
        }
        work(&mut list[..length])
    })
}
