//! Whatever bytes an archive and the settings around it hold: no panic, no large allocation, and the same content however it is
//! read.
//!
//! The first byte chooses what the rest is: a stored file, a file's name, or a text. The decoders are other people's, one of them
//! in C, so it runs with the address sanitizer; from crates/archive:
//!
//! ```text
//! cargo +nightly fuzz run archive fuzz/corpus/archive fuzz/seeds -- -max_len=4096 -rss_limit_mb=1024 -max_total_time=600
//! ```
#![no_main]

use std::alloc::System;
use std::io::{self, Read};
use std::path::Path;

use archive::fuzzing::{self, LAYOUTS};
use archive::{Compression, Content, DecompressionError, ServerSettings, Setting, derive};
use cap::Cap;
use libfuzzer_sys::fuzz_target;
use wal::{SegmentSize, WalFileName};

/// What is asked for beyond the limit is refused, which ends the run. It does not see what C allocates.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// What a decoder may allocate.
const MOST_MEMORY: usize = 32 << 20;
/// So much of the content is read; a bomb has more.
const MOST_CONTENT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    match choice % 8 {
        0 => name(rest),
        1 => texts(rest),
        _ => stored(rest),
    }
});

/// A stored file, read at once and piece by piece.
fn stored(data: &[u8]) {
    let [choice, piece, data @ ..] = data else {
        return;
    };
    let compression = match Compression::ALL[usize::from(choice % 8)] {
        Compression::None => Compression::of_content(data),
        declared => declared,
    };
    let (whole, end) = read(data, compression, 1 << 16);
    let (pieces, other_end) = read(data, compression, 1 + usize::from(*piece));
    let common = whole.len().min(pieces.len());
    assert!(whole[..common] == pieces[..common]);
    match (end, other_end) {
        (End::Whole, End::Whole) => assert_eq!(whole.len(), pieces.len()),
        (End::Whole, End::Failed) | (End::Failed, End::Whole) => panic!("it is whole only if it is read so"),
        _ => {}
    }
    if compression == Compression::None {
        assert!(whole == data[..data.len().min(whole.len())]);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Failed,
    Bounded,
}

fn read(data: &[u8], compression: Compression, piece: usize) -> (Vec<u8>, End) {
    let mut content = Vec::with_capacity(MOST_CONTENT + piece);
    let mut buffer = vec![0; piece];
    ALLOCATOR
        .set_limit(ALLOCATOR.allocated() + MOST_MEMORY)
        .expect("a limit above what is allocated");
    let mut reader = Content::new(data, compression);
    let end = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break End::Whole,
            Ok(bytes) => content.extend_from_slice(&buffer[..bytes]),
            Err(error) => {
                judge(&error, compression);
                assert!(reader.read(&mut buffer).is_err(), "a failure stays one");
                break End::Failed;
            }
        }
        if content.len() > MOST_CONTENT {
            break End::Bounded;
        }
    };
    drop(reader);
    ALLOCATOR.set_limit(usize::MAX).expect("no limit");
    (content, end)
}

/// Nothing here is the disk's fault.
fn judge(error: &io::Error, compression: Compression) {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<DecompressionError>());
    let inner = inner.expect("a failure of decompression");
    assert_eq!(inner.compression, compression);
    assert!(!inner.sentence.is_empty() && inner.sentence.len() < 1000);
}

/// The name of a file, in every layout.
fn name(data: &[u8]) {
    let Ok(name) = std::str::from_utf8(data) else {
        return;
    };
    for layout in LAYOUTS {
        for size in [SegmentSize::DEFAULT, SegmentSize::new(1 << 20).unwrap()] {
            let Some(known) = fuzzing::classify(layout, name, size) else {
                continue;
            };
            assert_eq!(WalFileName::classify(&known.own_name, size), Some(known.kind));
            assert!(known.stored_names.is_empty() || known.stored_names.iter().any(|stored| stored == name));
            assert!(!name.contains('/'));
        }
    }
}

/// Settings of the server, and of other programs.
fn texts(data: &[u8]) {
    fuzzing::archive_info(data);
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    fuzzing::pgbackrest_configuration(text);
    if let Ok(setting) = Setting::parse(text) {
        assert_eq!(Setting::parse(&setting.to_string()), Ok(setting));
    }
    let settings = ServerSettings {
        archive_command: text,
        ..ServerSettings::default()
    };
    match derive(&settings, Path::new("/nowhere/data")) {
        Ok(derived) => {
            assert!(derived.source.root().is_some_and(Path::is_absolute));
            assert!(!derived.source.to_string().contains(['\u{1}', '\u{2}']));
        }
        Err(error) => assert!(error.to_string().contains("set ")),
    }
}
