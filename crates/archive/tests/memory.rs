//! No stored file makes its decoder take more than its content needs and the largest window allows. Measured from outside, in a process of its own for each: one of the
//! decoders is in C, where no allocator of ours counts.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;

use archive::{Compression, Content};

/// In the environment of the process that is measured: what it reads.
const FILE: &str = "ARCHIVE_TEST_FILE";
/// A segment of the default size, and what makes every window full; and the most that each may take: a window that grows is copied
/// into one of twice its size.
const SIZES: [(usize, u64); 2] = [(16 << 20, 34 << 10), (80 << 20, 100 << 10)];

/// Content that is quick to compress.
fn write_content(out: &mut dyn Write, content: usize) {
    for number in 0..content / 4096 {
        out.write_all(&[number as u8; 4096]).unwrap();
    }
}

fn compress(compression: Compression, path: &Path, content: usize) {
    let file = File::create(path).unwrap();
    match compression {
        Compression::None => write_content(&mut &file, content),
        Compression::Gzip => {
            write_content(
                &mut flate2::write::GzEncoder::new(file, flate2::Compression::fast()),
                content,
            );
        }
        Compression::Bzip2 => {
            write_content(
                &mut bzip2::write::BzEncoder::new(file, bzip2::Compression::best()),
                content,
            );
        }
        Compression::Xz => {
            let mut options = lzma_rust2::XzOptions::with_preset(0);
            options.lzma_options.dict_size = Compression::MOST_WINDOW;
            let mut encoder = lzma_rust2::XzWriter::new(file, options).unwrap();
            write_content(&mut encoder, content);
            encoder.finish().unwrap();
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(file, 1).unwrap();
            encoder.window_log(Compression::MOST_WINDOW.ilog2()).unwrap();
            write_content(&mut encoder, content);
            encoder.finish().unwrap();
        }
        Compression::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Linked)
                .block_size(lz4_flex::frame::BlockSize::Max4MB);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, file);
            write_content(&mut encoder, content);
            encoder.finish().unwrap();
        }
        Compression::Brotli => {
            write_content(&mut brotli::CompressorWriter::new(file, 1 << 16, 1, 24), content);
        }
        Compression::Lzma => {
            let mut options = lzma_rust2::LzmaOptions::with_preset(0);
            options.dict_size = Compression::MOST_WINDOW;
            let mut encoder = lzma_rust2::LzmaWriter::new_use_header(file, &options, None).unwrap();
            write_content(&mut encoder, content);
            encoder.finish().unwrap();
        }
    }
}

#[test]
fn no_decoder_takes_more_than_its_content_or_the_largest_window() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    for (compression, (content, most_kb)) in Compression::ALL
        .into_iter()
        .flat_map(|one| SIZES.map(|size| (one, size)))
    {
        compress(compression, &path, content);
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "what_is_measured", "--nocapture"])
            .env(FILE, format!("{}:{content}:{}", compression.suffix(), path.display()))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let taken: u64 = text
            .lines()
            .find_map(|line| line.split_once("taken: ")?.1.parse().ok())
            .unwrap_or_else(|| panic!("{compression}: {text} {}", String::from_utf8_lossy(&output.stderr)));
        println!("{compression}: {taken} kB of {content} bytes");
        assert!(taken < most_kb, "{compression}: {taken} kB of {content} bytes");
    }
}

/// The process that is measured.
#[test]
#[ignore = "called by the test above"]
fn what_is_measured() {
    let what = std::env::var(FILE).unwrap();
    let [suffix, content, path] = what.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
    let expected: usize = content.parse().unwrap();
    let compression = Compression::of_suffix(suffix).unwrap_or(Compression::None);
    let mut piece = vec![1; 64 << 10];
    let mut content = Content::open(File::open(path).unwrap(), compression).unwrap();
    let before = peak();
    let mut bytes = 0;
    loop {
        match content.read(&mut piece).unwrap() {
            0 => break,
            read => bytes += read,
        }
    }
    assert_eq!(bytes, expected);
    println!("taken: {}", peak() - before);
}

/// The most memory that this process has had, kB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
