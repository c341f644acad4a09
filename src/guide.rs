//! A guide to feedback alignment in nine short chapters, which take an evening to read. Every piece of
//! code in it runs as a test.
//!
//! 1. [What backpropagation needs and brains do not have](chapter_1_backpropagation)
//! 2. [Feedback alignment, and why it works](chapter_2_alignment)
//! 3. [Straight to every layer: DFA and IFA](chapter_3_direct)
//! 4. [Shapes, and what error messages about them say](chapter_4_shapes); your own data
//! 5. [Where to begin, and why it may stall](chapter_5_initialisation)
//! 6. [Convolutions, and where feedback fails](chapter_6_convolution)
//! 7. [How to compare rules fairly](chapter_7_comparing)
//! 8. [A rule of your own](chapter_8_inventing)
//! 9. [From here to PyTorch and back](chapter_9_pytorch)
//!
//! All you need to know beforehand is what a matrix and a derivative are.
//!
//! To try a piece of code, make a crate that depends on this one, put the piece into the `main` below,
//! and run `cargo run --release`:
//!
//! ```
//! fn main() -> feedback_alignment::Result<()> {
//!     // Here.
//!     Ok(())
//! }
//! ```

#[doc = include_str!("guide/backpropagation.md")]
/// ---
/// Next: [2. Feedback alignment, and why it works](chapter_2_alignment)
pub mod chapter_1_backpropagation {}

#[doc = include_str!("guide/alignment.md")]
/// ---
/// Next: [3. Straight to every layer: DFA and IFA](chapter_3_direct)
pub mod chapter_2_alignment {}

#[doc = include_str!("guide/direct.md")]
#[doc = include_str!("guide/four_rules.html")]
#[doc = ""]
#[doc = include_str!("guide/direct_after.md")]
#[doc = include_str!("guide/relatives.html")]
#[doc = ""]
/// ---
/// Next: [4. Shapes, and what error messages about them say](chapter_4_shapes)
pub mod chapter_3_direct {}

#[doc = include_str!("guide/shapes.md")]
/// ---
/// Next: [5. Where to begin, and why it may stall](chapter_5_initialisation)
pub mod chapter_4_shapes {}

#[doc = include_str!("guide/initialisation.md")]
/// ---
/// Next: [6. Convolutions, and where feedback fails](chapter_6_convolution)
pub mod chapter_5_initialisation {}

#[doc = include_str!("guide/convolution.md")]
/// ---
/// Next: [7. How to compare rules fairly](chapter_7_comparing)
pub mod chapter_6_convolution {}

#[doc = include_str!("guide/comparing.md")]
/// ---
/// Next: [8. A rule of your own](chapter_8_inventing)
pub mod chapter_7_comparing {}

#[doc = include_str!("guide/inventing.md")]
/// ---
/// Next: [9. From here to PyTorch and back](chapter_9_pytorch)
pub mod chapter_8_inventing {}

#[doc = include_str!("guide/pytorch.md")]
pub mod chapter_9_pytorch {}
