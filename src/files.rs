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
//! All are of the type `T` of what was saved, `F32` or `F64`, and stand in the order of PyTorch,
//! last index first (row by row, for a matrix). Parameters of a network are also read from `F16` and
//! `BF16`, and into a network of `f64` from `F32`: every such number is one of the wider type. From
//! `F64` into a network of `f32` they are rounded, which has to be asked for
//! ([`LoadOptions::narrow`]). The parameters are called and shaped as in the
//! `state_dict()` of a PyTorch `nn.Sequential` of the same list:
//!
//! | entry `i` of the list | tensors |
//! |---|---|
//! | dense | `i.weight` `[out, in]`, `i.bias` `[out]` |
//! | convolution | `i.weight` `[out, in, height, width]`, `i.bias` `[out]` |
//! | batch normalisation | `i.weight` (`γ`), `i.bias` (`β`), `i.running_mean`, `i.running_var`, each `[channels]` |
//!
//! Every entry of the builder's list counts, from 0: activations, pooling and dropout too, and the
//! `flatten` that PyTorch needs between an image and a dense layer, whether the list names it or
//! not. So `conv2d`, `tanh`, `max_pool2d`, `dense` have the tensors `0.weight`, `0.bias`,
//! `4.weight` and `4.bias`. What PyTorch counts as `i.num_batches_tracked` is not used here: it is
//! ignored in files from there, and PyTorch does without it in files from here. A network of other
//! names and its file are brought together by [`Network::load_parameters_with`].
//!
//! A checkpoint also holds the feedback matrix of each hidden layer `l` that has one, as
//! `feedback.l` in the shape that [`Feedback::matrix`] has, and the moments of the optimiser, as
//! `first_moment.` and `second_moment.` before the name of their parameter; where feedback matrices
//! learn, their moments too, as `first_moment.feedback.hop.i` for hop `i` of the route.
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
//! - The first two lines are the same in every format to come: a file in a format that this version
//!   does not know is refused with [`Error::FormatVersion`], which names the version that wrote it.
//! - The checksum is the CRC-32 (that of zlib and PNG) of the description without the line of the
//!   checksum and then, for each tensor in the order of their names as bytes, of name and data.
//! - `input` and the lines after it are the architecture, an entry of the list each. In a checkpoint
//!   they follow the settings of the run. There is one way to write every line, and no other is
//!   read.
//!
//! # Saving
//! A file is written under another name in the same folder, put to disk, and then takes the place
//! of the old one: whatever happens, the path holds the old content or the new. What a writer left
//! that was killed in the middle is removed by the next one to save to the same path.
//!
//! - Where the path is a symbolic link, the file that it leads to is replaced, or created.
//! - On Unix the new file has the mode of the old one, and its owner and group as far as the system
//!   lets us. Other attributes (access-control lists, say) are those of a new file.
//! - A read-only file, a folder, a device, a pipe and a socket are refused with [`Error::Io`] before
//!   anything is written.
//! - The other names of a file with hard links keep the old content: the path is a new file then.
//!
//! # Readers and writers
//! `write_to` and `read_from`, and [`Network::load_parameters_from`], do the same with any
//! [`Write`](std::io::Write) and [`Read`](std::io::Read): bytes in memory, an archive, a connection.
//! The bytes are those of the file. Errors name `the reader` and `the writer` in the place of a
//! path. A reader has to end with the file, so take as many bytes as it has
//! ([`Read::take`](std::io::Read::take)) where something follows. What a writer has got when it
//! fails is its own affair: the safety of [saving](#saving) is that of paths.
//!
//! # What can go wrong
//! Loading either succeeds or returns a named [`Error`](crate::Error) and changes nothing, whether
//! a file is cut off, damaged, made by something else or made up by somebody. The first bytes are
//! looked at before anything else: what is known to be another kind of file (a PyTorch or Python
//! pickle, an archive, a web page, a Git LFS pointer, ...) is refused with [`Error::WrongFormat`],
//! which says what to do.
//!
//! No more is read than the header promises, and it has to be what a regular file has: memory is
//! taken only as bytes arrive. What a file describes is compared with the tensors that it has before
//! memory is taken for it: loading takes a few times their size, and up to some fifty times that of
//! the header, which is refused beyond 16 MiB. A NaN or an infinity is neither saved nor loaded.
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

/// What errors call a reader or a writer in the place of a path.
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
