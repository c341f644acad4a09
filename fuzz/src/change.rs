//! Changes to bytes, to texts and to files of tensors.

use rand::{Rng, RngExt};
use safetensors::Dtype;

use crate::craft::{Craft, Tensor};

const NUMBERS: [&str; 18] = [
    "0",
    "1",
    "2",
    "3",
    "7",
    "64",
    "255",
    "256",
    "65536",
    "4294967296",
    "18446744073709551615",
    "18446744073709551616",
    "-1",
    "0.5",
    "NaN",
    "inf",
    "1e39",
    "5e-324",
];

/// One of the choices.
pub fn pick<'a, T>(choices: &'a [T], rng: &mut impl Rng) -> &'a T {
    &choices[rng.random_range(0..choices.len())]
}

/// Flips, removes, repeats and overwrites bytes, or cuts the end off.
pub fn bytes(bytes: &mut Vec<u8>, rng: &mut impl Rng) {
    for _ in 0..rng.random_range(1..4) {
        if bytes.is_empty() {
            return bytes.push(rng.random());
        }
        let at = rng.random_range(0..bytes.len());
        match rng.random_range(0..6) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => drop(bytes.drain(at..bytes.len().min(at + rng.random_range(1..20)))),
            3 => bytes.truncate(at),
            4 => {
                let part = bytes[at..bytes.len().min(at + 16)].to_vec();
                bytes.extend(part);
            }
            _ => bytes.splice(at..at, [0, 255, 0x80]).for_each(drop),
        }
    }
}

/// Exchanges a number or a word, or removes, repeats or swaps pieces between separators.
pub fn text(text: &str, separators: &[char], rng: &mut impl Rng) -> String {
    let mut pieces: Vec<String> = text.split_inclusive(separators).map(str::to_owned).collect();
    if pieces.is_empty() {
        return (*pick(&NUMBERS, rng)).to_owned();
    }
    for _ in 0..rng.random_range(1..3) {
        let (a, b) = (rng.random_range(0..pieces.len()), rng.random_range(0..pieces.len()));
        match rng.random_range(0..7) {
            0..=2 => {
                let end: String =
                    pieces[a].chars().rev().take(1).filter(|c| separators.contains(c)).collect();
                pieces[a] = format!("{}{end}", pick(&NUMBERS, rng));
            }
            3 => pieces.swap(a, b),
            4 => pieces[a] = pieces[b].clone(),
            5 if pieces.len() > 1 => drop(pieces.remove(a)),
            _ => pieces.insert(a, pieces[b].clone()),
        }
    }
    pieces.concat()
}

/// Changes a file of tensors and sets its checksum right again.
pub fn tensors(file: &Craft, others: &[Craft], rng: &mut impl Rng) -> Vec<u8> {
    let mut file = file.clone();
    for _ in 0..rng.random_range(0..3) {
        let names: Vec<String> = file.tensors.keys().cloned().collect();
        match rng.random_range(0..8) {
            0..=2 => file.description = text(&file.description, &['\n', ' ', '=', 'x'], rng),
            3 => file.description = pick(others, rng).description.clone(),
            _ if names.is_empty() => {}
            4 => {
                let tensor = file.tensors.remove(pick(&names, rng)).expect("it is there");
                let name = text(pick(&names, rng).as_str(), &['.'], rng);
                file.tensors.insert(name, tensor);
            }
            5 => drop(file.tensors.remove(pick(&names, rng))),
            6 => {
                let from = &pick(others, rng).tensors;
                if let Some((_, tensor)) = from.iter().nth(rng.random_range(0..from.len().max(1))) {
                    file.tensors.insert(pick(&names, rng).clone(), tensor.clone());
                }
            }
            _ => tensor(file.tensors.get_mut(pick(&names, rng)).expect("it is there"), rng),
        }
    }
    let mut sealed = file.seal();
    if rng.random_range(0..8) == 0 {
        bytes(&mut sealed, rng);
    }
    sealed
}

/// Changes values, shape or type of a tensor; its bytes still are as many as they should be.
fn tensor(tensor: &mut Tensor, rng: &mut impl Rng) {
    const VALUES: [f32; 8] =
        [f32::NAN, f32::INFINITY, -f32::INFINITY, f32::MAX, f32::MIN, -1.0, 1e-45, 0.0];
    match rng.random_range(0..3) {
        0 if tensor.dtype == Dtype::F32 && !tensor.bytes.is_empty() => {
            let at = rng.random_range(0..tensor.bytes.len() / 4) * 4;
            tensor.bytes[at..at + 4].copy_from_slice(&pick(&VALUES, rng).to_le_bytes());
        }
        1 => {
            tensor.shape = match rng.random_range(0..3) {
                0 => vec![tensor.shape.iter().product()],
                1 => tensor.shape.iter().rev().copied().collect(),
                _ => [&tensor.shape[..], &[1]].concat(),
            }
        }
        _ if tensor.dtype == Dtype::F32 => {
            tensor.dtype = *pick(&[Dtype::I32, Dtype::U32, Dtype::F32], rng);
        }
        _ => {}
    }
}
