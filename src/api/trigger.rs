//! What trigger functions share: their result, and reading a column of the row at hand.

use std::ffi::CStr;

use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys::panic::{ErrorReport, ErrorReportable};
use pgrx::{AllocatedByPostgres, FromDatum, IntoDatum, pg_sys};

use crate::error::Result;

/// What a trigger gives back: the row to go on with, nothing after a statement trigger.
pub type TriggerRow<'a> = Option<PgHeapTuple<'a, AllocatedByPostgres>>;

/// The SQLSTATE must not get lost in the wrapper of a trigger function, which panics on `Err`.
pub fn or_report<T>(result: Result<T>) -> Result<T, ErrorReport> {
    Ok(result.map_err(ErrorReport::from).unwrap_or_report())
}

/// Position and value of a column; `None` where there is no such column of that type.
///
/// # Safety
/// `tuple` must be of the shape `shape`.
pub unsafe fn column<T: FromDatum + IntoDatum>(
    tuple: pg_sys::HeapTuple,
    shape: pg_sys::TupleDesc,
    name: &CStr,
) -> Option<(i32, Option<T>)> {
    // SAFETY: as the caller says; the column was found by its name, and its type is the value's.
    unsafe {
        let position = pg_sys::SPI_fnumber(shape, name.as_ptr());
        if position <= 0 || pg_sys::SPI_gettypeid(shape, position) != T::type_oid() {
            return None;
        }
        let mut is_null = false;
        let value = pg_sys::SPI_getbinval(tuple, shape, position, &mut is_null);
        Some((position, T::from_datum(value, is_null)))
    }
}
