//! A shell command line taken apart as far as needed to see what it stores where; it is read, never run.
//!
//! Words are split by `shlex`; what it does not know, the operators between commands and the redirections, is found here first.
//! Whatever lets the shell compute (variables, substitutions, globs, compound commands) is refused rather than guessed at.

/// Stands for `%p` in a word: the path of the segment, relative to the data directory.
pub(crate) const SEGMENT_PATH: char = '\u{1}';
/// Stands for `%f` in a word: the file name of the segment.
pub(crate) const SEGMENT_NAME: char = '\u{2}';

/// One command of the line, without what joins it to the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Command {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Where standard output goes, if not to the log.
    pub stdout: Option<String>,
    /// Where standard input comes from.
    pub stdin: Option<String>,
}

/// Why a command line cannot be followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ShellError {
    /// A quote without its partner, or an escape at the end.
    Unbalanced,
    /// The shell would compute something: the construct.
    Computed(&'static str),
    /// Commands joined by a pipe.
    Pipe,
    /// A redirection without a word after it.
    NoTarget,
    /// A control character that no path in a setting should hold.
    ControlCharacter,
}

/// Replaces `%p`, `%f` and `%%` as PostgreSQL does before it calls the shell
/// (`replace_percent_placeholders` in src/common/percentrepl.c); the first two by marks that cannot be typed.
pub(crate) fn substitute(template: &str) -> Result<String, ShellError> {
    if template.contains(|c: char| c.is_control() && !matches!(c, '\t' | '\n')) {
        return Err(ShellError::ControlCharacter);
    }
    let mut out = String::with_capacity(template.len());
    let mut chars = template.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.peek() {
            Some('p') => out.push(SEGMENT_PATH),
            Some('f') => out.push(SEGMENT_NAME),
            Some('%') => out.push('%'),
            // 15 leaves any other pair as it is; later majors refuse it before the command runs.
            _ => {
                out.push('%');
                continue;
            }
        }
        chars.next();
    }
    Ok(out)
}

/// A piece of the line: text between operators, or an operator.
enum Piece {
    Text(String),
    Next,
    Into,
    From,
}

/// Takes a line apart into its commands. The marks of [`substitute`] pass through.
pub(crate) fn commands(line: &str) -> Result<Vec<Command>, ShellError> {
    let mut commands = Vec::new();
    let mut command = Command::default();
    let mut pending: Option<Piece> = None;
    for piece in pieces(line)? {
        match piece {
            Piece::Text(text) => {
                let mut words = shlex::split(&text).ok_or(ShellError::Unbalanced)?.into_iter();
                match pending.take() {
                    Some(Piece::Into) => command.stdout = Some(words.next().ok_or(ShellError::NoTarget)?),
                    Some(Piece::From) => command.stdin = Some(words.next().ok_or(ShellError::NoTarget)?),
                    _ => {}
                }
                command.words.extend(words);
            }
            Piece::Next => {
                if pending.is_some() {
                    return Err(ShellError::NoTarget);
                }
                commands.push(std::mem::take(&mut command));
            }
            redirection => pending = Some(redirection),
        }
    }
    if pending.is_some() {
        return Err(ShellError::NoTarget);
    }
    commands.push(command);
    commands.retain(|c| *c != Command::default());
    Ok(commands)
}

fn pieces(line: &str) -> Result<Vec<Piece>, ShellError> {
    let mut pieces = Vec::new();
    let mut text = String::new();
    let mut chars = line.chars().peekable();
    let flush = |text: &mut String, pieces: &mut Vec<Piece>| {
        if !text.trim().is_empty() {
            pieces.push(Piece::Text(std::mem::take(text)));
        }
        text.clear();
    };
    while let Some(c) = chars.next() {
        match c {
            '\'' => {
                text.push(c);
                loop {
                    let inner = chars.next().ok_or(ShellError::Unbalanced)?;
                    text.push(inner);
                    if inner == '\'' {
                        break;
                    }
                }
            }
            '"' => {
                text.push(c);
                loop {
                    let inner = chars.next().ok_or(ShellError::Unbalanced)?;
                    text.push(inner);
                    match inner {
                        '"' => break,
                        '\\' => text.push(chars.next().ok_or(ShellError::Unbalanced)?),
                        '$' => return Err(ShellError::Computed("a shell variable or substitution")),
                        '`' => return Err(ShellError::Computed("a command substitution")),
                        _ => {}
                    }
                }
            }
            '\\' => {
                text.push(c);
                text.push(chars.next().ok_or(ShellError::Unbalanced)?);
            }
            '$' => return Err(ShellError::Computed("a shell variable or substitution")),
            '`' => return Err(ShellError::Computed("a command substitution")),
            '(' | ')' => return Err(ShellError::Computed("a subshell")),
            '*' | '?' => return Err(ShellError::Computed("a file name pattern")),
            // Within a word this is a comment only at its beginning.
            '#' if text.is_empty() || text.ends_with(char::is_whitespace) => {
                while chars.next_if(|c| *c != '\n').is_some() {}
            }
            ';' | '\n' => {
                flush(&mut text, &mut pieces);
                pieces.push(Piece::Next);
            }
            '&' => {
                if chars.next_if_eq(&'&').is_none() {
                    return Err(ShellError::Computed("a command in the background"));
                }
                flush(&mut text, &mut pieces);
                pieces.push(Piece::Next);
            }
            '|' => {
                if chars.next_if_eq(&'|').is_none() {
                    return Err(ShellError::Pipe);
                }
                flush(&mut text, &mut pieces);
                pieces.push(Piece::Next);
            }
            '<' => {
                flush(&mut text, &mut pieces);
                pieces.push(Piece::From);
            }
            '>' => {
                let descriptor = descriptor_before(&mut text);
                flush(&mut text, &mut pieces);
                chars.next_if_eq(&'>');
                if chars.next_if_eq(&'&').is_some() {
                    // `2>&1`: the number is the whole target, and no file.
                    while chars.next_if(|c| c.is_ascii_digit() || *c == '-').is_some() {}
                } else if descriptor.is_some_and(|d| d != 1) {
                    skip_word(&mut chars)?;
                } else {
                    pieces.push(Piece::Into);
                }
            }
            _ => text.push(c),
        }
    }
    flush(&mut text, &mut pieces);
    Ok(pieces)
}

/// Takes the descriptor off `2>`: digits directly before the sign, a word of their own.
fn descriptor_before(text: &mut String) -> Option<u32> {
    let head = text.trim_end_matches(|c: char| c.is_ascii_digit());
    if head.len() == text.len() || !(head.is_empty() || head.ends_with(char::is_whitespace)) {
        return None;
    }
    let number = text.get(head.len()..)?.parse().ok();
    let keep = head.len();
    text.truncate(keep);
    number
}

/// Passes over the target of a redirection that does not matter (messages to a file).
fn skip_word(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<(), ShellError> {
    while chars.next_if(|c| c.is_whitespace() && *c != '\n').is_some() {}
    let mut any = false;
    while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !matches!(c, '&' | '|' | ';' | '<' | '>')) {
        if matches!(c, '\'' | '"' | '$' | '`' | '\\') {
            return Err(ShellError::Computed("a quoted or computed redirection of messages"));
        }
        any = true;
    }
    if any { Ok(()) } else { Err(ShellError::NoTarget) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<String>> {
        commands(line).unwrap().into_iter().map(|c| c.words).collect()
    }

    #[test]
    fn commands_are_split_at_operators_but_not_inside_quotes() {
        assert_eq!(
            words("a 'b && c' && d \"e;f\"; g\\;h"),
            [vec!["a", "b && c"], vec!["d", "e;f"], vec!["g;h"]]
        );
    }

    #[test]
    fn redirections_are_told_from_words() {
        let parsed = commands("cat x 2>/dev/null >/b/y </dev/null 2>&1 z").unwrap();
        assert_eq!(parsed[0].words, ["cat", "x", "z"]);
        assert_eq!(parsed[0].stdout.as_deref(), Some("/b/y"));
        assert_eq!(parsed[0].stdin.as_deref(), Some("/dev/null"));
        assert_eq!(commands("cp a b >").unwrap_err(), ShellError::NoTarget);
    }

    #[test]
    fn what_the_shell_would_compute_is_not_guessed_at() {
        for line in [
            "cp a $HOME/b",
            "cp a \"$B\"",
            "cp a `b`",
            "(cp a b)",
            "cp a b &",
            "cp a* b",
            "a | b",
        ] {
            assert!(commands(line).is_err(), "{line}");
        }
        assert_eq!(words("cp a '$HOME'"), [vec!["cp", "a", "$HOME"]]);
    }

    #[test]
    fn an_unbalanced_quote_is_an_error() {
        for line in ["cp 'a b", "cp \"a b", "cp a\\"] {
            assert_eq!(commands(line).unwrap_err(), ShellError::Unbalanced, "{line}");
        }
    }

    #[test]
    fn placeholders_are_replaced_as_the_server_does() {
        assert_eq!(substitute("cp %p /100%%/%f %x %").unwrap(), "cp \u{1} /100%/\u{2} %x %");
        assert_eq!(substitute("cp \u{1}").unwrap_err(), ShellError::ControlCharacter);
    }
}
