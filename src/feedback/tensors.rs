//! Feedback matrices as the tensors of a file.

use nalgebra::DMatrix;

use super::{
    Feedback,
    create::shared_shape,
    hops::{Shapes, is_transposed, matrix_hops},
    stored::Beside,
};
use crate::{
    error::{Error, Result, require_finite},
    network::Network,
    route::Route,
    rule::FeedbackRule,
    scalar::Scalar,
};

impl<T: Scalar> Feedback<T> {
    /// The name, rows and columns of every tensor that a file stores for the matrices of a route. For
    /// each matrix, from the first hidden layer up: its numbers, then what is stored beside them. The
    /// shared matrix comes last.
    pub(crate) fn tensor_shapes(
        network: &Network<T>,
        route: &Route,
    ) -> Vec<(String, (usize, usize))> {
        let (mut tensors, mut last) = (Vec::new(), None);
        for index in matrix_hops(route) {
            let hop = route.hops()[index];
            let number = last.filter(|&(to, _)| to == hop.to).map_or(0, |(_, number)| number + 1);
            last = Some((hop.to, number));
            let name = match number {
                0 => format!("feedback.{}", hop.to),
                _ => format!("feedback.{}.{number}", hop.to),
            };
            let Some(shapes) = Shapes::of(network, route, hop) else { continue };
            let (rows, columns) = shapes.numbers();
            let beside = match shapes {
                Shapes::Whole(..) if is_transposed(&network.layout, route, hop) => {
                    tensors.push((name, (columns, rows)));
                    continue;
                }
                Shapes::Whole(..) | Shapes::Leading(..) => None,
                Shapes::LowRank { rank, senders, .. } => Some(("first", (rank, senders))),
                Shapes::Product { rows, between, .. } => Some(("first", (rows, between))),
                Shapes::Sparse { receivers, entries, .. } => Some(("places", (entries, receivers))),
            };
            let beside = beside.map(|(what, shape)| (format!("{name}.{what}"), shape));
            tensors.push((name, (rows, columns)));
            tensors.extend(beside);
        }
        let shapes = route.hops().iter().filter_map(|&hop| Shapes::of(network, route, hop));
        let shape = shared_shape(shapes);
        if shape.0 > 0 {
            tensors.push(("feedback.shared".into(), shape));
        }
        tensors
    }

    /// The tensors, in the order of [`tensor_shapes`](Self::tensor_shapes).
    pub(crate) fn tensors(&self) -> Result<Vec<DMatrix<T>>> {
        let mut tensors = Vec::new();
        for index in matrix_hops(&self.route) {
            let stored = self.drawn(index);
            match &stored.beside {
                Beside::Nothing => tensors.push(self.shown(index)?),
                Beside::Leading(..) => tensors.push(stored.numbers.clone()),
                Beside::Left(first) | Beside::Right(first) => {
                    tensors.extend([stored.numbers.clone(), first.clone()]);
                }
                Beside::Places(places, _) => {
                    let places = places.iter().map(|&place| T::of(f64::from(place)));
                    let (rows, columns) = stored.numbers.shape();
                    let places = DMatrix::from_iterator(rows, columns, places);
                    tensors.extend([stored.numbers.clone(), places]);
                }
            }
        }
        if !self.shared.is_empty() {
            tensors.push(self.shared.clone());
        }
        Ok(tensors)
    }

    /// Feedback with these tensors. The caller has checked their shapes.
    pub(crate) fn from_tensors(
        network: &Network<T>,
        rule: Option<FeedbackRule>,
        route: Route,
        tensors: Vec<DMatrix<T>>,
    ) -> Result<Self> {
        let mut feedback = Self::build(network, rule, route)?;
        let mut tensors = tensors.into_iter();
        let mut next = || tensors.next().unwrap_or_default();
        for index in matrix_hops(&feedback.route) {
            let name = feedback.name(feedback.route.hops()[index].to);
            let numbers = next();
            require_finite(|| name.clone(), numbers.nrows(), numbers.as_slice())?;
            if feedback.drawn(index).beside == Beside::Nothing {
                feedback.set(index, numbers)?;
                continue;
            }
            let stored = feedback.matrices[index].as_mut().expect("it is there");
            stored.numbers = numbers;
            let mut least = 0;
            match &mut stored.beside {
                Beside::Left(first) | Beside::Right(first) => {
                    *first = next();
                    require_finite(|| name, first.nrows(), first.as_slice())?;
                }
                Beside::Places(places, senders) => {
                    let found = next();
                    let entries = found.nrows().max(1);
                    for (index, (place, &found)) in places.iter_mut().zip(&found).enumerate() {
                        *place = place_of(found, *senders, &name)?;
                        let first = index % entries == 0;
                        least = if first { 0 } else { least };
                        if *place < least {
                            return Err(Error::Conflict {
                                first: name,
                                second: format!(
                                    "an entry in column {place} after one in column {}",
                                    least - 1
                                ),
                                reason: "the entries of a row come in the order of their columns",
                            });
                        }
                        least = *place + 1;
                    }
                }
                Beside::Nothing | Beside::Leading(..) => {}
            }
        }
        if !feedback.shared.is_empty() {
            feedback.shared = next();
            let name = || "the shared feedback matrix".to_owned();
            require_finite(name, feedback.shared.nrows(), feedback.shared.as_slice())?;
        }
        Ok(feedback.bounded())
    }

    /// One moment of every matrix that learns, with the matrix's rows and columns.
    pub(crate) fn moments(&self, index: usize) -> impl Iterator<Item = (&[T], (usize, usize))> {
        let learning = self.route.hops().iter().zip(&self.matrices);
        let learning = learning.filter(|(hop, _)| hop.through.learns());
        learning.filter_map(move |(_, matrix)| {
            let stored = matrix.as_ref()?;
            Some((&stored.moments[index][..], stored.numbers.shape()))
        })
    }

    /// Restores these moments of the matrices that learn.
    pub(crate) fn restore_moments(&mut self, mut moments: [Vec<Vec<T>>; 2]) {
        for learning in self.learning() {
            for (moment, all) in learning.moments.iter_mut().zip(&mut moments) {
                let saved = if all.is_empty() { Vec::new() } else { all.remove(0) };
                // No moments, as before the first step, mean the same as zeros.
                *moment = if saved.iter().all(|&m| m == T::zero()) { Vec::new() } else { saved };
            }
        }
        self.measure_moments();
    }

    /// The names of the learning matrices for the moments in a file, with their rows and columns.
    pub(crate) fn learning_names(
        network: &Network<T>,
        route: &Route,
    ) -> Vec<(String, (usize, usize))> {
        let learning = route.hops().iter().enumerate().filter(|(_, hop)| hop.through.learns());
        let named = learning.filter_map(|(index, &hop)| {
            Some((format!("hop.{index}"), Shapes::of(network, route, hop)?.numbers()))
        });
        named.collect()
    }
}

/// The column of an entry of a sparse matrix, read from a number in a file.
fn place_of<T: Scalar>(found: T, senders: usize, name: &str) -> Result<u32> {
    let place = found.as_f64();
    if place >= 0.0 && place < senders as f64 && place.fract() == 0.0 {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // It is one of them.
        return Ok(place as u32);
    }
    Err(Error::Conflict {
        first: format!("{name}, which {senders} units send to"),
        second: format!("an entry in column {place}"),
        reason: "there is no such column",
    })
}
