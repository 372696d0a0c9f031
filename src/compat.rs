//! What differs between PostgreSQL majors.

use pgrx::pg_sys;

/// The major that this library is built for, as the WAL format knows it.
pub const MAJOR: wal::Major = {
    #[cfg(feature = "pg15")]
    {
        wal::Major::V15
    }
    #[cfg(feature = "pg16")]
    {
        wal::Major::V16
    }
    #[cfg(feature = "pg17")]
    {
        wal::Major::V17
    }
    #[cfg(feature = "pg18")]
    {
        wal::Major::V18
    }
};

/// Makes `handler` answer `signal`. PostgreSQL 18 renamed the backend's own `pqsignal`.
///
/// # Safety
/// `handler` must be safe to run in a signal handler of this process.
pub unsafe fn set_signal_handler(signal: u32, handler: unsafe extern "C-unwind" fn(std::ffi::c_int)) {
    let signal = signal as std::ffi::c_int;
    // SAFETY: as promised by the caller.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal, Some(handler));
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal, Some(handler));
    }
}

/// A column's row in a tuple description. PostgreSQL 18 keeps it behind the compact ones (access/tupdesc.h, TupleDescAttr()).
///
/// # Safety
/// `description` must be a valid one with more than `column` columns, counted from 0.
pub unsafe fn attribute(description: pg_sys::TupleDesc, column: usize) -> *const pg_sys::FormData_pg_attribute {
    // SAFETY: as promised by the caller.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            (*description).attrs.as_ptr().add(column)
        }
        #[cfg(feature = "pg18")]
        {
            let behind = (*description).compact_attrs.as_ptr().add((*description).natts as usize);
            behind.cast::<pg_sys::FormData_pg_attribute>().add(column)
        }
    }
}

/// Whether this transaction holds a lock on a relation, of whatever mode. PostgreSQL 17 gave LockHeldByMe() another argument.
pub fn is_locked_by_me(relation: pg_sys::Oid) -> bool {
    // SAFETY: a plain variable of this process.
    let database = unsafe { pg_sys::MyDatabaseId };
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database.to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    let mut modes = pg_sys::AccessShareLock..=pg_sys::AccessExclusiveLock;
    modes.any(|mode| {
        let mode = mode as pg_sys::LOCKMODE;
        // SAFETY: looks into this process's own table of locks.
        unsafe {
            #[cfg(any(feature = "pg15", feature = "pg16"))]
            {
                pg_sys::LockHeldByMe(&tag, mode)
            }
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            {
                pg_sys::LockHeldByMe(&tag, mode, false)
            }
        }
    })
}

/// All settings that this process knows. PostgreSQL 16 made of the array a hash table, and hands out a copy.
pub fn settings() -> Vec<*const pg_sys::config_generic> {
    // SAFETY: an array of as many pointers; what they point to lives as long as the process.
    unsafe {
        #[cfg(feature = "pg15")]
        let (all, count) = (pg_sys::get_guc_variables(), pg_sys::GetNumConfigOptions());
        #[cfg(not(feature = "pg15"))]
        let (all, count) = {
            let mut count = 0;
            (pg_sys::get_guc_variables(&mut count), count)
        };
        let count = usize::try_from(count).unwrap_or(0);
        (0..count).map(|place| (*all.add(place)).cast_const()).collect()
    }
}
