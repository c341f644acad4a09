//! The one type of error: a variant for each thing that can go wrong.

use std::path::PathBuf;

use thiserror::Error;

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that the crate refuses. A message says what was expected and what was found.
///
/// After an error nothing that lasts has changed: weights, optimiser state and counters are as they
/// were before the call. There are two exceptions. An epoch that fails in one of its steps keeps the
/// steps before that one, unless its documentation says otherwise. And matrices that learn from noise,
/// as under WM, may have learned from the noise before the step that fails.
///
/// A message is complete. If something else is the cause, such as the system, its message is included.
/// So `source()` is always `None`, and programs that print all sources print nothing twice. The cause
/// itself is in a field of the variant.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// A hyper-parameter outside its range.
    #[error("{name} is {found}, expected {expected}")]
    InvalidParameter {
        /// The name of the parameter, as its field is called.
        name: &'static str,
        /// The value given.
        found: f64,
        /// The range it has to lie in.
        expected: &'static str,
    },
    /// A name that `FromStr` does not know.
    #[error("unknown {what} '{found}', expected one of: {expected}")]
    UnknownName {
        /// The kind of name, such as "feedback rule".
        what: &'static str,
        /// The text given.
        found: String,
        /// The names that exist.
        expected: String,
    },

    /// A network, or its input, without a single unit.
    #[error("layer {layer} has no units (layer 0 is the input)")]
    ZeroWidth {
        /// Number of the layer, counted from 1; 0 is the input.
        layer: usize,
    },
    /// A network without any weighted layer.
    #[error("the network has no weighted layer: add at least .dense(outputs)")]
    NoWeightedLayer,
    /// An operation before the first weighted layer.
    #[error("{operation} stands before the first weighted layer: add .dense(units) before it")]
    OperationBeforeFirstLayer {
        /// The operation, as its builder method is called.
        operation: String,
    },
    /// An operation after the output layer, which has to be linear.
    #[error(
        "{operation} follows the output layer, which is linear: the loss applies softmax or the \
         logistic function itself, so drop {operation} or add .dense(outputs) after it"
    )]
    OutputNotLinear {
        /// The operation, as its builder method is called.
        operation: String,
    },
    /// A kernel or pooling window that does not fit its input.
    #[error("{layer} over an input of {input}: {reason}")]
    Window {
        /// The layer, with kernel, stride and padding.
        layer: String,
        /// The shape of its input, channels × height × width.
        input: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// A batch too small to have a variance, or fewer samples than one batch.
    #[error("{what}")]
    BatchTooSmall {
        /// The batch, the dataset and batch size that lead to it, and what needs more samples.
        what: String,
    },
    /// A matrix that does not fit into this machine's memory.
    #[error("no memory for a matrix of {rows} × {columns}")]
    TooLarge {
        /// Rows asked for.
        rows: usize,
        /// Columns asked for.
        columns: usize,
    },
    /// A layer that the network does not have.
    #[error("there is no {what} {layer}: the network has {count}, counted from 0")]
    NoSuchLayer {
        /// What was asked for, such as "weighted layer".
        what: &'static str,
        /// The index given.
        layer: usize,
        /// How many there are.
        count: usize,
    },
    /// A residual connection that is impossible.
    #[error("skip({layers}) cannot be: {reason}")]
    Skip {
        /// How many weighted layers it should lead past.
        layers: usize,
        /// Why it is impossible.
        reason: String,
    },
    /// A parameter that a layer does not have, such as the bias of a layer built without one.
    #[error("weighted layer {layer} has no {part}, and neither has an operation after it")]
    NoSuchParameter {
        /// Index of the layer, counted from 0.
        layer: usize,
        /// The parameter, as [`Part`](crate::Part) shows it.
        part: String,
    },

    /// A matrix of the wrong shape.
    #[error(
        "{what} must be {} × {}, found {} × {}",
        expected.0, expected.1, found.0, found.1
    )]
    ShapeMismatch {
        /// The matrix in question.
        what: String,
        /// Rows and columns expected.
        expected: (usize, usize),
        /// Rows and columns found.
        found: (usize, usize),
    },
    /// Samples in rows instead of columns: the transposed matrix would fit.
    #[error("{what} is {} × {}: samples are columns here, so transpose it", found.0, found.1)]
    SamplesInRows {
        /// The matrix in question.
        what: String,
        /// Rows and columns found.
        found: (usize, usize),
    },
    /// A NaN or an infinity in place of a finite number.
    #[error("{what} holds {found} at row {row}, column {column}")]
    NonFinite {
        /// The matrix in question.
        what: String,
        /// Row of the first such entry, counted from 0. If a column is a sample, it is the feature.
        row: usize,
        /// Column of the first such entry, counted from 0: the sample.
        column: usize,
        /// The entry.
        found: f64,
    },
    /// A stage got scratch or parameters that an earlier stage did not prepare for it.
    #[error(
        "{stage}: {what} were made for another network or batch: expected {expected}, found {found}"
    )]
    StageMismatch {
        /// The stage that refused.
        stage: &'static str,
        /// What does not fit.
        what: &'static str,
        /// The layout of the network, or the batch, that the stage works on.
        expected: String,
        /// The layout or batch that it got.
        found: String,
    },

    /// The wrong number of feedback matrices for the rule on this network.
    #[error("{rule} has {expected} feedback matrices on this network, found {found}")]
    FeedbackCount {
        /// The learning rule.
        rule: String,
        /// Matrices expected.
        expected: usize,
        /// Matrices found.
        found: usize,
    },
    /// A hop that no [`Route`](crate::Route) can have, or that this route cannot have.
    #[error("the hop {hop} is impossible: {reason}")]
    ImpossibleHop {
        /// The hop, as it is written: `B(e)->0`.
        hop: String,
        /// Why it is impossible.
        reason: &'static str,
    },
    /// A feedback matrix was set for a layer that has none under this rule.
    #[error("{rule} has no feedback matrix for hidden layer {layer}")]
    NoFeedback {
        /// The learning rule.
        rule: String,
        /// Hidden layer, counted from 0.
        layer: usize,
    },

    /// A dataset, or a batch, without samples or without features.
    #[error("{what} is empty")]
    Empty {
        /// The dataset or batch in question.
        what: String,
    },
    /// A sample that the dataset does not have.
    #[error("there is no sample {sample}: the dataset has {count}, counted from 0")]
    NoSuchSample {
        /// The index given.
        sample: usize,
        /// How many samples there are.
        count: usize,
    },
    /// Different numbers of inputs and targets.
    #[error("{inputs} inputs but {targets} targets")]
    SampleCount {
        /// Number of inputs.
        inputs: usize,
        /// Number of targets.
        targets: usize,
    },
    /// A class label that the network's output layer cannot represent.
    #[error(
        "label {label} of sample {sample} is out of range: {outputs} output(s) tell {classes} classes apart, labels start at 0"
    )]
    LabelOutOfRange {
        /// The label found.
        label: usize,
        /// The sample it belongs to, counted from 0.
        sample: usize,
        /// Number of output units.
        outputs: usize,
        /// Number of classes that this many outputs can tell apart.
        classes: usize,
    },
    /// A real-valued target without meaning under the loss.
    #[error("sample {sample}: the loss {loss} needs targets that are {expected}, found {found}")]
    TargetOutOfRange {
        /// The loss.
        loss: &'static str,
        /// The sample, counted from 0.
        sample: usize,
        /// What the loss expects.
        expected: &'static str,
        /// The value found.
        found: f64,
    },
    /// Softmax over one output is constant.
    #[error(
        "softmax over a single output is always 1: use Loss::LogisticCrossEntropy, or at least two outputs"
    )]
    SoftmaxNeedsTwoOutputs,
    /// Probabilities were asked of a loss that has none.
    #[error("the loss {loss} does not make probabilities of logits")]
    NoProbabilities {
        /// The loss.
        loss: &'static str,
    },

    /// Two settings, one of which makes the other useless or impossible.
    #[error("{first} contradicts {second}: {reason}")]
    Conflict {
        /// The first setting.
        first: String,
        /// The second setting.
        second: String,
        /// Why they do not go together, and what to do.
        reason: &'static str,
    },
    /// Something that counts classes was asked for, but the targets are not classes.
    #[error(
        "{what} needs targets that are classes: labels, one-hot columns, or probabilities under the softmax loss"
    )]
    NoClasses {
        /// What was asked for.
        what: &'static str,
    },
    /// An error on another process of a group.
    #[cfg(feature = "mpi")]
    #[error("process {process}: {message}")]
    Process {
        /// Its number, counted from 0.
        process: usize,
        /// The error that it reports, or what happened to it.
        message: String,
    },
    /// An optimiser of another kind than the one whose moments are kept.
    #[error(
        "the optimizer is {expected} and keeps its moments, found {found}: build another trainer for another kind"
    )]
    OptimizerKind {
        /// The kind of the running optimiser.
        expected: &'static str,
        /// The kind given.
        found: &'static str,
    },
    /// All weights of the network, or those of a hidden layer, are zero, and the learning rule would leave
    /// them so.
    #[error(
        "weights are zero, and {rule} cannot learn from there: {reason}; choose other weights, as by another Init"
    )]
    CannotLearn {
        /// The learning rule.
        rule: String,
        /// Why they would stay, or what they would keep from learning.
        reason: String,
    },
    /// The loss became infinite or NaN; the weights are those before the step that found it.
    #[error(
        "the loss is {loss} in epoch {epoch}, step {step} (both counted from 1): the weights are as they were before it; a smaller learning rate may help"
    )]
    NonFiniteLoss {
        /// The loss found.
        loss: f64,
        /// Epoch, counted from 1.
        epoch: u64,
        /// Step since the trainer was built, counted from 1.
        step: u64,
    },

    /// A file could not be opened or read.
    #[error("{}: {cause}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A file is missing in a folder that should hold it.
    #[error("{} holds none of: {}", path.display(), expected.join(", "))]
    MissingFile {
        /// The folder.
        path: PathBuf,
        /// The names that were looked for.
        expected: Vec<String>,
    },
    /// A compressed file, in a build without the feature `gzip`.
    #[error("{} is compressed with gzip: enable the feature `gzip`, or decompress it first", path.display())]
    GzipDisabled {
        /// The file.
        path: PathBuf,
    },
    /// A file of another kind than the one to be loaded, as its first bytes show.
    #[error("{}: expected {expected}, found {found}{advice}", path.display())]
    WrongFormat {
        /// The file.
        path: PathBuf,
        /// What was to be loaded.
        expected: &'static str,
        /// What the file is.
        found: String,
        /// Advice, after a colon; empty if there is none.
        advice: &'static str,
    },
    /// An IDX file with another number of dimensions, for example images where labels were expected.
    #[error("{}: expected {expected} dimension(s), the header says {found}", path.display())]
    IdxDimensions {
        /// The file.
        path: PathBuf,
        /// Dimensions expected: 3 for images, 1 for labels.
        expected: usize,
        /// Dimensions found.
        found: usize,
    },
    /// A label of an IDX file that is not a whole number from 0 to 2³² − 1.
    #[error("{}: the label of sample {sample} is {found}, expected a whole number from 0", path.display())]
    LabelNumber {
        /// The file.
        path: PathBuf,
        /// The sample, counted from 0.
        sample: usize,
        /// The number found.
        found: f64,
    },
    /// A file shorter than its header says.
    #[error("{}: expected {expected} more bytes, the file has {found} at most", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes promised.
        expected: u128,
        /// Bytes that the file has; if it is compressed, the most that it can have.
        found: u128,
    },
    /// A file longer than its header says.
    #[error("{}: more bytes follow the {expected} that the header promises", path.display())]
    TrailingBytes {
        /// The file.
        path: PathBuf,
        /// Bytes promised.
        expected: u128,
    },
    /// A row of a comma-separated file whose number of cells differs from the first row.
    #[error("{}: line {line} has {found} cells, the first row has {expected}", path.display())]
    RowLength {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Cells of the first row.
        expected: usize,
        /// Cells of this row.
        found: usize,
    },
    /// A comma-separated file whose first row or columns contradict the given format.
    #[error("{}: {reason}", path.display())]
    Columns {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A cell that is not what its column needs.
    #[error("{}: line {line}, column {column}: expected {expected}, found '{found}'", path.display())]
    Cell {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: u64,
        /// Column, counted from 1.
        column: usize,
        /// What the column needs.
        expected: &'static str,
        /// The text of the cell.
        found: String,
    },
    /// A column that the file does not have.
    #[error("{}: no column {expected}; the first row reads: {found}", path.display())]
    NoSuchColumn {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        expected: String,
        /// The beginning of the first row.
        found: String,
    },
    /// A file of records of equal length whose last record is cut off.
    #[error(
        "{}: the record at byte {offset} has {found} bytes, expected {expected}", path.display()
    )]
    PartialRecord {
        /// The file.
        path: PathBuf,
        /// Where the record starts, in bytes after decompression.
        offset: u64,
        /// Bytes of a record.
        expected: usize,
        /// Bytes there are.
        found: usize,
    },
    /// A file with more records than any file of its format.
    #[error(
        "{}: a file of this format has {expected} records at most, but bytes follow at {offset}",
        path.display()
    )]
    TooManyRecords {
        /// The file.
        path: PathBuf,
        /// The largest number of records that is read.
        expected: usize,
        /// Where the first surplus record starts, in bytes after decompression.
        offset: u64,
    },
    /// A label byte that is not the number of a class.
    #[error(
        "{}: the label at byte {offset} is {found}, expected less than {expected}", path.display()
    )]
    LabelByte {
        /// The file.
        path: PathBuf,
        /// Where the byte is, in bytes after decompression.
        offset: u64,
        /// Number of classes.
        expected: u8,
        /// The byte found.
        found: u8,
    },
    /// A number of features that does not divide into the given number of channels.
    #[error("{features} features do not divide into {channels} channel(s)")]
    Channels {
        /// Number of features.
        features: usize,
        /// Number of channels asked for.
        channels: usize,
    },
    /// An iteration that did not converge.
    #[error("{what} did not converge")]
    NoConvergence {
        /// What was computed.
        what: &'static str,
    },
    /// A file that is not safetensors, or whose header is cut off or damaged.
    #[cfg(feature = "safetensors")]
    #[error("{}: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the parser says.
        reason: String,
    },
    /// A file of another kind than the one to be loaded, or one that this crate did not write.
    #[error("{}: expected a {expected} saved by this crate, found {found}", path.display())]
    FileKind {
        /// The file.
        path: PathBuf,
        /// The kind expected, such as "network".
        expected: &'static str,
        /// What the file is.
        found: String,
    },
    /// A file in a format that this version of the crate does not know.
    #[error(
        "{}: feedback-alignment {writer} wrote this file in format {found}, expected format {expected}: load it with that version or a newer one",
        path.display()
    )]
    FormatVersion {
        /// The file.
        path: PathBuf,
        /// The format that this version reads.
        expected: u32,
        /// The format of the file.
        found: String,
        /// The version of the crate that wrote it.
        writer: String,
    },
    /// A file whose content has changed since it was written.
    #[error(
        "{}: the file is damaged: it should have the checksum {expected}, found {found}",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// The checksum that the file states.
        expected: String,
        /// The checksum of its content.
        found: String,
    },
    /// A line of a file's description that is not as it should be.
    #[error("{}: line {line} of the description: expected {expected}, found '{found}'", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Line, counted from 1.
        line: usize,
        /// What should be there.
        expected: String,
        /// The line.
        found: String,
    },
    /// A file whose content is refused, as it would be if it came from a caller.
    #[error("{}: {cause}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: Box<Error>,
    },
    /// A tensor that the file does not have.
    #[error("{}: no tensor '{expected}', found: {}", path.display(), found.join(", "))]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The name looked for.
        expected: String,
        /// The names there are.
        found: Vec<String>,
    },
    /// A tensor that does not belong to what was to be loaded.
    #[error("{}: there is no place for tensor '{tensor}'; expected: {}", path.display(), expected.join(", "))]
    UnexpectedTensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The names of the tensors that belong to it.
        expected: Vec<String>,
    },
    /// Two tensors that get the same name.
    #[error("{}: '{}' and '{}' are both called '{tensor}' here", path.display(), found[0], found[1])]
    SameTensor {
        /// The file.
        path: PathBuf,
        /// The name that both get.
        tensor: String,
        /// Their names in the file.
        found: [String; 2],
    },
    /// A tensor of the wrong shape.
    #[error("{}: tensor '{tensor}' must be {expected:?}, found {found:?}", path.display())]
    TensorShape {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape expected.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// A tensor with the wrong type of numbers.
    #[error("{}: tensor '{tensor}' must be of {expected}, found {found}{advice}", path.display())]
    TensorType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type expected, as [`Scalar::NAME`](crate::Scalar::NAME) has it.
        expected: &'static str,
        /// The type found, as safetensors calls it.
        found: String,
        /// Advice, after a colon; empty if there is none.
        advice: &'static str,
    },
    /// A tensor that holds a number out of its range.
    #[error("{}: tensor '{tensor}' holds {found}, expected {expected}", path.display())]
    TensorValue {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The range.
        expected: &'static str,
        /// The number.
        found: f64,
    },
    /// A file that ends before all of its tensors are complete.
    #[error(
        "{}: tensor '{tensor}' is cut off: expected {expected} bytes, found {found}", path.display()
    )]
    TensorCutOff {
        /// The file.
        path: PathBuf,
        /// The first tensor that is not complete.
        tensor: String,
        /// Bytes of the tensor.
        expected: usize,
        /// Bytes of it that the file has.
        found: usize,
    },
}
