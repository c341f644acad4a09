//! Files of the wrong kind, files without end and pipes, in every loader: what a file is has to be
//! said by its name, soon, whatever it claims to hold.

#![allow(clippy::format_collect)] // Short texts.
#![allow(unused_mut)] // Without some features nothing is added to lists.

use crate::common;

use std::{path::Path, time::Instant};

use common::{Folder, idx};
use feedback_alignment::{
    Error,
    data::{
        cifar::{Labels, load10, load100},
        idx as idx_files,
    },
};

/// What every loader makes of a file, by its name.
fn refusals(path: &Path) -> Vec<(&'static str, Error)> {
    let folder = Folder::new();
    let labels = folder.write("labels", idx(&[1], &[0]));
    let mut refusals = vec![
        ("IDX", idx_files::load::<f32>(path, &labels).unwrap_err()),
        ("IDX", idx_files::read::<f32>(path).unwrap_err()),
        ("CIFAR", load10::<f32>(path).unwrap_err()),
        ("CIFAR", load100::<f32>(path, Labels::Fine).unwrap_err()),
    ];
    #[cfg(feature = "csv")]
    {
        use feedback_alignment::data::csv::{Format, load, load_features};

        refusals.push(("CSV", load::<f32>(path, &Format::default()).unwrap_err()));
        refusals.push(("CSV", load_features::<f32>(path, &Format::default()).unwrap_err()));
    }
    #[cfg(feature = "safetensors")]
    {
        use feedback_alignment::{Network, Trainer, data::Whitening};

        let mut network = Network::<f32>::builder(2).dense(2).build().unwrap();
        refusals.push(("tensors", Network::<f32>::load(path).map(|_| ()).unwrap_err()));
        refusals.push(("tensors", network.load_parameters(path).unwrap_err()));
        refusals.push(("tensors", Trainer::<f32>::load(path).map(|_| ()).unwrap_err()));
        refusals.push(("tensors", Whitening::<f32>::load(path).map(|_| ()).unwrap_err()));
    }
    refusals
}

fn zip(name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).unwrap();
    [b"PK\x03\x04", &[0; 22][..], &[length, 0, 0, 0], name.as_bytes(), &[7; 4000]].concat()
}

#[test]
fn every_loader_names_what_a_file_really_is() {
    let utf16 = "\u{feff}label,a\n1,2\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut tar = vec![0; 10_240];
    tar[..20].copy_from_slice(b"cifar-10-batches-bin");
    tar[257..262].copy_from_slice(b"ustar");
    let torch = "safetensors.torch.save_file(model.state_dict(), path)";
    // Bytes, the name of what they are, and for one of the loaders what to do.
    let files: Vec<(Vec<u8>, &str, &str, &str)> = vec![
        (vec![], "an empty file", "", ""),
        (zip("archive/data.pkl"), "torch.save", "tensors", torch),
        (zip("weight.npy"), "NumPy", "", ""),
        (zip("xl/workbook.xml"), "Excel", "CSV", "as CSV"),
        (zip("train.csv"), "zip", "CSV", "unpack"),
        (b"\x80\x02}q\x01(U\x0bbatch_labelq\x02".to_vec(), "pickle", "CIFAR", "binary version"),
        (b"\x80\x04\x95\x00\x01\x00\x00".to_vec(), "pickle", "tensors", torch),
        (b"<!DOCTYPE html>\n<html lang=\"en\">".to_vec(), "web page", "CSV", "download"),
        (b"<?xml version=\"1.0\"?>\n<Error>".to_vec(), "web page", "IDX", "download"),
        (utf16, "UTF-16", "CSV", "UTF-8"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9912422\n".to_vec(),
            "Git LFS pointer",
            "IDX",
            "git lfs pull",
        ),
        (b"\x93NUMPY\x01\x00v\x00{'descr'".to_vec(), "NumPy", "", ""),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0".to_vec(), "HDF5", "", ""),
        (tar, "tar archive", "CIFAR", "unpack"),
        (b"\xfd7zXZ\0\0\x04".to_vec(), "xz", "IDX", "decompress"),
        (b"\x28\xb5\x2f\xfd\x04\x00".to_vec(), "zstd", "CSV", "decompress"),
        (b"BZh91AY&SY".to_vec(), "bzip2", "CIFAR", "decompress"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec(), "PNG", "", ""),
        (b"\xff\xd8\xff\xe0\0\x10JFIF".to_vec(), "JPEG", "", ""),
        (b"{\"metadata\": {}, \"weight_map\": {}}".to_vec(), "JSON", "", ""),
    ];
    let folder = Folder::new();
    for (bytes, name, loader, advice) in files {
        let path = folder.write("file", &bytes);
        let mut refusals = refusals(&path);
        #[cfg(feature = "gzip")]
        {
            // Inside gzip too, where a loader decompresses.
            let path = folder.write("file.gz", common::gzip(&bytes));
            let packed = self::refusals(&path).into_iter();
            for (which, error) in packed {
                if which == "tensors" {
                    let message = error.to_string();
                    assert!(message.contains("gzip: decompress"), "{message}");
                } else {
                    refusals.push((which, error));
                }
            }
        }
        for (which, error) in refusals {
            let message = error.to_string();
            assert!(matches!(error, Error::WrongFormat { .. }), "{which}, {name}: {message}");
            assert!(message.contains(name), "{which}: '{message}' does not name '{name}'");
            assert!(message.contains(folder.path("file").to_str().unwrap()), "{message}");
            if which == loader {
                assert!(message.contains(advice), "'{message}' does not say '{advice}'");
            }
        }
    }
}

#[test]
fn loaders_tell_each_others_files() {
    let folder = Folder::new();
    let path = folder.write("file", idx(&[3, 2, 4], &[200; 23]));
    for (which, error) in refusals(&path) {
        if which != "IDX" {
            let message = error.to_string();
            assert!(message.contains("found an IDX file"), "{which}: {message}");
        }
    }
    let path = folder.write("file", "label,a\n");
    for (which, error) in refusals(&path) {
        if which != "CSV" {
            let message = error.to_string();
            let is_told = which == "CIFAR" || message.contains("text that starts with 'label,a'");
            assert!(is_told, "{which}: {message}");
        }
    }
    #[cfg(feature = "safetensors")]
    {
        use feedback_alignment::Network;

        let path = folder.path("network");
        Network::<f32>::builder(40).dense(30).build().unwrap().save(&path).unwrap();
        for (which, error) in [
            ("IDX", idx_files::read::<f32>(&path).unwrap_err()),
            ("CIFAR", load10::<f32>(&path).unwrap_err()),
            #[cfg(feature = "csv")]
            (
                "CSV",
                feedback_alignment::data::csv::load::<f32>(&path, &<_>::default()).unwrap_err(),
            ),
        ] {
            let message = error.to_string();
            assert!(message.contains("a network saved by this crate"), "{which}: {message}");
        }
    }
}

/// Whatever starts like another format, a file of CIFAR is one if its records make sense.
#[test]
fn pixels_may_look_like_anything() {
    let folder = Folder::new();
    for start in [&b"\0\0\x08\x03\0\0\xea\x60"[..], b"\x08\0\0\0\0\0\0\0{\"a\"", b"\x09\n\n<html>"]
    {
        let mut record = start.to_vec();
        record.resize(3073, 7);
        let data = load10::<f32>(folder.write("file", record)).unwrap();
        assert_eq!(data.len(), 1);
    }
}

/// A file that takes no room on the disk and is as long as memory.
#[test]
fn files_of_four_gigabytes_of_nothing_are_refused_at_once() {
    let folder = Folder::new();
    let path = folder.path("sparse");
    std::fs::File::create(&path).unwrap().set_len(4 << 30).unwrap();
    let start = Instant::now();
    for (which, error) in refusals(&path) {
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{which}: {message}");
    }
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}

#[cfg(unix)]
#[test]
fn devices_without_end_are_refused_at_once() {
    let start = Instant::now();
    for (which, error) in refusals(Path::new("/dev/zero")) {
        let message = error.to_string();
        assert!(message.contains("/dev/zero"), "{which}: {message}");
    }
    for (_, error) in refusals(Path::new("/dev/null")) {
        assert!(error.to_string().contains("an empty file"), "{error}");
    }
    assert!(start.elapsed().as_secs() < 20, "took {:?}", start.elapsed());
}

/// What comes through a pipe: files that are good, bad, and without end.
#[cfg(target_os = "linux")]
mod pipes {
    use std::{
        io::Write,
        os::fd::AsRawFd,
        path::PathBuf,
        thread::{self, JoinHandle},
    };

    use super::*;

    /// A path of a pipe out of which `bytes` come, and then `filler` for as long as somebody reads.
    struct Pipe {
        reader: std::io::PipeReader,
        writer: JoinHandle<usize>,
    }

    impl Pipe {
        fn new(bytes: Vec<u8>, filler: &'static [u8]) -> Self {
            let (reader, mut to) = std::io::pipe().unwrap();
            let writer = thread::spawn(move || {
                let mut written = 0;
                let mut next = &bytes[..];
                while !next.is_empty() && to.write_all(next).is_ok() {
                    written += next.len();
                    next = filler;
                }
                written
            });
            Self { reader, writer }
        }

        fn path(&self) -> PathBuf {
            PathBuf::from(format!("/proc/self/fd/{}", self.reader.as_raw_fd()))
        }

        /// How many bytes were taken out of it.
        fn end(self) -> usize {
            drop(self.reader);
            self.writer.join().unwrap()
        }
    }

    #[test]
    fn idx_and_cifar_are_read() {
        let pixels: Vec<u8> = (0..200_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let images = Pipe::new(idx(&[1000, 10, 20], &pixels), b"");
        let labels = Pipe::new(idx(&[1000], &[3; 1000]), b"");
        let data = idx_files::load::<f32>(images.path(), labels.path()).unwrap();
        assert_eq!((data.len(), data.features(), data.classes()), (1000, 200, Some(4)));
        assert_eq!(images.end(), 200_016);

        let record = Pipe::new(vec![1; 2 * 3073], b"");
        assert_eq!(load10::<f32>(record.path()).unwrap().len(), 2);
    }

    #[test]
    fn idx_that_promises_too_much_takes_no_memory_and_one_without_end_is_left() {
        let short = Pipe::new(idx(&[u32::MAX, 1 << 20, 1 << 10], &[1; 100]), b"");
        let error = idx_files::read::<f32>(short.path()).unwrap_err();
        assert!(matches!(error, Error::Truncated { found: 100, .. }), "{error:?}");
        let long = Pipe::new(idx(&[2], &[1, 2]), &[0; 4096]);
        let error = idx_files::read::<f32>(long.path()).unwrap_err();
        assert!(matches!(error, Error::TrailingBytes { expected: 2, .. }), "{error:?}");
        assert!(long.end() < 1 << 20);
    }

    #[cfg(feature = "csv")]
    #[test]
    fn tables_are_read_and_their_bad_cells_named() {
        use feedback_alignment::data::csv::{Format, load};

        let text: String = (0..20_000).map(|i| format!("{},{i}.5\r\n", i % 7)).collect();
        let table = Pipe::new(format!("label,a\r\n\r\n{text}").into_bytes(), b"");
        let data = load::<f64>(table.path(), &Format::default()).unwrap();
        assert_eq!((data.len(), data.classes()), (20_000, Some(7)));
        assert_eq!(data.inputs()[19_999], 19_999.5);

        // It ends in the middle of a row and would go on.
        let table = Pipe::new(format!("label,a\r\n\r\n{text}1,x\r\n1,").into_bytes(), b"2\r\n1,");
        let error = load::<f64>(table.path(), &Format::default()).unwrap_err();
        assert!(matches!(error, Error::Cell { line: 20_003, column: 2, .. }), "{error:?}");
        assert!(table.end() < text.len() + (1 << 20));
    }

    #[cfg(feature = "csv")]
    #[test]
    fn a_row_without_end_is_refused() {
        use feedback_alignment::data::csv::{Format, load};

        for (start, filler, line) in [
            ("label,a", &[b'7'; 4096][..], 1),
            ("label,a\n1,2\n1,", &[b'7'; 4096], 3),
            ("label,a\n1,\"", b"2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n1,2\n", 2),
        ] {
            let table = Pipe::new(start.into(), filler);
            let error = load::<f32>(table.path(), &Format::default()).unwrap_err();
            let message = error.to_string();
            assert!(matches!(error, Error::Io { .. }), "{message}");
            assert!(message.contains(&format!("row of line {line} is longer")), "{message}");
            assert!(table.end() < 66 << 20);
        }
    }

    #[cfg(feature = "safetensors")]
    #[test]
    fn networks_are_read_and_what_follows_is_refused() {
        use feedback_alignment::Network;

        let folder = Folder::new();
        let network = Network::<f32>::builder(300).dense(200).tanh().dense(10).build().unwrap();
        network.save(folder.path("network")).unwrap();
        let bytes = std::fs::read(folder.path("network")).unwrap();
        let pipe = Pipe::new(bytes.clone(), b"");
        assert_eq!(Network::<f32>::load(pipe.path()).unwrap(), network);

        let pipe = Pipe::new(bytes.clone(), &[0; 4096]);
        let error = Network::<f32>::load(pipe.path()).unwrap_err();
        assert!(matches!(error, Error::TrailingBytes { .. }), "{error:?}");
        assert!(pipe.end() < bytes.len() + (1 << 20));

        let pipe = Pipe::new(bytes[..bytes.len() - 1].to_vec(), b"");
        let error = Network::<f32>::load(pipe.path()).unwrap_err();
        assert!(matches!(error, Error::TensorCutOff { .. }), "{error:?}");

        // Headers that promise what never comes, or what no machine has.
        for length in [1_u64 << 20, 16 << 20, (16 << 20) + 1, u64::from(u32::MAX), u64::MAX] {
            let start = [&length.to_le_bytes()[..], b"{\"a\":"].concat();
            let pipe = Pipe::new(start, b"");
            let error = Network::<f32>::load(pipe.path()).unwrap_err();
            let named = matches!(error, Error::Safetensors { .. } | Error::WrongFormat { .. });
            assert!(named, "{error:?}");
        }
    }

    /// A tensor of 2⁶⁰ bytes of which a few come.
    #[cfg(feature = "safetensors")]
    #[test]
    fn tensors_that_promise_too_much_take_no_memory() {
        use feedback_alignment::Network;

        let size = 1_u64 << 58;
        let header = format!(
            "{{\"0.weight\":{{\"dtype\":\"F32\",\"shape\":[{size}],\"data_offsets\":[0,{}]}}}}",
            4 * size
        );
        let bytes =
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 1000]].concat();
        let folder = Folder::new();
        let pipe = Pipe::new(bytes.clone(), b"");
        for path in [pipe.path(), folder.write("file", bytes)] {
            let mut network = Network::<f32>::builder(2).dense(2).build().unwrap();
            let error = network.load_parameters(&path).unwrap_err();
            assert!(matches!(error, Error::TensorCutOff { found: 1000, .. }), "{error:?}");
        }
    }
}
