//! The layout of a network: the sizes to which activations, deltas and gradients are fitted.

use std::{fmt, sync::Arc};

use crate::{
    architecture::{Architecture, Item},
    error::{Error, Result},
    layer::{Operation, ThreadMemory},
    parameters::Table,
};

/// The sizes of everything that a network computes for one sample. All that belongs to one network
/// shares one layout, so comparing two layouts is usually a comparison of pointers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Layout {
    /// The list of layers, with all constants. Two layouts are the same only if the operations
    /// agree too, since each operation leaves other things behind for the way back.
    pub(crate) architecture: Option<Architecture>,
    /// How error messages call the network.
    pub(crate) name: String,
    /// Number of inputs.
    pub(crate) inputs: usize,
    /// The operations on the input.
    pub(crate) input_operations: Vec<Operation>,
    pub(crate) blocks: Vec<BlockLayout>,
    /// What memory a thread needs for a pass.
    pub(crate) memory: ThreadMemory,
    /// The operations of each block.
    pub(crate) operations: Vec<Vec<Operation>>,
    /// The list of the network's parameters.
    pub(crate) table: Arc<Table>,
}

/// The sizes of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlockLayout {
    /// Length of `a`.
    pub(crate) a: usize,
    /// Length of the output of each local operation.
    pub(crate) operations: Vec<usize>,
    /// The lengths of a delta at each stage of its way: at `a` first, then at the output of each
    /// pooling operation. The way back goes through them from the last to the first.
    pub(crate) stages: Vec<usize>,
}

impl Layout {
    /// Whether two layouts are the same.
    #[inline]
    pub(crate) fn same(one: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(one, other) || one == other
    }

    /// Length of `h`, the output of block `index`.
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

    /// Whether all sizes are equal, even if the operations differ.
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

/// Fails unless `found` is the expected layout.
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
        // They differ in something that the name does not show, such as a bias or a slope.
        if let Some((item, other)) = items.zip(others).find(|(item, other)| item != other) {
            expected = format!("{expected} with {item:?}");
            found = format!("{found} with {other:?}");
        }
    }
    Error::StageMismatch { stage, what, expected, found }
}
