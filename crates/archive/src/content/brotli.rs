//! Brotli's decoder as a reader: its own reader takes windows of any size, and has one word for every failure.

use std::io::{self, BufRead, Read};

use brotli_decompressor::{BrotliDecompressStream, BrotliResult, BrotliState, StandardAlloc};

/// What the first byte of a stream is whose window is larger: a code that RFC 7932 leaves out (`DecodeWindowBits()`, decode.c).
const LARGE_WINDOW: u8 = 0x11;

/// Reads one Brotli stream with a window of at most 2^24 bytes. What follows it is left in the input.
pub(super) struct BrotliReader<R> {
    input: R,
    state: BrotliState<StandardAlloc, StandardAlloc, StandardAlloc>,
    total: usize,
    /// The first byte.
    first: Option<u8>,
}

impl<R> BrotliReader<R> {
    pub fn new(input: R) -> Self {
        Self {
            input,
            state: BrotliState::new_strict(
                StandardAlloc::default(),
                StandardAlloc::default(),
                StandardAlloc::default(),
            ),
            total: 0,
            first: None,
        }
    }

    pub const fn get_mut(&mut self) -> &mut R {
        &mut self.input
    }
}

impl<R: BufRead> Read for BrotliReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            self.first = self.first.or(input.first().copied());
            let (mut unread, mut taken) = (input.len(), 0);
            let (mut room, mut made) = (buffer.len(), 0);
            let result = BrotliDecompressStream(
                &mut unread,
                &mut taken,
                input,
                &mut room,
                &mut made,
                buffer,
                &mut self.total,
                &mut self.state,
            );
            self.input.consume(taken);
            if made > 0 {
                return Ok(made);
            }
            match result {
                BrotliResult::ResultSuccess => return Ok(0),
                BrotliResult::NeedsMoreInput if at_end => return Err(io::ErrorKind::UnexpectedEof.into()),
                // More memory than the format has without an extension.
                BrotliResult::ResultFailure if self.first == Some(LARGE_WINDOW) && self.total == 0 => {
                    return Err(io::ErrorKind::OutOfMemory.into());
                }
                BrotliResult::ResultFailure => return Err(io::Error::other("not a Brotli stream")),
                BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => {}
            }
        }
    }
}
