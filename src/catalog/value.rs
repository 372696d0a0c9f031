//! The border between a statement and Rust: which types go in, which come out, and that texts are converted on the way.
//!
//! pgrx would take and give a `String` as it is, in UTF-8, in a database of another encoding too. So what a statement takes and
//! gives are the types that are named here, and no others.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{AnyNumeric, FromDatum, IntoDatum, PgMemoryContexts, pg_sys};

use super::encoding;
use super::{Ids, Image, PgLsn, Text};
use crate::error::Result;

/// What a statement gets in place of `$1`, `$2` and so on: made of a [`Value`] by `into()`.
pub struct Argument {
    /// `None` for NULL. Where it is no plain number, it lives in the memory context that was current when it was made.
    pub value: Option<pg_sys::Datum>,
    /// Its type.
    pub kind: pg_sys::Oid,
}

impl<T: Value> From<T> for Argument {
    fn from(value: T) -> Self {
        Self {
            value: value.datum(),
            kind: T::kind(),
        }
    }
}

/// A type that can be an [`Argument`].
pub trait Value {
    /// The value as PostgreSQL has it, made in the current memory context.
    fn datum(self) -> Option<pg_sys::Datum>;
    /// Its type.
    fn kind() -> pg_sys::Oid;
}

/// A type that a column of a row can be read as.
pub trait Column: Sized {
    /// Reads a value; `None` for NULL.
    ///
    /// # Safety
    /// `value` must be of the type `kind`.
    unsafe fn read(
        value: pg_sys::Datum,
        is_null: bool,
        kind: pg_sys::Oid,
        memory: pg_sys::MemoryContext,
    ) -> Result<Option<Self>>;
}

/// Types that hold no text, or a text in the database's own encoding: pgrx's conversion is right for them.
macro_rules! values {
    ($($kind:ty),* $(,)?) => {$(
        impl Value for $kind {
            fn datum(self) -> Option<pg_sys::Datum> {
                self.into_datum()
            }

            fn kind() -> pg_sys::Oid {
                <$kind as IntoDatum>::type_oid()
            }
        }
    )*};
}

macro_rules! columns {
    ($($kind:ty),* $(,)?) => {$(
        impl Column for $kind {
            unsafe fn read(
                value: pg_sys::Datum,
                is_null: bool,
                kind: pg_sys::Oid,
                memory: pg_sys::MemoryContext,
            ) -> Result<Option<Self>> {
                // SAFETY: as the caller says; what is made lives in `memory`.
                Ok(unsafe {
                    <$kind>::try_from_datum_in_memory_context(PgMemoryContexts::For(memory), value, is_null, kind)
                }?)
            }
        }
    )*};
}

values!(
    bool,
    i32,
    i64,
    f64,
    AnyNumeric,
    TimestampWithTimeZone,
    pg_sys::Oid,
    pg_sys::ItemPointerData,
    PgLsn,
    Ids,
    Image,
    Text,
    &Text,
    Vec<u8>
);
values!(
    Vec<i32>,
    Vec<i64>,
    Vec<Option<i64>>,
    Vec<Option<TimestampWithTimeZone>>,
    Vec<Text>,
    Vec<Option<Text>>
);
columns!(
    bool,
    i32,
    i64,
    f64,
    AnyNumeric,
    TimestampWithTimeZone,
    PgLsn,
    Image,
    Text,
    Vec<u8>,
    Vec<i64>
);

impl<T: Value> Value for Option<T> {
    fn datum(self) -> Option<pg_sys::Datum> {
        self.and_then(T::datum)
    }

    fn kind() -> pg_sys::Oid {
        T::kind()
    }
}

impl Value for &str {
    fn datum(self) -> Option<pg_sys::Datum> {
        Text::from(self).into_datum()
    }

    fn kind() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl Value for String {
    fn datum(self) -> Option<pg_sys::Datum> {
        self.as_str().datum()
    }

    fn kind() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl Value for Vec<String> {
    fn datum(self) -> Option<pg_sys::Datum> {
        self.into_iter().map(Text::from).collect::<Vec<_>>().into_datum()
    }

    fn kind() -> pg_sys::Oid {
        pg_sys::TEXTARRAYOID
    }
}

impl Value for Vec<Option<String>> {
    fn datum(self) -> Option<pg_sys::Datum> {
        let texts: Vec<Option<Text>> = self.into_iter().map(|text| text.map(Text::from)).collect();
        texts.into_datum()
    }

    fn kind() -> pg_sys::Oid {
        pg_sys::TEXTARRAYOID
    }
}

impl Column for String {
    unsafe fn read(
        value: pg_sys::Datum,
        is_null: bool,
        kind: pg_sys::Oid,
        memory: pg_sys::MemoryContext,
    ) -> Result<Option<Self>> {
        // SAFETY: as the caller says.
        let text = unsafe { Text::read(value, is_null, kind, memory) }?;
        Ok(text.map(|text| text.to_utf8().into_owned()))
    }
}

/// Sentences by the name of the column that each is about, as jsonb.
pub struct Sentences(pub Vec<(&'static str, String)>);

impl Sentences {
    /// The object in JSON, as the database's encoding can have it, with a zero byte at its end. jsonb has no \u0000.
    fn json(self) -> Vec<u8> {
        let object: serde_json::Map<String, serde_json::Value> = self
            .0
            .into_iter()
            .map(|(column, sentence)| (column.to_owned(), encoding::storable(&sentence).into_owned().into()))
            .collect();
        let mut json = encoding::from_utf8(&serde_json::Value::from(object).to_string());
        json.push(0);
        json
    }
}

impl Value for Sentences {
    fn datum(self) -> Option<pg_sys::Datum> {
        let json = self.json();
        // SAFETY: the function takes a string that ends with a zero byte, and keeps none of it.
        unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(json.as_ptr()))]) }
    }

    fn kind() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}
