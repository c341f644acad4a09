//! Scaling inputs to a suitable range.

#[cfg(feature = "safetensors")]
use std::{
    io::{Read, Write},
    path::Path,
};

use nalgebra::DMatrix;

#[cfg(feature = "safetensors")]
use crate::files::{Contents, Draft, Expected, File, Line, READER, WRITER, read, read_from};
use crate::{
    error::{Error, Result, require, require_finite, require_positive, require_samples},
    linalg::filled,
    scalar::Scalar,
};

/// An affine map of the inputs, `x ← (x − offset) / divisor`. It is fitted on a training set or made
/// from known constants, and [`Dataset::scaled`](crate::Dataset::scaled) applies it to every set.
///
/// If a feature is constant in the training set, up to the rounding error of its mean, its divisor is 0
/// and the feature becomes 0 in every set.
///
/// ```
/// use feedback_alignment::{data::{Dataset, Scaling}, nalgebra::DMatrix};
///
/// let train = Dataset::new(DMatrix::from_column_slice(1, 3, &[2.0, 4.0, 6.0]), vec![0, 0, 1])?;
/// let test = Dataset::new(DMatrix::from_column_slice(1, 1, &[8.0]), vec![1])?;
/// let scaling = Scaling::min_max(&train)?;
/// assert_eq!((scaling.offset(), scaling.divisor()), (&[2.0][..], &[4.0][..]));
/// assert_eq!(train.scaled(&scaling)?.inputs().as_slice(), [0.0, 0.5, 1.0]);
/// assert_eq!(test.scaled(&scaling)?.inputs().as_slice(), [1.5]);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Scaling<T> {
    /// One entry for each feature, or a single one for all features.
    pub(super) offset: Vec<T>,
    /// As `offset`. 0 marks a constant feature, which becomes 0.
    pub(super) divisor: Vec<T>,
    /// The number of features it is for; `None` if it treats any number of features alike.
    pub(super) features: Option<usize>,
}

impl<T: Scalar> Scaling<T> {
    /// Subtracts `offset` from every number and divides by `divisor`. Use it for example with a
    /// published mean and deviation of a dataset.
    ///
    /// ```
    /// use feedback_alignment::{data::Scaling, nalgebra::DMatrix};
    ///
    /// let mnist = Scaling::<f32>::constant(0.1307, 0.3081)?;
    /// let pixels = DMatrix::from_element(784, 1, 0.1307);
    /// assert_eq!(mnist.apply(&pixels)?, DMatrix::zeros(784, 1));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] for an offset that is not finite or a divisor that is not
    /// positive in the scalar.
    pub fn constant(offset: f64, divisor: f64) -> Result<Self> {
        Self::of_constants(&[offset], &[divisor], 1, None)
    }

    /// Subtracts from each feature its own offset and divides by its own divisor.
    ///
    /// # Errors
    /// Those of [`constant`](Self::constant). [`Error::SampleCount`] if the lists differ in length,
    /// [`Error::Empty`] if they are empty.
    pub fn per_feature(offsets: &[f64], divisors: &[f64]) -> Result<Self> {
        Self::of_constants(offsets, divisors, 1, Some(offsets.len()))
    }

    /// Subtracts from each channel its own offset and divides by its own divisor. Each channel of an
    /// image has `pixels` pixels.
    ///
    /// ```
    /// use feedback_alignment::data::Scaling;
    ///
    /// let cifar = Scaling::<f32>::per_channel(&[0.491, 0.482, 0.447], &[0.247, 0.243, 0.262], 1024)?;
    /// assert_eq!(cifar.features(), Some(3072));
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`per_feature`](Self::per_feature), and [`Error::Empty`] for no pixels.
    pub fn per_channel(offsets: &[f64], divisors: &[f64], pixels: usize) -> Result<Self> {
        let features = offsets.len().saturating_mul(pixels);
        Self::of_constants(offsets, divisors, pixels, Some(features))
    }

    fn of_constants(
        offsets: &[f64],
        divisors: &[f64],
        pixels: usize,
        features: Option<usize>,
    ) -> Result<Self> {
        if offsets.len() != divisors.len() {
            return Err(Error::SampleCount { inputs: offsets.len(), targets: divisors.len() });
        }
        let count = offsets.len().checked_mul(pixels).filter(|&count| count <= usize::MAX / 64);
        let count = count.ok_or(Error::TooLarge { rows: offsets.len(), columns: pixels })?;
        if count == 0 {
            return Err(Error::Empty { what: "the list of offsets".into() });
        }
        let spread = |numbers: &[f64]| {
            let numbers = numbers.iter().map(|&number| T::of(number));
            let mut spread = filled(count, T::zero(), (count, 1))?;
            for (to, number) in spread.chunks_exact_mut(pixels).zip(numbers) {
                to.fill(number);
            }
            Ok(spread)
        };
        for &offset in offsets {
            let expected = "a finite number that the scalar can represent";
            require(T::of(offset).is_finite(), "offset", offset, expected)?;
        }
        divisors.iter().try_for_each(|&divisor| require_positive::<T>("divisor", divisor))?;
        Ok(Self { offset: spread(offsets)?, divisor: spread(divisors)?, features })
    }

    /// Divides every number by `divisor`.
    pub(crate) fn divide_by(divisor: T) -> Self {
        Self { offset: vec![T::zero()], divisor: vec![divisor], features: None }
    }

    /// The offsets: a number for each feature, or a single one for all.
    #[must_use]
    pub fn offset(&self) -> &[T] {
        &self.offset
    }

    /// The divisors: a number for each feature, or a single one for all. 0 marks a constant feature.
    #[must_use]
    pub fn divisor(&self) -> &[T] {
        &self.divisor
    }

    /// How many features it is for; `None` if it treats any number of features alike.
    #[must_use]
    pub fn features(&self) -> Option<usize> {
        self.features
    }

    /// Scales each column of `x : features × samples`, for inputs outside a dataset.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] or [`Error::SamplesInRows`] for another number of features,
    /// [`Error::Empty`], [`Error::NonFinite`] for a NaN, an infinity or a result that overflows.
    pub fn apply(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.map(x, Self::scale)
    }

    /// The inverse, `x ← x · divisor + offset`. A constant feature becomes its constant again.
    ///
    /// ```
    /// use feedback_alignment::{data::Scaling, nalgebra::DMatrix};
    ///
    /// let scaling = Scaling::per_feature(&[1.0, 10.0], &[2.0, 4.0])?;
    /// let x = DMatrix::from_column_slice(2, 1, &[5.0, 2.0]);
    /// assert_eq!(scaling.apply(&x)?.as_slice(), [2.0, -2.0]);
    /// assert_eq!(scaling.invert(&scaling.apply(&x)?)?, x);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`apply`](Self::apply).
    pub fn invert(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.map(x, |scaling, x| {
            let pairs = scaling.offset.iter().zip(&scaling.divisor).cycle();
            x.iter_mut().zip(pairs).for_each(|(x, (&offset, &divisor))| *x = *x * divisor + offset);
        })
    }

    fn map(&self, x: &DMatrix<T>, to: impl Fn(&Self, &mut [T])) -> Result<DMatrix<T>> {
        if x.is_empty() {
            return Err(Error::Empty { what: "the matrix to scale".into() });
        }
        self.require_features(x.nrows(), x.ncols())?;
        let what = || "the input to scale (features × samples)".to_owned();
        require_finite(what, x.nrows(), x.as_slice())?;
        let mut scaled = x.clone();
        scaled.as_mut_slice().chunks_exact_mut(x.nrows()).for_each(|sample| to(self, sample));
        let what = || "the scaled input (features × samples)".to_owned();
        require_finite(what, x.nrows(), scaled.as_slice())?;
        Ok(scaled)
    }

    /// Fails unless samples with this number of features can be scaled.
    pub(crate) fn require_features(&self, features: usize, samples: usize) -> Result<()> {
        let expected = (self.features.unwrap_or(features), samples);
        require_samples("the input to scale (features × samples)", expected, (features, samples))
    }

    /// Scales one sample.
    pub(crate) fn scale(&self, x: &mut [T]) {
        let scaled = |x: T, offset: T, divisor: T| {
            if divisor == T::zero() { T::zero() } else { (x - offset) / divisor }
        };
        if let ([offset], [divisor]) = (&self.offset[..], &self.divisor[..]) {
            x.iter_mut().for_each(|x| *x = scaled(*x, *offset, *divisor));
        } else {
            for ((x, &offset), &divisor) in x.iter_mut().zip(&self.offset).zip(&self.divisor) {
                *x = scaled(*x, offset, divisor);
            }
        }
    }
}

/// The kind of file that the description names.
#[cfg(feature = "safetensors")]
const KIND: &str = "scaling";

#[cfg(feature = "safetensors")]
impl<T: Scalar> Scaling<T> {
    /// Saves the scaling as a safetensors file with the tensors `offset` and `divisor`. Each has one
    /// entry for each feature, or a single one for all features.
    ///
    /// The file is first written under another name in the same folder and then replaces `path`. So at
    /// any time `path` holds either the old content or the new.
    ///
    /// ```
    /// use feedback_alignment::data::Scaling;
    ///
    /// let scaling = Scaling::<f32>::constant(0.1307, 0.3081)?;
    /// let path = std::env::temp_dir().join(format!("scaling-{}.safetensors", std::process::id()));
    /// scaling.save(&path)?;
    /// assert_eq!(Scaling::load(&path)?, scaling);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        self.draft(path.as_ref())?.save()
    }

    /// Writes the bytes of the file that [`save`](Self::save) makes.
    ///
    /// # Errors
    /// Those of [`save`](Self::save); [`Error::Io`] if the writer fails.
    pub fn write_to(&self, writer: impl Write) -> Result<()> {
        self.draft(Path::new(WRITER))?.write_to(writer)
    }

    fn draft<'a>(&self, path: &'a Path) -> Result<Draft<'a>> {
        let [offset, divisor] = tensors(self.offset.len());
        let mut draft = Draft::new(path, KIND, &[line(self.features.is_some())]);
        draft.add(offset, &self.offset)?;
        draft.add(divisor, &self.divisor)?;
        Ok(draft)
    }

    /// Loads a scaling that [`save`](Self::save) wrote.
    ///
    /// # Errors
    /// Those of [`Whitening::load`](crate::data::Whitening::load), and [`Error::TensorValue`] for a
    /// divisor below 0.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_contents(path, &read(path)?)
    }

    /// [`load`](Self::load) from a reader. The reader has to end where the scaling ends; see
    /// [`files`](crate::files#readers-and-writers). Memory is taken only as bytes arrive.
    ///
    /// # Errors
    /// Those of [`load`](Self::load).
    pub fn read_from(reader: impl Read) -> Result<Self> {
        let name = Path::new(READER);
        Self::from_contents(name, &read_from(reader, name)?)
    }

    fn from_contents(path: &Path, contents: &Contents) -> Result<Self> {
        let file = File::parse(path, contents)?;
        let mut lines = file.lines(KIND)?;
        let entry = lines.take("scaling")?;
        let each = match entry.word("for")? {
            "each" => true,
            "all" => false,
            _ => return Err(entry.refuse("'for=each' or 'for=all'")),
        };
        lines.require(&[line(each)])?;
        let count = if each { file.shape("offset")?.iter().product() } else { 1 };
        if count == 0 {
            return Err(Error::Empty { what: format!("{}: tensor 'offset'", path.display()) });
        }
        let expected = tensors(count);
        file.require_only(&expected, &[])?;
        let [offset, divisor] = expected;
        let (offset, divisor) = (file.read(&offset)?, file.read_squares(&divisor)?);
        Ok(Self { offset, divisor, features: each.then_some(count) })
    }
}

/// The tensors of a file.
#[cfg(feature = "safetensors")]
fn tensors(count: usize) -> [Expected; 2] {
    ["offset", "divisor"].map(|name| Expected { name: name.into(), shape: vec![count] })
}

#[cfg(feature = "safetensors")]
fn line(each: bool) -> Line {
    Line::new("scaling").word("for", if each { "each" } else { "all" })
}
