//! Settings as strings of Rust, whatever bytes they are.
//!
//! PostgreSQL takes a path or a command of its configuration byte for byte. Rust's strings are UTF-8, and who reads settings works
//! with strings; so each byte that is no UTF-8 stands as one character of a private range until a path or a command is made of it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use archive::Source;

/// Bytes stand at the end of the last private plane, where nobody has characters.
const FIRST: u32 = 0x0010_FF00;

/// What has these bytes, as a string.
pub fn decode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(
            chunk
                .invalid()
                .iter()
                .filter_map(|byte| char::from_u32(FIRST + u32::from(*byte))),
        );
    }
    text
}

/// The bytes again.
pub fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match byte(character) {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// For people: what is no text is shown as such.
pub fn shown(text: &str) -> String {
    text.chars()
        .map(|character| byte(character).map_or(character, |_| char::REPLACEMENT_CHARACTER))
        .collect()
}

/// The archive where it lies. Its command stays as it is until it is run.
pub fn place(source: Source) -> Source {
    let path = |path: PathBuf| -> PathBuf {
        match path.to_str() {
            Some(text) => OsString::from_vec(encode(text)).into(),
            None => path,
        }
    };
    match source {
        Source::Directory(directory) => Source::Directory(path(directory)),
        Source::PgBackRest(directory) => Source::PgBackRest(path(directory)),
        Source::Barman(directory) => Source::Barman(path(directory)),
        Source::WalG(directory) => Source::WalG(path(directory)),
        Source::RestoreCommand(command) => Source::RestoreCommand(command),
    }
}

/// The byte that a character stands for, which is never one of ASCII.
fn byte(character: char) -> Option<u8> {
    let byte = u8::try_from(u32::from(character).checked_sub(FIRST)?).ok()?;
    (!byte.is_ascii()).then_some(byte)
}
