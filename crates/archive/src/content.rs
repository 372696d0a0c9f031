//! What a stored file holds, decompressed as it is read.
//!
//! Nothing is read ahead of the caller beyond a buffer, so that whoever stops reading bounds what a decompression bomb can do,
//! and a decoder allocates what it has read of the content, up to a window of 64 MB, and little beside it. The decoders are other people's code: a caller that must not die of a
//! panic in them catches it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::mem;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lz4_flex::frame::FrameDecoder;
use lzma_rust2::{LzmaReader, XzReader};

use self::brotli::BrotliReader;
use crate::compression::{Compression, DecompressionError};

mod brotli;

/// The content of a stored file, from its beginning to its end.
///
/// What is wrong with the compressed data comes as an [`io::Error`] that holds a [`DecompressionError`]; an error of the disk
/// comes as the system gave it. Only the read that returns 0 has seen all checksums.
pub struct Content<R: Read = File> {
    compression: Compression,
    decoder: Decoder<R>,
    disk: DiskError,
}

/// Compressed bytes are read in such pieces.
const BUFFER: usize = 64 << 10;
/// The largest window, and what lzma-rust2 counts beside it for its buffers and tables; kB.
const XZ_LIMIT: u32 = (Compression::MOST_WINDOW >> 10) + 256;
/// LZ4_LEGACY_MAGICNUMBER, as it lies on disk.
const LZ4_LEGACY: &[u8] = b"\x02\x21\x4C\x18";

enum Decoder<R: Read> {
    /// Not begun: decoders that look at the data when they are made are made at the first read.
    Unread(Disk<R>),
    Plain(Disk<R>),
    Gzip(Box<MultiGzDecoder<Input<R>>>),
    Bzip2(Box<MultiBzDecoder<Input<R>>>),
    Xz(Box<XzReader<Input<R>>>),
    Zstd(Box<zstd::Decoder<'static, Input<R>>>),
    Lz4(Box<FrameDecoder<Input<R>>>),
    Brotli(Box<BrotliReader<Input<R>>>),
    Lzma(Box<LzmaReader<Input<R>>>),
    Ended,
    /// Some decoders panic when they are read again after an error.
    Failed(DecompressionError),
}

type Input<R> = BufReader<Disk<R>>;

impl Content<File> {
    /// The content of `file`, of which `declared` is what its name promises; without a promise its first bytes tell.
    ///
    /// # Errors
    /// When the file cannot be read. That its content is not what the name promises shows when it is read.
    pub fn open(file: File, declared: Compression) -> io::Result<Self> {
        let compression = match declared {
            Compression::None => Compression::of_content(&head(&file)?),
            declared => declared,
        };
        Ok(Self::new(file, compression))
    }
}

impl<R: Read> Content<R> {
    /// What `reader` holds, compressed so.
    pub fn new(reader: R, compression: Compression) -> Self {
        let disk = DiskError::default();
        Self {
            compression,
            decoder: Decoder::Unread(Disk {
                reader,
                error: disk.clone(),
                ended: false,
            }),
            disk,
        }
    }

    /// How it is compressed.
    pub const fn compression(&self) -> Compression {
        self.compression
    }
}

impl<R: Read> Read for Content<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Some decoders take a read into nothing for the end.
        if buffer.is_empty() {
            return Ok(0);
        }
        let complaint = match self.decoder.read(self.compression, buffer) {
            Ok(bytes) => return Ok(bytes),
            Err(complaint) => complaint,
        };
        // Decoders wrap what the disk said in many ways, so it was put aside before they could.
        if let Some(error) = self.disk.take() {
            return Err(error);
        }
        let error = match complaint.downcast::<DecompressionError>() {
            Ok(error) => error,
            Err(complaint) => DecompressionError::of(self.compression, &complaint),
        };
        self.decoder = Decoder::Failed(error.clone());
        Err(error.into())
    }
}

impl<R: Read> Decoder<R> {
    fn read(&mut self, compression: Compression, buffer: &mut [u8]) -> io::Result<usize> {
        if matches!(self, Self::Unread(_))
            && let Self::Unread(disk) = mem::replace(self, Self::Ended)
        {
            *self = Self::begin(disk, compression)?;
        }
        loop {
            let bytes = match self {
                Self::Unread(_) | Self::Ended => return Ok(0),
                Self::Failed(error) => return Err(error.clone().into()),
                Self::Plain(disk) => return disk.read(buffer),
                Self::Gzip(decoder) => decoder.read(buffer)?,
                Self::Bzip2(decoder) => decoder.read(buffer)?,
                Self::Xz(decoder) => decoder.read(buffer)?,
                Self::Zstd(decoder) => decoder.read(buffer)?,
                Self::Lz4(decoder) => decoder.read(buffer)?,
                Self::Brotli(decoder) => decoder.read(buffer)?,
                Self::Lzma(decoder) => decoder.read(buffer)?,
            };
            if bytes > 0 {
                return Ok(bytes);
            }
            *self = mem::replace(self, Self::Ended).end(compression)?;
        }
    }

    fn begin(disk: Disk<R>, compression: Compression) -> io::Result<Self> {
        if compression == Compression::None {
            return Ok(Self::Plain(disk));
        }
        let mut input = BufReader::with_capacity(BUFFER, disk);
        if input.fill_buf()?.is_empty() {
            return Err(DecompressionError::empty(compression).into());
        }
        Ok(match compression {
            Compression::None => Self::Plain(input.into_inner()),
            Compression::Gzip => Self::Gzip(Box::new(MultiGzDecoder::new(input))),
            Compression::Bzip2 => Self::Bzip2(Box::new(MultiBzDecoder::new(input))),
            Compression::Xz => Self::Xz(Box::new(XzReader::new_mem_limit(input, true, XZ_LIMIT))),
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder.window_log_max(Compression::MOST_WINDOW.ilog2())?;
                Self::Zstd(Box::new(decoder))
            }
            Compression::Lz4 if input.buffer().starts_with(LZ4_LEGACY) => {
                return Err(DecompressionError::legacy_lz4().into());
            }
            Compression::Lz4 => Self::Lz4(Box::new(FrameDecoder::new(input))),
            Compression::Brotli => Self::Brotli(Box::new(BrotliReader::new(input))),
            Compression::Lzma => Self::Lzma(Box::new(begin_lzma(input)?)),
        })
    }

    /// What to go on with where a decoder has no more to say: some of them end although the data do not.
    fn end(self, compression: Compression) -> io::Result<Self> {
        let more = match self {
            Self::Unread(_) | Self::Plain(_) | Self::Ended => false,
            Self::Failed(error) => return Err(error.into()),
            Self::Gzip(mut decoder) => more(decoder.get_mut())?,
            Self::Bzip2(mut decoder) => more(decoder.get_mut())?,
            Self::Xz(mut decoder) => more(decoder.inner_mut())?,
            Self::Zstd(mut decoder) => more(decoder.get_mut())?,
            Self::Lz4(decoder) => {
                // It ends behind every frame, and without a word also where the file ends in the middle of one: only then
                // did it ask for bytes that were not there.
                let mut input = decoder.into_inner();
                if input.get_ref().ended {
                    return Err(DecompressionError::cut(compression).into());
                }
                if more(&mut input)? {
                    return Ok(Self::Lz4(Box::new(FrameDecoder::new(input))));
                }
                false
            }
            Self::Brotli(mut decoder) => more(decoder.get_mut())?,
            Self::Lzma(decoder) => {
                let (mut input, unused) = decoder.into_parts();
                !unused.is_empty() || more(&mut input)?
            }
        };
        if more {
            return Err(DecompressionError::trailing(compression).into());
        }
        Ok(Self::Ended)
    }
}

/// Whether there are bytes left to read.
fn more<R: Read>(input: &mut Input<R>) -> io::Result<bool> {
    Ok(!input.fill_buf()?.is_empty())
}

/// The header of a `.lzma` file: a byte of properties, the size of the dictionary, the size of the content
/// (lzma-file-format.txt of XZ Utils).
fn begin_lzma<R: Read>(mut input: Input<R>) -> io::Result<LzmaReader<Input<R>>> {
    let (mut properties, mut dictionary, mut content) = ([0], [0; 4], [0; 8]);
    input.read_exact(&mut properties)?;
    input.read_exact(&mut dictionary)?;
    input.read_exact(&mut content)?;
    let [properties] = properties;
    let dictionary = u32::from_le_bytes(dictionary);
    let content = u64::from_le_bytes(content);
    if dictionary > Compression::MOST_WINDOW {
        return Err(if is_header_of_lzma(properties, dictionary, content) {
            DecompressionError::window(Compression::Lzma).into()
        } else {
            io::Error::new(io::ErrorKind::InvalidData, "its header is none")
        });
    }
    let mut decoder = LzmaReader::new_with_props(input, content, properties, dictionary, None)?;
    // There is no checksum, so that this is all that tells of damage.
    decoder.set_relaxed_end_condition(false);
    Ok(decoder)
}

/// Whether a header is one that compressors write, as XZ Utils tell, since the format has no magic number: `lzma_alone_decoder.c`.
fn is_header_of_lzma(properties: u8, dictionary: u32, content: u64) -> bool {
    /// 9 values of lc, 5 of lp, 5 of pb.
    const MOST_PROPERTIES: u8 = 9 * 5 * 5;
    /// 256 GiB.
    const MOST_CONTENT: u64 = 1 << 38;
    let is_size =
        dictionary == u32::MAX || dictionary.count_ones() == 1 || dictionary >> dictionary.trailing_zeros() == 3;
    properties < MOST_PROPERTIES && is_size && (content == u64::MAX || content < MOST_CONTENT)
}

/// The first bytes of a file, without moving its position.
fn head(file: &File) -> io::Result<Vec<u8>> {
    let mut head = vec![0; Compression::HEAD];
    let mut known = 0;
    while let Some(rest) = head.get_mut(known..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, known as u64) {
            Ok(0) => break,
            Ok(bytes) => known += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    head.truncate(known);
    Ok(head)
}

/// The stored bytes.
struct Disk<R> {
    reader: R,
    error: DiskError,
    /// Whether somebody asked for bytes behind the last.
    ended: bool,
}

impl<R: Read> Read for Disk<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.reader.read(buffer) {
                Ok(bytes) => {
                    self.ended |= bytes == 0 && !buffer.is_empty();
                    return Ok(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error.put(error)),
            }
        }
    }
}

/// The last error of the disk, kept apart from what the decoders make of it.
#[derive(Clone, Default)]
struct DiskError(Arc<Mutex<Option<io::Error>>>);

impl DiskError {
    /// Keeps the error, and gives one to stop the decoder with.
    fn put(&self, error: io::Error) -> io::Error {
        let stop = io::Error::from(error.kind());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        stop
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests;
