//! `restore_command` as the server reads it: what the shell is given, and what the end of it means.
//!
//! Running it is not done here. The rules are those of RestoreArchivedFile() in src/backend/access/transam/xlogarchive.c.

use std::fmt::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use wal::Major;

/// What recovery passes as `%r` before it has found its first restart point: the name of segment 0 of timeline 0. It comes
/// before every segment, so that a command that removes what is older than `%r` removes nothing.
pub const NO_RESTART_POINT: &str = "000000000000000000000000";

/// A command line that the server would not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// `%` and something that is no placeholder. Since PostgreSQL 16.
    #[error("restore_command contains the unexpected placeholder \"%{0}\": write %% for a percent sign")]
    UnknownPlaceholder(char),
    /// `%` at the very end. Since PostgreSQL 16.
    #[error("restore_command ends with a lone \"%\": write %% for a percent sign")]
    LonePercent,
}

/// The name under which recovery has a file put: the last part of `%p`.
pub fn received_as(name: &str) -> &'static str {
    if name.ends_with(".history") {
        "RECOVERYHISTORY"
    } else {
        "RECOVERYXLOG"
    }
}

/// The line that the shell gets: `%f` is `name`, `%p` is `path`, `%r` is [`NO_RESTART_POINT`], `%%` is `%`.
///
/// # Errors
/// What is no placeholder is an error since PostgreSQL 16 (src/common/percentrepl.c), and stays as it is on 15
/// (BuildRestoreCommand() in src/common/archive.c).
pub fn command_line(command: &str, major: Major, name: &str, path: &str) -> Result<String, CommandError> {
    let mut line = String::with_capacity(command.len() + name.len() + path.len());
    let mut rest = command.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            line.push(character);
            continue;
        }
        let before = rest.clone();
        match rest.next() {
            Some('f') => line.push_str(name),
            Some('p') => line.push_str(path),
            Some('r') => line.push_str(NO_RESTART_POINT),
            Some('%') => line.push('%'),
            _ if major == Major::V15 => {
                line.push('%');
                rest = before;
            }
            Some(other) => return Err(CommandError::UnknownPlaceholder(other)),
            None => return Err(CommandError::LonePercent),
        }
    }
    Ok(line)
}

/// Whether recovery stops for good, rather than taking the file as not being there.
///
/// Like wait_result_is_any_signal() in src/common/wait_error.c, called with `include_command_not_found`.
pub fn stops_recovery(status: ExitStatus) -> bool {
    status.signal().is_some() || status.code().is_some_and(|code| code > 125)
}

/// How the command ended, to follow "restore_command": `exited with code 1`.
pub fn ending(status: ExitStatus) -> String {
    let Some(code) = status.code() else {
        let signal = status.signal().unwrap_or_default();
        return format!("was ended by signal {signal}");
    };
    let mut text = format!("exited with code {code}");
    // Writing to a String cannot fail.
    let _ = match code {
        126 => write!(text, ", by which a shell says that a program cannot be run"),
        127 => write!(text, ", by which a shell says that a program was not found"),
        // POSIX: 128 and the number of the signal.
        129..=192 => write!(
            text,
            ", by which a shell says that a program was ended by signal {}",
            code - 128
        ),
        _ => Ok(()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "00000001000000000000000A";

    fn line(command: &str, major: Major) -> Result<String, CommandError> {
        command_line(command, major, NAME, "base/x")
    }

    #[test]
    fn placeholders_are_replaced_as_the_server_does() {
        for major in Major::ALL {
            let made = line("a %f %p %r 100%% %%f %%%f", major);
            let expected = format!("a {NAME} base/x {NO_RESTART_POINT} 100% %f %{NAME}");
            assert_eq!(made, Ok(expected), "{major:?}");
        }
    }

    #[test]
    fn what_is_no_placeholder_is_kept_by_15_and_refused_since_16() {
        assert_eq!(line("date +%Y-%m %", Major::V15).as_deref(), Ok("date +%Y-%m %"));
        // The character after it is looked at on its own.
        assert_eq!(line("%é%%", Major::V15).as_deref(), Ok("%é%"));
        for major in [Major::V16, Major::V17, Major::V18] {
            assert_eq!(line("date +%Y", major), Err(CommandError::UnknownPlaceholder('Y')));
            assert_eq!(line("a %f %", major), Err(CommandError::LonePercent));
        }
    }

    #[test]
    fn history_files_and_segments_come_under_the_names_that_recovery_gives_them() {
        assert_eq!(received_as(NAME), "RECOVERYXLOG");
        assert_eq!(received_as("00000002.history"), "RECOVERYHISTORY");
    }

    #[test]
    fn exit_codes_up_to_125_say_that_the_file_is_not_there() {
        for code in [1, 2, 125] {
            assert!(!stops_recovery(ExitStatus::from_raw(code << 8)), "{code}");
        }
        for code in [126, 127, 128, 137, 255] {
            assert!(stops_recovery(ExitStatus::from_raw(code << 8)), "{code}");
        }
        for signal in [1, 9, 15, 25] {
            assert!(stops_recovery(ExitStatus::from_raw(signal)), "{signal}");
        }
        assert!(!stops_recovery(ExitStatus::from_raw(0)));
    }

    #[test]
    fn the_end_of_a_command_is_told_with_what_the_shell_means_by_it() {
        assert_eq!(ending(ExitStatus::from_raw(1 << 8)), "exited with code 1");
        assert!(ending(ExitStatus::from_raw(127 << 8)).contains("was not found"));
        assert!(ending(ExitStatus::from_raw(137 << 8)).contains("ended by signal 9"));
        assert_eq!(ending(ExitStatus::from_raw(9)), "was ended by signal 9");
    }
}
