//! Words for durations and lists, so that every sentence reads the same.

use std::time::Duration;

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

/// An amount as people say it: `512 bytes`, `16 MB`, `1.4 GB`; a kB has 1024 bytes, as in PostgreSQL.
pub(crate) fn bytes(amount: f64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    let mut rest = amount.max(0.0);
    let mut unit = "bytes";
    for next in UNITS {
        if rest < 1024.0 {
            break;
        }
        rest /= 1024.0;
        unit = next;
    }
    if unit == "bytes" || rest >= 10.0 {
        format!("{rest:.0} {unit}")
    } else {
        format!("{rest:.1} {unit}")
    }
}

/// `backup 3`, `backups 3 and 4`, `backups 3, 4, 5 and 12 more`.
pub(crate) fn backups(ids: &[i64]) -> String {
    match ids {
        [] => "no backup".to_owned(),
        [one] => format!("backup {one}"),
        [first, second] => format!("backups {first} and {second}"),
        [a, b, c] => format!("backups {a}, {b} and {c}"),
        [a, b, c, rest @ ..] => format!("backups {a}, {b}, {c} and {} more", rest.len()),
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
        assert_eq!(bytes(512.0), "512 bytes");
        assert_eq!(bytes(1_503_238_554.0), "1.4 GB");
        assert_eq!(bytes(16.0 * 1024.0 * 1024.0), "16 MB");
        assert_eq!(bytes(f64::NAN), "0 bytes");
        assert_eq!(backups(&[3]), "backup 3");
        assert_eq!(backups(&[3, 4, 5, 6, 7]), "backups 3, 4, 5 and 2 more");
    }
}
