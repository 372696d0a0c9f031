//! Keys of rows as SQL's bigint[].

use pgrx::{IntoDatum, impl_sql_translatable, pg_sys};

/// Keys. pgrx would make an array of a `Vec` with a call into PostgreSQL for each element, and a gap can break every backup of
/// years.
#[derive(Clone, Debug)]
pub struct Ids(pub Vec<i64>);

impl IntoDatum for Ids {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let mut elements: Vec<pg_sys::Datum> = self.0.into_iter().map(pg_sys::Datum::from).collect();
        let count = i32::try_from(elements.len()).ok()?;
        // SAFETY: as many elements as it says, passed by value as int8 is; the array is made in the current memory context.
        let array = unsafe { pg_sys::construct_array_builtin(elements.as_mut_ptr(), count, pg_sys::INT8OID) };
        Some(pg_sys::Datum::from(array))
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::INT8ARRAYOID
    }
}

// SAFETY: the Datum is an array that PostgreSQL has made.
unsafe impl pgrx::callconv::BoxRet for Ids {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut pgrx::callconv::FcInfo<'fcx>) -> pgrx::datum::Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: as above.
            Some(array) => unsafe { fcinfo.return_raw_datum(array) },
            None => fcinfo.return_null(),
        }
    }
}

impl_sql_translatable!(Ids, "bigint[]");
