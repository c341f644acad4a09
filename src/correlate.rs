//! The inner loop of every convolution: a panel of weights is multiplied with the numbers that slide
//! past it.
//!
//! The sums of a few neighbouring columns stay in registers until all their terms are added. So nothing
//! has to be copied into another order first. The vectors come from the crate `pulp`, for the
//! instruction set of the processor.

/// Where the terms of a sum are in a field: in runs of neighbouring numbers. For every `a` and `b`
/// below their counts and every phase `p` there is a run, which begins at
/// `a · steps[0] + b · steps[1] + p · phase`. In a convolution `a` is a channel, `b` a row of the
/// kernel, and a run holds the taps (entries) of that row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs {
    pub(crate) counts: [usize; 2],
    pub(crate) steps: [usize; 2],
    /// How many terms each `(a, b)` has.
    pub(crate) taps: usize,
    /// How many runs each `(a, b)` has. The run of phase `p` has the taps `p`, `p + phases`, ….
    pub(crate) phases: usize,
    /// The distance between the beginnings of two runs of neighbouring phases.
    pub(crate) phase: usize,
}

impl Runs {
    /// How many terms a sum has.
    pub(crate) fn terms(&self) -> usize {
        self.counts[0] * self.counts[1] * self.taps
    }

    /// The taps of one `(a, b)`, phase by phase.
    pub(crate) fn order(self) -> impl Iterator<Item = usize> {
        let Self { taps, phases, .. } = self;
        (0..phases).flat_map(move |phase| (phase..taps).step_by(phases))
    }

    /// `(first place, length)` of each run, in the order in which the panel has them.
    #[allow(clippy::inline_always)] // For loops that are vectorised.
    #[inline(always)]
    fn iter(self) -> impl Iterator<Item = (usize, usize)> {
        let Self { counts, steps, taps, phases, phase } = self;
        // With one phase it avoids the division, which takes as long as several taps.
        let length = move |p: usize| if phases == 1 { taps } else { (taps - p).div_ceil(phases) };
        (0..counts[0]).flat_map(move |a| {
            (0..counts[1]).flat_map(move |b| {
                let start = a * steps[0] + b * steps[1];
                (0..phases.min(taps)).map(move |p| (start + p * phase, length(p)))
            })
        })
    }
}

/// Defines `lanes` and `correlate` for one scalar type, with the names that `pulp` uses for it.
macro_rules! correlate {
    ($module:ident, $type:ident, $vector:ident, $lanes:ident, $splat:ident, $add:ident,
     $multiply_add:ident, $vectors:ident, $vectors_mut:ident) => {
        pub(crate) mod $module {
            use pulp::{Arch, Simd, WithSimd};

            use crate::correlate::{Runs, most_columns, vectors};

            struct Lanes {
                rows: usize,
                columns: usize,
            }

            impl WithSimd for Lanes {
                type Output = usize;

                #[inline(always)]
                fn with_simd<S: Simd>(self, _: S) -> usize {
                    let Self { rows, columns } = self;
                    S::$lanes * vectors(rows.div_ceil(S::$lanes), columns, S::REGISTER_COUNT)
                }
            }

            pub(crate) fn lanes(rows: usize, columns: usize) -> usize {
                Arch::new().dispatch(Lanes { rows, columns })
            }

            struct Line<'a> {
                panel: &'a [$type],
                field: &'a [$type],
                runs: Runs,
                sums: &'a mut [$type],
                columns: usize,
            }

            impl WithSimd for Line<'_> {
                type Output = ();

                #[inline(always)]
                fn with_simd<S: Simd>(self, simd: S) {
                    match self.sums.len() / (self.columns * S::$lanes) {
                        1 => self.correlate::<S, 1>(simd),
                        2 => self.correlate::<S, 2>(simd),
                        _ => self.correlate::<S, 4>(simd),
                    }
                }
            }

            impl Line<'_> {
                /// Cuts the columns into tiles of nearly equal width.
                #[inline(always)]
                fn correlate<S: Simd, const V: usize>(self, simd: S) {
                    let (panel, _) = S::$vectors(self.panel).0.as_chunks::<V>();
                    let (mut sums, _) = S::$vectors_mut(self.sums).0.as_chunks_mut::<V>();
                    let (runs, mut field) = (self.runs, self.field);
                    let mut tiles = self.columns.div_ceil(most_columns(S::REGISTER_COUNT));
                    while tiles > 0 {
                        let width = sums.len().div_ceil(tiles);
                        let (here, rest) = sums.split_at_mut(width);
                        match width {
                            1 => tile::<S, 1, V>(simd, panel, field, runs, here),
                            2 => tile::<S, 2, V>(simd, panel, field, runs, here),
                            3 => tile::<S, 3, V>(simd, panel, field, runs, here),
                            4 => tile::<S, 4, V>(simd, panel, field, runs, here),
                            5 => tile::<S, 5, V>(simd, panel, field, runs, here),
                            6 => tile::<S, 6, V>(simd, panel, field, runs, here),
                            7 => tile::<S, 7, V>(simd, panel, field, runs, here),
                            _ => tile::<S, 8, V>(simd, panel, field, runs, here),
                        }
                        (sums, tiles) = (rest, tiles - 1);
                        field = &field[width..];
                    }
                }
            }

            #[inline(always)]
            fn tile<S: Simd, const Q: usize, const V: usize>(
                simd: S,
                mut panel: &[[S::$vector; V]],
                field: &[$type],
                runs: Runs,
                out: &mut [[S::$vector; V]],
            ) {
                let mut sums = [[simd.$splat(0.0); V]; Q];
                for (start, length) in runs.iter() {
                    let seen = &field[start..start + length + Q - 1];
                    let (now, rest) = panel.split_at(length);
                    for (w, seen) in now.iter().zip(seen.windows(Q)) {
                        for (sums, &x) in sums.iter_mut().zip(seen) {
                            let x = simd.$splat(x);
                            for (sum, &w) in sums.iter_mut().zip(w) {
                                *sum = simd.$multiply_add(x, w, *sum);
                            }
                        }
                    }
                    panel = rest;
                }
                for (out, sums) in out.iter_mut().zip(sums) {
                    for (out, sum) in out.iter_mut().zip(sums) {
                        *out = simd.$add(*out, sum);
                    }
                }
            }

            pub(crate) fn correlate(
                panel: &[$type],
                field: &[$type],
                runs: Runs,
                sums: &mut [$type],
                columns: usize,
            ) {
                Arch::new().dispatch(Line { panel, field, runs, sums, columns });
            }

            /// Compares with three loops on this instruction set, for all numbers of lanes.
            #[cfg(test)]
            #[allow(clippy::cast_lossless)] // One of the two is `f64` already.
            fn check_on<S: Simd>(simd: S, runs: Runs, columns: usize) {
                let places: Vec<usize> =
                    runs.iter().flat_map(|(start, n)| start..start + n).collect();
                let length = places.iter().max().unwrap() + columns;
                let number = |i: usize| ((i * 37 + i / 5 * 11) % 17) as $type - 8.0;
                let field: Vec<$type> = (0..length).map(number).collect();
                for lanes in [1, 2, 4].map(|vectors| S::$lanes * vectors) {
                    let panel: Vec<$type> = (3..).map(number).take(places.len() * lanes).collect();
                    let mut sums: Vec<$type> = (9..).map(number).take(columns * lanes).collect();
                    let mut expected = sums.clone();
                    for (index, sum) in expected.iter_mut().enumerate() {
                        for (&place, panel) in places.iter().zip(panel.chunks_exact(lanes)) {
                            *sum += panel[index % lanes] * field[place + index / lanes];
                        }
                    }
                    let (panel, field, sums_of) = (&panel[..], &field[..], &mut sums[..]);
                    simd.vectorize(Line { panel, field, runs, sums: sums_of, columns });
                    assert_eq!(sums, expected, "{runs:?}, {columns} columns, {lanes} lanes");
                }
            }

            /// [`check_on`] every instruction set that the processor has.
            #[cfg(test)]
            pub(crate) fn check(runs: Runs, columns: usize) {
                check_on(pulp::Scalar::new(), runs, columns);
                #[cfg(target_arch = "x86_64")]
                {
                    use pulp::x86::{V3, V4};
                    V3::try_new().map(|simd| check_on(simd, runs, columns));
                    V4::try_new().map(|simd| check_on(simd, runs, columns));
                }
            }
        }
    };
}

correlate!(
    of_f32,
    f32,
    f32s,
    F32_LANES,
    splat_f32s,
    add_f32s,
    mul_add_e_f32s,
    as_simd_f32s,
    as_mut_simd_f32s
);
correlate!(
    of_f64,
    f64,
    f64s,
    F64_LANES,
    splat_f64s,
    add_f64s,
    mul_add_e_f64s,
    as_simd_f64s,
    as_mut_simd_f64s
);

/// How many columns have sums that fit into the registers, with two vectors per column.
const fn most_columns(registers: usize) -> usize {
    if registers < 32 { 6 } else { 8 }
}

/// The most lanes that any processor has in a panel: four vectors of 16 numbers.
pub(crate) const MOST_LANES: usize = 64;

/// How many vectors of a panel stand side by side, for units that fill `rows` vectors. It is best to
/// leave few of them empty at the end. But with a single vector there are too few sums to keep the
/// processor busy, and four fit into the registers only if the tiles are narrow.
fn vectors(rows: usize, columns: usize, registers: usize) -> usize {
    let most = most_columns(registers);
    let narrow = registers >= 32 && columns.div_ceil(columns.div_ceil(most)) <= most - 3;
    let cost = |&side: &usize| rows.div_ceil(side) * side * if side == 1 { 3 } else { 2 };
    let sides: &[usize] = if narrow { &[4, 2, 1] } else { &[2, 1] };
    sides.iter().copied().min_by_key(cost).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::correlate::{Runs, of_f32, of_f64, vectors};

    proptest! {
        /// Small whole numbers, whose sums are exact in any order.
        #[test]
        fn sums_are_those_of_three_loops(
            counts in (1..4_usize, 1..4_usize), steps in (0..40_usize, 0..40_usize),
            taps in 1..12_usize, phases in 1..5_usize, phase in 0..9_usize, columns in 1..40_usize,
        ) {
            let phases = phases.min(taps);
            let runs =
                Runs { counts: counts.into(), steps: steps.into(), taps, phases, phase };
            of_f32::check(runs, columns);
            of_f64::check(runs, columns);
        }
    }

    #[test]
    fn a_panel_wastes_few_lanes() {
        // With 32 registers and narrow tiles four vectors fit, where they are not wasted.
        assert_eq!([1, 2, 3, 4, 6].map(|rows| vectors(rows, 5, 32)), [1, 2, 4, 4, 2]);
        assert_eq!([1, 2, 3, 4, 6].map(|rows| vectors(rows, 15, 32)), [1, 2, 2, 2, 2]);
        assert_eq!([1, 2, 3, 4, 6].map(|rows| vectors(rows, 5, 16)), [1, 2, 2, 2, 2]);
    }
}
