//! What everything that a stage leaves behind is fitted to.

use std::{fmt, sync::Arc};

use crate::{
    architecture::{Architecture, Item},
    error::{Error, Result},
    layer::Operation,
    parameters::Table,
};

/// The sizes of everything that a network computes for one sample. Shared by all that is fitted to
/// one network, so that comparing two of them costs nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Layout {
    /// The list of layers, with all constants. Two layouts are the same only if the operations
    /// agree too, since each operation leaves other things behind for the way back.
    pub(crate) architecture: Option<Architecture>,
    /// What errors call the network.
    pub(crate) name: String,
    /// Number of inputs.
    pub(crate) inputs: usize,
    /// The operations on the input.
    pub(crate) input_operations: Vec<Operation>,
    pub(crate) blocks: Vec<BlockLayout>,
    /// Numbers that a thread needs at most for itself.
    pub(crate) scratch: usize,
    /// For each block.
    pub(crate) operations: Vec<Vec<Operation>>,
    /// What parameters the network has.
    pub(crate) table: Arc<Table>,
}

/// The sizes of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockLayout {
    /// Length of `a`.
    pub(crate) a: usize,
    /// Length of what each local operation yields.
    pub(crate) operations: Vec<usize>,
    /// The lengths that a delta takes on its way from the end of the block back to `a`: that of
    /// `a`, then that of each pooling operation's output.
    pub(crate) stages: Vec<usize>,
}

impl Layout {
    /// Whether two layouts are the same.
    #[inline]
    pub(crate) fn same(one: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(one, other) || one == other
    }

    /// Length of what block `index` yields, `h`.
    pub(crate) fn output(&self, index: usize) -> usize {
        let block = &self.blocks[index];
        *block.operations.last().unwrap_or(&block.a)
    }

    /// Whether weighted layer `index` is fully connected.
    pub(crate) fn is_dense(&self, index: usize) -> bool {
        let items = self.architecture.iter().flat_map(|architecture| &architecture.items);
        let mut weighted =
            items.filter(|item| matches!(item, Item::Dense { .. } | Item::Conv2d(_)));
        matches!(weighted.nth(index), Some(Item::Dense { .. }))
    }

    /// Whether everything has the same size, whatever the operations.
    pub(crate) fn has_sizes_of(&self, other: &Self) -> bool {
        let sizes = |layout: &Self| (layout.inputs, layout.input_operations.len());
        sizes(self) == sizes(other) && self.blocks == other.blocks
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.name.is_empty() { "nothing" } else { &self.name })
    }
}

/// Fails unless something was made for a network of this layout.
#[inline]
pub(crate) fn require_layout(
    stage: &'static str,
    what: &'static str,
    expected: &Arc<Layout>,
    found: &Arc<Layout>,
) -> Result<()> {
    if Layout::same(expected, found) { Ok(()) } else { Err(mismatch(stage, what, expected, found)) }
}

#[cold]
fn mismatch(stage: &'static str, what: &'static str, expected: &Layout, found: &Layout) -> Error {
    let names = [expected, found].map(|layout| {
        let items = layout.architecture.iter().flat_map(|architecture| &architecture.items);
        (layout.to_string(), items)
    });
    let [(mut expected, items), (mut found, others)] = names;
    if expected == found {
        // They differ in what the name leaves out, such as a bias or a slope.
        if let Some((item, other)) = items.zip(others).find(|(item, other)| item != other) {
            expected = format!("{expected} with {item:?}");
            found = format!("{found} with {other:?}");
        }
    }
    Error::StageMismatch { stage, what, expected, found }
}
