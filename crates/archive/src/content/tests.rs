//! Every compression, whole, cut, damaged, and hostile.

use std::io::{Cursor, Write};

use proptest::prelude::*;

use super::*;

const COMPRESSED: [Compression; 7] = [
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4,
    Compression::Brotli,
    Compression::Lzma,
];

/// Those of which several can stand one behind the other.
const REPEATABLE: [Compression; 5] = [
    Compression::Gzip,
    Compression::Bzip2,
    Compression::Xz,
    Compression::Zstd,
    Compression::Lz4,
];

fn compress(compression: Compression, content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match compression {
        Compression::None => out.extend_from_slice(content),
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(&mut out, flate2::Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Bzip2 => {
            let mut encoder = bzip2::write::BzEncoder::new(&mut out, bzip2::Compression::default());
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Xz => {
            let mut encoder = lzma_rust2::XzWriter::new(&mut out, lzma_rust2::XzOptions::with_preset(6)).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(&mut out, 3).unwrap();
            // As the zstd program does, but not the library by itself.
            encoder.include_checksum(true).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .content_checksum(true);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, &mut out);
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
        Compression::Brotli => {
            let mut encoder = ::brotli::CompressorWriter::new(&mut out, 4096, 5, 22);
            encoder.write_all(content).unwrap();
            encoder.flush().unwrap();
            drop(encoder);
        }
        Compression::Lzma => {
            let options = lzma_rust2::LzmaOptions::with_preset(6);
            let mut encoder = lzma_rust2::LzmaWriter::new_use_header(&mut out, &options, None).unwrap();
            encoder.write_all(content).unwrap();
            encoder.finish().unwrap();
        }
    }
    out
}

fn decompress(compression: Compression, stored: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    Content::new(stored, compression)
        .take(100 << 20)
        .read_to_end(&mut out)?;
    Ok(out)
}

#[track_caller]
fn complaint(compression: Compression, stored: &[u8]) -> String {
    match decompress(compression, stored) {
        Ok(out) => panic!("{compression}: {} bytes came out", out.len()),
        Err(error) => {
            let error = error.downcast::<DecompressionError>().unwrap();
            assert_eq!(error.compression, compression);
            error.sentence
        }
    }
}

/// Text that compresses, and noise that does not.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    (0..bytes)
        .map(|at| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if at / 100 % 3 == 0 {
                (state >> 33) as u8
            } else {
                b'a' + (at % 7) as u8
            }
        })
        .collect()
}

#[test]
fn every_compression_gives_back_what_was_stored() {
    for bytes in [1, 8192, 1_000_000] {
        let content = content(bytes);
        for compression in Compression::ALL {
            let stored = compress(compression, &content);
            assert!(decompress(compression, &stored).unwrap() == content, "{compression}");
        }
    }
}

#[test]
fn a_file_without_a_suffix_is_known_by_its_first_bytes() {
    for compression in REPEATABLE {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&compress(compression, b"some content")).unwrap();
        let mut file = file;
        io::Seek::rewind(&mut file).unwrap();
        let mut opened = Content::open(file, Compression::None).unwrap();
        assert_eq!(opened.compression(), compression);
        let mut text = String::new();
        opened.read_to_string(&mut text).unwrap();
        assert_eq!(text, "some content");
    }
    for plain in [
        &b""[..],
        b"\x1f",
        b"\x10\xD1",
        b"\x18\xD1\x07\0",
        b"START WAL",
        b"\0\0\0\0\0\0",
    ] {
        assert_eq!(Compression::of_content(plain), Compression::None);
    }
}

#[test]
fn what_stands_behind_one_another_is_read_to_the_end() {
    let (first, second) = (content(100_000), content(77));
    for compression in REPEATABLE {
        let mut stored = compress(compression, &first);
        stored.extend(compress(compression, b""));
        stored.extend(compress(compression, &second));
        assert!(
            decompress(compression, &stored).unwrap() == [&first[..], &second].concat(),
            "{compression}"
        );
    }
}

#[test]
fn frames_of_different_block_sizes_can_follow_one_another() {
    let content = content(300_000);
    let mut stored = Vec::new();
    for size in [lz4_flex::frame::BlockSize::Max1MB, lz4_flex::frame::BlockSize::Max64KB] {
        for mode in [
            lz4_flex::frame::BlockMode::Linked,
            lz4_flex::frame::BlockMode::Independent,
        ] {
            let info = lz4_flex::frame::FrameInfo::new().block_size(size).block_mode(mode);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, &mut stored);
            encoder.write_all(&content).unwrap();
            encoder.finish().unwrap();
        }
    }
    assert!(decompress(Compression::Lz4, &stored).unwrap() == content.repeat(4));
}

#[test]
fn a_cut_file_is_never_taken_for_a_whole_one() {
    let content = content(200_000);
    for compression in COMPRESSED {
        let stored = compress(compression, &content);
        let cuts = (0..stored.len()).step_by(stored.len() / 47 + 1);
        for cut in cuts.chain(stored.len().saturating_sub(40)..stored.len()) {
            let sentence = complaint(compression, &stored[..cut]);
            assert!(!sentence.is_empty());
        }
        let sentence = complaint(compression, &stored[..stored.len() / 2]);
        assert!(sentence.contains("cut"), "{compression}: {sentence}");
        assert!(complaint(compression, b"").contains("empty"));
    }
}

#[test]
fn a_cut_second_part_is_a_failure_as_well() {
    for compression in REPEATABLE {
        let whole = compress(compression, &content(5000));
        for cut in 1..whole.len() {
            complaint(compression, &[&whole[..], &whole[..cut]].concat());
        }
    }
}

#[test]
fn bytes_behind_the_end_are_a_failure() {
    for compression in COMPRESSED {
        for garbage in [
            &b"x"[..],
            b"more bytes than any header has, and nothing of any use",
            &[7; 100_000],
        ] {
            let mut stored = compress(compression, &content(10_000));
            stored.extend(garbage);
            complaint(compression, &stored);
        }
    }
}

#[test]
fn a_promise_of_compression_that_is_not_kept_is_a_failure() {
    let mut plain = content(100_000);
    plain[..4].copy_from_slice(b"\x18\xD1\x07\0");
    for compression in COMPRESSED {
        complaint(compression, &plain);
        complaint(compression, &[0; 16]);
    }
}

#[test]
fn damage_is_found_where_the_format_has_a_checksum() {
    let content = content(50_000);
    for compression in REPEATABLE {
        let stored = compress(compression, &content);
        for at in (0..stored.len()).step_by(stored.len() / 500 + 1) {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x10;
            // A few bits mean nothing: a time stamp, a name.
            if let Ok(out) = decompress(compression, &damaged) {
                assert!(out == content, "{compression}, byte {at}");
            }
        }
    }
}

#[test]
fn a_failure_is_told_again_when_it_is_read_again() {
    for compression in COMPRESSED {
        let stored = compress(compression, &content(10_000));
        let mut opened = Content::new(&stored[..stored.len() - 2], compression);
        let first = opened.read_to_end(&mut Vec::new()).unwrap_err().to_string();
        assert_eq!(opened.read(&mut [0; 10]).unwrap_err().to_string(), first);
        let mut opened = Content::new(&stored[..], compression);
        assert_eq!(opened.read(&mut []).unwrap(), 0);
        assert_eq!(opened.read_to_end(&mut Vec::new()).unwrap(), 10_000);
        assert_eq!(opened.read(&mut [0; 10]).unwrap(), 0);
    }
}

/// Gives some bytes, and then an error of the disk.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::from_raw_os_error(libc::EIO)),
            bytes => Ok(bytes),
        }
    }
}

#[test]
fn what_the_disk_refuses_is_not_taken_for_damage() {
    let content = content(300_000);
    for compression in Compression::ALL {
        let stored = compress(compression, &content);
        for known in [0, 3, stored.len() / 2, stored.len()] {
            let mut opened = Content::new(Failing(&stored[..known]), compression);
            let error = opened.read_to_end(&mut Vec::new()).unwrap_err();
            assert_eq!(
                error.raw_os_error(),
                Some(libc::EIO),
                "{compression}, {known} bytes: {error}"
            );
        }
    }
}

#[track_caller]
fn too_large_a_window(compression: Compression, stored: &[u8], option: &str) {
    let error = decompress(compression, stored).unwrap_err();
    let error = error.downcast::<DecompressionError>().unwrap();
    let sentence = &error.sentence;
    assert!(
        sentence.contains("need a window of more than") && sentence.contains("archive_source = restore_command"),
        "{sentence}"
    );
    assert!(sentence.contains(option), "{sentence}");
    assert!(!error.is_damage, "{sentence}");
}

#[test]
fn a_window_beyond_the_bound_is_refused_with_the_way_out() {
    let mut out = Vec::new();
    let mut encoder = zstd::Encoder::new(&mut out, 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&content(1000)).unwrap();
    encoder.finish().unwrap();
    too_large_a_window(Compression::Zstd, &out, "--long=26");

    let mut out = Vec::new();
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = 128 << 20;
    let mut encoder = lzma_rust2::XzWriter::new(&mut out, options).unwrap();
    encoder.write_all(&content(1000)).unwrap();
    encoder.finish().unwrap();
    too_large_a_window(Compression::Xz, &out, "-9 or less");

    let mut stored = compress(Compression::Lzma, &content(1000));
    stored[1..5].copy_from_slice(&(128_u32 << 20).to_le_bytes());
    too_large_a_window(Compression::Lzma, &stored, "-9 or less");
    // What no compressor writes is no header, but damage.
    stored[1..5].copy_from_slice(&((128_u32 << 20) + 1).to_le_bytes());
    assert!(complaint(Compression::Lzma, &stored).contains("damaged"));

    // A large window is said in Brotli's first byte: 0x11, then the logarithm.
    too_large_a_window(Compression::Brotli, &[0x11, 30, 0, 0], "--large_window");
}

#[test]
fn the_largest_window_within_the_bound_is_read() {
    let content = content(1_000_000);
    let mut out = Vec::new();
    let mut encoder = zstd::Encoder::new(&mut out, 1).unwrap();
    encoder.window_log(26).unwrap();
    encoder.write_all(&content).unwrap();
    encoder.finish().unwrap();
    assert!(decompress(Compression::Zstd, &out).unwrap() == content);

    let mut out = Vec::new();
    let mut options = lzma_rust2::XzOptions::with_preset(1);
    options.lzma_options.dict_size = 64 << 20;
    let mut encoder = lzma_rust2::XzWriter::new(&mut out, options).unwrap();
    encoder.write_all(&content).unwrap();
    encoder.finish().unwrap();
    assert!(decompress(Compression::Xz, &out).unwrap() == content);

    let mut stored = compress(Compression::Lzma, &content);
    stored[1..5].copy_from_slice(&(64_u32 << 20).to_le_bytes());
    assert!(decompress(Compression::Lzma, &stored).unwrap() == content);
}

#[test]
fn a_bomb_is_only_as_large_as_the_reader_lets_it_be() {
    let stored = compress(Compression::Zstd, &vec![0; 50 << 20]);
    assert!(stored.len() < 10_000);
    let mut opened = Content::new(Cursor::new(&stored), Compression::Zstd);
    let mut buffer = [1; 8192];
    opened.read_exact(&mut buffer).unwrap();
    assert_eq!(buffer, [0; 8192]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_stored_comes_back(content in prop::collection::vec(any::<u8>(), 0..20_000), repeat in 1..5_usize) {
        let content = content.repeat(repeat);
        for compression in Compression::ALL {
            prop_assert!(decompress(compression, &compress(compression, &content)).unwrap() == content, "{}", compression);
        }
    }

    #[test]
    fn whatever_the_bytes_there_is_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for compression in COMPRESSED {
            let _ = decompress(compression, &bytes);
        }
    }
}
