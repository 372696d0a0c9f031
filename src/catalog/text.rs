//! The type text between Rust and SQL, in whatever encoding the database has.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::{FromDatum, IntoDatum, impl_sql_translatable, pg_sys};

use super::encoding;
use crate::memory;

/// A text as the database holds it, which is what goes back into it. pgrx's own `&str` refuses what is not UTF-8, and its
/// `String` writes UTF-8 whatever the database's encoding is, so that neither has a place in what SQL sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// As UTF-8, for comparisons and messages.
    pub fn to_utf8(&self) -> Cow<'_, str> {
        encoding::to_utf8(&self.0)
    }

    /// A text from outside, of whatever bytes.
    pub fn from_outside(bytes: &[u8]) -> Self {
        Self(encoding::from_outside(bytes))
    }

    /// Whether PostgreSQL, told this name in UTF-8, would know it for the one that WAL has: in WAL it is in whatever encoding the
    /// database had that it was made in, and a character that stands here may stand in for one that was none.
    pub fn is_same_everywhere(&self) -> bool {
        if encoding::is_utf8() {
            !self.to_utf8().contains(char::REPLACEMENT_CHARACTER)
        } else {
            self.0.is_ascii() && !self.0.contains(&b'?')
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

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(encoding::from_utf8(text))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
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

    fn is_compatible_with(other: pg_sys::Oid) -> bool {
        matches!(other, pg_sys::TEXTOID | pg_sys::VARCHAROID)
    }
}

// SAFETY: FromDatum copies what it reads.
unsafe impl<'fcx> ArgAbi<'fcx> for Text {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the function's signature says that the argument is a text.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Self(Vec::new()))
    }
}

// SAFETY: the Datum is a text that IntoDatum has made.
unsafe impl pgrx::callconv::BoxRet for Text {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut pgrx::callconv::FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: as above.
            Some(text) => unsafe { fcinfo.return_raw_datum(text) },
            None => fcinfo.return_null(),
        }
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
