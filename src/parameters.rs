//! One buffer for all numbers of a network, and a table that says where each parameter is in it.
//!
//! Weights, gradients and the moments of an optimiser have the same type. So code that visits all
//! parameters visits the slots of the table. The parameters of each kind of layer are listed in one
//! place, `architecture/item.rs`.

use std::{fmt, ops::Range, sync::Arc};

use nalgebra::{DMatrixView, DMatrixViewMut};

use crate::{
    error::{Error, Result},
    linalg::filled,
    scalar::Scalar,
};

/// Which parameter of a layer a [`Slot`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "kebab-case")
)]
#[non_exhaustive]
pub enum Part {
    /// `W`, column by column; the kernels of a convolution are its rows.
    Weights,
    /// `b`
    Bias,
    /// `γ` of a normalisation.
    Scale,
    /// `β` of a normalisation.
    Shift,
    /// The running mean of batch normalisation. In gradients: the mean of the batch, which it follows.
    RunningMean,
    /// The running variance of batch normalisation, at least 0. In gradients: the unbiased variance of
    /// the batch, which it follows.
    RunningVariance,
}

impl Part {
    /// Whether it follows a gradient. Running statistics do not: they follow the statistics of batches.
    #[must_use]
    pub fn is_learned(self) -> bool {
        !matches!(self, Self::RunningMean | Self::RunningVariance)
    }

    /// Its value before anything is drawn or learned.
    fn initial(self) -> f64 {
        match self {
            Self::Scale | Self::RunningVariance => 1.0,
            Self::Weights | Self::Bias | Self::Shift | Self::RunningMean => 0.0,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Weights => "W",
            Self::Bias => "b",
            Self::Scale => "γ",
            Self::Shift => "β",
            Self::RunningMean => "running mean",
            Self::RunningVariance => "running variance",
        })
    }
}

/// One parameter of one layer: its shape and its place in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// The weighted layer that it belongs to, or comes after; counted from 0.
    pub layer: usize,
    /// Which parameter it is.
    pub part: Part,
    /// Rows of a matrix, or length of a vector.
    pub rows: usize,
    /// Columns of a matrix; 1 for a vector.
    pub columns: usize,
    /// The entry of the network's list of layers that it belongs to.
    pub(crate) item: usize,
    /// The index of the operation that owns this slot, counted from the first after the layer; `None` if the
    /// layer itself owns it.
    pub(crate) operation: Option<usize>,
    /// Its place among the parameters of its layer or operation.
    pub(crate) number: usize,
    /// Where it begins, counted from the beginning of its layer.
    offset: usize,
    /// Where its layer begins in the buffer.
    start: usize,
}

impl Slot {
    /// A parameter whose place in the buffer is not known yet.
    pub(crate) fn new(
        (item, layer, operation): (usize, usize, Option<usize>),
        (number, (part, rows, columns)): (usize, (Part, usize, usize)),
    ) -> Self {
        Self { layer, part, rows, columns, item, operation, number, offset: 0, start: 0 }
    }

    /// How many numbers it has.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // No parameter is empty.
    #[inline]
    pub fn len(&self) -> usize {
        self.rows * self.columns
    }

    /// Its place in the buffer of [`Parameters::as_slice`].
    #[must_use]
    #[inline]
    pub fn range(&self) -> Range<usize> {
        let first = self.start + self.offset;
        first..first + self.len()
    }

    /// Its numbers, from those of its layer; empty if the layer has none.
    #[inline]
    pub(crate) fn of<'a, T>(&self, layer: &'a [T]) -> &'a [T] {
        if layer.is_empty() { layer } else { &layer[self.offset..][..self.len()] }
    }

    /// [`of`](Self::of), for writing.
    #[inline]
    pub(crate) fn of_mut<'a, T>(&self, layer: &'a mut [T]) -> &'a mut [T] {
        if layer.is_empty() { layer } else { &mut layer[self.offset..][..self.len()] }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of weighted layer {}", self.part, self.layer)
    }
}

/// All parameters of a network, layer by layer: `W`, `b`, then those of each operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    slots: Vec<Slot>,
    /// For each layer the range of its slots and the range of its numbers.
    layers: Vec<(Range<usize>, Range<usize>)>,
}

/// Every slot begins at a multiple of this many numbers, and so at a cache line.
const ALIGNMENT: usize = 16;

impl Table {
    /// Gives every slot its place in the buffer. The slots have to be in the order of their layers.
    pub(crate) fn new(mut slots: Vec<Slot>) -> Result<Self> {
        let mut layers: Vec<(Range<usize>, Range<usize>)> = Vec::new();
        let mut end = 0;
        for (index, slot) in slots.iter_mut().enumerate() {
            if layers.len() == slot.layer {
                layers.push((index..index, end..end));
            }
            let Some((indices, numbers)) = layers.last_mut() else { continue };
            slot.start = numbers.start;
            slot.offset = end - numbers.start;
            let &mut Slot { rows, columns, .. } = slot;
            let length = rows
                .checked_mul(columns)
                .and_then(|length| length.checked_next_multiple_of(ALIGNMENT)?.checked_add(end));
            end = length.ok_or(Error::TooLarge { rows, columns })?;
            (indices.end, numbers.end) = (index + 1, end);
        }
        Ok(Self { slots, layers })
    }

    #[inline]
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The slots of a layer. The layer's own come first: `W`, then `b` if it has one.
    #[inline]
    pub(crate) fn of_layer(&self, layer: usize) -> &[Slot] {
        &self.slots[self.layers[layer].0.clone()]
    }

    /// The indices of these slots.
    #[inline]
    pub(crate) fn indices(&self, layer: usize) -> Range<usize> {
        self.layers[layer].0.clone()
    }

    #[inline]
    fn numbers(&self, layer: usize) -> Range<usize> {
        self.layers[layer].1.clone()
    }

    fn len(&self) -> usize {
        self.layers.last().map_or(0, |(_, numbers)| numbers.end)
    }
}

/// One number for each parameter of a network, in one buffer: the parameters themselves, or for example
/// their gradient.
///
/// Each parameter has a [`Slot`]. Zeros fill the gaps between slots, so that every slot begins at a
/// cache line.
///
/// ```
/// use feedback_alignment::{Network, Part};
///
/// let network = Network::<f32>::builder(4).dense(3).batch_norm().tanh().dense(2).build()?;
/// let parameters = network.parameters();
/// let names: Vec<_> = parameters.slots().iter().map(|slot| slot.to_string()).collect();
/// assert_eq!(names[..3], ["W of weighted layer 0", "b of weighted layer 0", "γ of weighted layer 0"]);
/// let weights = parameters.get(1, Part::Weights).expect("every layer has weights");
/// assert_eq!(weights, network.layer(1)?.weights());
/// assert_eq!(parameters.as_slice()[parameters.slots()[0].range()].len(), 3 * 4);
/// # Ok::<(), feedback_alignment::Error>(())
/// ```
pub struct Parameters<T> {
    table: Arc<Table>,
    /// Slightly longer than needed, so that the used part can begin at a cache line.
    buffer: Vec<T>,
    start: usize,
    /// The length of the used part; 0 if there are no numbers, as for a moment that the optimiser does
    /// not have.
    length: usize,
}

/// Bytes of a cache line.
const LINE: usize = 64;

impl<T: Scalar> Parameters<T> {
    /// All numbers 0, or an error if there is not enough memory.
    pub(crate) fn zeros(table: &Arc<Table>) -> Result<Self> {
        let length = table.len();
        let spare = LINE / size_of::<T>();
        let too_large = Error::TooLarge { rows: length, columns: 1 };
        let with_spare = length.checked_add(spare).ok_or(too_large)?;
        let buffer = filled(with_spare, T::zero(), (length, 1))?;
        Ok(Self::aligned(Arc::clone(table), buffer, length))
    }

    /// The parameters before anything is drawn or learned.
    pub(crate) fn initial(table: &Arc<Table>) -> Result<Self> {
        let mut parameters = Self::zeros(table)?;
        for slot in table.slots() {
            parameters.slot_mut(slot).fill(T::of(slot.part.initial()));
        }
        Ok(parameters)
    }

    /// No numbers at all.
    pub(crate) fn none(table: &Arc<Table>) -> Self {
        Self { table: Arc::clone(table), buffer: Vec::new(), start: 0, length: 0 }
    }

    /// Takes a buffer that has a cache line to spare.
    fn aligned(table: Arc<Table>, buffer: Vec<T>, length: usize) -> Self {
        // Only speed depends on the alignment. If it cannot be computed, any place will do.
        let start = buffer.as_ptr().align_offset(LINE).min(buffer.len() - length);
        Self { table, buffer, start, length }
    }

    pub(crate) fn table(&self) -> &Arc<Table> {
        &self.table
    }

    /// The parameters with their shapes and places, layer by layer.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        self.table.slots()
    }

    /// A parameter of a layer. If it has several of this kind, as with two normalisations, the first.
    #[must_use]
    pub fn get(&self, layer: usize, part: Part) -> Option<DMatrixView<'_, T>> {
        let slot = self.find(layer, part)?;
        Some(DMatrixView::from_slice(self.slot(&slot), slot.rows, slot.columns))
    }

    /// [`get`](Self::get), for writing.
    pub fn get_mut(&mut self, layer: usize, part: Part) -> Option<DMatrixViewMut<'_, T>> {
        let slot = self.find(layer, part)?;
        Some(DMatrixViewMut::from_slice(self.slot_mut(&slot), slot.rows, slot.columns))
    }

    /// All numbers, with the zeros between slots.
    #[must_use]
    #[inline]
    pub fn as_slice(&self) -> &[T] {
        &self.buffer[self.start..self.start + self.length]
    }

    /// [`as_slice`](Self::as_slice), for writing. The numbers between slots are never read.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.buffer[self.start..self.start + self.length]
    }

    pub(crate) fn find(&self, layer: usize, part: Part) -> Option<Slot> {
        let (slots, _) = self.table.layers.get(layer)?;
        self.slots()[slots.clone()].iter().find(|slot| slot.part == part).copied()
    }

    #[inline]
    pub(crate) fn slot(&self, slot: &Slot) -> &[T] {
        &self.as_slice()[slot.range()]
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, slot: &Slot) -> &mut [T] {
        &mut self.as_mut_slice()[slot.range()]
    }

    /// The slots of a layer and its numbers.
    #[inline]
    pub(crate) fn layer(&self, layer: usize) -> OfLayer<'_, T> {
        let (slots, numbers) = &self.table.layers[layer];
        let numbers = match self.length {
            0 => &[][..],
            _ => &self.buffer[self.start + numbers.start..self.start + numbers.end],
        };
        OfLayer { slots: &self.table.slots[slots.clone()], numbers }
    }

    /// The numbers of all layers, to be divided among threads.
    #[inline]
    pub(crate) fn all_layers(&mut self) -> Layers<'_, T> {
        let range = self.start..self.start + self.length;
        Layers { table: &self.table, start: 0, numbers: &mut self.buffer[range] }
    }
}

impl<T: fmt::Debug> fmt::Debug for Parameters<T> {
    /// Shows the numbers layer by layer, not their places in memory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = &self.buffer[self.start..self.start + self.length];
        let slots = self.table.slots().iter().filter(|_| !numbers.is_empty());
        f.debug_map().entries(slots.map(|slot| (slot, &numbers[slot.range()]))).finish()
    }
}

impl<T: Clone> Clone for Parameters<T> {
    fn clone(&self) -> Self {
        let Self { table, buffer, start, length } = self;
        let mut clone = Self {
            table: Arc::clone(table),
            buffer: buffer.clone(),
            start: *start,
            length: *length,
        };
        // The copy may lie differently within a cache line.
        let first = clone.buffer.as_ptr().align_offset(LINE).min(buffer.len() - length);
        if first != *start {
            clone.buffer[first..first + length].clone_from_slice(&buffer[*start..start + length]);
            clone.start = first;
        }
        clone
    }
}

impl<T: PartialEq> PartialEq for Parameters<T> {
    fn eq(&self, other: &Self) -> bool {
        self.table == other.table
            && self.buffer[self.start..self.start + self.length]
                == other.buffer[other.start..other.start + other.length]
    }
}

/// The numbers of one layer.
#[derive(Debug)]
pub(crate) struct OfLayer<'a, T> {
    pub(crate) slots: &'a [Slot],
    pub(crate) numbers: &'a [T],
}

impl<T> Clone for OfLayer<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for OfLayer<'_, T> {}

impl<'a, T> OfLayer<'a, T> {
    /// `W`
    #[inline]
    pub(crate) fn weights(self) -> &'a [T] {
        self.slots[0].of(self.numbers)
    }

    /// `b`
    #[inline]
    pub(crate) fn bias(self) -> Option<&'a [T]> {
        let slot = self.slots.get(1).filter(|slot| slot.part == Part::Bias);
        slot.map(|slot| slot.of(self.numbers))
    }

    /// The `N` parameters of the operation with this index.
    #[inline]
    pub(crate) fn of_operation<const N: usize>(self, index: usize) -> [&'a [T]; N] {
        let mut parts = [&self.numbers[..0]; N];
        let slots = self.slots.iter().filter(|slot| slot.operation == Some(index));
        parts.iter_mut().zip(slots).for_each(|(part, slot)| *part = slot.of(self.numbers));
        parts
    }
}

/// The numbers of several neighbouring layers, for writing.
pub(crate) struct Layers<'a, T> {
    table: &'a Table,
    /// Where these numbers begin in the buffer.
    start: usize,
    numbers: &'a mut [T],
}

impl<T> Layers<'_, T> {
    /// The layers before layer `middle`, and the rest.
    #[inline]
    pub(crate) fn split_at(self, middle: usize) -> (Self, Self) {
        let Self { table, start, numbers } = self;
        let place = table.numbers(middle).start;
        let (left, right) = numbers.split_at_mut((place - start).min(numbers.len()));
        let part = |start, numbers| Self { table, start, numbers };
        (part(start, left), part(place, right))
    }

    /// The numbers of one of these layers; empty if there are no numbers.
    #[inline]
    pub(crate) fn layer(&mut self, layer: usize) -> &mut [T] {
        if self.numbers.is_empty() {
            return &mut [];
        }
        let Range { start, end } = self.table.numbers(layer);
        &mut self.numbers[start - self.start..end - self.start]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Arc<Table> {
        let slots = [
            ((0, 0, None), (0, (Part::Weights, 3, 5))),
            ((0, 0, None), (1, (Part::Bias, 3, 1))),
            ((1, 0, Some(0)), (0, (Part::Scale, 3, 1))),
            ((3, 1, None), (0, (Part::Weights, 2, 3))),
        ];
        Arc::new(Table::new(slots.map(|(at, shape)| Slot::new(at, shape)).to_vec()).unwrap())
    }

    /// Parameters in which every number tells where it is.
    fn numbered<T: Scalar>() -> Parameters<T> {
        let mut parameters = Parameters::zeros(&table()).unwrap();
        for (slot, number) in table().slots().iter().zip(1..) {
            parameters.slot_mut(slot).fill(T::of(f64::from(number)));
        }
        parameters
    }

    #[test]
    fn what_there_is_no_memory_for_is_an_error() {
        let slot = Slot::new((0, 0, None), (0, (Part::Weights, 1 << 30, 1 << 30)));
        let table = Arc::new(Table::new(vec![slot]).unwrap());
        let error = Parameters::<f32>::zeros(&table).unwrap_err();
        assert!(
            matches!(error, Error::TooLarge { rows, columns: 1 } if rows == 1 << 60),
            "{error}"
        );
    }

    fn stands_at_a_line<T: Scalar>() {
        let parameters = numbered::<T>();
        for parameters in [&parameters, &parameters.clone(), &parameters.clone().clone()] {
            for slot in parameters.slots() {
                let address = parameters.slot(slot).as_ptr() as usize;
                assert_eq!(address % LINE, 0, "{slot}");
            }
        }
    }

    #[test]
    fn every_parameter_begins_at_a_cache_line_and_so_does_a_copy() {
        stands_at_a_line::<f32>();
        stands_at_a_line::<f64>();
    }

    #[test]
    fn no_number_belongs_to_two_parameters() {
        let parameters = numbered::<f64>();
        assert_eq!(parameters.clone(), parameters);
        for (slot, number) in parameters.slots().iter().zip(1..) {
            let numbers = parameters.slot(slot);
            assert_eq!(numbers.len(), slot.len());
            assert!(numbers.iter().all(|&value| value == f64::from(number)), "{slot}");
        }
        let numbers = parameters.as_slice().iter().filter(|&&value| value != 0.0).count();
        assert_eq!(numbers, 15 + 3 + 3 + 6);
        assert_eq!(
            parameters.get(1, Part::Weights).unwrap(),
            nalgebra::DMatrix::from_element(2, 3, 4.0)
        );
        assert!(parameters.get(1, Part::Bias).is_none() && parameters.get(2, Part::Bias).is_none());
    }

    #[test]
    fn layers_are_found_from_either_side() {
        let mut parameters = numbered::<f32>();
        let of_first = parameters.layer(0);
        assert_eq!((of_first.weights()[14], of_first.bias().unwrap()[0]), (1.0, 2.0));
        assert_eq!(of_first.of_operation::<2>(0).map(<[f32]>::len), [3, 0]);
        assert!(parameters.layer(1).bias().is_none());
        let (mut left, mut right) = parameters.all_layers().split_at(1);
        assert_eq!((left.layer(0)[0], right.layer(1)[0]), (1.0, 4.0));
        let mut none = Parameters::<f32>::none(&table());
        let (mut left, mut right) = none.all_layers().split_at(1);
        assert!(left.layer(0).is_empty() && right.layer(1).is_empty());
    }

    #[test]
    fn more_numbers_than_can_be_counted_are_an_error() {
        let huge = |rows, columns| Slot::new((0, 0, None), (0, (Part::Weights, rows, columns)));
        assert!(Table::new(vec![huge(usize::MAX, 2)]).is_err());
        assert!(Table::new(vec![huge(usize::MAX, 1)]).is_err());
        let table = Table::new(vec![huge(usize::MAX / 32, 1)]).unwrap();
        assert!(Parameters::<f32>::zeros(&Arc::new(table)).is_err());
    }
}
