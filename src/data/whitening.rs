//! ZCA whitening: removing the correlations of the features while changing the data as little as
//! possible.

#[cfg(feature = "safetensors")]
use std::{
    io::{Read, Write},
    path::Path,
};

use faer::{
    MatMut, Par, Spec,
    diag::DiagMut,
    dyn_stack::{MemBuffer, MemStack},
    linalg::evd::{ComputeEigenvectors, self_adjoint_evd, self_adjoint_evd_scratch},
};
use nalgebra::{DMatrix, DVector};

#[cfg(feature = "safetensors")]
use crate::files::{Contents, Draft, Expected, File, READER, WRITER, read, read_from};
use crate::{
    data::{dataset::Dataset, fit::means},
    error::{Error, Result, require, require_finite, require_shape},
    linalg::{Start, mat, of, product, zero_matrix},
    scalar::Scalar,
};

/// How many samples are multiplied at a time.
const CHUNK: usize = 1024;

/// The kind of file that the description names.
#[cfg(feature = "safetensors")]
const KIND: &str = "whitening";

/// The map `x ← W·(x − μ)` that gives the training set the covariance `I`, up to `ε`. It is fitted on a
/// training set, and [`Dataset::whitened`] applies it to every set.
///
/// With the mean `μ` and the covariance `C = 1/N Σ (x − μ)(x − μ)ᵀ = V·diag(λ)·Vᵀ` of the training
/// set,
///
/// ```text
/// W = V · diag(1 / √(max(λ, 0) + ε)) · Vᵀ
/// ```
///
/// Of all whitening matrices this is the symmetric one, and it changes the data the least (Krizhevsky
/// 2009, "Learning multiple layers of features from tiny images", appendix A; Bell and Sejnowski 1997).
/// The covariance becomes `V·diag(λ/(λ + ε))·Vᵀ`: directions with `λ ≫ ε` get variance 1, and
/// directions without variance stay at 0. Nøkland (2016) whitens the inputs of his convolutional
/// networks this way, with `ε` = 1e-5. `ε` is in units of squared inputs. So if pixels are not divided
/// by 255, the same `ε` has 255² times less effect.
///
/// Mean, covariance and eigenvectors are computed in `f64` for every scalar type. The 3072 features of
/// CIFAR-10 take a minute or two, so [`save`](Self::save) the result.
///
/// ```
/// use feedback_alignment::{data::{Dataset, Whitening}, nalgebra::DMatrix};
///
/// // Variance 4 along (1, 1) and variance 1 along (1, −1).
/// let x = DMatrix::from_column_slice(2, 4, &[2.0, 2.0, -2.0, -2.0, 1.0, -1.0, -1.0, 1.0]);
/// let train = Dataset::new(x, vec![0; 4])?;
/// let whitening = Whitening::fit(&train, Whitening::<f64>::EPSILON, |_| ())?;
/// let x = train.whitened(&whitening)?.inputs();
/// let covariance = &x * x.transpose() / 4.0;
/// assert!((covariance - DMatrix::identity(2, 2)).amax() < 1e-5);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Whitening<T> {
    mean: DVector<T>,
    matrix: DMatrix<T>,
}

/// The progress of fitting a [`Whitening`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Progress {
    /// What is being computed.
    pub stage: Stage,
    /// The fraction of this stage that is done, from 0 to 1.
    pub fraction: f64,
}

/// The stages of fitting a [`Whitening`], in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "lowercase")
)]
#[non_exhaustive]
pub enum Stage {
    /// Mean and covariance; about `2·features²` operations for each sample.
    Covariance,
    /// Eigenvalues and eigenvectors; in the order of `features³` operations. For CIFAR it is the
    /// longest stage. It reports only its beginning and its end.
    Eigenvectors,
    /// The matrix `W`, computed from them.
    Matrix,
}

impl<T: Scalar> Whitening<T> {
    /// Nøkland's `ε`, 1e-5.
    pub const EPSILON: f64 = 1e-5;

    /// Fits the whitening to a training set. `epsilon` is positive. `progress` is called at the
    /// beginning and end of each stage, and during it.
    ///
    /// ```
    /// use feedback_alignment::{
    ///     data::{Dataset, Whitening, whitening::Stage},
    ///     nalgebra::DMatrix,
    /// };
    ///
    /// let train = Dataset::new(DMatrix::<f32>::identity(3, 3), vec![0, 1, 2])?;
    /// let mut ended = Vec::new();
    /// Whitening::fit(&train, 1e-5, |now| {
    ///     if now.fraction == 1.0 {
    ///         ended.push(now.stage);
    ///     }
    /// })?;
    /// assert_eq!(ended, [Stage::Covariance, Stage::Eigenvectors, Stage::Matrix]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `epsilon` is positive and finite, [`Error::TooLarge`] if
    /// there is not enough memory for a matrix of `features × features`, [`Error::NonFinite`] if the
    /// covariance or the matrix overflows, [`Error::NoConvergence`] if the eigenvectors cannot be found.
    pub fn fit(
        train: &Dataset<T>,
        epsilon: f64,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self> {
        let valid = epsilon > 0.0 && epsilon.is_finite();
        require(valid, "epsilon", epsilon, "a positive number")?;
        let mut report = |stage, fraction| progress(Progress { stage, fraction });
        report(Stage::Covariance, 0.0);
        let mean = means(train);
        let covariance = covariance(train, &mean, |part| report(Stage::Covariance, part))?;
        report(Stage::Eigenvectors, 0.0);
        let eigen = eigenvectors(&covariance)?;
        report(Stage::Eigenvectors, 1.0);
        report(Stage::Matrix, 0.0);
        let matrix = inverse_square_root(eigen, epsilon)?;
        let mean = DVector::from_vec(mean).map(T::of);
        let whitening = Self { mean, matrix: matrix.map(T::of) };
        // What suits `f64` may overflow in `f32`.
        let matrix = whitening.matrix.as_slice();
        require_finite(|| "the whitening matrix".to_owned(), train.features(), matrix)?;
        report(Stage::Matrix, 1.0);
        Ok(whitening)
    }

    /// The mean `μ` of the training set.
    #[must_use]
    pub fn mean(&self) -> &DVector<T> {
        &self.mean
    }

    /// The symmetric matrix `W`, `features × features`.
    #[must_use]
    pub fn matrix(&self) -> &DMatrix<T> {
        &self.matrix
    }

    /// `W·(x − μ)` for each column of `x : features × samples`, for inputs outside a dataset.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of features, [`Error::NonFinite`] if `x` has a NaN
    /// or an infinity or the result overflows, [`Error::TooLarge`].
    pub fn apply(&self, x: &DMatrix<T>) -> Result<DMatrix<T>> {
        self.require_features(x.nrows(), x.ncols())?;
        let mut whitened = zero_matrix(x.nrows(), x.ncols())?;
        let mut centred = x.clone();
        self.transform(centred.as_mut_slice(), whitened.as_mut_slice())?;
        Ok(whitened)
    }

    /// The whitened inputs of a dataset.
    fn whiten(&self, data: &Dataset<T>) -> Result<DMatrix<T>> {
        let features = data.features();
        self.require_features(features, data.len())?;
        let mut whitened = zero_matrix(features, data.len())?;
        let mut centred = zero_matrix(features, CHUNK.min(data.len()))?;
        let chunks = whitened.as_mut_slice().chunks_mut(features * CHUNK);
        for (start, whitened) in (0..).step_by(CHUNK).zip(chunks) {
            let centred = &mut centred.as_mut_slice()[..whitened.len()];
            for (index, x) in (start..).zip(centred.chunks_exact_mut(features)) {
                data.copy_input(index, x);
            }
            self.transform(centred, whitened)?;
        }
        Ok(whitened)
    }

    /// `to ← W·(x − μ)`. Afterwards `x` holds `x − μ`.
    fn transform(&self, x: &mut [T], to: &mut [T]) -> Result<()> {
        let features = self.mean.len();
        for x in x.chunks_exact_mut(features) {
            x.iter_mut().zip(self.mean.iter()).for_each(|(x, &mean)| *x -= mean);
        }
        product(of(&self.matrix), mat(x, features), Start::Zero, to);
        require_finite(|| "the whitened input (features × samples)".into(), features, to)
    }

    fn require_features(&self, features: usize, samples: usize) -> Result<()> {
        let what = || "the input to whiten (features × samples)".to_owned();
        require_shape(what, (self.mean.len(), samples), (features, samples))
    }
}

#[cfg(feature = "safetensors")]
impl<T: Scalar> Whitening<T> {
    /// Saves the whitening as a safetensors file with the tensors `mean`, `[features]`, and
    /// `matrix`, `[features, features]`, of the type `T`.
    ///
    /// The file is first written under another name in the same folder and then replaces `path`. So at
    /// any time `path` holds either the old content or the new.
    ///
    /// ```
    /// use feedback_alignment::{data::{Dataset, Whitening}, nalgebra::DMatrix};
    ///
    /// let train = Dataset::new(DMatrix::<f32>::identity(3, 3), vec![0, 1, 2])?;
    /// let whitening = Whitening::fit(&train, 1e-5, |_| ())?;
    /// let path = std::env::temp_dir().join(format!("zca-{}.safetensors", std::process::id()));
    /// whitening.save(&path)?;
    /// assert_eq!(Whitening::load(&path)?, whitening);
    /// # std::fs::remove_file(path).unwrap();
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NonFinite`] for an infinite entry.
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
        let [mean, matrix] = tensors(self.mean.len());
        let mut draft = Draft::new(path, KIND, &[]);
        draft.add(mean, self.mean.as_slice())?;
        draft.add(matrix, self.matrix.as_slice())?; // It is symmetric, so rows and columns are the same.
        Ok(draft)
    }

    /// Loads what [`save`](Self::save) wrote, bit for bit.
    ///
    /// # Errors
    /// [`Error::Io`]; for a file that is cut off, damaged or no safetensors file
    /// [`Error::Safetensors`], [`Error::TensorCutOff`], [`Error::TrailingBytes`] or
    /// [`Error::Checksum`]; [`Error::FileKind`], [`Error::FormatVersion`],
    /// [`Error::Description`], [`Error::MissingTensor`], [`Error::UnexpectedTensor`],
    /// [`Error::TensorShape`] and [`Error::TensorType`] for one that holds something else,
    /// [`Error::TensorValue`] for a matrix that is not symmetric, [`Error::NonFinite`] for a NaN
    /// or an infinity in it.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::from_contents(path, &read(path)?)
    }

    /// [`load`](Self::load) from a reader. The reader has to end where the whitening ends; see
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
        file.lines(KIND)?.require(&[])?;
        let features = file.shape("mean")?.iter().product();
        if features == 0 {
            return Err(Error::Empty { what: format!("{}: tensor 'mean'", path.display()) });
        }
        let expected = tensors(features);
        file.require_only(&expected, &[])?;
        let [mean, matrix] = expected;
        let mean = DVector::from_vec(file.read(&mean)?);
        let values: Vec<T> = file.read(&matrix)?;
        let other_side = |at: usize| at % features * features + at / features;
        if let Some(at) = (0..values.len()).find(|&at| values[at] != values[other_side(at)]) {
            return Err(Error::TensorValue {
                path: path.to_owned(),
                tensor: matrix.name,
                expected: "a symmetric matrix",
                found: values[at].as_f64(),
            });
        }
        Ok(Self { mean, matrix: DMatrix::from_vec(features, features, values) })
    }
}

/// The tensors of a file.
#[cfg(feature = "safetensors")]
fn tensors(features: usize) -> [Expected; 2] {
    [("mean", vec![features]), ("matrix", vec![features, features])]
        .map(|(name, shape)| Expected { name: name.into(), shape })
}

/// The covariance of the population, `1/N Σ (x − μ)(x − μ)ᵀ`. `progress` gets the fraction done.
fn covariance<T: Scalar>(
    data: &Dataset<T>,
    mean: &[f64],
    mut progress: impl FnMut(f64),
) -> Result<DMatrix<f64>> {
    let features = mean.len();
    let mut sum = zero_matrix(features, features)?;
    let mut x = vec![T::zero(); features];
    let mut centred = zero_matrix::<f64>(features, CHUNK.min(data.len()))?;
    for start in (0..data.len()).step_by(CHUNK) {
        let end = data.len().min(start + CHUNK);
        let centred = &mut centred.as_mut_slice()[..(end - start) * features];
        for (index, centred) in (start..end).zip(centred.chunks_exact_mut(features)) {
            data.copy_input(index, &mut x);
            for ((centred, x), mean) in centred.iter_mut().zip(&x).zip(mean) {
                *centred = x.as_f64() - mean;
            }
        }
        let centred = mat(centred, features);
        product(centred, centred.transpose(), Start::Present, sum.as_mut_slice());
        progress(end as f64 / data.len() as f64);
    }
    let covariance = sum / data.len() as f64;
    require_finite(|| "the covariance of the features".into(), features, covariance.as_slice())?;
    Ok(covariance)
}

/// Eigenvalues and eigenvectors of a symmetric matrix. The eigenvectors are the columns of the result.
/// It runs on one thread: faer's own choice of threads depends on what other crates set, and the bits
/// would depend on it too.
fn eigenvectors(matrix: &DMatrix<f64>) -> Result<(Vec<f64>, DMatrix<f64>)> {
    let (size, yes, alone) = (matrix.nrows(), ComputeEigenvectors::Yes, Par::Seq);
    let (mut values, mut vectors) = (vec![0.0; size], zero_matrix(size, size)?);
    let scratch = self_adjoint_evd_scratch::<f64>(size, yes, alone, Spec::default());
    let mut scratch =
        MemBuffer::try_new(scratch).map_err(|_| Error::TooLarge { rows: size, columns: size })?;
    let (s, u) = (
        DiagMut::from_slice_mut(&mut values),
        MatMut::from_column_major_slice_mut(vectors.as_mut_slice(), size, size),
    );
    self_adjoint_evd(of(matrix), s, Some(u), alone, MemStack::new(&mut scratch), Spec::default())
        .map_err(|_| Error::NoConvergence { what: "the search for eigenvectors" })?;
    Ok((values, vectors))
}

/// `V·diag(1/√(max(λ, 0) + ε))·Vᵀ`, exactly symmetric.
fn inverse_square_root(
    (values, mut s): (Vec<f64>, DMatrix<f64>),
    epsilon: f64,
) -> Result<DMatrix<f64>> {
    // Computed as S·Sᵀ with S = V·diag((λ + ε)^(−1/4)): half of the power on each side.
    for (mut column, value) in s.column_iter_mut().zip(values) {
        column /= (value.max(0.0) + epsilon).sqrt().sqrt();
    }
    let mut matrix = zero_matrix(s.nrows(), s.nrows())?;
    product(of(&s), of(&s).transpose(), Start::Zero, matrix.as_mut_slice());
    matrix.fill_lower_triangle_with_upper_triangle();
    Ok(matrix)
}

impl<T: Scalar> Dataset<T> {
    /// The dataset with every input whitened. Fit the [`Whitening`] on the training set, and apply it
    /// to all sets.
    ///
    /// Afterwards the inputs are stored as numbers, even if they were bytes. CIFAR-10's 50,000 training
    /// images take 614 MB in `f32`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the whitening is for another number of features, [`Error::TooLarge`]
    /// if there is not enough memory, [`Error::NonFinite`] if a number overflows.
    pub fn whitened(self, whitening: &Whitening<T>) -> Result<Self> {
        let inputs = whitening.whiten(&self)?;
        Ok(self.with_inputs(inputs))
    }
}

#[cfg(test)]
mod tests {
    use approx::assert_relative_eq;
    use proptest::prelude::*;

    use super::*;

    /// Correlated features from a small linear congruential generator.
    fn data(features: usize, samples: usize, seed: u64) -> Dataset<f64> {
        let mut state = seed;
        let mut draw = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f64 / f64::from(1 << 23) - 1.0
        };
        let mix = DMatrix::from_fn(features, features, |_, _| draw());
        let x = mix * DMatrix::from_fn(features, samples, |_, _| draw());
        Dataset::new(x.add_scalar(3.0), vec![0; samples]).unwrap()
    }

    fn naive_covariance(x: &DMatrix<f64>) -> DMatrix<f64> {
        let mean = x.column_mean();
        let mut sum = DMatrix::zeros(x.nrows(), x.nrows());
        for column in x.column_iter() {
            let centred = column - &mean;
            sum += &centred * centred.transpose();
        }
        sum / x.ncols() as f64
    }

    proptest! {
        #[test]
        fn whitened_data_has_the_covariance_it_should(
            features in 1..8_usize, samples in 1..40_usize, seed in 0..1000_u64,
        ) {
            let data = data(features, samples, seed);
            let epsilon = 0.3;
            let whitening = Whitening::fit(&data, epsilon, |_| ()).unwrap();
            prop_assert_eq!(whitening.matrix(), &whitening.matrix().transpose());
            // V·diag(λ/(λ + ε))·Vᵀ = C·(C + ε·I)⁻¹
            let before = naive_covariance(&data.inputs());
            let after = naive_covariance(&data.whitened(&whitening).unwrap().inputs());
            let identity = DMatrix::identity(features, features);
            let product = after * (&before + identity * epsilon);
            prop_assert!((product - &before).amax() < 1e-10 * (1.0 + before.amax()));
        }
    }

    #[test]
    fn where_variance_is_large_the_covariance_becomes_the_identity() {
        // More samples than a chunk.
        let data = data(6, 2500, 3);
        let whitening = Whitening::fit(&data, 1e-9, |_| ()).unwrap();
        let x = data.whitened(&whitening).unwrap().inputs();
        assert_relative_eq!(x.column_mean().amax(), 0.0, epsilon = 1e-10);
        assert_relative_eq!(naive_covariance(&x), DMatrix::identity(6, 6), epsilon = 1e-6);
    }

    #[test]
    fn two_features_by_hand() {
        // Variance 4 along (1, 1)/√2 and 1 along (1, −1)/√2, about the mean (10, 20).
        let x = DMatrix::from_column_slice(2, 4, &[12., 22., 8., 18., 11., 19., 9., 21.]);
        let data = Dataset::new(x, vec![0; 4]).unwrap();
        let whitening = Whitening::fit(&data, 0.5, |_| ()).unwrap();
        assert_relative_eq!(whitening.mean().as_slice(), &[10.0, 20.0][..], epsilon = 1e-14);
        let (a, b) = (4.5_f64.sqrt().recip(), 1.5_f64.sqrt().recip());
        let expected = DMatrix::from_row_slice(2, 2, &[a + b, a - b, a - b, a + b]) / 2.0;
        assert_relative_eq!(whitening.matrix(), &expected, epsilon = 1e-14);
        let image = DMatrix::from_column_slice(2, 1, &[11.0, 21.0]);
        let whitened = whitening.apply(&image).unwrap();
        assert_relative_eq!(whitened.as_slice(), &[a, a][..], epsilon = 1e-14);
    }

    #[test]
    fn constant_and_dependent_features_stay_finite() {
        // The second feature is constant, the fourth is the third; fewer samples than features.
        let x = DMatrix::from_fn(5, 3, |i, j| match i {
            1 => 0.1,
            2 | 3 => j as f64,
            _ => ((i + 2) * (j + 1) % 5) as f64,
        });
        let data = Dataset::new(x, vec![0; 3]).unwrap();
        let whitening = Whitening::fit(&data, Whitening::<f64>::EPSILON, |_| ()).unwrap();
        let x = data.clone().whitened(&whitening).unwrap().inputs();
        assert!(x.iter().all(|x| x.is_finite()));
        assert_relative_eq!(x.row(1).amax(), 0.0, epsilon = 1e-10);
        assert_relative_eq!(x.row(2), x.row(3), epsilon = 1e-9);
        let constant = Dataset::new(DMatrix::from_element(3, 4, 0.7_f32), vec![0; 4]).unwrap();
        let whitening = Whitening::fit(&constant, 1e-5, |_| ()).unwrap();
        assert_eq!(constant.whitened(&whitening).unwrap().inputs().amax(), 0.0);
    }

    #[test]
    fn bytes_whiten_as_values_do_and_single_inputs_as_datasets() {
        let bytes: Vec<u8> = (0..120_u8).map(|i| i.wrapping_mul(37)).collect();
        let values = DMatrix::from_iterator(4, 30, bytes.iter().map(|&byte| f32::from(byte)));
        let bytes = Dataset::<f32>::from_bytes(4, bytes, vec![0; 30]).unwrap();
        let whitening = Whitening::fit(&bytes, 1e-5, |_| ()).unwrap();
        let values_fit = Dataset::new(values.clone(), vec![0; 30]).unwrap();
        assert_eq!(whitening, Whitening::fit(&values_fit, 1e-5, |_| ()).unwrap());
        let whitened = bytes.whitened(&whitening).unwrap();
        assert_eq!((whitened.len(), whitened.classes()), (30, Some(1)));
        assert_eq!(whitened.inputs(), whitening.apply(&values).unwrap());
    }

    #[test]
    fn progress_never_goes_back() {
        let mut reports = Vec::new();
        Whitening::fit(&data(3, 2500, 1), 1e-5, |now| reports.push(now)).unwrap();
        assert!(reports.is_sorted_by_key(|now| (now.stage, now.fraction.to_bits())));
        assert_eq!(reports.last(), Some(&Progress { stage: Stage::Matrix, fraction: 1.0 }));
        let parts = reports.iter().filter(|now| now.stage == Stage::Covariance).count();
        assert_eq!(parts, 1 + 3);
    }

    #[test]
    fn what_cannot_be_whitened_is_refused() {
        let good = data(3, 5, 1);
        for epsilon in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let refused = Whitening::fit(&good, epsilon, |_| ()).unwrap_err();
            assert!(matches!(refused, Error::InvalidParameter { name: "epsilon", .. }));
        }
        let whitening = Whitening::fit(&good, 1e-5, |_| ()).unwrap();
        let narrow = data(2, 5, 1);
        let refused = whitening.apply(&narrow.inputs()).unwrap_err();
        assert!(matches!(refused, Error::ShapeMismatch { expected: (3, 5), found: (2, 5), .. }));
        assert!(matches!(narrow.whitened(&whitening), Err(Error::ShapeMismatch { .. })));
        let huge = DMatrix::from_row_slice(1, 2, &[1e308, -1e308]);
        let huge = Dataset::new(huge, vec![0; 2]).unwrap();
        let refused = Whitening::fit(&huge, 1e-5, |_| ()).unwrap_err();
        assert!(matches!(refused, Error::NonFinite { .. }), "{refused}");
        // A constant feature gets 1/√ε.
        let constant = Dataset::<f32>::new(DMatrix::zeros(2, 1), vec![0]).unwrap();
        let refused = Whitening::fit(&constant, 1e-80, |_| ()).unwrap_err();
        assert!(refused.to_string().contains("the whitening matrix"), "{refused}");
        let nan = DMatrix::from_element(3, 1, f64::NAN);
        assert!(matches!(whitening.apply(&nan), Err(Error::NonFinite { .. })));
    }
}
