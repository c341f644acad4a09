//! Finding out what a file really is, by its first bytes. People often pass a PyTorch file, a web page
//! or an archive in place of a dataset, and the error message has to say so.

use std::path::Path;

use crate::error::Error;

/// How many bytes are examined: enough for the mark of a tar archive.
pub(crate) const LOOKED_AT: usize = 512;

/// The kind of file that a loader wants to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Idx,
    Cifar,
    #[cfg(feature = "csv")]
    Csv,
    #[cfg(feature = "safetensors")]
    Tensors,
}

/// The kind of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Empty,
    Idx,
    Safetensors,
    Gzip,
    /// Another compression, with the name of its program.
    Compressed(&'static str),
    Tar,
    Zip,
    /// Another archive.
    Archive(&'static str),
    /// What `torch.save` writes.
    PyTorch,
    Pickle,
    Html,
    Utf16,
    /// The placeholder of a large file that Git has not fetched yet.
    LfsPointer,
    Json,
    /// Another format, which is not read here.
    Foreign(&'static str),
    Unknown,
}

use Kind::{Archive, Compressed, Foreign};

/// Marks at the beginning of a file.
const MARKS: &[(&[u8], Kind)] = &[
    (b"\x1f\x8b", Kind::Gzip),
    (b"\xfd7zXZ\0", Compressed("xz")),
    (b"\x28\xb5\x2f\xfd", Compressed("zstd")),
    (b"\x04\x22\x4d\x18", Compressed("lz4")),
    (b"\x1f\x9d", Compressed("compress")),
    (b"7z\xbc\xaf\x27\x1c", Archive("a 7z archive")),
    (b"Rar!\x1a\x07", Archive("a RAR archive")),
    (b"PK\x05\x06", Kind::Zip),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", Kind::PyTorch),
    // Python's first pickle protocol is text.
    (b"(dp0\n", Kind::Pickle),
    (b"(dp1\n", Kind::Pickle),
    (b"(lp0\n", Kind::Pickle),
    (b"(lp1\n", Kind::Pickle),
    (b"cnumpy.core", Kind::Pickle),
    (b"ccopy_reg\n", Kind::Pickle),
    (b"c__main__\n", Kind::Pickle),
    (b"version https://git-lfs.github.com/", Kind::LfsPointer),
    (b"\xff\xfe", Kind::Utf16),
    (b"\xfe\xff", Kind::Utf16),
    (b"\x93NUMPY", Foreign("a NumPy array (.npy)")),
    (b"\x89HDF\r\n\x1a\n", Foreign("an HDF5 file (.h5)")),
    (b"\x89PNG\r\n\x1a\n", Foreign("a PNG image")),
    (b"\xff\xd8\xff", Foreign("a JPEG image")),
    (b"GIF87a", Foreign("a GIF image")),
    (b"GIF89a", Foreign("a GIF image")),
    (b"II*\0", Foreign("a TIFF image")),
    (b"MM\0*", Foreign("a TIFF image")),
    (b"%PDF-", Foreign("a PDF document")),
    (b"PAR1\x15", Foreign("a Parquet table")),
    (b"ARROW1\0\0", Foreign("an Arrow table")),
    (b"MATLAB 5.0 MAT-file", Foreign("a MATLAB file (.mat)")),
    (b"SQLite format 3\0", Foreign("an SQLite database")),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Foreign("an old Excel workbook (.xls)")),
    (b"{\"", Kind::Json),
    (b"{\n", Kind::Json),
    (b"{\r\n", Kind::Json),
    (b"[{", Kind::Json),
];

/// The kind of the file that starts with these bytes. Only the first [`LOOKED_AT`] count.
pub(crate) fn recognise(start: &[u8]) -> Kind {
    if start.is_empty() {
        return Kind::Empty;
    }
    if is_safetensors(start) {
        return Kind::Safetensors;
    }
    // PK, the version, flags, ..., the length of the first name, and that name.
    if start.starts_with(b"PK\x03\x04") {
        return zip_kind(start);
    }
    if let Some((_, kind)) = MARKS.iter().find(|(mark, _)| start.starts_with(mark)) {
        return *kind;
    }
    match start {
        [0, 0, 0x08 | 0x09 | 0x0b..=0x0e, _, ..] => Kind::Idx,
        [b'B', b'Z', b'h', b'1'..=b'9', b'1' | 0x17, ..] => Compressed("bzip2"),
        [b'G', b'G', b'U', b'F', 1..=9, 0, ..] => Foreign("a GGUF model"),
        // The mark of a protocol, and a first instruction.
        [0x80, 2..=5, 1..=255, ..] => Kind::Pickle,
        _ if start.get(257..262) == Some(b"ustar") => Kind::Tar,
        _ if is_page(start) => Kind::Html,
        _ if is_wide_text(start) => Kind::Utf16,
        _ => Kind::Unknown,
    }
}

/// The length of a header, less than 2⁴⁰ bytes, and the beginning of JSON.
fn is_safetensors(start: &[u8]) -> bool {
    matches!(start, [_, _, _, _, _, 0, 0, 0, b'{', ..])
}

fn zip_kind(start: &[u8]) -> Kind {
    let length =
        start.get(26..28).map_or(0, |bytes| usize::from(bytes[0]) + (usize::from(bytes[1]) << 8));
    let rest = start.get(30..).unwrap_or_default();
    let name = &rest[..length.min(rest.len())];
    if name.ends_with(b"/data.pkl") {
        Kind::PyTorch
    } else if name.ends_with(b".npy") {
        Foreign("NumPy arrays (.npz)")
    } else if name.starts_with(b"[Content_Types]") || name.starts_with(b"xl/") {
        Foreign("an Excel workbook (.xlsx)")
    } else {
        Kind::Zip
    }
}

/// HTML, or XML, which servers use to report errors.
fn is_page(start: &[u8]) -> bool {
    const TAGS: [&[u8]; 6] = [b"<!doctype", b"<html", b"<head", b"<body", b"<?xml", b"<!--"];
    let text = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start).trim_ascii_start();
    let begins = |tag: &&[u8]| text.get(..tag.len()).is_some_and(|t| t.eq_ignore_ascii_case(tag));
    TAGS.iter().any(begins)
}

/// UTF-16 without a byte-order mark: every other byte is 0.
fn is_wide_text(start: &[u8]) -> bool {
    let (pairs, _) = start.as_chunks::<2>();
    let is_text = |byte: u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    pairs.len() >= 4
        && (pairs.iter().all(|pair| is_text(pair[0]) && pair[1] == 0)
            || pairs.iter().all(|pair| pair[0] == 0 && is_text(pair[1])))
}

impl Wanted {
    fn name(self) -> &'static str {
        match self {
            Self::Idx => "an IDX file",
            Self::Cifar => "a file in CIFAR's binary format",
            #[cfg(feature = "csv")]
            Self::Csv => "a table of comma-separated values as text",
            #[cfg(feature = "safetensors")]
            Self::Tensors => "a safetensors file",
        }
    }

    /// The error for a file that starts with these bytes.
    pub(crate) fn refuse(self, path: &Path, start: &[u8]) -> Error {
        let kind = recognise(start);
        Error::WrongFormat {
            path: path.to_owned(),
            expected: self.name(),
            found: kind.name(start),
            advice: kind.advice(self),
        }
    }
}

impl Kind {
    fn name(self, start: &[u8]) -> String {
        let name = match self {
            Self::Empty => "an empty file",
            Self::Idx => "an IDX file",
            Self::Safetensors => return safetensors_name(start),
            Self::Gzip => "a file compressed with gzip",
            Self::Compressed(program) => return format!("a file compressed with {program}"),
            Self::Tar => "a tar archive",
            Self::Zip => "a zip archive",
            Self::PyTorch => "a file of torch.save (.pt)",
            Self::Pickle => "a Python pickle",
            Self::Html => "a web page (HTML or XML)",
            Self::Utf16 => "text in UTF-16",
            Self::LfsPointer => "a Git LFS pointer, which stands for a file",
            Self::Json => "JSON",
            Archive(name) | Foreign(name) => name,
            Self::Unknown => return beginning(start),
        };
        name.to_owned()
    }

    /// Advice for the user, with a colon before it.
    fn advice(self, wanted: Wanted) -> &'static str {
        #[cfg(feature = "safetensors")]
        if wanted == Wanted::Tensors && matches!(self, Self::PyTorch | Self::Pickle | Self::Zip) {
            return ": save the parameters with safetensors.torch.save_file(model.state_dict(), path)";
        }
        match self {
            Self::Pickle if wanted == Wanted::Cifar => {
                ": use the binary version of the dataset, whose files end in .bin"
            }
            Self::Gzip | Self::Compressed(_) => ": decompress it first",
            Self::Tar | Self::Zip | Archive(_) => ": unpack it first",
            Self::Html => ": this is what a server sent in its place; download it again",
            Self::Utf16 => ": save it as UTF-8",
            Self::LfsPointer => ": fetch it with git lfs pull",
            Foreign(name) if name.contains("Excel") => ": save the sheet as CSV",
            Self::Idx => ": load it with data::idx",
            _ => "",
        }
    }
}

/// A name for a safetensors file. If this crate wrote it, the beginning of its header tells its kind.
fn safetensors_name(start: &[u8]) -> String {
    let text = String::from_utf8_lossy(start);
    let ours = text.split_once("\"feedback-alignment\":\"").map_or("", |(_, rest)| rest);
    let kind = ours.split("\\n").find_map(|line| line.strip_prefix("kind "));
    kind.map_or("a safetensors file".into(), |kind| format!("a {kind} saved by this crate"))
}

/// The first characters of a text, or else the first bytes.
fn beginning(start: &[u8]) -> String {
    let line = start.split(|&byte| byte == b'\n' || byte == b'\r').next().unwrap_or_default();
    match str::from_utf8(&line[..line.len().min(40)]) {
        Ok(text) if !text.is_empty() && !text.chars().any(char::is_control) => {
            format!("text that starts with '{text}'")
        }
        _ => format!("a file that starts with the bytes {:02x?}", &start[..start.len().min(8)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zip(name: &str) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        [b"PK\x03\x04", &[0; 22][..], &[length, 0, 0, 0], name.as_bytes(), b"content"].concat()
    }

    #[test]
    fn every_kind_is_told_by_its_beginning() {
        let mut tar = vec![b'a'; 512];
        tar[257..262].copy_from_slice(b"ustar");
        let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
        for (start, kind) in [
            (vec![], Kind::Empty),
            (b"\0\0\x08\x03\0\0\xea\x60".to_vec(), Kind::Idx),
            (b"\0\0\x0d\x01".to_vec(), Kind::Idx),
            (b"\0\0\x0a\x01".to_vec(), Kind::Unknown),
            (b"PAR1,PAR2\n1,2\n".to_vec(), Kind::Unknown),
            (b"\x58\x02\0\0\0\0\0\0{\"__metadata__\"".to_vec(), Kind::Safetensors),
            // Lengths of headers that look like other marks.
            (b"\x1f\x8b\x08\0\0\0\0\0{\"a\"".to_vec(), Kind::Safetensors),
            (b"\x80\x02\0\0\0\0\0\0{\"a\"".to_vec(), Kind::Safetensors),
            (b"\x80\x02\0\0".to_vec(), Kind::Unknown),
            (b"\x1f\x8b\x08\0\0\0\0\0\0\x03".to_vec(), Kind::Gzip),
            (b"BZh91AY&SY".to_vec(), Compressed("bzip2")),
            (tar, Kind::Tar),
            (zip("archive/data.pkl"), Kind::PyTorch),
            (zip("weights.npy"), Foreign("NumPy arrays (.npz)")),
            (zip("[Content_Types].xml"), Foreign("an Excel workbook (.xlsx)")),
            (zip("train.csv"), Kind::Zip),
            (b"PK\x03\x04".to_vec(), Kind::Zip),
            (b"\x80\x02}q\x01(U\x0bbatch_label".to_vec(), Kind::Pickle),
            (b"\x80\x04\x95\x10".to_vec(), Kind::Pickle),
            (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.".to_vec(), Kind::PyTorch),
            (b"\n <!DOCTYPE html>".to_vec(), Kind::Html),
            (b"\xef\xbb\xbf<?xml version".to_vec(), Kind::Html),
            (utf16("\u{feff}label,a"), Kind::Utf16),
            (utf16("label,a"), Kind::Utf16),
            (b"\0l\0a\0b\0e\0l".to_vec(), Kind::Utf16),
            (b"version https://git-lfs.github.com/spec/v1\n".to_vec(), Kind::LfsPointer),
            (b"{\"weight_map\":".to_vec(), Kind::Json),
            // Tables.
            (b"label,a,b\n1,2,3\n".to_vec(), Kind::Unknown),
            (b"class\ncat\n".to_vec(), Kind::Unknown),
            (b"<5,1\n".to_vec(), Kind::Unknown),
        ] {
            assert_eq!(recognise(&start), kind, "{start:?}");
        }
    }

    #[test]
    fn a_refusal_says_what_was_found_and_what_to_do() {
        let ours = br#"0123456{"__metadata__":{"feedback-alignment":"format 1\ncrate 0.1.0\nkind checkpoint\nchecksum"#;
        let mut ours = ours.to_vec();
        ours[..8].copy_from_slice(&[200, 0, 0, 0, 0, 0, 0, 0]);
        ours.insert(8, b'{');
        for (wanted, start, parts) in [
            (Wanted::Cifar, &b"\x80\x02}q\x01("[..], ["CIFAR", "Python pickle", ".bin"]),
            (Wanted::Idx, b"\x80\x02}q\x01(", ["IDX", "Python pickle", ""]),
            (Wanted::Idx, b"<html>", ["IDX", "web page", "download it again"]),
            (Wanted::Idx, &ours, ["IDX", "a checkpoint saved by this crate", ""]),
            (Wanted::Cifar, b"hello\nworld", ["CIFAR", "text that starts with 'hello'", ""]),
            (Wanted::Cifar, b"\x01\x02", ["CIFAR", "starts with the bytes [01, 02]", ""]),
        ] {
            let message = wanted.refuse(Path::new("file"), start).to_string();
            for part in parts.iter().chain(&["file: expected"]) {
                assert!(message.contains(part), "'{message}' does not name '{part}'");
            }
        }
    }
}
