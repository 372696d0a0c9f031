//! Schedules as cron expressions: five fields, checked when they are entered, with the place of the fault.
//!
//! `croner` reads them; what it does not say, where in the expression the fault lies, is found by trying the fields one by one.

use chrono::{DateTime, TimeZone, Utc};
use croner::Cron;
use croner::errors::CronError as Refusal;
use croner::parser::{CronParser, Seconds, Year};

/// The fields in their order.
const FIELDS: [&str; 5] = ["minute", "hour", "day of month", "month", "day of week"];
/// What may stand for all five fields.
const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];
/// Longer than any expression that a person writes.
const LONGEST: usize = 256;
/// What has more bytes need not be looked at: no expression has.
pub const MOST_BYTES: usize = 1024;

/// Why a cron expression is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}, at character {position}{}", in_field(.field))]
pub struct CronError {
    /// Where the fault begins, in characters, counted from 1.
    pub position: usize,
    /// The field that it lies in, where it lies in one.
    pub field: Option<&'static str>,
    /// What is wrong.
    pub message: String,
}

fn in_field(field: &Option<&'static str>) -> String {
    field.map_or(String::new(), |field| format!(" ({field})"))
}

/// Checks an expression: five fields (minute, hour, day of month, month, day of week), or `@daily` and the like, that comes true at
/// some time.
pub fn check(expression: &str) -> Result<(), CronError> {
    parse(expression).map(|_| ())
}

/// The next time after `after` at which the schedule is due, in `after`'s time zone.
pub fn next_due<Tz: TimeZone>(expression: &str, after: &DateTime<Tz>) -> Result<DateTime<Tz>, CronError> {
    next(&parse(expression)?, after).map_err(|refusal| never(expression, &refusal))
}

fn next<Tz: TimeZone>(cron: &Cron, after: &DateTime<Tz>) -> Result<DateTime<Tz>, Refusal> {
    cron.find_next_occurrence(after, false)
}

fn parse(expression: &str) -> Result<Cron, CronError> {
    let fail = |position, field, message: String| {
        Err(CronError {
            position,
            field,
            message,
        })
    };
    if expression.len() > MOST_BYTES || expression.chars().nth(LONGEST).is_some() {
        return fail(
            LONGEST + 1,
            None,
            format!("a cron expression has at most {LONGEST} characters"),
        );
    }
    let fields = words(expression);
    let end = expression.chars().count() + 1;
    match fields.as_slice() {
        [] => return fail(1, None, "a cron expression must not be empty".to_owned()),
        [(position, nickname)] if nickname.starts_with('@') => {
            if !NICKNAMES.iter().any(|known| known.eq_ignore_ascii_case(nickname)) {
                return fail(
                    *position,
                    None,
                    format!("{nickname} is not one of {}", NICKNAMES.join(", ")),
                );
            }
        }
        five if five.len() == FIELDS.len() => {
            for (index, ((position, text), field)) in five.iter().zip(FIELDS).enumerate() {
                if let Some((offset, message)) = fault(index, text) {
                    return fail(position + offset, Some(field), message);
                }
            }
        }
        fewer if fewer.len() < FIELDS.len() => {
            let missing = FIELDS.get(fewer.len()).copied();
            let message = format!("a cron expression has five fields, this one has {}", fewer.len());
            return fail(end, missing, message);
        }
        more => {
            let position = more.get(FIELDS.len()).map_or(end, |(position, _)| *position);
            return fail(
                position,
                None,
                format!("a cron expression has five fields, this one has {}", more.len()),
            );
        }
    }
    let cron = read(expression).map_err(|message| CronError {
        position: 1,
        field: None,
        message,
    })?;
    // Well-formed, and yet for no day that there is: 30 February.
    let some_day = DateTime::<Utc>::UNIX_EPOCH;
    match next(&cron, &some_day) {
        Ok(_) => Ok(cron),
        Err(refusal) => Err(never(expression, &refusal)),
    }
}

fn never(expression: &str, refusal: &Refusal) -> CronError {
    let position = words(expression).get(2).map_or(1, |(position, _)| *position);
    let message = match refusal {
        Refusal::TimeSearchLimitExceeded | Refusal::InvalidDate => "no such day ever comes".to_owned(),
        other => other.to_string(),
    };
    CronError {
        position,
        field: FIELDS.get(2).copied(),
        message,
    }
}

/// The words of an expression with where they begin, in characters from 1.
fn words(expression: &str) -> Vec<(usize, String)> {
    let mut words: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (index, c) in expression.chars().enumerate() {
        if c.is_whitespace() {
            inside = false;
            continue;
        }
        match words.last_mut() {
            Some((_, word)) if inside => word.push(c),
            _ => words.push((index + 1, c.to_string())),
        }
        inside = true;
    }
    words
}

/// The first fault of a field: how many characters into it, and what it is.
fn fault(index: usize, text: &str) -> Option<(usize, String)> {
    if let Some(offset) = text
        .chars()
        .position(|c| !(c.is_ascii_alphanumeric() || "*,-/?#+".contains(c)))
    {
        let c = text.chars().nth(offset).unwrap_or_default();
        return Some((
            offset,
            format!("the character {c:?} has no meaning in a cron expression"),
        ));
    }
    let with = |part: &str| {
        let mut fields = ["*"; 5];
        if let Some(field) = fields.get_mut(index) {
            *field = part;
        }
        read(&fields.join(" "))
    };
    // Of a list, the first item that is refused on its own. croner reads over an empty one, which is a slip all the same.
    let mut offset = 0;
    for item in text.split(',') {
        if item.is_empty() {
            return Some((offset, "a list must not have an empty item".to_owned()));
        }
        if let Err(message) = with(item) {
            return Some((offset, message));
        }
        offset += item.chars().count() + 1;
    }
    with(text).err().map(|whole| (0, whole))
}

fn read(expression: &str) -> Result<Cron, String> {
    let parser = CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build();
    parser.parse(expression).map_err(|refusal| match refusal {
        Refusal::ComponentError(message) | Refusal::InvalidPattern(message) | Refusal::IllegalCharacters(message) => {
            message.trim_end_matches('.').to_owned()
        }
        other => other.to_string().trim_end_matches('.').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use chrono::FixedOffset;
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn refused(expression: &str, position: usize, field: Option<&str>) -> String {
        let error = check(expression).expect_err(expression);
        assert_eq!(
            (error.position, error.field),
            (position, field),
            "{expression}: {error}"
        );
        error.to_string()
    }

    #[test]
    fn what_cron_takes_is_taken() {
        for expression in [
            "0 3 * * *",
            "*/15 0-6,22 1,15 JAN-MAR mon-fri",
            "  30   2 * *\t7 ",
            "0 0 L * *",
            "0 0 29 2 *",
            "0 0 * * 5L",
            "0 0 ? * MON#2",
            "@daily",
            "@Weekly",
        ] {
            check(expression).unwrap_or_else(|e| panic!("{expression}: {e}"));
        }
    }

    #[test]
    fn a_fault_is_shown_by_its_place_and_field() {
        refused("61 3 * * *", 1, Some("minute"));
        refused("0 24 * * *", 3, Some("hour"));
        refused("0 3 32 * *", 5, Some("day of month"));
        refused("0 3 * 13 *", 7, Some("month"));
        refused("0 3 * * 9", 9, Some("day of week"));
        refused("0  3,5,77 * * *", 8, Some("hour"));
        refused("0 3,,5 * * *", 5, Some("hour"));
        refused("0 3 * * MOO", 9, Some("day of week"));
        refused("0 é * * *", 3, Some("hour"));
        refused("0 3;4 * * *", 4, Some("hour"));
        refused("5-1 3 * * *", 1, Some("minute"));
        refused("*/0 3 * * *", 1, Some("minute"));
        let shown = refused("0 99 * * *", 3, Some("hour"));
        assert!(shown.contains("character 3 (hour)"), "{shown}");
    }

    #[test]
    fn five_fields_it_is() {
        let shown = refused("0 3 * *", 8, Some("day of week"));
        assert!(shown.contains("this one has 4"), "{shown}");
        let shown = refused("0 0 3 * * *", 11, None);
        assert!(shown.contains("this one has 6"), "{shown}");
        refused("", 1, None);
        refused("   ", 1, None);
        refused("daily", 6, Some("hour"));
        refused(" @never", 2, None);
        refused(&"1,".repeat(200), 257, None);
    }

    #[test]
    fn a_day_that_never_comes_is_refused() {
        let shown = refused("0 0 30 2 *", 5, Some("day of month"));
        assert!(shown.contains("no such day ever comes"), "{shown}");
    }

    #[test]
    fn the_next_time_is_in_the_time_zone_that_was_asked_in() {
        let zone = FixedOffset::east_opt(2 * 3600).unwrap();
        let after = zone.with_ymd_and_hms(2024, 2, 28, 3, 0, 0).unwrap();
        assert_eq!(
            next_due("0 3 * * *", &after).unwrap(),
            zone.with_ymd_and_hms(2024, 2, 29, 3, 0, 0).unwrap()
        );
        assert_eq!(
            next_due("30 3 * * *", &after).unwrap(),
            zone.with_ymd_and_hms(2024, 2, 28, 3, 30, 0).unwrap()
        );
        assert!(next_due("x", &after).is_err());
    }

    proptest! {
        #[test]
        fn no_text_at_all_makes_it_panic(text in "\\PC{0,40}") {
            let _ = check(&text);
        }

        #[test]
        fn nothing_that_looks_like_cron_makes_it_panic(text in "[0-9*,/#LWA-Z?+ -]{0,30}( [0-9*,/#LW-]{1,6}){0,5}") {
            if let Err(error) = check(&text) {
                prop_assert!(error.position >= 1 && error.position <= text.chars().count() + 1);
            }
        }
    }
}
