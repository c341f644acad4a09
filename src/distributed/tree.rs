//! A sum whose order of additions depends only on the number of terms.

use std::ops::Range;

use super::{group::Group, together::broadcast};
use crate::{
    error::Result,
    scalar::{Scalar, kernel::Kernel},
};

/// The process that has term `index` of `terms`. Each process has neighbouring terms.
pub(super) fn owner(index: usize, terms: usize, processes: usize) -> usize {
    // The inverse of `own`.
    ((index + 1) * processes - 1) / terms
}

/// The terms of a process.
pub(super) fn own(process: usize, terms: usize, processes: usize) -> Range<usize> {
    process * terms / processes..(process + 1) * terms / processes
}

/// Adds up terms of equal length pairwise: the sum of a range is the sum of its first half plus the sum
/// of the rest. So the result has the same bits, whichever process has which term. `terms` are those of
/// this process. Afterwards the first of them holds the sum, on all processes.
pub(super) fn sum<T: Scalar>(
    group: &impl Group,
    count: usize,
    terms: &mut [&mut [T]],
    buffer: &mut Vec<T>,
) -> Result<()> {
    buffer.resize(terms[0].len(), T::zero());
    let own = own(group.rank(), count, group.size());
    sum_of(group, (count, own.start), 0..count, terms, buffer)?;
    broadcast(group, 0, Kernel::bytes_mut(terms[0]))
}

/// The sum of the terms in `range`. It replaces the first of them, on the process that has it.
fn sum_of<T: Scalar>(
    group: &impl Group,
    (count, first): (usize, usize),
    range: Range<usize>,
    terms: &mut [&mut [T]],
    buffer: &mut [T],
) -> Result<()> {
    if range.len() < 2 {
        return Ok(());
    }
    let middle = range.start + range.len().div_ceil(2);
    for half in [range.start..middle, middle..range.end] {
        sum_of(group, (count, first), half, terms, buffer)?;
    }
    let process = |term| owner(term, count, group.size());
    let (to, from, me) = (process(range.start), process(middle), group.rank());
    if to == me && from == me {
        let (left, right) = terms.split_at_mut(middle - first);
        add(left[range.start - first], right[0]);
    } else if from == me {
        group.send(to, Kernel::bytes(terms[middle - first]))?;
    } else if to == me {
        group.receive(from, Kernel::bytes_mut(buffer))?;
        add(terms[range.start - first], buffer);
    }
    Ok(())
}

fn add<T: Scalar>(to: &mut [T], from: &[T]) {
    to.iter_mut().zip(from).for_each(|(to, &from)| *to += from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::LocalGroup;

    #[test]
    fn every_term_has_one_owner() {
        for terms in 1..20 {
            for processes in 1..=terms {
                for process in 0..processes {
                    let own = own(process, terms, processes);
                    assert!(!own.is_empty());
                    own.for_each(|term| assert_eq!(owner(term, terms, processes), process));
                }
            }
        }
    }

    /// Terms of which every order of adding makes another sum.
    fn term(index: usize) -> Vec<f32> {
        (0..5)
            .map(|i| ((index * 7 + i * 3) as f32 * 0.37).sin() * [0.01, 0.1, 1.0, 10.0, 100.0][i])
            .collect()
    }

    /// Pairwise, as the definition says.
    fn naive(range: Range<usize>) -> Vec<f32> {
        if range.len() == 1 {
            return term(range.start);
        }
        let middle = range.start + range.len().div_ceil(2);
        let (left, right) = (naive(range.start..middle), naive(middle..range.end));
        left.iter().zip(right).map(|(l, r)| l + r).collect()
    }

    #[test]
    fn a_sum_has_the_same_bits_on_any_number_of_processes() {
        for count in 1..12 {
            for processes in 1..=count {
                let sums = LocalGroup::run(processes, |group| {
                    let mut own: Vec<_> = own(group.rank(), count, processes).map(term).collect();
                    let mut terms: Vec<_> = own.iter_mut().map(|term| &mut term[..]).collect();
                    sum(group, count, &mut terms, &mut Vec::new()).unwrap();
                    own.swap_remove(0)
                });
                sums.iter()
                    .for_each(|sum| assert_eq!(*sum, naive(0..count), "{count} {processes}"));
            }
        }
    }
}
