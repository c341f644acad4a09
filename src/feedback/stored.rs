//! How the matrix of a hop is stored: only the numbers that make it up.

use std::fmt;

use nalgebra::DMatrix;

use super::hops::Shapes;
use crate::{
    bound::bound_of_squares,
    error::{Error, Result},
    linalg::{self, Start, filled, zero_matrix},
    network::Derivative,
    scalar::Scalar,
    threads::{Chunks, share_out, small_pieces},
};

/// The matrix of a hop, as it is stored.
#[derive(Clone)]
pub(super) struct Stored<T> {
    /// What it holds depends on the form of the matrix:
    ///
    /// - A plain matrix: the matrix itself. If it replaces weights it has their shape, so that the
    ///   products of a layer can use it in their place.
    /// - Two factors: the factor that a signal passes last.
    /// - A sparse matrix: its entries, one column for each row of the matrix.
    /// - A part of the shared matrix: only the factor that it is multiplied by.
    pub(super) numbers: DMatrix<T>,
    pub(super) beside: Beside<T>,
    /// An upper bound of the squares of the matrix's entries.
    pub(super) squares: f64,
    /// The first and second moments, if it learns; empty before the first step.
    pub(super) moments: [Vec<T>; 2],
}

/// What is stored beside the numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Beside<T> {
    Nothing,
    /// `V`, which a signal passes first. The matrix is `U V`, and `U` is in the numbers.
    Right(DMatrix<T>),
    /// `B`, which a signal passes first. `B R` replaces the weights, and `R` is in the numbers.
    Left(DMatrix<T>),
    /// The column of each entry of a sparse matrix, and how many columns there are.
    Places(Vec<u32>, usize),
    /// The shape of the part that it takes of the shared matrix.
    Leading(usize, usize),
}

impl<T: fmt::Debug> fmt::Debug for Stored<T> {
    /// What [`PartialEq`] compares.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (&self.numbers, &self.beside, &self.moments).fmt(f)
    }
}

impl<T: PartialEq> PartialEq for Stored<T> {
    /// Compares numbers and moments, not the bound, which follows from them.
    fn eq(&self, other: &Self) -> bool {
        (&self.numbers, &self.beside) == (&other.numbers, &other.beside)
            && self.moments == other.moments
    }
}

impl<T: Scalar> Stored<T> {
    pub(super) fn zeros(shapes: &Shapes) -> Result<Self> {
        let (rows, columns) = shapes.numbers();
        let beside = match *shapes {
            Shapes::Whole(..) => Beside::Nothing,
            Shapes::LowRank { rank, senders, .. } => Beside::Right(zero_matrix(rank, senders)?),
            Shapes::Product { rows, between, .. } => Beside::Left(zero_matrix(rows, between)?),
            Shapes::Sparse { receivers, entries, senders } => {
                let length = entries.saturating_mul(receivers);
                Beside::Places(filled(length, 0, (entries, receivers))?, senders)
            }
            Shapes::Leading(rows, columns) => Beside::Leading(rows, columns),
        };
        let numbers = zero_matrix(rows, columns)?;
        Ok(Self { numbers, beside, squares: 0.0, moments: [Vec::new(), Vec::new()] })
    }

    /// Whether it has these shapes.
    pub(super) fn fits(&self, shapes: &Shapes) -> bool {
        let beside = match (&self.beside, *shapes) {
            (Beside::Nothing, Shapes::Whole(..)) => true,
            (Beside::Right(v), Shapes::LowRank { senders, .. }) => v.ncols() == senders,
            (Beside::Left(b), Shapes::Product { rows, .. }) => b.nrows() == rows,
            (&Beside::Places(_, there), Shapes::Sparse { senders, .. }) => there == senders,
            (&Beside::Leading(r, c), Shapes::Leading(rows, columns)) => (r, c) == (rows, columns),
            _ => false,
        };
        beside && self.numbers.shape() == shapes.numbers()
    }

    /// How many numbers it stores; a part of the shared matrix stores none.
    pub(super) fn len(&self) -> usize {
        match &self.beside {
            Beside::Nothing | Beside::Places(..) => self.numbers.len(),
            Beside::Right(first) | Beside::Left(first) => self.numbers.len() + first.len(),
            Beside::Leading(..) => 0,
        }
    }

    /// Rows and columns of the whole matrix; transposed if the numbers are stored transposed.
    pub(super) fn shape(&self) -> (usize, usize) {
        let (rows, columns) = self.numbers.shape();
        match &self.beside {
            Beside::Nothing => (rows, columns),
            Beside::Right(v) => (rows, v.ncols()),
            Beside::Left(b) => (b.nrows(), columns),
            Beside::Places(_, senders) => (columns, *senders),
            &Beside::Leading(rows, columns) => (rows, columns),
        }
    }

    /// Computes the upper bound of the squares of the entries.
    pub(super) fn measure(&mut self, shared: &DMatrix<T>) {
        let numbers = bound_of_squares(self.numbers.as_slice());
        self.squares = match &self.beside {
            Beside::Nothing | Beside::Places(..) => numbers,
            Beside::Right(first) | Beside::Left(first) => {
                // An entry of a product is a sum of at most this many terms.
                let terms = first.nrows().max(first.ncols()) as f64;
                numbers * bound_of_squares(first.as_slice()) * terms * terms
            }
            Beside::Leading(..) => numbers * bound_of_squares(shared.as_slice()),
        };
    }

    /// Takes the entries of a sparse matrix from a full matrix. Fails if a row has too many that are
    /// not 0.
    pub(super) fn take_entries(&mut self, matrix: &DMatrix<T>, name: String) -> Result<()> {
        let Beside::Places(places, _) = &mut self.beside else { return Ok(()) };
        let entries = self.numbers.nrows();
        let count =
            |row: usize| matrix.row(row).iter().filter(|&&entry| entry != T::zero()).count();
        if let Some(row) = (0..matrix.nrows()).find(|&row| count(row) > entries) {
            return Err(Error::ShapeMismatch {
                what: format!("row {row} of {name}, by its entries"),
                expected: (1, entries),
                found: (1, count(row)),
            });
        }
        for (row, (places, numbers)) in places
            .chunks_exact_mut(entries)
            .zip(self.numbers.as_mut_slice().chunks_exact_mut(entries))
            .enumerate()
        {
            // All entries that are not 0. If the row has room for more, it also keeps some zeros.
            let row = matrix.row(row);
            let mut columns: Vec<usize> = (0..row.len()).collect();
            columns.sort_by_key(|&column| row[column] == T::zero());
            columns.truncate(entries);
            columns.sort_unstable();
            for ((place, number), column) in places.iter_mut().zip(numbers).zip(columns) {
                (*place, *number) = (name_of(column), row[column]);
            }
        }
        Ok(())
    }

    /// The whole matrix, multiplied out; transposed if the numbers are stored transposed.
    pub(super) fn whole(&self, shared: &DMatrix<T>) -> Result<DMatrix<T>> {
        let (rows, columns) = self.shape();
        let mut whole = zero_matrix(rows, columns)?;
        match &self.beside {
            Beside::Nothing => whole.copy_from(&self.numbers),
            Beside::Right(v) => multiply(&self.numbers, v, &mut whole),
            Beside::Left(b) => multiply(b, &self.numbers, &mut whole),
            Beside::Places(places, _) => {
                let entries = self.numbers.nrows();
                for (index, (&place, &entry)) in places.iter().zip(&self.numbers).enumerate() {
                    whole[(index / entries, place as usize)] = entry;
                }
            }
            Beside::Leading(..) => {
                let (factor, part) = (self.numbers[0], shared.view((0, 0), (rows, columns)));
                whole.zip_apply(&part, |entry, shared| *entry = shared * factor);
            }
        }
        Ok(whole)
    }

    /// `y ← M x` for a matrix that leads straight from one layer to another. Applies `then` to pieces
    /// of `y` while they are in cache. `between` has room for the product with the first factor.
    pub(super) fn send(
        &self,
        shared: &DMatrix<T>,
        x: linalg::Mat<T>,
        between: &mut [T],
        y: &mut [T],
        then: Derivative<T>,
    ) {
        let finish = |place, y: &mut [T], _: &mut [T]| then.multiply(place, y);
        let matrix = linalg::of(&self.numbers);
        match &self.beside {
            Beside::Nothing => linalg::product_then(matrix, x, Start::Zero, y, &mut [], &finish),
            Beside::Right(v) => {
                linalg::product(linalg::of(v), x, Start::Zero, between);
                let between = linalg::mat(between, v.nrows());
                linalg::product_then(matrix, between, Start::Zero, y, &mut [], &finish);
            }
            Beside::Left(_) => unreachable!("it stands in for weights"),
            &Beside::Leading(rows, columns) => {
                let (matrix, factor) =
                    (linalg::of(shared).submatrix(0, 0, rows, columns), self.numbers[0]);
                let finish = |place, y: &mut [T], _: &mut [T]| {
                    y.iter_mut().for_each(|y| *y *= factor);
                    then.multiply(place, y);
                };
                linalg::product_then(matrix, x, Start::Zero, y, &mut [], &finish);
            }
            Beside::Places(places, _) => self.send_some(places, x, y, then),
        }
    }

    /// [`send`](Self::send) of a sparse matrix: `y_i ← Σ_k m_ik x_place(i, k)`.
    fn send_some(&self, places: &[u32], x: linalg::Mat<T>, y: &mut [T], then: Derivative<T>) {
        let (entries, rows) = self.numbers.shape();
        let parts = small_pieces(y.len(), entries);
        share_out(Chunks { data: y, size: rows }, 0..x.ncols(), parts, &|samples, y| {
            for (sample, y) in samples.zip(y.data.chunks_exact_mut(rows)) {
                let x = x.col(sample).try_as_col_major().expect("a column lies in one piece");
                let (x, entries_of) = (x.as_slice(), self.numbers.as_slice());
                if entries == 1 {
                    for ((y, &place), &m) in y.iter_mut().zip(places).zip(entries_of) {
                        *y = m * x[place as usize];
                    }
                } else {
                    let rows = places.chunks_exact(entries).zip(entries_of.chunks_exact(entries));
                    for (y, (places, row)) in y.iter_mut().zip(rows) {
                        let terms = places.iter().zip(row);
                        *y = terms.fold(T::zero(), |sum, (&at, &m)| sum + m * x[at as usize]);
                    }
                }
                then.multiply(sample * rows, y);
            }
        });
    }
}

/// The number of a column as a sparse matrix stores it. [`check`](super::hops::check) has refused
/// matrices with more columns than that.
pub(super) fn name_of(unit: usize) -> u32 {
    u32::try_from(unit).expect("more units than that have been refused")
}

/// `product ← a b`
fn multiply<T: Scalar>(a: &DMatrix<T>, b: &DMatrix<T>, product: &mut DMatrix<T>) {
    linalg::product(linalg::of(a), linalg::of(b), Start::Zero, product.as_mut_slice());
}
