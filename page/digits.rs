//! Packs the digits that `smartcore` carries into a byte for each pixel: a quarter of what they take
//! there, and nothing of `smartcore` is left in the page.

use std::{env, fs, path::PathBuf};

use smartcore::dataset::digits::load_dataset;

/// Pixels of an image.
const PIXELS: usize = 64;

fn main() {
    println!("cargo::rerun-if-changed=digits.rs");
    let file = load_dataset();
    assert_eq!(file.num_features, PIXELS);
    let pixels: Vec<u8> = file.data.into_iter().map(byte).collect();
    let labels: Vec<u8> = file.target.into_iter().map(byte).collect();
    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo says where to"));
    fs::write(folder.join("pixels"), pixels).expect("the folder is cargo's own");
    fs::write(folder.join("labels"), labels).expect("the folder is cargo's own");
}

/// The byte that a number of the file is.
fn byte(number: f32) -> u8 {
    (0..=u8::MAX).find(|&byte| f32::from(byte) == number).expect("pixels and labels are bytes")
}
