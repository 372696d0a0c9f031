//! The type text between Rust and SQL, in whatever encoding the database has.

use std::borrow::Cow;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::{FromDatum, IntoDatum, impl_sql_translatable, pg_sys};

use crate::memory;

/// A text as the database holds it, which is what goes back into it. pgrx's own `&str` refuses what is not ASCII where the
/// database's encoding is not UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<u8>);

/// The database's encoding, as `mb/pg_wchar.h` numbers them.
fn encoding() -> pg_sys::pg_enc::Type {
    // SAFETY: plain data of the server, set when the session connected.
    unsafe { pg_sys::GetDatabaseEncoding() }.unsigned_abs()
}

/// A message in characters that the database's encoding is sure to have: pgrx hands messages on as they are, in UTF-8.
pub fn sayable(message: String) -> String {
    if message.is_ascii() || matches!(encoding(), pg_sys::pg_enc::PG_UTF8 | pg_sys::pg_enc::PG_SQL_ASCII) {
        return message;
    }
    message.chars().map(|c| if c.is_ascii() { c } else { '?' }).collect()
}

impl Text {
    /// As UTF-8, for comparisons and messages.
    pub fn to_utf8(&self) -> Cow<'_, str> {
        let utf8 = pg_sys::pg_enc::PG_UTF8 as i32;
        if encoding() == pg_sys::pg_enc::PG_UTF8 || self.0.is_ascii() {
            return String::from_utf8_lossy(&self.0);
        }
        let Ok(length) = i32::try_from(self.0.len()) else {
            return String::from_utf8_lossy(&self.0);
        };
        // SAFETY: the bytes are valid in the database's encoding, since they come from a text; the answer is the same bytes, or
        // a palloc'ed string that ends with a NUL.
        unsafe {
            let converted = pg_sys::pg_server_to_any(self.0.as_ptr().cast(), length, utf8);
            if converted.is_null() || std::ptr::eq(converted.cast(), self.0.as_ptr()) {
                return String::from_utf8_lossy(&self.0);
            }
            Cow::Owned(CStr::from_ptr(converted).to_string_lossy().into_owned())
        }
    }

    /// How long it is as the database holds it, bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// As a path: PostgreSQL hands file names to the system as the database encodes them.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }
}

impl FromDatum for Text {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that it is a text.
        memory::before_copy(unsafe { pg_sys::toast_raw_datum_size(datum) });
        // SAFETY: a text is laid out like a bytea.
        unsafe { Vec::<u8>::from_polymorphic_datum(datum, false, pg_sys::BYTEAOID) }.map(Self)
    }
}

impl IntoDatum for Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // A text is laid out like a bytea.
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: FromDatum copies what it reads.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the function's signature says that the argument is a text.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Self(Vec::new()))
    }
}

impl IntoDatum for &Text {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.as_slice().into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl_sql_translatable!(Text, "text");
