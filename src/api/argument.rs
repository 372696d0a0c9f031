//! What callers pass, checked: each function refuses what cannot be meant, and says what would do.

use archive::brief;
use pgrx::AnyNumeric;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::call;
use crate::catalog::Text;
use crate::error::{Error, Result};

/// The value, if it is one of those allowed.
pub fn one_of(argument: &'static str, value: Option<&Text>, allowed: &[&'static str]) -> Result<&'static str> {
    let list = || {
        allowed
            .iter()
            .map(|name| format!("'{name}'"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let Some(value) = value.map(Text::to_utf8) else {
        return Err(Error::NullArgument {
            argument,
            hint: format!("Pass one of {}.", list()),
        });
    };
    allowed.iter().copied().find(|name| *name == value).ok_or_else(|| {
        Error::invalid(
            format!("invalid {argument}: \"{}\"", brief(&value)),
            format!("{argument} can be {}.", list()),
            "Pass one of them, in lower case.",
        )
    })
}

/// What a label may have, as pg_backup_start() takes it: MAXPGPATH.
pub const LONGEST_LABEL: usize = 1024;
/// What a reason or an error may have. It is repeated in ledger and views.
pub const LONGEST_REASON: usize = 10_000;
/// What a path may have: PATH_MAX.
pub const LONGEST_PATH: usize = 4096;

/// Refuses a text that is longer than anybody would read, before anything is made of it.
pub fn no_longer_than(most: usize, argument: &'static str, value: Option<&Text>) -> Result<()> {
    match value.map(Text::bytes) {
        Some(bytes) if bytes > most => Err(Error::invalid(
            format!("{argument} is too long"),
            format!("It has {bytes} bytes, and may have {most}."),
            "Pass a shorter one.",
        )),
        _ => Ok(()),
    }
}

/// Refuses a size in bytes below 0.
pub fn size(argument: &'static str, bytes: Option<i64>) -> Result<()> {
    match bytes {
        Some(bytes) if bytes < 0 => Err(Error::invalid(
            format!("{argument} must not be negative: {bytes}"),
            "A size is counted in bytes, from 0.",
            format!("Leave {argument} out to have it measured."),
        )),
        _ => Ok(()),
    }
}

/// Refuses a number of seconds that is negative, infinite or none at all.
pub fn not_negative(argument: &'static str, seconds: Option<&AnyNumeric>) -> Result<()> {
    match seconds {
        Some(seconds) if !is_finite(seconds) || *seconds < AnyNumeric::from(0) => Err(Error::invalid(
            format!("{argument} must be a number of seconds from 0: {seconds}"),
            "A duration is counted in seconds, from 0; fractions are welcome.",
            format!("Leave {argument} out where it is not known."),
        )),
        _ => Ok(()),
    }
}

/// NaN, Infinity and -Infinity are numeric values, and the only ones that do not end in a digit.
fn is_finite(number: &AnyNumeric) -> bool {
    number.normalize().ends_with(|last: char| last.is_ascii_digit())
}

/// Refuses a number below 1.
pub fn positive(argument: &'static str, value: Option<i64>) -> Result<()> {
    match value {
        Some(value) if value < 1 => Err(Error::invalid(
            format!("{argument} must be greater than 0: {value}"),
            "Timelines are counted from 1, transactions that can be recovered to from 3.",
            format!("Leave {argument} out where there is none."),
        )),
        _ => Ok(()),
    }
}

/// Refuses infinity and -infinity.
pub fn finite(argument: &'static str, time: TimestampWithTimeZone) -> Result<()> {
    if time.is_infinity() || time.is_neg_infinity() {
        return Err(Error::invalid(
            format!("{argument} must be a moment: {time}"),
            "It is compared with other times.",
            format!("Leave {argument} out where it is not known."),
        ));
    }
    Ok(())
}

/// Refuses a time that has not come yet.
pub fn not_in_the_future(argument: &'static str, time: TimestampWithTimeZone) -> Result<()> {
    if pg_sys::TimestampTz::from(time) > call::now() {
        return Err(Error::invalid(
            format!("{argument} is in the future: {time}"),
            "What is recorded has begun.",
            format!("Leave {argument} out for a beginning now."),
        ));
    }
    Ok(())
}

/// Refuses a time that has not come yet, of something that has happened or is to be gone back to.
pub fn has_come(argument: &'static str, time: TimestampWithTimeZone) -> Result<()> {
    if pg_sys::TimestampTz::from(time) > call::now() {
        return Err(Error::invalid(
            format!("{argument} is in the future: {time}"),
            "Nothing was committed then yet, so nothing can be recovered to it or be lost since.",
            format!("Check the clock and the time zone of {argument}, or leave it out where it is not known."),
        ));
    }
    Ok(())
}

/// Refuses a reason for failure where nothing failed.
pub fn error_goes_with_failure(status: &str, error: Option<&Text>) -> Result<()> {
    if status == "completed" && error.is_some() {
        return Err(Error::invalid(
            "error does not go with status \"completed\"",
            "An error is why something failed.",
            "Pass status => 'failed', or leave error out.",
        ));
    }
    Ok(())
}

/// How and when something ended, for a detail line.
pub fn ended(status: &str, at: Option<TimestampWithTimeZone>, error: Option<&Text>) -> String {
    let at = at.map_or_else(String::new, |at| format!(" at {at}"));
    match error {
        Some(error) => format!("It became {status}{at}: {}", brief(&error.to_utf8())),
        None => format!("It became {status}{at}."),
    }
}
