//! Files of this crate taken apart, changed at will and sealed again, by the documentation of the
//! format and without the crate: what a hostile writer can do.
#![allow(dead_code)] // Not every test needs all of it.

use std::{collections::BTreeMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

/// The parts of a file.
#[derive(Clone, Debug)]
pub struct Craft {
    /// Without the line of the checksum.
    pub description: String,
    pub tensors: BTreeMap<String, Tensor>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    pub fn of(shape: &[usize], numbers: &[f32]) -> Self {
        let bytes = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
}

impl Craft {
    pub fn new(kind: &str, body: &str) -> Self {
        let description = format!("format 1\ncrate 0.1.0\nkind {kind}\n{body}");
        Self { description, tensors: BTreeMap::new() }
    }

    /// Takes apart what the crate wrote.
    pub fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &metadata.metadata().as_ref().unwrap()["feedback-alignment"];
        let lines = text.split_inclusive('\n').filter(|line| !line.starts_with("checksum "));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| {
            let (shape, bytes) = (view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), Tensor { dtype: view.dtype(), shape, bytes })
        });
        Self { description: lines.collect(), tensors: tensors.collect() }
    }

    pub fn with(mut self, name: &str, tensor: Tensor) -> Self {
        self.tensors.insert(name.into(), tensor);
        self
    }

    /// The file with another text in the description.
    pub fn replace(mut self, from: &str, to: &str) -> Self {
        assert!(self.description.contains(from), "no '{from}' in:\n{}", self.description);
        self.description = self.description.replace(from, to);
        self
    }

    pub fn checksum(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        sum.update(self.description.as_bytes());
        for (name, tensor) in &self.tensors {
            sum.update(name.as_bytes());
            sum.update(&tensor.bytes);
        }
        sum.finalize()
    }

    pub fn seal(&self) -> Vec<u8> {
        self.seal_with(&format!("checksum {:08x}", self.checksum()))
    }

    /// With this line as the fourth of the description.
    pub fn seal_with(&self, checksum: &str) -> Vec<u8> {
        let mut lines: Vec<&str> = self.description.split('\n').collect();
        lines.insert(lines.len().min(3), checksum);
        let metadata = [("feedback-alignment".to_owned(), lines.join("\n"))];
        let views = self.tensors.iter().map(|(name, Tensor { dtype, shape, bytes })| {
            (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
        });
        safetensors::serialize(views, Some(metadata.into_iter().collect())).unwrap()
    }

    pub fn write(&self, path: &Path) {
        fs::write(path, self.seal()).unwrap();
    }
}
