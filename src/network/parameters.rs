//! The parameters of a network in files, under the names that PyTorch gives them.

use super::Network;
use crate::{
    architecture::{Architecture, Item},
    error::Result,
    files::{Draft, Expected, File},
    layer::Conv2d,
    parameters::{Part, Slot},
    scalar::Scalar,
};

impl Architecture {
    /// The name and shape that a parameter has in a file.
    pub(crate) fn tensor(&self, slot: &Slot) -> Expected {
        let name = match slot.part {
            Part::Weights | Part::Scale => "weight",
            Part::Bias | Part::Shift => "bias",
            Part::RunningMean => "running_mean",
            Part::RunningVariance => "running_var",
        };
        let shape = match (slot.part, self.items[slot.item]) {
            (Part::Weights, Item::Conv2d(Conv2d { kernel: (height, width), .. })) => {
                vec![slot.rows, slot.columns / height / width, height, width]
            }
            (Part::Weights, _) => vec![slot.rows, slot.columns],
            (_, Item::LayerNorm { .. }) => self.shape_before(slot.item).dimensions(),
            _ => vec![slot.rows],
        };
        Expected { name: format!("{}.{name}", slot.item), shape }
    }

    /// Fails unless the file has all parameters as tensors of type `T`. Returns the names and shapes of
    /// these tensors.
    pub(crate) fn require_in<T: Scalar>(&self, file: &File) -> Result<Vec<Expected>> {
        let table = self.table().map_err(|error| file.blame(error))?;
        let required = table.slots().iter().map(|slot| {
            let tensor = self.tensor(slot);
            file.require::<T>(&tensor)?;
            Ok(tensor)
        });
        required.collect() // A file without the first tensor is refused before the others are named.
    }

    /// Tensors that PyTorch writes and this crate has no use for.
    pub(crate) fn counters(&self) -> Vec<String> {
        let items = self.items.iter().enumerate();
        let norms = items.filter(|(_, item)| matches!(item, Item::BatchNorm { .. }));
        norms.map(|(index, _)| format!("{index}.num_batches_tracked")).collect()
    }
}

impl<T: Scalar> Network<T> {
    /// The list that the network was built from.
    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Puts every parameter into a file.
    pub(crate) fn add_to(&self, draft: &mut Draft) -> Result<()> {
        self.parameters.slots().iter().try_for_each(|slot| {
            let tensor = self.architecture.tensor(slot);
            draft.add(tensor, &row_major(self.parameters.slot(slot), slot.rows))
        })
    }

    /// Takes every parameter from a file, except those of the layers in `keep`. After an error it has
    /// taken none.
    pub(crate) fn take_from(&mut self, file: &File, keep: &[usize]) -> Result<()> {
        let slots = self.layout.table.slots().iter().filter(|slot| !keep.contains(&slot.layer));
        let values = slots.map(|slot| {
            let tensor = self.architecture.tensor(slot);
            let values = match slot.part {
                Part::RunningVariance => file.read_squares::<T>(&tensor)?,
                _ => file.read(&tensor)?,
            };
            Ok((*slot, column_major(&values, slot.rows)))
        });
        let values = values.collect::<Result<Vec<(Slot, Vec<T>)>>>()?;
        for (slot, from) in values {
            self.parameters.slot_mut(&slot).copy_from_slice(&from);
        }
        Ok(())
    }
}

/// Turns a matrix of `rows` rows that is stored column by column into one stored row by row.
pub(crate) fn row_major<T: Scalar>(values: &[T], rows: usize) -> Vec<T> {
    let mut by_rows = Vec::with_capacity(values.len());
    for row in 0..rows {
        by_rows.extend(values.iter().skip(row).step_by(rows));
    }
    by_rows
}

/// Turns a matrix of `rows` rows that is stored row by row into one stored column by column.
pub(crate) fn column_major<T: Scalar>(values: &[T], rows: usize) -> Vec<T> {
    row_major(values, values.len() / rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{AvgPool2d, Bias, MaxPool2d};

    fn network() -> Network<f64> {
        Network::builder((2, 9, 7))
            .dropout(0.1)
            .conv2d(Conv2d { kernel: (3, 2), stride: (2, 1), padding: (1, 0), ..Conv2d::new(3, 1) })
            .batch_norm()
            .tanh()
            .max_pool2d(MaxPool2d::new(2, 1))
            .conv2d(Conv2d { bias: Bias::Without, ..Conv2d::new(4, 2) })
            .avg_pool2d(AvgPool2d::new(2, 2))
            .dense_without_bias(6)
            .batch_norm()
            .dense(5)
            .build()
            .unwrap()
    }

    /// The names and shapes that PyTorch gives the parameters of the same list:
    /// ```python
    /// [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]
    /// ```
    #[test]
    fn tensors_have_the_names_and_shapes_of_pytorch() {
        let network = network();
        let tensors = network.parameters.slots().iter().map(|slot| {
            let Expected { name, shape } = network.architecture.tensor(slot);
            assert_eq!(shape.iter().product::<usize>(), slot.len(), "{name}");
            (name, shape)
        });
        let of_norm = |item: usize, channels: usize| {
            ["weight", "bias", "running_mean", "running_var"]
                .map(|name| (format!("{item}.{name}"), vec![channels]))
        };
        let mut expected = vec![("1.weight".into(), vec![3, 2, 3, 2]), ("1.bias".into(), vec![3])];
        expected.extend(of_norm(2, 3));
        expected.push(("5.weight".into(), vec![4, 3, 2, 2]));
        // Flattening is an entry of the list.
        expected.push(("8.weight".into(), vec![6, network.blocks[2].shape.1]));
        expected.extend(of_norm(9, 6));
        expected.extend([("10.weight".into(), vec![5, 6]), ("10.bias".into(), vec![5])]);
        assert_eq!(tensors.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn rows_and_columns_change_places_and_back() {
        let by_columns = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0];
        let by_rows = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
        assert_eq!(row_major(&by_columns, 2), by_rows);
        assert_eq!(column_major(&by_rows, 2), by_columns);
        assert_eq!(row_major(&by_rows, 6), by_rows);
    }
}
