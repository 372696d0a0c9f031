//! A row as the ledger keeps it: a JSON object that is the same in every session, whatever its TimeZone, DateStyle or
//! IntervalStyle.
//!
//! NULLs are left out, so that a column which a later version adds does not make older events look wrong.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char};

use pgrx::{FromDatum, IntoDatum, PgTupleDesc, impl_sql_translatable, pg_sys};

use super::Extension;
use crate::compat;
use crate::error::{Error, Result};

/// Tells which event describes the row, so it is not itself part of what is described.
const LAST_EVENT: &[u8] = b"last_event_id";

thread_local! {
    // The type of the last row, one of ours: a hundred thousand rows of a table need one look.
    static OWN_TYPE: Cell<Option<pg_sys::Oid>> = const { Cell::new(None) };
}

/// A jsonb that PostgreSQL made; it lives in the memory context that was current then.
pub struct Image(pg_sys::Datum);

impl Image {
    /// The image of a row.
    ///
    /// # Safety
    /// `tuple` must be a valid tuple of the shape that `description` gives.
    pub unsafe fn of(tuple: pg_sys::HeapTuple, description: pg_sys::TupleDesc) -> Self {
        // SAFETY: as the caller says; each value is handed to the output function of its own column's type.
        unsafe {
            let columns = usize::try_from((*description).natts).unwrap_or(0);
            let mut values = vec![pg_sys::Datum::from(0_usize); columns];
            let mut nulls = vec![true; columns];
            pg_sys::heap_deform_tuple(tuple, description, values.as_mut_ptr(), nulls.as_mut_ptr());

            let mut json = pg_sys::StringInfoData::default();
            pg_sys::initStringInfo(&mut json);
            let mut separator = c"{";
            for (column, (value, is_null)) in values.into_iter().zip(nulls).enumerate() {
                let attribute = compat::attribute(description, column);
                let name = (*attribute).attname.data.as_ptr();
                if is_null || (*attribute).attisdropped || CStr::from_ptr(name).to_bytes() == LAST_EVENT {
                    continue;
                }
                pg_sys::appendStringInfoString(&mut json, separator.as_ptr());
                pg_sys::escape_json(&mut json, name);
                pg_sys::appendStringInfoString(&mut json, c":".as_ptr());
                append_value(&mut json, pg_sys::getBaseType((*attribute).atttypid), value);
                separator = c",";
            }
            let end = if separator == c"{" { c"{}" } else { c"}" };
            pg_sys::appendStringInfoString(&mut json, end.as_ptr());
            let image = pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(pg_sys::Datum::from(json.data))]);
            pg_sys::pfree(json.data.cast());
            // jsonb_in() is strict and never returns NULL for a value.
            Self(image.unwrap_or(pg_sys::Datum::from(0_usize)))
        }
    }

    /// The image of a composite value, which must be a row of one of the extension's tables. Any other type may have been changed
    /// since the value was made, so that its bytes are not what the type now says.
    ///
    /// # Errors
    /// [`Error::UnexpectedAnswer`] where it is something else.
    ///
    /// # Safety
    /// `composite` must be a Datum of a row type.
    pub unsafe fn of_composite(composite: pg_sys::Datum) -> Result<Self> {
        // SAFETY: as the caller says; the header names the row's type, whose description is released when `shape` is dropped.
        unsafe {
            let header = pg_sys::pg_detoast_datum(composite.cast_mut_ptr()) as pg_sys::HeapTupleHeader;
            let kind = pgrx::heap_tuple_header_get_type_id(header);
            if OWN_TYPE.get() != Some(kind) {
                let table = pg_sys::typeidTypeRelid(kind);
                let is_ours = |extension: Extension| extension.has(pg_sys::RelationRelationId, table);
                if table == pg_sys::InvalidOid || !Extension::find().is_some_and(is_ours) {
                    return Err(Error::UnexpectedAnswer {
                        what: "a row of the extension's own",
                    });
                }
                OWN_TYPE.set(Some(kind));
            }
            let typmod = pgrx::heap_tuple_header_get_typmod(header);
            let shape = PgTupleDesc::from_pg(pg_sys::lookup_rowtype_tupdesc(kind, typmod));
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::heap_tuple_header_get_datum_length(header) as u32,
                t_data: header,
                ..Default::default()
            };
            Ok(Self::of(&mut tuple, shape.as_ptr()))
        }
    }
}

/// # Safety
/// `value` must be a Datum of the type `kind`, which must be no domain.
unsafe fn append_value(json: &mut pg_sys::StringInfoData, kind: pg_sys::Oid, value: pg_sys::Datum) {
    // SAFETY: as the caller says.
    unsafe {
        match kind {
            pg_sys::BOOLOID => {
                let text = if value.value() == 0 { c"false" } else { c"true" };
                pg_sys::appendStringInfoString(json, text.as_ptr());
            }
            // In UTC, in the one form that JSON has for it (utils/adt/json.c).
            pg_sys::TIMESTAMPTZOID => {
                let utc = 0;
                append_quoted(
                    json,
                    pg_sys::JsonEncodeDateTime(std::ptr::null_mut(), value, kind, &utc),
                );
            }
            pg_sys::INTERVALOID => {
                let interval = &*value.cast_mut_ptr::<pg_sys::Interval>();
                let sign = if interval.time < 0 { "-" } else { "" };
                let time = interval.time.unsigned_abs();
                let text = format!(
                    "P{}M{}DT{sign}{}.{:06}S",
                    interval.month,
                    interval.day,
                    time / 1_000_000,
                    time % 1_000_000
                );
                let text = CString::new(text).unwrap_or_default();
                pg_sys::escape_json(json, text.as_ptr());
            }
            _ => {
                let mut function = pg_sys::InvalidOid;
                let mut is_varlena = false;
                pg_sys::getTypeOutputInfo(kind, &mut function, &mut is_varlena);
                let text = pg_sys::OidOutputFunctionCall(function, value);
                if is_json(kind, text) {
                    pg_sys::appendStringInfoString(json, text);
                    pg_sys::pfree(text.cast());
                } else {
                    append_quoted(json, text);
                }
            }
        }
    }
}

/// # Safety
/// `text` must be a palloc'ed string; it is freed.
unsafe fn append_quoted(json: &mut pg_sys::StringInfoData, text: *mut c_char) {
    // SAFETY: as the caller says.
    unsafe {
        pg_sys::escape_json(json, text);
        pg_sys::pfree(text.cast());
    }
}

/// Whether the text of a value is JSON as it stands.
///
/// # Safety
/// `text` must be a NUL-terminated string.
unsafe fn is_json(kind: pg_sys::Oid, text: *const c_char) -> bool {
    match kind {
        pg_sys::INT2OID | pg_sys::INT4OID | pg_sys::INT8OID | pg_sys::JSONBOID => true,
        // NaN and Infinity are no JSON numbers.
        // SAFETY: as the caller says.
        pg_sys::NUMERICOID => unsafe { CStr::from_ptr(text) }
            .to_bytes()
            .last()
            .is_some_and(u8::is_ascii_digit),
        _ => false,
    }
}

impl FromDatum for Image {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _typoid: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: the caller says that it is a jsonb; what it lives in may go before its copy does.
        let copy = unsafe { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()) };
        Some(Self(pg_sys::Datum::from(copy)))
    }
}

impl IntoDatum for Image {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the Datum is a jsonb, and is handed on as it is.
unsafe impl pgrx::callconv::BoxRet for Image {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut pgrx::callconv::FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        // SAFETY: made in the function's own memory context.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

impl_sql_translatable!(Image, "jsonb");
