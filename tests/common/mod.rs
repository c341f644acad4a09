//! Files for the tests of the loaders.
#![allow(dead_code)] // Not every test needs all of it.

use std::{fs, path::PathBuf};

use tempfile::TempDir;

/// A folder that is gone when the test is over.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).expect("a file in the temporary folder");
        path
    }
}

/// An IDX file of unsigned bytes; nothing makes `data` fit `sizes`.
pub fn idx(sizes: &[u32], data: &[u8]) -> Vec<u8> {
    let dimensions = u8::try_from(sizes.len()).unwrap();
    let header =
        [0, 0, 8, dimensions].into_iter().chain(sizes.iter().flat_map(|s| s.to_be_bytes()));
    header.chain(data.iter().copied()).collect()
}

#[cfg(feature = "gzip")]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;

    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
