//! The description in the metadata of a file. It is lines of a name and its fields. Each can be written
//! in one way only and is read back strictly.
//!
//! ```text
//! conv2d channels=96 kernel=5x5 stride=1x1 padding=2x2 bias=with
//! ```

use std::{
    fmt::{self, Write},
    iter::{Enumerate, Peekable},
    path::Path,
    str,
};

use crate::error::{Error, Result};

/// A line to be written.
#[derive(Clone, Debug)]
pub(crate) struct Line(String);

impl Line {
    pub(crate) fn new(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// Adds a field.
    pub(crate) fn with(self, key: &str, value: impl Value) -> Self {
        self.word(key, value.show())
    }

    /// Adds a field whose value is a word without spaces.
    pub(crate) fn word(mut self, key: &str, value: impl fmt::Display) -> Self {
        write!(self.0, " {key}={value}").expect("a string takes what is written");
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Lines one below the other, each with a line feed.
pub(crate) fn text(lines: &[Line]) -> String {
    lines.iter().flat_map(|line| [&line.0, "\n"]).collect()
}

/// A type that can be the value of a field.
pub(crate) trait Value: Sized {
    /// How error messages describe such a value.
    const EXPECTED: &'static str;

    fn show(&self) -> String;

    fn read(text: &str) -> Option<Self>;
}

macro_rules! value {
    ($($type:ty: $expected:literal),*) => {$(
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            /// As `Debug`: for a float, the fewest digits that give exactly the same number when read.
            fn show(&self) -> String {
                format!("{self:?}")
            }

            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}

value!(f64: "a number", u64: "a whole number", usize: "a whole number");

/// Height and width.
impl Value for (usize, usize) {
    const EXPECTED: &'static str = "two sizes such as 3x3";

    fn show(&self) -> String {
        format!("{}x{}", self.0, self.1)
    }

    fn read(text: &str) -> Option<Self> {
        let (height, width) = text.split_once('x')?;
        Some((height.parse().ok()?, width.parse().ok()?))
    }
}

/// Channels, height and width.
impl Value for (usize, usize, usize) {
    const EXPECTED: &'static str = "three sizes such as 3x32x32";

    fn show(&self) -> String {
        format!("{}x{}x{}", self.0, self.1, self.2)
    }

    fn read(text: &str) -> Option<Self> {
        let (channels, plane) = text.split_once('x')?;
        let (height, width) = <(usize, usize)>::read(plane)?;
        Some((channels.parse().ok()?, height, width))
    }
}

/// The lines of a description, to be read in turn.
#[derive(Clone, Debug)]
pub(crate) struct Lines<'a> {
    path: &'a Path,
    text: &'a str,
    /// How many lines of the description come before these.
    above: usize,
    rest: Peekable<Enumerate<str::Lines<'a>>>,
}

impl<'a> Lines<'a> {
    pub(crate) fn new(path: &'a Path, text: &'a str, above: usize) -> Self {
        Self { path, text, above, rest: text.lines().enumerate().peekable() }
    }

    /// The next line with any name; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Entry<'a>> {
        let (index, text) = self.rest.next()?;
        Some(self.entry(index, text))
    }

    /// The next line, which has to have this name.
    pub(crate) fn take(&mut self, name: &str) -> Result<Entry<'a>> {
        let end = self.entry(self.text.lines().count(), "");
        let entry = self.next().unwrap_or(end);
        if entry.name() == name { Ok(entry) } else { Err(entry.refuse(format!("'{name} …'"))) }
    }

    /// The next line, if it has this name.
    pub(crate) fn take_if(&mut self, name: &str) -> Option<Entry<'a>> {
        let (_, text) = self.rest.peek()?;
        if first_word(text) == name { self.next() } else { None }
    }

    /// Fails unless writing what was read would give the same description again.
    pub(crate) fn require(&self, expected: &[Line]) -> Result<()> {
        let expected = text(expected);
        if self.text == expected {
            return Ok(());
        }
        let (mut found, mut expected) = (self.text.lines(), expected.lines());
        let mut index = 0;
        loop {
            let (found, expected) = (found.next(), expected.next());
            let entry = self.entry(index, found.unwrap_or_default());
            match expected {
                Some(line) if found != expected => return Err(entry.refuse(format!("'{line}'"))),
                // They differ after the last line, or in a line end.
                None => return Err(entry.refuse("the end, after a line feed")),
                Some(_) => index += 1,
            }
        }
    }

    /// Wraps an error about the content of the description.
    pub(crate) fn blame(&self, cause: Error) -> Error {
        Error::Content { path: self.path.to_owned(), cause: Box::new(cause) }
    }

    fn entry(&self, index: usize, text: &'a str) -> Entry<'a> {
        Entry { path: self.path, number: self.above + index + 1, text }
    }
}

/// One line of a description that has been read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry<'a> {
    path: &'a Path,
    /// Counted from 1.
    number: usize,
    text: &'a str,
}

impl<'a> Entry<'a> {
    pub(crate) fn name(&self) -> &'a str {
        first_word(self.text)
    }

    /// The value of a field.
    pub(crate) fn field<V: Value>(&self, key: &str) -> Result<V> {
        let value = self.find(key).and_then(V::read);
        value.ok_or_else(|| self.refuse(format!("'{key}=' with {}", V::EXPECTED)))
    }

    /// The value of a field that is a word.
    pub(crate) fn word(&self, key: &str) -> Result<&'a str> {
        self.find(key).ok_or_else(|| self.refuse(format!("'{key}=' with a word")))
    }

    fn find(&self, key: &str) -> Option<&'a str> {
        let mut fields = self.text.split(' ').skip(1).filter_map(|field| field.split_once('='));
        fields.find_map(|(found, value)| (found == key).then_some(value))
    }

    /// The error for a line that is not as expected.
    pub(crate) fn refuse(&self, expected: impl Into<String>) -> Error {
        Error::Description {
            path: self.path.to_owned(),
            line: self.number,
            expected: expected.into(),
            found: self.text.to_owned(),
        }
    }
}

fn first_word(text: &str) -> &str {
    text.split_once(' ').map_or(text, |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back<V: Value>(value: V) -> V {
        let line = Line::new("line").with("first", 1_usize).with("value", value).to_string();
        let mut lines = Lines::new(Path::new("file"), &line, 0);
        lines.take("line").unwrap().field("value").unwrap()
    }

    proptest! {
        #[test]
        fn every_number_comes_back_to_the_bit(bits: u64, a: usize, b: usize, c: usize) {
            prop_assert_eq!(read_back(bits), bits);
            prop_assert_eq!(read_back((a, b, c)), (a, b, c));
            prop_assert_eq!(read_back((a, b)), (a, b));
            let number = f64::from_bits(bits);
            prop_assert!(read_back(number).to_bits() == bits || number.is_nan());
        }
    }

    fn refusal<V: Value>(line: &str) -> String {
        let mut lines = Lines::new(Path::new("file"), line, 0);
        let found = lines.next().unwrap().field::<V>("value");
        found.err().expect("should be refused").to_string()
    }

    #[test]
    fn what_cannot_be_read_is_named_with_its_line_and_what_should_be_there() {
        for (message, expected) in [
            (refusal::<f64>("line value=1,5"), "a number"),
            (refusal::<u64>("line value=-1"), "a whole number"),
            (refusal::<u64>("line value=18446744073709551616"), "a whole number"),
            (refusal::<usize>("line value="), "a whole number"),
            (refusal::<usize>("line"), "a whole number"),
            (refusal::<usize>("line other=1"), "a whole number"),
            (refusal::<usize>("value=1"), "a whole number"),
            (refusal::<(usize, usize)>("line value=3"), "3x3"),
            (refusal::<(usize, usize, usize)>("line value=3x3"), "3x32x32"),
        ] {
            for part in ["file: line 1 ", "'value='", expected, "found '"] {
                assert!(message.contains(part), "'{message}' does not name '{part}'");
            }
        }
        let mut lines = Lines::new(Path::new("file"), "first\nsecond a=1\n", 4);
        assert!(lines.take_if("second").is_none());
        lines.take("first").unwrap();
        let message = lines.clone().take("third").unwrap_err().to_string();
        assert!(message.contains("line 6") && message.contains("'third …'"), "{message}");
        assert!(lines.take_if("second").is_some());
        let message = lines.take("third").unwrap_err().to_string();
        assert!(message.contains("line 7") && message.contains("'third …'"), "{message}");
    }

    #[test]
    fn there_is_one_way_to_write_a_line() {
        let written = [Line::new("a").with("b", 5_usize), Line::new("c")];
        let require = |text| Lines::new(Path::new("file"), text, 0).require(&written);
        require("a b=5\nc\n").unwrap();
        for (other, line) in [
            ("a b=05\nc\n", 1),
            ("a b=+5\nc\n", 1),
            ("a  b=5\nc\n", 1),
            ("a b=5 \nc\n", 1),
            ("a b=5 b=5\nc\n", 1),
            ("a b=5 d=6\nc\n", 1),
            ("a b=5\n\nc\n", 2),
            ("a b=5\nc\nc\n", 3),
            ("a b=5\nc", 3),
            ("a b=5\r\nc\n", 3),
            ("a b=5\n", 2),
            ("", 1),
        ] {
            let refused = require(other).unwrap_err();
            let found = matches!(refused, Error::Description { line: found, .. } if found == line);
            assert!(found, "{other:?}: {refused}");
        }
    }
}
