//! Words for durations and lists, so that every sentence reads the same.

use std::time::Duration;

use chrono::{DateTime, Utc};

/// A duration as people say it: `45 s`, `12 min`, `3 h 20 min`, `9 days`.
pub(crate) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match () {
        () if seconds < 120 => format!("{seconds} s"),
        () if minutes < 120 => format!("{minutes} min"),
        () if hours < 48 && minutes % 60 != 0 => format!("{hours} h {} min", minutes % 60),
        () if hours < 48 => format!("{hours} h"),
        () => format!("{days} days"),
    }
}

/// The same for a number of seconds that may be anything.
pub(crate) fn seconds(seconds: f64) -> String {
    span(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}

/// A moment as PostgreSQL reads it, and shows it where TimeZone is UTC: `2026-11-21 15:38:17.12345+00`.
#[must_use]
pub fn moment(at: DateTime<Utc>) -> String {
    let shown = at.format("%Y-%m-%d %H:%M:%S%.6f").to_string();
    // The same moment in a message and in a column is the same text.
    format!("{}+00", shown.trim_end_matches('0').trim_end_matches('.'))
}

/// A number of bytes as people say it: `512 bytes`, `35 MB`, `2.4 GB`.
pub(crate) fn size(bytes: u64) -> String {
    const KB: u64 = 1 << 10;
    const MB: u64 = 1 << 20;
    const GB: u64 = 1 << 30;
    match bytes {
        GB.. => format!("{}.{} GB", bytes / GB, bytes % GB * 10 / GB),
        MB.. => format!("{} MB", bytes / MB),
        KB.. => format!("{} kB", bytes / KB),
        _ => format!("{bytes} bytes"),
    }
}

/// `backup 3`, `backups 3 and 4`, `backups 3, 4, 5 and 12 more`; `at least 12 more` where not all are counted.
pub(crate) fn backups(ids: &[i64], and_more: bool) -> String {
    let at_least = if and_more { "at least " } else { "" };
    match ids {
        [] => "no backup".to_owned(),
        [one] => format!("backup {one}"),
        [first, second] => format!("backups {first} and {second}"),
        [a, b, c] => format!("backups {a}, {b} and {c}"),
        [a, b, c, rest @ ..] => format!("backups {a}, {b}, {c} and {at_least}{} more", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_lists_read_as_people_say_them() {
        let shown = |s| span(Duration::from_secs(s));
        assert_eq!(shown(45), "45 s");
        assert_eq!(shown(725), "12 min");
        assert_eq!(shown(12_000), "3 h 20 min");
        assert_eq!(shown(7200), "2 h");
        assert_eq!(shown(800_000), "9 days");
        assert_eq!(seconds(f64::NAN), "0 s");
        assert_eq!(seconds(-5.0), "0 s");
        let at = |micros| moment(DateTime::from_timestamp_micros(micros).unwrap_or_default());
        assert_eq!(at(1_700_000_000_120_000), "2023-11-14 22:13:20.12+00");
        assert_eq!(at(1_700_000_000_000_000), "2023-11-14 22:13:20+00");
        assert_eq!(backups(&[3], false), "backup 3");
        assert_eq!(backups(&[3, 4, 5, 6, 7], false), "backups 3, 4, 5 and 2 more");
        assert_eq!(backups(&[3, 4, 5, 6, 7], true), "backups 3, 4, 5 and at least 2 more");
    }
}
