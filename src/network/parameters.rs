//! The parameters of a network one after the other, under the names that PyTorch gives them.

use super::Network;
use crate::{
    architecture::{Architecture, Item},
    error::Result,
    files::{Draft, Expected, File},
    layer::{Bias, Conv2d, Shape},
    scalar::Scalar,
};

/// A parameter of a network, and the tensor that it is in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) tensor: Expected,
    pub(crate) role: Role,
    /// The weighted layer that it belongs to, or stands after.
    pub(crate) layer: usize,
}

/// What a parameter is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It follows the gradient.
    Learned,
    /// Running mean of batch normalisation.
    Mean,
    /// Running variance of batch normalisation, at least 0.
    Variance,
}

impl Architecture {
    /// All parameters, in the order of [`Network::values`]. Only sizes are computed: the network
    /// of a file may be larger than memory.
    pub(crate) fn parameters(&self) -> Result<Vec<Parameter>> {
        let mut shape = self.input;
        let mut parameters = Vec::new();
        let mut layers: usize = 0;
        for (index, item) in self.items.iter().enumerate() {
            layers += usize::from(matches!(item, Item::Dense { .. } | Item::Conv2d(_)));
            let layer = layers.saturating_sub(1);
            let here = item.parameters(index, shape).into_iter();
            parameters.extend(here.map(|parameter| Parameter { layer, ..parameter }));
            shape = item.output(shape)?;
        }
        Ok(parameters)
    }

    /// Fails unless a file has all parameters as tensors of type `T`; returns these.
    pub(crate) fn require_in<T: Scalar>(&self, file: &File) -> Result<Vec<Expected>> {
        let parameters = self.parameters().map_err(|error| file.blame(error))?;
        let tensors: Vec<_> = parameters.into_iter().map(|parameter| parameter.tensor).collect();
        tensors.iter().try_for_each(|tensor| file.require::<T>(tensor))?;
        Ok(tensors)
    }

    /// Tensors that PyTorch writes and this crate has no use for.
    pub(crate) fn counters(&self) -> Vec<String> {
        let items = self.items.iter().enumerate();
        let norms = items.filter(|(_, item)| matches!(item, Item::BatchNorm { .. }));
        norms.map(|(index, _)| format!("{index}.num_batches_tracked")).collect()
    }
}

impl Item {
    /// The parameters of entry `index` of the list, which is given an `input` of this shape.
    fn parameters(&self, index: usize, input: Shape) -> Vec<Parameter> {
        let parameter = |name: &str, role, shape| {
            let name = format!("{index}.{name}");
            Parameter { tensor: Expected { name, shape }, role, layer: 0 }
        };
        let layer = |units, weights, bias| {
            let mut parameters = vec![parameter("weight", Role::Learned, weights)];
            if bias == Bias::With {
                parameters.push(parameter("bias", Role::Learned, vec![units]));
            }
            parameters
        };
        match *self {
            Self::Dense { outputs, bias } => layer(outputs, vec![outputs, input.len()], bias),
            Self::Conv2d(Conv2d { channels, kernel: (height, width), bias, .. }) => {
                layer(channels, vec![channels, input.channels, height, width], bias)
            }
            Self::BatchNorm { .. } => [
                ("weight", Role::Learned),
                ("bias", Role::Learned),
                ("running_mean", Role::Mean),
                ("running_var", Role::Variance),
            ]
            .map(|(name, role)| parameter(name, role, vec![input.channels]))
            .to_vec(),
            Self::Activation(_)
            | Self::MaxPool2d(_)
            | Self::AvgPool2d(_)
            | Self::Dropout(_)
            | Self::Flatten => Vec::new(),
        }
    }

    /// The shape of what it makes of an `input` of this shape.
    fn output(&self, input: Shape) -> Result<Shape> {
        Ok(match *self {
            Self::Dense { outputs, .. } => outputs.into(),
            Self::Conv2d(config) => config.over(input)?.output(),
            Self::MaxPool2d(pool) => pool.over(input)?.output(),
            Self::AvgPool2d(pool) => pool.over(input)?.output(),
            Self::Flatten => input.len().into(),
            Self::Activation(_) | Self::BatchNorm { .. } | Self::Dropout(_) => input,
        })
    }
}

impl<T: Scalar> Network<T> {
    /// The list that the network was built from.
    pub(crate) fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// All parameters, in the order of [`values`](Self::values).
    pub(crate) fn described_parameters(&self) -> Vec<Parameter> {
        self.architecture.parameters().expect("what was built has shapes")
    }

    /// Puts every parameter into a file.
    pub(crate) fn add_to(&self, draft: &mut Draft) -> Result<()> {
        self.described_parameters().into_iter().zip(self.values()).try_for_each(
            |(parameter, values)| {
                let rows = parameter.tensor.shape[0];
                draft.add(parameter.tensor, &row_major(values, rows))
            },
        )
    }

    /// Takes every parameter from a file, except those of the layers in `keep`; or none if there is
    /// an error.
    pub(crate) fn take_from(&mut self, file: &File, keep: &[usize]) -> Result<()> {
        let values = self.described_parameters().into_iter().map(|parameter| {
            let Parameter { tensor, role, layer } = parameter;
            if keep.contains(&layer) {
                return Ok(None);
            }
            let values = match role {
                Role::Variance => file.read_squares::<T>(&tensor)?,
                Role::Learned | Role::Mean => file.read(&tensor)?,
            };
            Ok(Some(column_major(&values, tensor.shape[0])))
        });
        let values: Vec<Option<Vec<T>>> = values.collect::<Result<_>>()?;
        for (to, from) in self.values_mut().into_iter().zip(&values) {
            if let Some(from) = from {
                to.copy_from_slice(from);
            }
        }
        Ok(())
    }
}

/// A matrix of `rows` rows that stands column by column, row by row.
pub(crate) fn row_major<T: Scalar>(values: &[T], rows: usize) -> Vec<T> {
    let mut by_rows = Vec::with_capacity(values.len());
    for row in 0..rows {
        by_rows.extend(values.iter().skip(row).step_by(rows));
    }
    by_rows
}

/// A matrix of `rows` rows that stands row by row, column by column.
pub(crate) fn column_major<T: Scalar>(values: &[T], rows: usize) -> Vec<T> {
    row_major(values, values.len() / rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{AvgPool2d, MaxPool2d};

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

    /// What the file is compared with, from sizes alone, is what stands in memory.
    #[test]
    fn parameters_are_as_large_as_their_values() {
        let network = network();
        let parameters = network.described_parameters();
        let sizes = parameters.iter().map(|parameter| parameter.tensor.shape.iter().product());
        let values = network.values();
        assert_eq!(
            sizes.collect::<Vec<usize>>(),
            values.iter().map(|v| v.len()).collect::<Vec<_>>()
        );
        let learned = parameters.iter().zip(values).filter(|(p, _)| p.role == Role::Learned);
        assert_eq!(learned.map(|(_, v)| v.len()).sum::<usize>(), network.parameters());
        let mut changed = network.clone();
        for (value, number) in changed.values_mut().into_iter().flatten().zip(0_u32..) {
            *value = f64::from(number);
        }
        let numbered = changed.values().concat();
        assert!(numbered.iter().zip(0_u32..).all(|(value, number)| *value == f64::from(number)));
        assert_eq!(changed.layer(0).unwrap().weights()[(0, 0)], 0.0);
        assert_eq!(changed.layer(0).unwrap().bias().unwrap()[0], 36.0);
        let norm = changed.batch_norm(0).unwrap().unwrap();
        let first = [norm.scale(), norm.shift(), norm.running_mean(), norm.running_variance()];
        assert_eq!(first.map(|vector| vector[0]), [39.0, 42.0, 45.0, 48.0]);
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
