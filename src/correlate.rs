//! The inner loop of every convolution but those of single pixels: sums of products of a panel with
//! numbers of a field.
//!
//! The sums of a few places stay in registers until all their terms are added. The terms are read where
//! they lie, so nothing has to be copied into another order first. The vectors come from the crate
//! `pulp`, for the instruction set of the processor.

/// Defines `lanes` and `correlate` for one scalar type, with the names that `pulp` uses for it.
macro_rules! correlate {
    ($module:ident, $type:ident, $vector:ident, $lanes:ident, $splat:ident, $add:ident,
     $multiply_add:ident, $vectors:ident, $vectors_mut:ident) => {
        pub(crate) mod $module {
            use pulp::{Arch, Simd, WithSimd};

            use crate::correlate::{most_places, vectors};

            struct Lanes {
                units: usize,
            }

            impl WithSimd for Lanes {
                type Output = usize;

                #[inline(always)]
                fn with_simd<S: Simd>(self, _: S) -> usize {
                    S::$lanes * vectors(self.units.div_ceil(S::$lanes), S::REGISTER_COUNT)
                }
            }

            pub(crate) fn lanes(units: usize) -> usize {
                Arch::new().dispatch(Lanes { units })
            }

            struct Correlation<'a> {
                panel: &'a [$type],
                field: &'a [$type],
                terms: &'a [usize],
                places: &'a [usize],
                sums: &'a mut [$type],
                adds: bool,
            }

            impl WithSimd for Correlation<'_> {
                type Output = ();

                #[inline(always)]
                fn with_simd<S: Simd>(self, simd: S) {
                    match self.sums.len() / (self.places.len() * S::$lanes) {
                        1 => self.in_tiles::<S, 1>(simd),
                        2 => self.in_tiles::<S, 2>(simd),
                        _ => self.in_tiles::<S, 4>(simd),
                    }
                }
            }

            impl Correlation<'_> {
                /// Cuts the places into tiles of nearly equal width.
                #[inline(always)]
                fn in_tiles<S: Simd, const V: usize>(self, simd: S) {
                    let (panel, _) = S::$vectors(self.panel).0.as_chunks::<V>();
                    let (mut sums, _) = S::$vectors_mut(self.sums).0.as_chunks_mut::<V>();
                    let Self { field, terms, mut places, adds, .. } = self;
                    let mut tiles = places.len().div_ceil(most_places(V, S::REGISTER_COUNT));
                    while tiles > 0 {
                        let width = places.len().div_ceil(tiles);
                        let (here, rest) = sums.split_at_mut(width);
                        let lists = (terms, places);
                        match width {
                            1 => tile::<S, 1, V>(simd, panel, field, lists, here, adds),
                            2 => tile::<S, 2, V>(simd, panel, field, lists, here, adds),
                            3 => tile::<S, 3, V>(simd, panel, field, lists, here, adds),
                            4 => tile::<S, 4, V>(simd, panel, field, lists, here, adds),
                            5 => tile::<S, 5, V>(simd, panel, field, lists, here, adds),
                            6 => tile::<S, 6, V>(simd, panel, field, lists, here, adds),
                            7 => tile::<S, 7, V>(simd, panel, field, lists, here, adds),
                            _ => tile::<S, 8, V>(simd, panel, field, lists, here, adds),
                        }
                        (sums, tiles) = (rest, tiles - 1);
                        places = &places[width..];
                    }
                }
            }

            /// The sums of the first `Q` places. In the inner loop one comparison checks all its reads
            /// of the field, because what each place sees is cut to the same length.
            #[inline(always)]
            fn tile<S: Simd, const Q: usize, const V: usize>(
                simd: S,
                panel: &[[S::$vector; V]],
                field: &[$type],
                (terms, places): (&[usize], &[usize]),
                out: &mut [[S::$vector; V]],
                adds: bool,
            ) {
                let reach = terms[terms.len() - 1] + 1;
                let mut seen = [field; Q];
                for (q, seen) in seen.iter_mut().enumerate() {
                    *seen = &field[places[q]..][..reach];
                }
                let mut sums = [[simd.$splat(0.0); V]; Q];
                for (w, &term) in panel.iter().zip(terms) {
                    for (sums, seen) in sums.iter_mut().zip(&seen) {
                        let x = simd.$splat(seen[term]);
                        for (sum, &w) in sums.iter_mut().zip(w) {
                            *sum = simd.$multiply_add(x, w, *sum);
                        }
                    }
                }
                for (out, sums) in out.iter_mut().zip(&sums) {
                    for (out, &sum) in out.iter_mut().zip(sums) {
                        *out = if adds { simd.$add(*out, sum) } else { sum };
                    }
                }
            }

            pub(crate) fn correlate(
                panel: &[$type],
                field: &[$type],
                (terms, places): (&[usize], &[usize]),
                sums: &mut [$type],
                adds: bool,
            ) {
                Arch::new().dispatch(Correlation { panel, field, terms, places, sums, adds });
            }

            /// Compares with three loops on this instruction set, for all numbers of lanes.
            #[cfg(test)]
            #[allow(clippy::cast_lossless)] // One of the two is `f64` already.
            fn check_on<S: Simd>(simd: S, terms: &[usize], places: &[usize], adds: bool) {
                let length = terms.last().unwrap() + places.iter().max().unwrap() + 1;
                let number = |i: usize| ((i * 37 + i / 5 * 11) % 17) as $type - 8.0;
                let field: Vec<$type> = (0..length).map(number).collect();
                for lanes in [1, 2, 4].map(|vectors| S::$lanes * vectors) {
                    let panel: Vec<$type> = (3..).map(number).take(terms.len() * lanes).collect();
                    let mut sums: Vec<$type> =
                        (9..).map(number).take(places.len() * lanes).collect();
                    let mut expected = sums.clone();
                    for (index, sum) in expected.iter_mut().enumerate() {
                        *sum = if adds { *sum } else { 0.0 };
                        for (&term, panel) in terms.iter().zip(panel.chunks_exact(lanes)) {
                            *sum += panel[index % lanes] * field[places[index / lanes] + term];
                        }
                    }
                    let (panel, field, sums_of) = (&panel[..], &field[..], &mut sums[..]);
                    let sums_of = Correlation { panel, field, terms, places, sums: sums_of, adds };
                    simd.vectorize(sums_of);
                    assert_eq!(sums, expected, "{terms:?}, {places:?}, {lanes} lanes");
                }
            }

            /// [`check_on`] every instruction set that the processor has.
            #[cfg(test)]
            pub(crate) fn check(terms: &[usize], places: &[usize], adds: bool) {
                check_on(pulp::Scalar::new(), terms, places, adds);
                #[cfg(target_arch = "x86_64")]
                {
                    use pulp::x86::{V3, V4};
                    V3::try_new().map(|simd| check_on(simd, terms, places, adds));
                    V4::try_new().map(|simd| check_on(simd, terms, places, adds));
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

/// How many places have sums that fit into the registers, with so many vectors for each place. Beyond
/// eight there would not be enough registers for their addresses.
const fn most_places(vectors: usize, registers: usize) -> usize {
    match (vectors, registers) {
        (1, _) | (2, 32..) => 8,
        (2, _) | (_, 32..) => 6,
        _ => 3,
    }
}

/// The most lanes that any processor has in a panel: four vectors of 16 numbers.
pub(crate) const MOST_LANES: usize = 64;

/// How many vectors of a panel stand side by side, for units that fill `rows` vectors. It is best to
/// leave few of them empty at the end. But with a single vector there are too few sums to keep the
/// processor busy, and four need many registers.
fn vectors(rows: usize, registers: usize) -> usize {
    let cost = |&side: &usize| rows.div_ceil(side) * side * if side == 1 { 3 } else { 2 };
    let sides: &[usize] = if registers >= 32 { &[4, 2, 1] } else { &[2, 1] };
    sides.iter().copied().min_by_key(cost).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use crate::correlate::{of_f32, of_f64, vectors};

    proptest! {
        /// Small whole numbers, whose sums are exact in any order.
        #[test]
        fn sums_are_those_of_three_loops(
            mut terms in prop::collection::vec(0..60_usize, 1..50),
            places in prop::collection::vec(0..60_usize, 1..40),
            adds in any::<bool>(),
        ) {
            terms.sort_unstable();
            of_f32::check(&terms, &places, adds);
            of_f64::check(&terms, &places, adds);
        }
    }

    #[test]
    fn a_panel_wastes_few_lanes() {
        // Four vectors fit into 32 registers. They are not chosen where two would leave fewer empty.
        assert_eq!([1, 2, 3, 4, 6].map(|rows| vectors(rows, 32)), [1, 2, 4, 4, 2]);
        assert_eq!([1, 2, 3, 4, 6].map(|rows| vectors(rows, 16)), [1, 2, 2, 2, 2]);
    }
}
