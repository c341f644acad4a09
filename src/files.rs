//! The files that this crate reads and writes.
//!
//! Datasets come from IDX, CIFAR and CSV files, plain, compressed with gzip or through a pipe; see
//! [`data`](crate::data). Everything that the
//! crate writes is a [safetensors](https://github.com/huggingface/safetensors) file, behind the
//! feature of that name:
//!
//! | kind | holds | written by | read by |
//! |---|---|---|---|
//! | `network` | architecture and parameters | [`Network::save`] | [`Network::load`], [`Network::load_parameters`] |
//! | `checkpoint` | a whole training run | [`Trainer::save`] | [`Trainer::load`] |
//! | `whitening` | mean and matrix | [`Whitening::save`] | [`Whitening::load`] |
//! | `scaling` | offsets and divisors | [`Scaling::save`] | [`Scaling::load`] |
//!
//! # Tensors
//! All tensors have the type `T` of what was saved, `F32` or `F64`. Their numbers are in the order of
//! PyTorch, with the last index running fastest (a matrix row by row). Parameters of a network can also
//! be read from `F16` and `BF16`, and from `F32` into a network of `f64`, because the wider type has
//! every such number exactly. Reading `F64` into a network of `f32` rounds them, so you have to ask for
//! it ([`LoadOptions::narrow`]). Parameters have the names and shapes of the `state_dict()` of a
//! PyTorch `nn.Sequential` with the same list:
//!
//! | entry `i` of the list | tensors |
//! |---|---|
//! | dense | `i.weight` `[out, in]`, `i.bias` `[out]` |
//! | convolution | `i.weight` `[out, in, height, width]`, `i.bias` `[out]` |
//! | batch normalisation | `i.weight` (`γ`), `i.bias` (`β`), `i.running_mean`, `i.running_var`, each `[channels]` |
//! | layer normalisation | `i.weight` (`γ`), `i.bias` (`β`), each `[features]` or `[channels, height, width]` |
//!
//! Every entry of the builder's list counts, from 0: activations, pooling and dropout too. So does the
//! `flatten` that PyTorch needs between an image and a dense layer, even if the list does not name it.
//! For example, `conv2d`, `tanh`, `max_pool2d`, `dense` have the tensors `0.weight`, `0.bias`,
//! `4.weight` and `4.bias`. PyTorch also stores `i.num_batches_tracked`. This crate ignores it when
//! reading and does not write it, and PyTorch accepts files without it. For a file with other names,
//! use [`Network::load_parameters_with`].
//!
//! A checkpoint also holds the feedback matrix of each hidden layer `l` that has one, as `feedback.l`,
//! in the shape of [`Feedback::matrix`]. Further matrices of the same layer are `feedback.l.1`,
//! `feedback.l.2` and so on. If a matrix is a product, the factor that a signal passes first is in
//! `feedback.l.first`. The columns of a sparse matrix's entries are in `feedback.l.places`. A matrix
//! that hops share is `feedback.shared`. The moments of the optimiser have `first_moment.` or
//! `second_moment.` before the name of their parameter. Feedback matrices that learn have moments too,
//! as `first_moment.feedback.hop.i` for hop `i` of the route.
//!
//! # Description
//! The header's `__metadata__` has one entry, `feedback-alignment`. It is a text of lines:
//!
//! ```text
//! format 1
//! crate 0.1.0
//! kind network
//! checksum 6c1b9a04
//! input shape=1x8x8
//! conv2d channels=8 kernel=3x3 stride=1x1 padding=1x1 bias=with
//! batch-norm momentum=0.1 epsilon=1e-5
//! relu
//! max-pool2d kernel=2x2 stride=2x2
//! dropout probability=0.5
//! flatten
//! dense outputs=10 bias=with
//! ```
//!
//! - The first two lines are the same in every future format. A file in a format that this version does
//!   not know is refused with [`Error::FormatVersion`], which names the version that wrote it.
//! - The checksum is the CRC-32 (that of zlib and PNG) of the description without the checksum's line,
//!   and then of the name and data of each tensor, in the order of their names as bytes.
//! - `input` and the lines after it are the architecture: one line for each entry of the list. In a
//!   checkpoint they follow the settings of the run. There is one way to write each line, and no other
//!   way is read.
//!
//! # Saving
//! A file is first written under another name in the same folder and flushed to disk. Then it replaces
//! the old one. So at any time the path holds either the old content or the new. If a writer was killed
//! in the middle, the next save to the same path removes what it left.
//!
//! - If the path is a symbolic link, the file that it leads to is replaced, or created.
//! - On Unix the new file has the access rights (mode) of the old one, and its owner and group as far
//!   as the system allows. Other attributes (access-control lists, for example) are those of a new
//!   file.
//! - A read-only file, a folder, a device, a pipe and a socket are refused with [`Error::Io`] before
//!   anything is written.
//! - If the old file has other names (hard links), these keep the old content, because a new file takes
//!   its place.
//!
//! # Readers and writers
//! `write_to` and `read_from`, and [`Network::load_parameters_from`], do the same with any
//! [`Write`](std::io::Write) and [`Read`](std::io::Read): bytes in memory, an archive, a connection.
//! The bytes are those of the file. Error messages say `the reader` and `the writer` in place of a
//! path. A reader has to end where the file ends. If something follows, limit it to the length of the
//! file ([`Read::take`](std::io::Read::take)). If a writer fails, it may have received a part of the
//! bytes: only paths have the safety of [saving](#saving).
//!
//! # What can go wrong
//! Loading either succeeds, or returns a named [`Error`](crate::Error) and changes nothing. This holds
//! for files that are cut off, damaged, written by another program, or forged. The first bytes are
//! checked before anything else. If they belong to a known other kind of file (a PyTorch or Python
//! pickle, an archive, a web page, a Git LFS pointer, ...), the error is [`Error::WrongFormat`], which
//! says what to do.
//!
//! Loading reads no more than the header promises, and a regular file has to be as long as that. Memory
//! is taken only as bytes arrive. What a file describes is compared with its tensors before memory is
//! taken for it. Loading needs a few times the size of the tensors, and up to about fifty times that of
//! the header. A header above 16 MiB is refused. A NaN or an infinity is neither saved nor loaded.
//!
//! [`Error::FormatVersion`]: crate::Error::FormatVersion
//! [`Error::Io`]: crate::Error::Io
//! [`Error::WrongFormat`]: crate::Error::WrongFormat
//! [`Feedback::matrix`]: crate::Feedback::matrix
//! [`LoadOptions::narrow`]: crate::LoadOptions::narrow
//! [`Network::load`]: crate::Network::load
//! [`Network::load_parameters`]: crate::Network::load_parameters
//! [`Network::load_parameters_with`]: crate::Network::load_parameters_with
//! [`Network::load_parameters_from`]: crate::Network::load_parameters_from
//! [`Network::save`]: crate::Network::save
//! [`Trainer::load`]: crate::Trainer::load
//! [`Trainer::save`]: crate::Trainer::save
//! [`Scaling::load`]: crate::data::Scaling::load
//! [`Scaling::save`]: crate::data::Scaling::save
//! [`Whitening::load`]: crate::data::Whitening::load
//! [`Whitening::save`]: crate::data::Whitening::save

// The order is that of dependence, as in `lib.rs`.
#[cfg(feature = "gzip")]
mod gzip;
mod recognise;
mod open;

#[cfg(feature = "safetensors")]
mod contents;
#[cfg(feature = "safetensors")]
mod description;
#[cfg(feature = "safetensors")]
mod numbers;
#[cfg(feature = "safetensors")]
mod replace;
#[cfg(feature = "safetensors")]
mod tensors;

/// How error messages call a reader or a writer, in place of a path.
#[cfg(feature = "safetensors")]
pub(crate) const READER: &str = "the reader";
pub(crate) const WRITER: &str = "the writer";

pub(crate) use open::{OpenFile, first_of, require_folder};
pub(crate) use recognise::Wanted;

#[cfg(feature = "safetensors")]
pub(crate) use {
    contents::{Contents, read, read_from},
    description::{Entry, Line, Lines},
    tensors::{Draft, Expected, File, Precision},
};

#[cfg(all(test, feature = "safetensors"))]
pub(crate) use description::text;
