//! Damaged and hostile files: an error with a name, whatever the bytes, and never half of anything.

use crate::craft;

use std::{collections::BTreeMap, fs, path::PathBuf};

use craft::{Craft, Tensor};
use feedback_alignment::{
    Adam, Conv2d, Dataset, Error, FeedbackRule, MaxPool2d, Network, Trainer,
    data::{Augmentation, Flip},
    nalgebra::DMatrix,
    rand::{RngExt, SeedableRng, rngs::Xoshiro256PlusPlus},
};
use safetensors::Dtype;
use tempfile::{TempDir, tempdir};

/// A small network of many kinds of layers, and much that it was trained with.
fn trainer() -> Trainer<f32> {
    let network = Network::builder((1, 4, 4))
        .dropout(0.1)
        .conv2d(Conv2d { padding: (1, 1), ..Conv2d::new(2, 2) })
        .batch_norm()
        .tanh()
        .max_pool2d(MaxPool2d::new(2, 2))
        .dense(3)
        .elu(0.5)
        .dense(2);
    let augmentation = Augmentation { shape: (1, 4, 4), flip: Flip::Never, crop_padding: 1 };
    let mut trainer = Trainer::builder(network.build().unwrap())
        .rule(FeedbackRule::Fa)
        .optimizer(Adam::default())
        .max_norm(2.0)
        .adversarial(0.1)
        .augmentation(augmentation)
        .build()
        .unwrap();
    let x = DMatrix::from_fn(16, 4, |i, j| ((i * 3 + j) % 7) as f32 / 7.0);
    trainer.step(&x, &[0, 1, 1, 0]).unwrap();
    trainer
}

/// All that lasts, to the bit.
fn state(trainer: &Trainer<f32>) -> String {
    format!("{:?} {:?} {:?}", trainer.network(), trainer.feedback(), trainer.optimizer().steps())
}

/// Where bytes are loaded, and how that went.
struct Lab {
    folder: TempDir,
    /// Files that were loaded so far.
    files: usize,
    /// How often each kind of error, or none, came of it.
    outcomes: BTreeMap<String, usize>,
    /// How many trainers could not, and could, go on.
    went_on: [usize; 2],
    network: Network<f32>,
    before: String,
}

impl Lab {
    fn new() -> Self {
        let network = trainer().into_network();
        let before = format!("{network:?}");
        let folder = tempdir().unwrap();
        let outcomes = BTreeMap::new();
        Self { folder, files: 0, outcomes, went_on: [0; 2], network, before }
    }

    fn path(&self) -> PathBuf {
        // Not over an old file, which some systems would flush to the disk.
        self.folder.path().join(format!("file-{}", self.files))
    }

    /// The file of a network, and a checkpoint.
    fn originals(&self) -> [Vec<u8>; 2] {
        let path = self.folder.path().join("original");
        let trainer = trainer();
        trainer.network().save(&path).unwrap();
        let network = fs::read(&path).unwrap();
        trainer.save(&path).unwrap();
        [network, fs::read(&path).unwrap()]
    }

    fn crafted(&self) -> [Craft; 2] {
        self.originals().map(|bytes| {
            let path = self.folder.path().join("original");
            fs::write(&path, bytes).unwrap();
            Craft::open(&path)
        })
    }

    /// Loads the bytes in every way; whether any of them succeeded.
    fn load(&mut self, bytes: &[u8]) -> bool {
        self.files += 1;
        let path = self.path();
        fs::write(&path, bytes).unwrap();
        let network = Network::<f32>::load(&path);
        let trainer = Trainer::<f32>::load(&path);
        let parameters = self.network.load_parameters(&path);

        for error in [network.as_ref().err(), trainer.as_ref().err(), parameters.as_ref().err()] {
            let name = match error {
                None => "none".into(),
                Some(error) => {
                    let message = error.to_string();
                    assert!(message.contains(path.to_str().unwrap()), "{message}");
                    let name = format!("{error:?}");
                    name.split([' ', '(']).next().unwrap().to_owned()
                }
            };
            *self.outcomes.entry(name).or_default() += 1;
        }
        fs::remove_file(&path).unwrap();
        // What was loaded is whole: it can be saved and is then the same.
        if let Ok(network) = &network {
            network.save(&path).unwrap();
            let again = Network::<f32>::load(&path).unwrap();
            assert_eq!(format!("{again:?}"), format!("{network:?}"));
        }
        if let Ok(mut trainer) = trainer.as_ref().cloned() {
            trainer.save(&path).unwrap();
            assert_eq!(state(&Trainer::load(&path).unwrap()), state(&trainer));
            // And it goes on, or says why not.
            if trainer.network().to_string() == self.network.to_string() {
                let x = DMatrix::from_element(16, 2, 0.5);
                let data = Dataset::new(x.clone(), vec![1, 0]).unwrap();
                let going = trainer.step(&x, &[0, 1]).and_then(|_| trainer.epoch(&data));
                self.went_on[usize::from(going.is_ok())] += 1;
            }
        }
        if parameters.is_ok() {
            self.network = self::trainer().into_network();
        }
        assert_eq!(format!("{:?}", self.network), self.before, "half of a file was loaded");
        let any = network.is_ok() || trainer.is_ok() || parameters.is_ok();
        let _ = fs::remove_file(&path);
        any
    }
}

#[test]
fn every_flipped_bit_is_noticed() {
    let mut lab = Lab::new();
    // Of the longer checkpoint one bit in nine, so that every bit of a byte has its turn.
    for (original, every) in lab.originals().into_iter().zip([1, 9]) {
        assert!(lab.load(&original));
        let mut bytes = original.clone();
        for place in (0..8 * bytes.len()).step_by(every) {
            let (at, bit) = (place / 8, 1 << (place % 8));
            bytes[at] ^= bit;
            // Where our name is no more, it is the file of some other program, and its numbers
            // are what they were.
            if lab.load(&bytes) {
                let text = String::from_utf8_lossy(&bytes);
                assert!(!text.contains("\"feedback-alignment\""), "byte {at}, bit {bit}");
            }
            bytes[at] ^= bit;
        }
        assert_eq!(bytes, original);
    }
    println!("{} flips", lab.files);
}

#[test]
fn every_cut_is_refused_and_the_tensor_that_suffers_is_named() {
    let mut lab = Lab::new();
    for original in lab.originals() {
        let header = u64::from_le_bytes(*original.first_chunk().unwrap());
        let header = 8 + usize::try_from(header).unwrap();
        for kept in 0..original.len() {
            assert!(!lab.load(&original[..kept]), "{kept} bytes");
        }
        let cut = lab.outcomes.remove("TensorCutOff").unwrap();
        assert_eq!(cut, 3 * (original.len() - header));
        let cut = lab.outcomes.remove("Safetensors").unwrap();
        assert_eq!(cut, 3 * (header - 1));
        assert_eq!(lab.outcomes.remove("WrongFormat"), Some(3)); // No bytes at all.
        for more in [1, 8, 1000] {
            assert!(!lab.load(&[&original[..], &vec![0; more]].concat()));
        }
        assert_eq!(lab.outcomes.remove("TrailingBytes"), Some(9));
        assert_eq!(lab.outcomes, BTreeMap::new());
    }
    let [network, _] = lab.originals();
    let path = lab.path();
    fs::write(&path, &network[..network.len() - 30]).unwrap();
    let error = Network::<f32>::load(&path).unwrap_err();
    let Error::TensorCutOff { tensor, expected, found, .. } = &error else { panic!("{error}") };
    // The last is 8.weight, 24 bytes; the bias before it has lost 6.
    assert_eq!((&**tensor, *expected, *found), ("8.bias", 8, 2));
}

/// Bytes without any meaning, with a plausible beginning, or with a header of random JSON.
fn noise(rng: &mut Xoshiro256PlusPlus) -> Vec<u8> {
    let length = rng.random_range(0..200);
    let mut bytes: Vec<u8> = (0..length).map(|_| rng.random()).collect();
    match rng.random_range(0..3) {
        0 => bytes,
        1 => {
            let promise: u64 = 1 << rng.random_range(0..64);
            [&promise.to_le_bytes()[..], &bytes].concat()
        }
        _ => {
            let pieces = [
                "{",
                "}",
                "[",
                "]",
                ":",
                ",",
                "\"",
                "\"a\"",
                "\"dtype\"",
                "\"F32\"",
                "\"shape\"",
                "\"data_offsets\"",
                "0",
                "8",
                "-1",
                "1e9",
                "18446744073709551615",
                "null",
                " ",
                "\"__metadata__\"",
                "\"feedback-alignment\"",
                "\"format 1\\n\"",
                "[0,8]",
                "[2]",
                "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}",
            ];
            let count = rng.random_range(0..20);
            let inside: String =
                (0..count).map(|_| pieces[rng.random_range(0..pieces.len())]).collect();
            let json = format!("{{{inside}}}");
            bytes.truncate(8);
            [&(json.len() as u64).to_le_bytes()[..], json.as_bytes(), &bytes].concat()
        }
    }
}

/// Bytes changed, inserted, removed, moved.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Xoshiro256PlusPlus) {
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..bytes.len());
        let end = rng.random_range(at..bytes.len().min(at + 40));
        match rng.random_range(0..5) {
            0 => bytes[at] = rng.random(),
            1 => bytes.insert(at, rng.random()),
            2 => drop(bytes.drain(at..end)),
            3 => bytes.copy_within(at..end, 0),
            _ => {
                let digit = bytes.iter().skip(at).position(u8::is_ascii_digit);
                if let Some(digit) = digit {
                    bytes[at + digit] = b'0' + rng.random_range(0..10);
                }
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
}

/// A description with words, numbers and lines exchanged.
fn mutate_text(text: &str, other: &str, rng: &mut Xoshiro256PlusPlus) -> String {
    const NUMBERS: [&str; 14] = [
        "0",
        "1",
        "2",
        "3",
        "-1",
        "0.5",
        "1e400",
        "NaN",
        "inf",
        "4294967295",
        "9007199254740992",
        "18446744073709551615",
        "99999999999999999999",
        "1e-320",
    ];
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let others: Vec<&str> = other.lines().collect();
    for _ in 0..rng.random_range(1..3) {
        let at = rng.random_range(0..lines.len());
        match rng.random_range(0..6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(at, others[rng.random_range(0..others.len())].to_owned()),
            2 => {
                let with = rng.random_range(0..lines.len());
                lines.swap(at, with);
            }
            _ => {
                // Another value in the place of one.
                let line = &lines[at];
                let places: Vec<usize> =
                    line.match_indices(['=', 'x', ' ']).map(|(place, _)| place + 1).collect();
                let Some(&place) = places.get(rng.random_range(0..places.len().max(1))) else {
                    continue;
                };
                let length = line[place..].find([' ', 'x']).unwrap_or(line.len() - place);
                let number = NUMBERS[rng.random_range(0..NUMBERS.len())];
                lines[at].replace_range(place..place + length, number);
            }
        }
        if lines.is_empty() {
            lines.push(String::new());
        }
    }
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

/// A file of which tensors were exchanged.
fn mutate_tensors(file: &mut Craft, rng: &mut Xoshiro256PlusPlus) {
    let names: Vec<String> = file.tensors.keys().cloned().collect();
    let name = names[rng.random_range(0..names.len())].clone();
    let mut tensor = file.tensors.remove(&name).unwrap();
    let size = tensor.bytes.len() / 4;
    match rng.random_range(0..7) {
        0 => return,
        1 => tensor.shape.reverse(),
        2 => tensor.shape = vec![size],
        3 => tensor.dtype = [Dtype::I32, Dtype::U32, Dtype::F32][rng.random_range(0..3_usize)],
        4 => {
            let numbers = [f32::NAN, f32::INFINITY, -1.0, 0.0, f32::MAX, -f32::MAX, 1e-45];
            let number = numbers[rng.random_range(0..numbers.len())];
            let at = 4 * rng.random_range(0..size);
            tensor.bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        }
        5 => tensor = Tensor::of(&[size + 1], &vec![0.5; size + 1]),
        _ => {
            let renamed = names[rng.random_range(0..names.len())].replace("weight", "bias");
            file.tensors.insert(renamed, tensor);
            return;
        }
    }
    file.tensors.insert(name, tensor);
}

#[test]
fn random_and_mutated_bytes_are_refused_or_loaded_whole() {
    let mut lab = Lab::new();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(5);
    let originals = lab.originals();
    for _ in 0..3_000 {
        let bytes = noise(&mut rng);
        lab.load(&bytes);
        for original in &originals {
            let mut bytes = original.clone();
            mutate(&mut bytes, &mut rng);
            lab.load(&bytes);
        }
    }
    assert!(lab.outcomes.len() > 6, "{:?}", lab.outcomes);
}

/// With the checksum right, so that everything behind it is reached.
#[test]
fn hostile_files_are_refused_or_loaded_whole() {
    let mut lab = Lab::new();
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(7);
    let originals = lab.crafted();
    for round in 0..12_000_usize {
        let mut file = originals[round % 2].clone();
        if rng.random_bool(0.7) {
            let other = &originals[rng.random_range(0..2_usize)].description;
            file.description = mutate_text(&file.description, other, &mut rng);
        }
        if rng.random_bool(0.4) {
            mutate_tensors(&mut file, &mut rng);
        }
        lab.load(&file.seal());
    }
    println!("{:?} {:?}", lab.outcomes, lab.went_on);
    assert!(lab.went_on.iter().all(|&count| count > 0), "{:?}", lab.went_on);
    for name in [
        "none",
        "Content",
        "Description",
        "FileKind",
        "FormatVersion",
        "MissingTensor",
        "NonFinite",
        "TensorShape",
        "TensorType",
        "TensorValue",
        "UnexpectedTensor",
    ] {
        assert!(lab.outcomes.contains_key(name), "never {name}: {:?}", lab.outcomes);
    }
    assert_eq!(lab.outcomes.len(), 11, "{:?}", lab.outcomes);
}
