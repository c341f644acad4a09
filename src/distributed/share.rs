//! Which process computes which layers.

use std::ops::Range;

/// Divides layers among processes. Each gets at least one layer, and neighbouring ones, so that the
/// process with the most work has as little as possible. `work` has the work of each layer. There have
/// to be at least as many layers as processes.
pub(super) fn share(work: &[usize], processes: usize) -> Vec<Range<usize>> {
    let sum =
        |layers: Range<usize>| work[layers].iter().fold(0_usize, |sum, &w| sum.saturating_add(w));
    let layers = work.len();
    // For the first `end` layers on a number of processes: the work of the busiest process, and the
    // first layer of the last one.
    let mut best: Vec<(usize, usize)> = (0..=layers).map(|end| (sum(0..end), 0)).collect();
    let mut starts = vec![best.iter().map(|&(_, start)| start).collect::<Vec<_>>()];
    for count in 2..=processes {
        let least = |end: usize| {
            let with_last_from = |start: usize| (best[start].0.max(sum(start..end)), start);
            // Fewer layers than processes cannot be shared out.
            (count - 1..end).map(with_last_from).min().unwrap_or((usize::MAX, 0))
        };
        best = (0..=layers).map(least).collect();
        starts.push(best.iter().map(|&(_, start)| start).collect());
    }
    let mut end = layers;
    let mut ranges: Vec<_> = starts
        .into_iter()
        .rev()
        .map(|starts| {
            let range = starts[end]..end;
            end = range.start;
            range
        })
        .collect();
    ranges.reverse();
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest maximum over all ways to cut.
    fn naive(work: &[usize], processes: usize) -> usize {
        if processes == 1 {
            return work.iter().sum();
        }
        let ways = 1..=work.len() + 1 - processes;
        ways.map(|first| {
            work[..first].iter().sum::<usize>().max(naive(&work[first..], processes - 1))
        })
        .min()
        .unwrap()
    }

    #[test]
    fn the_busiest_process_has_as_little_work_as_can_be() {
        for seed in 0..40_usize {
            let work: Vec<_> = (0..=seed % 8).map(|i| 1 + (i * 37 + seed * 11) % 13).collect();
            for processes in 1..=work.len() {
                let ranges = share(&work, processes);
                assert_eq!(ranges.len(), processes);
                assert_eq!((ranges[0].start, ranges[processes - 1].end), (0, work.len()));
                assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
                assert!(ranges.iter().all(|range| !range.is_empty()), "{ranges:?}");
                let most =
                    ranges.iter().map(|range| work[range.clone()].iter().sum::<usize>()).max();
                assert_eq!(most, Some(naive(&work, processes)), "{work:?} on {processes}");
            }
        }
    }
}
