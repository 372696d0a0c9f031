//! Reading one file while another copy of it is read beside it: where do the two first differ?

use std::io::{self, Read};

/// Passes a file through, and compares it with another copy of the same bytes.
///
/// That the other copy cannot be read, or ends early, is no difference: it ends the comparison, see [`Comparison::compared`].
pub struct Comparison<A, B> {
    read: A,
    other: Option<B>,
    buffer: Vec<u8>,
    compared: u64,
    difference: Option<u64>,
}

impl<A: Read, B: Read> Comparison<A, B> {
    /// Compares what will be read from `read` with `other`, if there is one.
    pub const fn new(read: A, other: Option<B>) -> Self {
        Self {
            read,
            other,
            buffer: Vec::new(),
            compared: 0,
            difference: None,
        }
    }

    /// How many bytes were compared, from the start of both.
    pub const fn compared(&self) -> u64 {
        self.compared
    }

    /// The offset of the first byte that differs.
    pub const fn difference(&self) -> Option<u64> {
        self.difference
    }

    fn compare(&mut self, bytes: &[u8]) {
        let Some(other) = &mut self.other else { return };
        self.buffer.resize(bytes.len(), 0);
        if other.read_exact(&mut self.buffer).is_err() {
            self.other = None;
            return;
        }
        if self.buffer != bytes {
            let same = bytes.iter().zip(&self.buffer).take_while(|(a, b)| a == b).count();
            self.difference = Some(self.compared.saturating_add(same as u64));
            self.other = None;
        }
        self.compared = self.compared.saturating_add(bytes.len() as u64);
    }
}

impl<A: Read, B: Read> Read for Comparison<A, B> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.read.read(buffer)?;
        self.compare(buffer.get(..length).unwrap_or_default());
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compared(read: &[u8], other: &[u8]) -> (u64, Option<u64>) {
        let mut comparison = Comparison::new(read, Some(other));
        let mut through: Vec<u8> = Vec::new();
        let mut piece = [0; 7];
        while let Ok(length @ 1..) = comparison.read(&mut piece) {
            through.extend(piece.iter().take(length));
        }
        assert_eq!(through, read, "what is read is not changed");
        (comparison.compared(), comparison.difference())
    }

    #[test]
    fn the_first_byte_that_differs_is_found() {
        let bytes = [7; 40];
        assert_eq!(compared(&bytes, &bytes), (40, None));
        for at in [0, 6, 7, 39] {
            let mut other = bytes;
            other[at] ^= 1;
            assert_eq!(compared(&bytes, &other).1, Some(at as u64));
        }
    }

    #[test]
    fn a_copy_that_ends_early_is_no_difference() {
        let (compared, difference) = compared(&[7; 40], &[7; 20]);
        assert_eq!(difference, None);
        assert!(compared < 40, "and it shows that not all was compared");
    }
}
