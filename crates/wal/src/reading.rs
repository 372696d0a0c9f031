//! Verification of a segment that is read from somewhere.

use std::io::{self, Read};

use crate::commits::Commit;
use crate::verifier::{SegmentOutcome, SegmentVerifier};

/// Reads segments, one after the other, through one buffer.
pub struct SegmentReader {
    chunk: Vec<u8>,
}

impl SegmentReader {
    /// How many bytes are read at once: enough to keep system calls cheap, and little enough to stay in the cache from the CRC
    /// to the hash.
    pub const CHUNK: usize = 256 << 10;

    /// A reader, with its buffer of [`Self::CHUNK`].
    #[must_use]
    pub fn new() -> Self {
        Self {
            chunk: vec![0; Self::CHUNK],
        }
    }

    /// Feeds all of `reader` to `verifier`, and tells `on_chunk` after every chunk how many bytes were read.
    ///
    /// Of a file that is too long, at most one chunk behind a segment's end is read, so an endless stream ends too. A read
    /// error becomes the problem `unreadable`.
    pub fn verify(
        &mut self,
        reader: impl Read,
        verifier: SegmentVerifier,
        on_chunk: &mut dyn FnMut(usize),
    ) -> SegmentOutcome {
        self.verify_with(reader, verifier, &mut |_| {}, on_chunk)
    }

    /// The same, and tells `on_commit` of every commit that ends in the segment, in WAL order.
    pub fn verify_with(
        &mut self,
        mut reader: impl Read,
        mut verifier: SegmentVerifier,
        on_commit: &mut dyn FnMut(&Commit),
        on_chunk: &mut dyn FnMut(usize),
    ) -> SegmentOutcome {
        let size = verifier.name.size.bytes();
        while verifier.bytes <= size {
            match reader.read(&mut self.chunk) {
                Ok(0) => break,
                Ok(length) => {
                    verifier.feed_with(self.chunk.get(..length).unwrap_or_default(), on_commit);
                    on_chunk(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return verifier.fail(&error),
            }
        }
        verifier.finish()
    }
}

impl Default for SegmentReader {
    fn default() -> Self {
        Self::new()
    }
}

/// [`SegmentReader::verify`] for a single segment.
pub fn verify_reader(reader: impl Read, verifier: SegmentVerifier, on_chunk: &mut dyn FnMut(usize)) -> SegmentOutcome {
    SegmentReader::new().verify(reader, verifier, on_chunk)
}
