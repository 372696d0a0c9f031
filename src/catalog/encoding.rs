//! UTF-8, which everything in Rust is in, and the encoding that the database has: from each to the other, and never an error.
//!
//! What the other encoding lacks becomes a question mark. Core's own conversions raise an error instead, which is right for what
//! a client sends, and wrong for what a stranger has written into a backup's label: it would stop whoever reads it.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CStr, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::pg_enc::{PG_SQL_ASCII, PG_UTF8};

use crate::foreign_text;

/// In place of what cannot be said.
const REPLACEMENT: u8 = b'?';
/// In place of a character that no text of PostgreSQL's may have.
const FORBIDDEN: &str = "\u{FFFD}";
/// So many bytes are converted at once.
const PIECE: usize = 8192;
/// MAX_CONVERSION_GROWTH of `mb/pg_wchar.h`: no encoding makes more bytes of one.
const GROWTH: usize = 4;
/// No encoding has longer characters.
const LONGEST_CHARACTER: usize = 8;

type Encoding = pg_sys::pg_enc::Type;

/// The database's encoding, as `mb/pg_wchar.h` numbers them.
fn of_database() -> Encoding {
    // SAFETY: plain data of the server, set when the session connected; SQL_ASCII before.
    unsafe { pg_sys::GetDatabaseEncoding() }.unsigned_abs()
}

/// Whether the database is in UTF-8.
pub fn is_utf8() -> bool {
    of_database() == PG_UTF8
}

/// What the session's client wants to be answered in.
fn of_client() -> Encoding {
    // SAFETY: as above.
    unsafe { pg_sys::pg_get_client_encoding() }.unsigned_abs()
}

/// A text as the database holds it. A database in SQL_ASCII takes it as it is.
pub fn from_utf8(text: &str) -> Vec<u8> {
    let text = storable(text);
    match of_database() {
        PG_UTF8 | PG_SQL_ASCII => text.into_owned().into_bytes(),
        _ if text.is_ascii() => text.into_owned().into_bytes(),
        encoding => convert(text.as_bytes(), PG_UTF8, encoding),
    }
}

/// A text from outside as the database holds it: as it is where it is one in the database's encoding, else taken for UTF-8.
pub fn from_outside(bytes: &[u8]) -> Vec<u8> {
    let encoding = of_database();
    // Any bytes are a text in SQL_ASCII, but a client that wants UTF-8 could not be answered.
    if encoding != PG_SQL_ASCII
        && !bytes.contains(&0)
        && let Ok(length) = c_int::try_from(bytes.len())
        // SAFETY: reads that many bytes and no more.
        && unsafe { pg_sys::pg_encoding_verifymbstr(number(encoding), bytes.as_ptr().cast(), length) } == length
    {
        return bytes.to_vec();
    }
    from_utf8(&String::from_utf8_lossy(bytes))
}

/// What the database holds, as UTF-8. Of a text in SQL_ASCII nobody knows the encoding; it is taken for UTF-8.
pub fn to_utf8(bytes: &[u8]) -> Cow<'_, str> {
    let encoding = of_database();
    if bytes.is_ascii() || matches!(encoding, PG_UTF8 | PG_SQL_ASCII) {
        return String::from_utf8_lossy(bytes);
    }
    let converted = convert(bytes, encoding, PG_UTF8);
    Cow::Owned(String::from_utf8_lossy(&converted).into_owned())
}

/// A message in characters that the database's encoding and the client's are sure to have: pgrx hands messages on as they are, in
/// UTF-8, and a message that cannot be converted would become an error about its own bytes.
pub fn sayable(message: String) -> String {
    if message.is_ascii() {
        return message;
    }
    let (client, message) = (of_client(), foreign_text::shown(&message));
    match of_database() {
        PG_UTF8 | PG_SQL_ASCII if matches!(client, PG_UTF8 | PG_SQL_ASCII) => message,
        PG_UTF8 => {
            let can_say = |c: char| {
                let mut bytes = [0; 4];
                c.is_ascii() || has(client, c.encode_utf8(&mut bytes).as_bytes())
            };
            message.chars().map(|c| if can_say(c) { c } else { '?' }).collect()
        }
        _ => message.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect(),
    }
}

/// A text without what neither a text nor a jsonb can hold, and without what is none.
pub fn storable(text: &str) -> Cow<'_, str> {
    if text.is_ascii() && !text.contains('\0') {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(foreign_text::shown(text).replace('\0', FORBIDDEN))
    }
}

fn number(encoding: Encoding) -> c_int {
    encoding.cast_signed()
}

/// Whether an encoding has this one character of UTF-8.
fn has(encoding: Encoding, character: &[u8]) -> bool {
    let mut room = [0; (LONGEST_CHARACTER + 1) * GROWTH];
    conversion(PG_UTF8, encoding)
        .is_some_and(|function| converted(function, (PG_UTF8, encoding), character, &mut room) == character.len())
}

/// The function that converts, if there is one and the catalogs can be asked for it.
fn conversion(from: Encoding, to: Encoding) -> Option<pg_sys::Oid> {
    thread_local! {
        // A few, and they never change: they are PostgreSQL's own.
        static FOUND: RefCell<Vec<((Encoding, Encoding), Option<pg_sys::Oid>)>> = const { RefCell::new(Vec::new()) };
    }
    // SAFETY: reads this process's own state.
    if !unsafe { pg_sys::IsTransactionState() } {
        return None;
    }
    let known = FOUND.with_borrow(|found| {
        found
            .iter()
            .find(|(pair, _)| *pair == (from, to))
            .map(|(_, known)| *known)
    });
    known.unwrap_or_else(|| {
        // SAFETY: a look-up in the catalogs, within a transaction.
        let function = unsafe { pg_sys::FindDefaultConversionProc(number(from), number(to)) };
        let function = (function != pg_sys::InvalidOid).then_some(function);
        FOUND.with_borrow_mut(|found| found.push(((from, to), function)));
        function
    })
}

/// Converts as much of `text` as can be converted, into `room`, and returns how many bytes of it that were.
fn converted(function: pg_sys::Oid, (from, to): (Encoding, Encoding), text: &[u8], room: &mut [u8]) -> usize {
    let (Ok(length), Ok(space)) = (c_int::try_from(text.len()), c_int::try_from(room.len())) else {
        return 0;
    };
    // SAFETY: the function is one for these encodings; it reads `length` bytes and no more, and writes no more than `space`, with
    // a zero byte at the end. It is told to raise no error, but to stop where it cannot go on.
    let done = unsafe {
        pg_sys::pg_do_encoding_conversion_buf(
            function,
            number(from),
            number(to),
            text.as_ptr().cast_mut(),
            length,
            room.as_mut_ptr(),
            space,
            true,
        )
    };
    usize::try_from(done).map_or(0, |done| done.min(text.len()))
}

fn convert(text: &[u8], from: Encoding, to: Encoding) -> Vec<u8> {
    let mut result = Vec::with_capacity(text.len());
    let Some(function) = conversion(from, to) else {
        without_conversion(text, from, &mut result);
        return result;
    };
    let mut room = vec![0; (PIECE + 1) * GROWTH];
    let mut rest = text;
    while !rest.is_empty() {
        let piece = rest.get(..PIECE).unwrap_or(rest);
        let done = converted(function, (from, to), piece, &mut room);
        if let Ok(said) = CStr::from_bytes_until_nul(&room) {
            result.extend_from_slice(said.to_bytes());
        }
        let (cut, all) = (piece.len() - done < LONGEST_CHARACTER, piece.len() == rest.len());
        rest = rest.get(done..).unwrap_or_default();
        // A character that the piece's end has cut comes whole in the next one.
        if !rest.is_empty() && (all || !cut || done == 0) {
            result.push(REPLACEMENT);
            rest = rest.get(length_of_first(rest, from)..).unwrap_or_default();
        }
    }
    result
}

/// ASCII is the same in every encoding that a database can have.
fn without_conversion(text: &[u8], encoding: Encoding, result: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(first) = rest.first() {
        result.push(if first.is_ascii() { *first } else { REPLACEMENT });
        rest = rest.get(length_of_first(rest, encoding)..).unwrap_or_default();
    }
}

/// Bytes of the first character of a text that is not empty.
fn length_of_first(text: &[u8], encoding: Encoding) -> usize {
    // Some encodings look at the second byte too.
    let mut head = [0; LONGEST_CHARACTER];
    for (place, byte) in head.iter_mut().zip(text) {
        *place = *byte;
    }
    // SAFETY: there is a zero byte or more behind what the longest character has.
    let length = unsafe { pg_sys::pg_encoding_mblen(number(encoding), head.as_ptr().cast()) };
    usize::try_from(length).unwrap_or(1).clamp(1, text.len().max(1))
}
