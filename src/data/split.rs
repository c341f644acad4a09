//! Dividing a dataset into samples to learn from and samples to judge by.

use rand::seq::SliceRandom;

use super::dataset::Dataset;
use crate::{
    error::{Error, Result, require},
    scalar::Scalar,
    seed::{Purpose, stream},
};

impl<T: Scalar> Dataset<T> {
    /// Shuffles the samples and splits off `held_out` of them: returns the rest and those held out.
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless both parts have at least one sample.
    pub fn split(&self, held_out: usize, seed: u64) -> Result<(Self, Self)> {
        self.require_held_out(held_out)?;
        let order = self.shuffled(seed);
        let (rest, held_out) = order.split_at(self.len() - held_out);
        Ok((self.subset(rest)?, self.subset(held_out)?))
    }

    /// [`split`](Self::split) that keeps the share of each class. From a class with `n_c` of the `n`
    /// samples, `n_c · held_out / n` are held out, rounded up or down.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, nalgebra::DMatrix};
    ///
    /// // Nine samples of class 0 for each of class 1.
    /// let labels = (0..100).map(|sample| usize::from(sample % 10 == 0)).collect();
    /// let data = Dataset::new(DMatrix::<f32>::zeros(1, 100), labels)?;
    /// let (train, held_out) = data.split_stratified(20, 7)?;
    /// assert_eq!((train.len(), held_out.len()), (80, 20));
    /// assert_eq!(held_out.mean_target(2)?, [0.9, 0.1]);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless both parts have at least one sample, [`Error::NoClasses`] if
    /// the targets are real values.
    pub fn split_stratified(&self, held_out: usize, seed: u64) -> Result<(Self, Self)> {
        self.require_held_out(held_out)?;
        let labels = self.labels().ok_or(Error::NoClasses { what: "a stratified split" })?;
        let order = self.shuffled(seed);
        // The samples stand class by class, and `held_out` of them are taken at equal distances. So
        // each class gets its share.
        let before = |place: usize| place as u128 * held_out as u128 / self.len() as u128;
        let mut is_held_out = vec![false; self.len()];
        for (place, sample) in by_class(&order, labels).into_iter().enumerate() {
            is_held_out[sample] = before(place + 1) > before(place);
        }
        self.parts(&order, |sample| is_held_out[sample])
    }

    /// Cross-validation: shuffles the samples and divides them into `k` folds. Each fold is held out
    /// once, and the other folds are the training set. Of `n` samples a fold has `n / k`, and of a
    /// class with `n_c` samples `n_c / k`, rounded up or down. The iterator makes two datasets at a
    /// time, `(train, held_out)`.
    ///
    /// ```
    /// use feedback_alignment::{Dataset, Network, Trainer, nalgebra::DMatrix};
    ///
    /// let x = DMatrix::from_fn(2, 40, |i, j| ((i * 7 + j * 3) % 11) as f32 / 11.0);
    /// let data = Dataset::new(x, (0..40).map(|j| j % 2).collect())?;
    /// let mut losses = Vec::new();
    /// for (train, held_out) in data.folds(4, 1)? {
    ///     assert_eq!((train.len(), held_out.len()), (30, 10));
    ///     let network = Network::<f32>::builder(2).dense(8).tanh().dense(2).build()?;
    ///     let mut trainer = Trainer::builder(network).build()?;
    ///     trainer.epoch(&train)?;
    ///     losses.push(trainer.evaluate(&held_out)?.loss);
    /// }
    /// assert_eq!(losses.len(), 4);
    /// # Ok::<(), feedback_alignment::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidParameter`] unless `k` is at least 2 and at most the number of samples.
    pub fn folds(
        &self,
        k: usize,
        seed: u64,
    ) -> Result<impl ExactSizeIterator<Item = (Self, Self)> + '_> {
        let valid = (2..=self.len()).contains(&k);
        require(valid, "k", k as f64, "at least 2 and at most the number of samples")?;
        let order = self.shuffled(seed);
        // Dealt to the folds in turn, like cards, one class after the other.
        let dealt = self.labels().map_or_else(|| order.clone(), |labels| by_class(&order, labels));
        let mut fold_of = vec![0; self.len()];
        for (place, sample) in dealt.into_iter().enumerate() {
            fold_of[sample] = place % k;
        }
        Ok((0..k).map(move |fold| {
            let parts = self.parts(&order, |sample| fold_of[sample] == fold);
            parts.expect("neither part of existing samples is empty")
        }))
    }

    fn require_held_out(&self, held_out: usize) -> Result<()> {
        let valid = held_out > 0 && held_out < self.len();
        let expected = "at least 1 and less than the number of samples";
        require(valid, "held_out", held_out as f64, expected)
    }

    /// All samples in random order.
    fn shuffled(&self, seed: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.shuffle(&mut stream(seed, Purpose::Split, 0, 0));
        order
    }

    /// The samples that are not held out and those that are, in this order of samples.
    fn parts(&self, order: &[usize], is_held_out: impl Fn(usize) -> bool) -> Result<(Self, Self)> {
        let (held_out, rest): (Vec<_>, Vec<_>) =
            order.iter().partition(|&&sample| is_held_out(sample));
        Ok((self.subset(&rest)?, self.subset(&held_out)?))
    }
}

/// The same samples, sorted by class.
fn by_class(order: &[usize], labels: &[usize]) -> Vec<usize> {
    let mut sorted = order.to_vec();
    sorted.sort_by_key(|&sample| labels[sample]); // Stable: random within a class.
    sorted
}

#[cfg(test)]
mod tests {
    use nalgebra::DMatrix;
    use proptest::prelude::*;

    use super::*;

    /// Samples whose only feature is their number.
    fn numbered(labels: Vec<usize>) -> Dataset<f64> {
        let x = DMatrix::from_fn(1, labels.len(), |_, sample| sample as f64);
        Dataset::new(x, labels).unwrap()
    }

    fn numbers(data: &Dataset<f64>) -> Vec<f64> {
        data.inputs().as_slice().to_vec()
    }

    fn count(data: &Dataset<f64>, class: usize) -> usize {
        data.labels().unwrap().iter().filter(|&&label| label == class).count()
    }

    /// Whether `part / whole` is `share / all`, rounded up or down.
    fn is_share(part: usize, whole: usize, (share, all): (usize, usize)) -> bool {
        (whole * share / all..=(whole * share).div_ceil(all)).contains(&part)
    }

    /// Whether both together are all samples, each once and with its own label.
    fn nothing_is_lost(data: &Dataset<f64>, (train, held_out): &(Dataset<f64>, Dataset<f64>)) {
        let labels = data.labels().unwrap();
        let mut all = [numbers(train), numbers(held_out)].concat();
        for part in [train, held_out] {
            let own = part.labels().unwrap().iter();
            let known = labels.iter().enumerate();
            let known: Vec<_> = known.map(|(sample, label)| (sample as f64, label)).collect();
            assert!(numbers(part).into_iter().zip(own).all(|pair| known.contains(&pair)));
        }
        all.sort_by(f64::total_cmp);
        assert_eq!(all, numbers(data));
    }

    fn labels() -> impl Strategy<Value = Vec<usize>> {
        proptest::collection::vec(
            prop_oneof![6 => Just(0_usize), 3 => Just(1), 1 => Just(4)],
            2..60,
        )
    }

    proptest! {
        #[test]
        fn a_split_loses_nothing_and_a_stratified_one_keeps_the_shares(
            labels in labels(), part in 0.0..1.0, seed in 0..1000_u64,
        ) {
            let data = numbered(labels);
            let n = data.len();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let held_out = 1 + (part * (n - 1) as f64) as usize;
            for split in [Dataset::split, Dataset::split_stratified] {
                let parts = split(&data, held_out, seed).unwrap();
                nothing_is_lost(&data, &parts);
                prop_assert_eq!(parts.1.len(), held_out);
                prop_assert_eq!(&parts, &split(&data, held_out, seed).unwrap());
            }
            let (_, held) = data.split_stratified(held_out, seed).unwrap();
            for class in 0..5 {
                prop_assert!(is_share(count(&held, class), count(&data, class), (held_out, n)));
            }
        }

        #[test]
        fn every_sample_is_held_out_once_and_folds_have_their_shares(
            labels in labels(), k in 2..20_usize, seed in 0..1000_u64,
        ) {
            let data = numbered(labels);
            prop_assume!(k <= data.len());
            let folds: Vec<_> = data.folds(k, seed).unwrap().collect();
            let held_out = folds.iter().flat_map(|(_, held_out)| numbers(held_out));
            let mut held_out: Vec<f64> = held_out.collect();
            held_out.sort_by(f64::total_cmp);
            prop_assert_eq!(held_out, numbers(&data));
            prop_assert_eq!(folds.len(), k);
            for fold in &folds {
                nothing_is_lost(&data, fold);
                prop_assert!(is_share(fold.1.len(), data.len(), (1, k)));
                for class in 0..5 {
                    prop_assert!(is_share(count(&fold.1, class), count(&data, class), (1, k)));
                }
            }
            prop_assert!(data.folds(k, seed).unwrap().eq(folds));
        }
    }

    #[test]
    fn another_seed_makes_other_parts_in_another_order() {
        let data = numbered((0..60).map(|sample| sample / 30).collect());
        let split = |seed| data.split_stratified(20, seed).unwrap();
        let folds = |seed| data.folds(3, seed).unwrap().next().unwrap();
        for (one, other) in [(split(1), split(2)), (folds(1), folds(2))] {
            assert_ne!(one, other);
            for part in [one.0, one.1] {
                assert!(!numbers(&part).is_sorted() && !part.labels().unwrap().is_sorted());
            }
        }
    }

    #[test]
    fn values_have_folds_but_no_classes_to_keep_the_shares_of() {
        let x = DMatrix::from_fn(1, 7, |_, sample| sample as f64);
        let data = Dataset::with_values(x.clone(), &x).unwrap();
        assert_eq!((data.labels(), data.split(2, 0).unwrap().1.len()), (None, 2));
        assert!(matches!(data.split_stratified(2, 0), Err(Error::NoClasses { .. })));
        let sizes =
            data.folds(3, 0).unwrap().map(|(train, held_out)| (train.len(), held_out.len()));
        assert_eq!(sizes.collect::<Vec<_>>(), [(4, 3), (5, 2), (5, 2)]);
    }

    #[test]
    fn parts_without_a_sample_are_refused() {
        let data = numbered(vec![0, 1, 1, 0, 2]);
        for held_out in [0, 5, 6, usize::MAX] {
            assert!(data.split(held_out, 5).is_err());
            assert!(data.split_stratified(held_out, 5).is_err());
        }
        for k in [0, 1, 6, usize::MAX] {
            assert!(matches!(
                data.folds(k, 5).map(|_| ()),
                Err(Error::InvalidParameter { name: "k", .. })
            ));
        }
        assert_eq!(data.folds(5, 5).unwrap().len(), 5);
    }

    #[test]
    fn neither_part_of_a_split_is_empty() {
        let data = numbered(vec![0, 1, 0, 1, 1]);
        for split in [Dataset::split, Dataset::split_stratified] {
            for held_out in [0, 5, 6] {
                let error = split(&data, held_out, 1).unwrap_err().to_string();
                assert!(
                    error.contains("at least 1 and less than the number of samples"),
                    "{error}"
                );
            }
            let (train, held) = split(&data, 4, 1).unwrap();
            assert_eq!((train.len(), held.len()), (1, 4));
        }
    }
}
