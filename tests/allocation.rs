//! Memory: a training step allocates nothing, and a loader takes no more than a file can fill, whatever its header says.
#![allow(unsafe_code)] // An allocator is unsafe by nature.

mod common;
#[cfg(feature = "safetensors")]
#[path = "common/craft.rs"]
mod craft;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use common::{Folder, idx};
use feedback_alignment::{
    Activations, Adam, AdamW, AvgPool2d, Conv2d, Dataset, Deltas, Diagnostics, Error, Feedback,
    FeedbackInit, FeedbackRule, Gradients, Loss, MaxPool2d, Mirror, Momentum, Network,
    NetworkBuilder, Optimizer, OptimizerState, RmsProp, Scalar, Sgd, Trainer,
    data::idx,
    nalgebra::DMatrix,
    rand::{self, SeedableRng},
    rand_distr,
};

/// The system's allocator, counting for each thread so that tests do not count each other's.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
    /// How many large blocks are still handed out.
    static LARGE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// From so many bytes on a block is large: nothing but what a user's number sizes is.
const LARGE_BLOCK: usize = 1 << 14;

/// Counts a block, unless there is no memory left for it.
fn count(bytes: usize) -> bool {
    COUNT.set(COUNT.get() + 1);
    BYTES.set(BYTES.get() + bytes);
    let left = LARGE.get();
    if bytes >= LARGE_BLOCK && left != usize::MAX {
        LARGE.set(left.saturating_sub(1));
        return left > 0;
    }
    true
}

// SAFETY: every call goes to the system's allocator unchanged, or is told that there is no memory;
// the counters are plain cells that neither allocate nor need to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !count(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !count(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !count(size) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls `work` again and again, with memory for one more large block each time, until it succeeds.
/// Up to then each call has to fail with an error: where it did not, the process would be aborted.
/// Returns how many large blocks it takes.
fn until_there_is_memory<R>(mut work: impl FnMut() -> Result<R, Error>) -> usize {
    for blocks in 0.. {
        LARGE.set(blocks);
        let result = work();
        LARGE.set(usize::MAX);
        match result {
            Ok(_) => return blocks,
            Err(Error::TooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("memory does not end")
}

/// The same for work that keeps the memory it has got even if it fails. Such work needs less with every
/// call, so the first call gets no large block, and each later call gets one. Returns how many calls
/// failed.
fn block_after_block<R>(mut work: impl FnMut() -> Result<R, Error>) -> usize {
    for failed in 0.. {
        LARGE.set(failed.min(1));
        let result = work();
        LARGE.set(usize::MAX);
        match result {
            Ok(_) => return failed,
            Err(Error::TooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }
    unreachable!("every call gets a block further")
}

/// The kernel makes a buffer of its own once for each thread, and aborts if it cannot. Its size depends on the
/// machine, not on the network.
fn make_the_kernels_buffer() {
    let network = Network::<f64>::builder(300).dense(600).build().unwrap();
    // With more threads the product, and so the buffer, would be made on those of a pool.
    let trainer = Trainer::builder(network).threads(1).build().unwrap();
    trainer.predict_classes(&DMatrix::from_element(300, 100, 0.5)).unwrap();
}

/// Networks of every kind of layer, whose every part is large.
fn large_networks() -> [NetworkBuilder<f32>; 3] {
    let dense = Network::builder(300).dropout(0.1).dense(6000).batch_norm().relu().dropout(0.2);
    let image = Network::builder((3, 70, 70))
        .conv2d(Conv2d { padding: (2, 2), ..Conv2d::new(25, 5) })
        .tanh()
        .max_pool2d(MaxPool2d::new(3, 2))
        .flatten()
        .batch_norm();
    let narrow = Network::builder((30, 20, 20)).conv2d(Conv2d::new(20, 3)).batch_norm();
    let narrow = narrow.conv2d(Conv2d::new(8, 3));
    [dense.dense(5000), image.dense(3), narrow.avg_pool2d(AvgPool2d::new(2, 2)).tanh().dense(4)]
}

#[test]
fn a_network_larger_than_memory_is_an_error_wherever_it_is_found_out() {
    for builder in large_networks() {
        assert!(until_there_is_memory(|| builder.clone().build()) > 0);
        let network = builder.build().unwrap();
        let x = DMatrix::from_element(network.input_len(), 3, 0.5);
        let labels = [0, 1, 2];
        make_the_kernels_buffer();
        assert!(until_there_is_memory(|| network.predict(&x)) > 0);
        for optimizer in optimizers() {
            let blocks = until_there_is_memory(|| OptimizerState::new(&network, optimizer));
            assert_eq!(blocks == 0, optimizer == Optimizer::from(Sgd::default()));
        }
        for rule in FeedbackRule::nokland() {
            let init = FeedbackInit::Nokland;
            until_there_is_memory(|| Feedback::new(&network, rule, init, 1));
            let feedback = Feedback::new(&network, rule, init, 1).unwrap();
            let normal = rand_distr::StandardNormal;
            until_there_is_memory(|| {
                Feedback::sample(
                    &network,
                    rule,
                    &normal,
                    &mut rand::rngs::Xoshiro256PlusPlus::seed_from_u64(1),
                )
            });
            // The stages, each in scratch that is new.
            let mut activations = Activations::new();
            let blocks = until_there_is_memory(|| {
                activations = Activations::new();
                network.forward(&x, &mut activations)
            });
            assert!(blocks > 2);
            let loss = Loss::SoftmaxCrossEntropy;
            let mut deltas = Deltas::new();
            let blocks = until_there_is_memory(|| {
                deltas = Deltas::new();
                loss.error(&labels, &activations, &mut deltas)
            });
            assert!(blocks > 0);
            until_there_is_memory(|| feedback.deliver(&network, &activations, &mut deltas));
            let mut gradients = Gradients::new();
            let blocks = until_there_is_memory(|| {
                gradients = Gradients::new();
                network.gradients(&activations, &deltas, &mut gradients)
            });
            assert!(blocks > 0);
        }
        assert!(until_there_is_memory(|| Diagnostics::new(&network)) > 0);
    }
}

/// A scratch that could not grow is as good as before.
#[test]
fn scratch_that_found_no_memory_serves_smaller_batches() {
    let [builder, ..] = large_networks();
    let mut trainer = Trainer::builder(builder.build().unwrap()).threads(1).build().unwrap();
    let x = |samples| DMatrix::from_element(300, samples, 0.5);
    let mut twin = trainer.clone();
    assert_eq!(trainer.step(&x(3), &[0, 1, 2]).unwrap(), twin.step(&x(3), &[0, 1, 2]).unwrap());
    let large = x(50);
    for blocks in 0..4 {
        LARGE.set(blocks);
        let refused = trainer.step(&large, &[0; 50]);
        LARGE.set(usize::MAX);
        assert!(matches!(refused, Err(Error::TooLarge { .. })));
    }
    assert_eq!(trainer.step(&x(3), &[2, 1, 0]).unwrap(), twin.step(&x(3), &[2, 1, 0]).unwrap());
    assert_eq!(trainer.network(), twin.network());
}

/// A thread that has not worked yet has no scratch, even if the trainer has made a step on another thread.
#[test]
fn a_new_thread_without_memory_for_its_scratch_says_so() {
    let (dfa, pfa) = (FeedbackRule::Dfa, FeedbackRule::Pfa);
    let [dense, image, narrow] = large_networks();
    for (builder, rule, stepped) in [
        (dense, dfa, false),
        (image.clone(), dfa, false),
        (image, dfa, true),
        // The factors of PFA make its second convolution ten times as wide on the way back.
        (narrow, pfa, true),
    ] {
        let builder = Trainer::builder(builder.build().unwrap()).rule(rule);
        let mut trainer = builder.threads(1).build().unwrap();
        let x = DMatrix::from_element(trainer.network().input_len(), 3, 0.5);
        if stepped {
            trainer.step(&x, &[0, 1, 2]).unwrap();
        }
        let work = move || {
            make_the_kernels_buffer();
            block_after_block(|| trainer.step(&x, &[0, 1, 2]))
        };
        assert!(std::thread::spawn(work).join().unwrap() > 0);
    }
}

/// A stage may be on another thread than the forward pass.
#[test]
fn a_stage_on_a_new_thread_without_memory_says_so() {
    let [_, image, _] = large_networks();
    let network = image.build().unwrap();
    let x = DMatrix::from_element(network.input_len(), 3, 0.5);
    let feedback = Feedback::new(&network, FeedbackRule::Fa, FeedbackInit::default(), 1).unwrap();
    let (mut activations, mut deltas) = (Activations::new(), Deltas::new());
    network.forward(&x, &mut activations).unwrap();
    Loss::SoftmaxCrossEntropy.error(&[0, 1, 2], &activations, &mut deltas).unwrap();
    feedback.deliver(&network, &activations, &mut deltas).unwrap();
    let optimizer = OptimizerState::new(&network, Sgd::default()).unwrap();
    for stage in ["deliver", "gradients", "learn", "deliver and learn"] {
        let (mut network, mut optimizer) = (network.clone(), optimizer.clone());
        let (mut deltas, mut gradients) = (deltas.clone(), Gradients::new());
        let (feedback, activations) = (&feedback, &activations);
        let work = move || {
            make_the_kernels_buffer();
            block_after_block(|| match stage {
                "deliver" => feedback.deliver(&network, activations, &mut deltas),
                "gradients" => network.gradients(activations, &deltas, &mut gradients),
                "learn" => optimizer.learn(&mut network, activations, &deltas),
                _ => optimizer.deliver_and_learn(&mut network, feedback, activations, &mut deltas),
            })
        };
        let failed = std::thread::scope(|scope| scope.spawn(work).join().unwrap());
        assert!(failed > 0, "{stage}");
    }
}

/// One process finds no memory for a sparse matrix as a whole. The other does not wait for it.
#[cfg(feature = "mpi")]
#[test]
fn a_process_without_memory_for_its_feedback_says_so_to_all() {
    use feedback_alignment::distributed::{DataParallel, Group, LocalGroup};

    let network = Network::<f32>::builder(1).dense(3000).dense(3000).build().unwrap();
    let route = "2:Bs1(e)->0".parse().unwrap();
    let feedback = Feedback::with_route(&network, route, FeedbackInit::default(), 1).unwrap();
    let trainer = Trainer::builder(network).feedback(feedback).build().unwrap();
    let messages = LocalGroup::run(2, |group| {
        let trainer = trainer.clone();
        LARGE.set(if group.rank() == 1 { 0 } else { usize::MAX });
        let refused = DataParallel::new(group, trainer, 2).map(|_| ()).unwrap_err();
        LARGE.set(usize::MAX);
        refused.to_string()
    });
    assert!(messages[0].starts_with("process 1: no memory for a matrix of 3000 × 3000"));
    assert!(messages[1].starts_with("no memory for a matrix of 3000 × 3000"));
}

/// A matrix that is stored in parts may be far larger than they are, and a subset may contain a sample many
/// times.
#[test]
fn what_is_larger_than_its_parts_may_find_no_memory() {
    let network = Network::<f32>::builder(1).dense(3000).dense(3000).build().unwrap();
    let of = |hop: &str| {
        let route = format!("2:{hop}(e)->0").parse().unwrap();
        Feedback::with_route(&network, route, FeedbackInit::default(), 1).unwrap()
    };
    make_the_kernels_buffer();
    for feedback in ["Bs1", "Br2", "Bc"].map(of) {
        assert!(until_there_is_memory(|| feedback.matrix(0)) > 0);
        assert!(until_there_is_memory(|| feedback.matrices().collect::<Result<Vec<_>, _>>()) > 0);
    }
    let pfa = Feedback::new(&network, FeedbackRule::Pfa, FeedbackInit::default(), 1).unwrap();
    assert!(until_there_is_memory(|| pfa.matrix(0)) > 1);
    let bytes = Dataset::<f32>::from_bytes(100, vec![7; 200], vec![0, 1]).unwrap();
    let values = Dataset::with_values(DMatrix::zeros(2, 2), &DMatrix::<f32>::zeros(9, 2)).unwrap();
    let often = vec![1; 100_000];
    for data in [bytes, values] {
        assert!(until_there_is_memory(|| data.subset(&often)) > 1);
    }
}

/// Under WM the matrices learn from noise before the first step.
#[test]
fn mirrors_that_find_no_memory_for_their_noise_stay_as_they_were() {
    for builder in large_networks() {
        let network = builder.build().unwrap();
        let mut before =
            Feedback::new(&network, FeedbackRule::Wm, FeedbackInit::default(), 1).unwrap();
        before.set_mirror(Mirror { before: 2, batch: 3, ..Mirror::default() }).unwrap();
        let builder = Trainer::builder(network).feedback(before.clone());
        let mut trainer = builder.threads(1).build().unwrap();
        let x = DMatrix::from_element(trainer.network().input_len(), 3, 0.5);
        make_the_kernels_buffer();
        let failed = block_after_block(|| {
            let step = trainer.step(&x, &[0, 1, 2]);
            assert_eq!(trainer.feedback() == &before, step.is_err());
            step
        });
        assert!(failed > 0);
    }
}

/// Allocations and allocated bytes of this thread during `work`.
fn allocated<R>(work: impl FnOnce() -> R) -> (usize, usize, R) {
    let (count, bytes) = (COUNT.get(), BYTES.get());
    let result = work();
    (COUNT.get() - count, BYTES.get() - bytes, result)
}

/// A network small enough that no product is split over threads.
fn network<T: Scalar>(hidden: usize) -> Network<T> {
    let activations = feedback_alignment::Activation::all().take(hidden);
    let builder = activations.fold(Network::builder(6), |b, f| b.dense(7).activation(f));
    builder.dense(3).build().unwrap()
}

fn optimizers() -> [Optimizer; 5] {
    [
        Sgd::default().into(),
        Sgd { momentum: Momentum::Nesterov(0.9), ..Sgd::default() }.into(),
        RmsProp::default().into(),
        Adam::default().into(),
        AdamW::default().into(),
    ]
}

fn steps_allocate_nothing<T: Scalar>() {
    let x = DMatrix::from_fn(6, 10, |i, j| T::of((i + j) as f64 / 16.0));
    let (few, labels) = (x.columns(0, 4).into_owned(), [0, 1, 2, 0, 1, 2, 0, 1, 2, 0]);
    let values = DMatrix::from_element(3, 10, T::of(0.25));
    for rule in FeedbackRule::nokland() {
        for optimizer in optimizers() {
            for hidden in [0, 1, 7] {
                let builder = Trainer::builder(network::<T>(hidden)).rule(rule).max_norm(1.0);
                let builder = builder.loss(Loss::LogisticCrossEntropy).optimizer(optimizer);
                let mut trainer = builder.build().unwrap();
                trainer.step(&x, &labels).unwrap();
                let (count, ..) = allocated(|| {
                    trainer.step(&x, &labels).unwrap();
                    trainer.step(&few, &labels[..4]).unwrap();
                    trainer.step(&x, &values).unwrap();
                });
                assert_eq!(count, 0, "{rule}, {optimizer:?}, {hidden} hidden layers");
            }
        }
    }
}

/// Gradients that somebody looks at are stored in memory that is there, and so is everything that
/// a route adds up or sends.
#[test]
fn a_step_with_gradients_in_sight_allocates_nothing() {
    let x = DMatrix::from_fn(6, 10, |i, j| (i + j) as f32 / 16.0);
    let labels = [0, 1, 2, 0, 1, 2, 0, 1, 2, 0];
    let data = Dataset::new(x.clone(), labels.to_vec()).unwrap();
    for text in ["3:B(e)->1,W(1)->0", "3:B(t)->0,B(sign)->1", "3:W(e)->1,B(e)->1,B(t)->0,R(1)->0"] {
        let network = network::<f32>(2);
        let route = text.parse().unwrap();
        let feedback = Feedback::with_route(&network, route, FeedbackInit::default(), 1).unwrap();
        let builder = Trainer::builder(network).feedback(feedback).batch_size(5);
        let mut trainer = builder.rate_factor(1, 0.5).build().unwrap();
        let mut gradients = Gradients::new();
        let mut all = || {
            trainer.step(&x, &labels).unwrap();
            trainer.step_with(&x, &labels, |gradients| gradients.clip_norm(1.0).map(drop)).unwrap();
            trainer.epoch_with(&data, |gradients| gradients.clip_values(0.1)).unwrap();
            trainer.gradients(&x, &labels, &mut gradients).unwrap();
            trainer.apply(&gradients).unwrap();
        };
        all();
        let (count, ..) = allocated(all);
        assert_eq!(count, 0, "{text}");
    }
}

#[test]
fn a_step_allocates_nothing() {
    steps_allocate_nothing::<f32>();
    steps_allocate_nothing::<f64>();
}

#[test]
fn an_epoch_allocates_nothing() {
    let x = DMatrix::from_fn(6, 10, |i, j| (i + j) as f32 / 16.0);
    let bytes = (0..60).collect();
    let values = DMatrix::from_element(3, 10, 0.25_f32);
    let labels = || vec![0, 1, 2, 0, 1, 2, 0, 1, 2, 0];
    let by_bytes = Dataset::from_bytes(6, bytes, labels()).unwrap();
    let scaling = feedback_alignment::Scaling::standardize(&by_bytes).unwrap();
    for (name, data) in [
        ("numbers", Dataset::new(x.clone(), labels()).unwrap()),
        ("real targets", Dataset::with_values(x, &values).unwrap()),
        ("scaled bytes", by_bytes.scaled(&scaling).unwrap()),
    ] {
        for rule in FeedbackRule::nokland() {
            let builder = Trainer::builder(network::<f32>(2)).rule(rule);
            let builder = builder.loss(Loss::LogisticCrossEntropy).batch_size(4);
            let mut trainer = builder.build().unwrap();
            trainer.epoch(&data).unwrap();
            let (count, ..) = allocated(|| trainer.epoch(&data).unwrap());
            assert_eq!(count, 0, "{rule} on {name}");
        }
    }
}

/// An evaluation takes memory for its first batch and for none after it, whatever the trainer does.
#[test]
fn an_evaluation_of_many_batches_allocates_as_often_as_one_of_two() {
    let data = |samples: usize| {
        let x = DMatrix::from_fn(6, samples, |i, j| ((i + j) % 16) as f32 / 16.0);
        Dataset::new(x, (0..samples).map(|j| j % 3).collect()).unwrap()
    };
    let (few, many) = (data(2 * 256), data(10 * 256 + 5));
    let trainer = Trainer::builder(network::<f32>(2)).build().unwrap();
    trainer.evaluate(&few).unwrap();
    let (of_few, ..) = allocated(|| trainer.evaluate(&few).unwrap());
    let (of_many, ..) = allocated(|| trainer.evaluate(&many).unwrap());
    assert_eq!(of_many, of_few);
    let (of_few, ..) = allocated(|| trainer.top_k_error(&few, 2).unwrap());
    let (of_many, ..) = allocated(|| trainer.top_k_error(&many, 2).unwrap());
    assert_eq!(of_many, of_few);
}

#[test]
fn a_convolutional_step_allocates_nothing() {
    let samples = 6;
    let x = DMatrix::from_fn(72, samples, |i, j| ((i * 7 + j * 5) % 11) as f32 / 11.0);
    let labels = [0, 1, 2, 0, 1, 2];
    for rule in FeedbackRule::nokland() {
        let network = Network::builder((2, 6, 6))
            .dropout(0.1)
            .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 3) })
            .batch_norm()
            .tanh()
            .max_pool2d(MaxPool2d::new(2, 2))
            .dropout(0.5)
            .conv2d(Conv2d::new(4, 2))
            .skip(1)
            .tanh()
            .avg_pool2d(AvgPool2d::new(2, 1))
            .dense(5)
            .batch_norm()
            .tanh()
            .dense(3)
            .build()
            .unwrap();
        let mut trainer = Trainer::builder(network).rule(rule).build().unwrap();
        trainer.step(&x, &labels).unwrap();
        let (count, ..) = allocated(|| trainer.step(&x, &labels).unwrap());
        assert_eq!(count, 0, "{rule}");
    }
}

/// 64 KiB is what buffers and names may take; the headers promise at least 4 GiB.
#[test]
fn a_promise_in_a_header_takes_no_memory() {
    let folder = Folder::new();
    let labels = folder.write("labels", idx(&[3], &[0, 1, 2]));
    let images = folder.write("images", idx(&[3, 1, 1], &[0, 1, 2]));
    for (sizes, is_images) in [
        (&[1 << 30, 1 << 15, 1 << 15][..], true),
        (&[u32::MAX; 3], true),
        (&[u32::MAX, 1, 1], true),
        (&[u32::MAX], false),
    ] {
        let file = folder.write("promise", idx(sizes, &[0; 100]));
        let (_, bytes, result) = allocated(|| {
            if is_images {
                idx::load::<f32>(&file, &labels)
            } else {
                idx::load::<f32>(&images, &file)
            }
        });
        assert!(matches!(result, Err(Error::Truncated { .. })), "{result:?}");
        assert!(bytes < 1 << 16, "{bytes} bytes for {sizes:?}");
    }
}

#[cfg(feature = "gzip")]
#[test]
fn a_bomb_takes_no_more_memory_than_its_header_asks_for() {
    let folder = Folder::new();
    let labels = folder.write("labels", idx(&[3], &[0, 1, 2]));
    let zeros = common::gzip(&vec![0; 1 << 22]).repeat(256); // 1 GiB
    let load = |sizes: &[u32]| {
        let file = [common::gzip(&idx(sizes, &[])), zeros.clone()].concat();
        let file = folder.write("bomb", file);
        let (_, bytes, result) = allocated(|| idx::load::<f32>(file, &labels));
        (bytes, result)
    };
    let (bytes, result) = load(&[3, 4, 4]);
    assert!(matches!(result, Err(Error::TrailingBytes { expected: 48, .. })), "{result:?}");
    assert!(bytes < 1 << 18, "{bytes} bytes");
    let (bytes, result) = load(&[1 << 20, 1 << 20, 1 << 20]);
    assert!(matches!(result, Err(Error::Truncated { .. })), "{result:?}");
    assert!(bytes < 1 << 18, "{bytes} bytes");
}

/// What a compressed file could hold by its size, it need not hold: memory follows what arrives.
#[cfg(feature = "gzip")]
#[test]
fn a_plausible_promise_takes_no_memory_before_the_bytes_arrive() {
    let folder = Folder::new();
    let labels = folder.write("labels", idx(&[3], &[0, 1, 2]));
    // A file of noise is as long compressed, so that it might be 1000 times longer inflated.
    let mut state = 1_u32;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    })
    .take(1 << 18)
    .collect();
    let file = folder.write("images", common::gzip(&idx(&[1 << 27, 1, 1], &noise)));
    let (_, bytes, result) = allocated(|| idx::load::<f32>(file, &labels));
    assert!(matches!(result, Err(Error::Truncated { .. })), "{result:?}");
    assert!(bytes < 1 << 22, "{bytes} bytes");
}

/// Files of networks and checkpoints.
#[cfg(feature = "safetensors")]
mod saved {
    use super::{
        craft::{Craft, Tensor},
        *,
    };

    /// The most bytes that were allocated by loading a file: as a network, from its path and from a
    /// reader, and as a checkpoint. And whether one of these succeeded.
    fn loading(folder: &Folder, bytes: &[u8]) -> (usize, bool) {
        let path = folder.write("file", bytes);
        let (_, network, loaded) = allocated(|| Network::<f32>::load(&path).is_ok());
        let (_, checkpoint, resumed) = allocated(|| Trainer::<f32>::load(&path).is_ok());
        let (_, reader, read) = allocated(|| Network::<f32>::read_from(bytes).is_ok());
        assert_eq!(read, loaded);
        // Where nobody knows how much will come, memory is taken by 64 KiB.
        let reader = reader.saturating_sub(1 << 16);
        (network.max(checkpoint).max(reader), loaded || resumed)
    }

    /// A file with this header and some bytes after it.
    fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    }

    /// Memory follows the file, whatever its header and its description promise.
    #[test]
    fn no_promise_takes_memory() {
        let folder = Folder::new();
        let one = || Tensor::of(&[1], &[1.0]);
        let list = |list: &str| Craft::new("network", list).with("0.weight", one()).seal();
        let run = "trainer rule=DFA loss=softmax batch_size=1 seed=1 epochs=0 steps=0 \
                   running_error=1.0\nfeedback init=nokland\noptimizer name=adam \
                   learning_rate=0.001 beta1=0.9 beta2=0.999 epsilon=1e-8\nschedule warm_up=0 \
                   decay=constant\n";
        let pixel = Tensor::of(&[1, 1, 1, 1], &[1.0]);
        let wide = "input shape=1x1x1\n\
                    conv2d channels=1 kernel=1x1 stride=1x1 padding=30000x30000 bias=without\n\
                    conv2d channels=2 kernel=1x1 stride=70000x70000 padding=0x0 bias=without\n\
                    flatten\ndense outputs=2 bias=without\n";
        let checkpoint = Craft::new("checkpoint", &format!("{run}{wide}"))
            .with("0.weight", pixel.clone())
            .with("1.weight", Tensor::of(&[2, 1, 1, 1], &[1.0; 2]))
            .with("3.weight", Tensor::of(&[2, 2], &[1.0; 4]));
        let tensor = "{\"a\":{\"dtype\":\"F32\",\"shape\":[SIZE],\"data_offsets\":[0,END]}}";
        let promise = |numbers: u64| {
            let header = tensor.replace("SIZE", &numbers.to_string());
            with_header(&header.replace("END", &(4 * numbers).to_string()), &[0; 100])
        };
        for (name, bytes) in [
            (
                "a layer of 10⁹ units",
                list("input shape=1x1x1\ndense outputs=1000000000 bias=with\n"),
            ),
            (
                "10⁹ inputs",
                list("input shape=1000000000x1x1\ndense outputs=1000000000 bias=without\n"),
            ),
            (
                "10⁹ kernels",
                list(
                    "input shape=1x9x9\nconv2d channels=1000000000 kernel=9x9 stride=1x1 \
                     padding=0x0 bias=with\ndense outputs=1 bias=without\n",
                ),
            ),
            ("feedback to 3.6·10⁹ units", checkpoint.seal()),
            ("a tensor of a terabyte", promise(1 << 38)),
            ("a tensor of half of what can be addressed", promise(1 << 60)),
            ("a header of 10 MiB", (10_u64 << 20).to_le_bytes().repeat(100)),
            ("a header of an exabyte", (1_u64 << 60).to_le_bytes().repeat(100)),
        ] {
            let (allocated, loaded) = loading(&folder, &bytes);
            assert!(!loaded, "{name}");
            assert!(allocated < 1 << 16, "{name}: {allocated} bytes for {}", bytes.len());
        }
        // Nothing but feedback was missing.
        let with_feedback = Craft::new("network", wide)
            .with("0.weight", pixel)
            .with("1.weight", Tensor::of(&[2, 1, 1, 1], &[1.0; 2]))
            .with("3.weight", Tensor::of(&[2, 2], &[1.0; 4]));
        let (allocated, loaded) = loading(&folder, &with_feedback.seal());
        assert!(loaded && allocated < 1 << 16, "{allocated} bytes");
    }

    #[test]
    fn loading_takes_a_small_multiple_of_the_file() {
        let folder = Folder::new();
        let path = folder.path("file");
        let network = Network::<f32>::builder(300).dense(500).tanh().dense(100).batch_norm().tanh();
        let trainer = Trainer::builder(network.dense(10).build().unwrap());
        let trainer = trainer.optimizer(Adam::default()).build().unwrap();
        trainer.network().save(&path).unwrap();
        let network = std::fs::read(&path).unwrap();
        trainer.save(&path).unwrap();
        for file in [network, std::fs::read(&path).unwrap()] {
            let (allocated, loaded) = loading(&folder, &file);
            assert!(loaded);
            assert!(allocated < 6 * file.len(), "{allocated} bytes for {}", file.len());
        }
        // The worst of headers: text of two bytes for every number.
        let zeros = "0,".repeat(500_000);
        let header =
            format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{zeros}0],\"data_offsets\":[0,0]}}}}");
        let (allocated, _) = loading(&folder, &with_header(&header, &[]));
        println!("{allocated} bytes for a header of {}", header.len());
        assert!(allocated < 64 * header.len(), "{allocated} bytes for {}", header.len());
    }
}
