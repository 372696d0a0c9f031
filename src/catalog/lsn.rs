//! The type pg_lsn between Rust and SQL.

use pgrx::{FromDatum, IntoDatum, impl_sql_translatable, pg_sys};

/// A position in the WAL, as the SQL type pg_lsn holds it: bytes since the cluster's WAL began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PgLsn(pub u64);

impl std::fmt::Display for PgLsn {
    /// As pg_lsn is printed (`src/backend/utils/adt/pg_lsn.c`).
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromDatum for PgLsn {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        // pg_lsn is passed by value on every platform with 8-byte Datums, the only ones that pgrx builds for.
        (!is_null).then(|| Self(datum.value() as u64))
    }
}

impl IntoDatum for PgLsn {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(pg_sys::Datum::from(self.0))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::PG_LSNOID
    }
}

// SAFETY: FromDatum, BoxRet and ArgAbi below read and write nothing but the 8 bytes of a pg_lsn Datum.
unsafe impl pgrx::callconv::BoxRet for PgLsn {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut pgrx::callconv::FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: a pg_lsn is passed by value.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

// SAFETY: as above.
unsafe impl<'fcx> pgrx::callconv::ArgAbi<'fcx> for PgLsn {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: the function's signature says that the argument is a pg_lsn.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or(Self(0))
    }
}

impl_sql_translatable!(PgLsn, "pg_lsn");
