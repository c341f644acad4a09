//! Decompression of gzip files.

use std::{
    io::{self, BufRead, Read},
    mem::replace,
};

use flate2::bufread::GzDecoder;

/// The most bytes that deflate can make from one byte (zlib's technical notes).
pub(super) const LARGEST_RATIO: u128 = 1032;

/// The most zeros that count as padding.
const LONGEST_PADDING: usize = 64 << 20;

/// The content of a gzip file, which may have several members one after the other. Zeros may follow the
/// last member, as tapes and some archives leave them. gzip ignores such zeros too.
pub(super) struct Members<R> {
    state: State<R>,
    padding: usize,
}

enum State<R> {
    Member(GzDecoder<R>),
    Between(R),
    End,
}

impl<R: BufRead> Members<R> {
    pub(super) fn new(compressed: R) -> Self {
        Self { state: State::Member(GzDecoder::new(compressed)), padding: 0 }
    }
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.state {
                State::Member(member) => {
                    let count = member.read(to)?;
                    if count > 0 || to.is_empty() {
                        return Ok(count);
                    }
                }
                State::Between(rest) => {
                    let bytes = rest.fill_buf()?;
                    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
                    let next = bytes.get(zeros).copied();
                    let is_end = bytes.is_empty();
                    rest.consume(zeros);
                    self.padding += zeros;
                    match next {
                        None if is_end => {}
                        None if self.padding <= LONGEST_PADDING => continue,
                        Some(0x1f) if self.padding == 0 => {}
                        _ => {
                            return Err(io::Error::new(
                                io::ErrorKind::InvalidData,
                                "bytes that are not compressed follow the end of the compressed data",
                            ));
                        }
                    }
                    if is_end {
                        self.state = State::End;
                    }
                }
                State::End => return Ok(0),
            }
            self.state = match replace(&mut self.state, State::End) {
                State::Member(member) => State::Between(member.into_inner()),
                State::Between(rest) => State::Member(GzDecoder::new(rest)),
                State::End => State::End,
            };
        }
    }
}
