//! Memory: a training step allocates nothing, and a loader takes no more than a file can fill, whatever its header says.
#![allow(unsafe_code)] // An allocator is unsafe by nature.

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use common::{Folder, idx};
use feedback_alignment::{
    Adam, AdamW, AvgPool2d, Conv2d, Dataset, Error, FeedbackRule, Loss, MaxPool2d, Momentum,
    Network, Optimizer, RmsProp, Scalar, Sgd, Trainer, data::idx, nalgebra::DMatrix,
};

/// The system's allocator, counting for each thread so that tests do not count each other's.
struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    COUNT.set(COUNT.get() + 1);
    BYTES.set(BYTES.get() + bytes);
}

// SAFETY: every call goes to the system's allocator unchanged; the counters are plain cells that
// neither allocate nor need to be dropped.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
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
    for rule in FeedbackRule::all() {
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
    let scaling = feedback_alignment::Scaling::standardize(&by_bytes);
    for (name, data) in [
        ("numbers", Dataset::new(x.clone(), labels()).unwrap()),
        ("real targets", Dataset::with_values(x, &values).unwrap()),
        ("scaled bytes", by_bytes.scaled(&scaling).unwrap()),
    ] {
        for rule in FeedbackRule::all() {
            let builder = Trainer::builder(network::<f32>(2)).rule(rule);
            let builder = builder.loss(Loss::LogisticCrossEntropy).batch_size(4);
            let mut trainer = builder.build().unwrap();
            trainer.epoch(&data).unwrap();
            let (count, ..) = allocated(|| trainer.epoch(&data).unwrap());
            assert_eq!(count, 0, "{rule} on {name}");
        }
    }
}

#[test]
fn a_convolutional_step_allocates_nothing() {
    let samples = 6;
    let x = DMatrix::from_fn(72, samples, |i, j| ((i * 7 + j * 5) % 11) as f32 / 11.0);
    let labels = [0, 1, 2, 0, 1, 2];
    for rule in FeedbackRule::all() {
        let network = Network::builder((2, 6, 6))
            .dropout(0.1)
            .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(3, 3) })
            .batch_norm()
            .tanh()
            .max_pool2d(MaxPool2d::new(2, 2))
            .dropout(0.5)
            .conv2d(Conv2d::new(4, 2))
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
