//! Readers and writers in the place of files.

use std::io::{self, Cursor, Read, Write};

use feedback_alignment::{
    Dataset, Error, LoadOptions, Network, Result, Scaling, Trainer, data::Whitening,
    nalgebra::DMatrix,
};

use crate::common::Folder;

/// A reader of one byte at a time, that fails where its bytes end if it is told to.
struct Slow<'a> {
    bytes: &'a [u8],
    fails: bool,
}

impl Read for Slow<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self.bytes {
            [] if self.fails => Err(io::Error::other("the line is dead")),
            bytes => {
                let count = 1.min(to.len());
                let count = self.bytes.read(&mut to[..count])?;
                assert!(count == 1 || bytes.is_empty());
                Ok(count)
            }
        }
    }
}

/// A writer with room for so many bytes.
struct Small(usize);

impl Write for Small {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn data() -> Dataset<f32> {
    let x = DMatrix::from_fn(4, 9, |i, j| ((i * 5 + j * 3) % 7) as f32 / 7.0);
    Dataset::new(x, (0..9).map(|j| j % 3).collect()).unwrap()
}

fn network() -> Network<f32> {
    Network::builder(4).dense(5).batch_norm().tanh().dropout(0.2).dense(3).build().unwrap()
}

fn bytes<E: std::fmt::Debug>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut bytes).unwrap();
    bytes
}

#[test]
fn what_is_written_is_the_file_and_is_read_back() {
    let folder = Folder::new();
    let path = folder.path("file");
    let is_saved = |written: &[u8]| assert!(std::fs::read(&path).unwrap() == written);

    let network = network();
    network.save(&path).unwrap();
    let written = bytes(|to| network.write_to(to));
    is_saved(&written);
    assert_eq!(Network::read_from(&written[..]).unwrap(), network);
    assert_eq!(Network::read_from(Slow { bytes: &written, fails: false }).unwrap(), network);
    let mut reader = Cursor::new(&written);
    assert_eq!(Network::read_from(&mut reader).unwrap(), network);
    assert_eq!(reader.position(), written.len() as u64);

    let mut other = Network::builder(4).dense(5).batch_norm().dense(3).seed(9).build().unwrap();
    let options = LoadOptions { rename: vec![("4".into(), "2".into())], ..LoadOptions::default() };
    other.load_parameters_from(&written[..], &options).unwrap();
    assert_eq!(other.layer(1).unwrap(), network.layer(1).unwrap());

    let mut trainer = Trainer::builder(network).batch_size(3).build().unwrap();
    trainer.epoch(&data()).unwrap();
    trainer.save(&path).unwrap();
    let written = bytes(|to| trainer.write_to(to));
    is_saved(&written);
    let mut resumed = Trainer::<f32>::read_from(&written[..]).unwrap();
    assert_eq!(resumed.epoch(&data()).unwrap(), trainer.epoch(&data()).unwrap());
    assert_eq!(resumed.network(), trainer.network());

    let scaling = Scaling::standardize(&data()).unwrap();
    scaling.save(&path).unwrap();
    let written = bytes(|to| scaling.write_to(to));
    is_saved(&written);
    assert_eq!(Scaling::read_from(&written[..]).unwrap(), scaling);

    let whitening = Whitening::fit(&data(), 1e-3, |_| ()).unwrap();
    whitening.save(&path).unwrap();
    let written = bytes(|to| whitening.write_to(to));
    is_saved(&written);
    assert_eq!(Whitening::read_from(&written[..]).unwrap(), whitening);
}

#[test]
fn a_reader_that_ends_too_soon_or_too_late_is_refused() {
    let network = network();
    let mut written = bytes(|to| network.write_to(to));
    for length in 0..written.len() {
        let message = Network::<f32>::read_from(&written[..length]).unwrap_err().to_string();
        assert!(message.starts_with("the reader: "), "{message}");
    }
    let length = written.len() as u64;
    written.extend(b"what follows");
    let refused = Network::<f32>::read_from(&written[..]).unwrap_err();
    assert!(matches!(refused, Error::TrailingBytes { .. }), "{refused}");
    // A part of something longer is taken by its length.
    let mut reader = &written[..];
    assert_eq!(Network::read_from(reader.by_ref().take(length)).unwrap(), network);
    assert_eq!(reader, b"what follows");
    // What never ends is left soon.
    assert!(Network::<f32>::read_from(io::repeat(7)).is_err());
    let endless = Cursor::new(written).chain(io::repeat(0));
    assert!(matches!(Network::<f32>::read_from(endless), Err(Error::TrailingBytes { .. })));
}

#[test]
fn a_reader_or_writer_that_fails_is_named_with_its_reason() {
    let network = network();
    let written = bytes(|to| network.write_to(to));
    for length in [0, 3, 8, 100, 700, written.len() - 1, written.len()] {
        let reader = Slow { bytes: &written[..length], fails: true };
        let refused = Network::<f32>::read_from(reader).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{length}: {refused:?}");
        assert_eq!(refused.to_string(), "the reader: the line is dead");
    }
    for room in [0, 100, written.len() - 1] {
        let refused = network.write_to(Small(room)).unwrap_err();
        assert!(matches!(refused, Error::Io { .. }), "{room}: {refused:?}");
        assert!(refused.to_string().starts_with("the writer: "), "{refused}");
    }
    network.write_to(Small(written.len())).unwrap();
}

#[test]
fn errors_of_content_name_the_reader() {
    let scaling = bytes(|to| Scaling::<f32>::constant(0.5, 2.0).unwrap().write_to(to));
    let refused = Network::<f32>::read_from(&scaling[..]).unwrap_err();
    assert!(matches!(refused, Error::FileKind { .. }), "{refused:?}");
    assert!(refused.to_string().starts_with("the reader: expected a network"), "{refused}");
    let refused = Trainer::<f32>::read_from(&b"PK\x03\x04"[..]).map(|_| ()).unwrap_err();
    assert!(matches!(refused, Error::WrongFormat { .. }), "{refused:?}");
}
