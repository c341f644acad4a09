//! How the gradient of a layer's weights is cut into tiles.

/// How a gradient is cut into tiles of whole columns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiles {
    /// Columns of a tile; the last may have fewer.
    pub(crate) width: usize,
    /// Elements of a tile.
    pub(crate) size: usize,
    pub(crate) count: usize,
    /// How many numbers of scratch a tile needs.
    pub(crate) scratch: usize,
}
