//! Words, lines and settings quoted for whoever reads them: a shell, or postgresql.conf.

use std::fmt::Write;

use archive::is_hidden;

use super::Refusal;

/// One word for bash. What acts on the terminal that it is pasted into, where a tab completes and Ctrl-C interrupts, and what would
/// be read otherwise than it is run, is written as the bytes that it is made of.
pub(super) fn word(text: &str) -> Result<String, Refusal> {
    if !text.contains(is_hidden) {
        return posix_word(text);
    }
    check(text)?;
    let mut quoted = String::from("$'");
    for character in text.chars() {
        match character {
            '\\' => quoted.push_str("\\\\"),
            // Within these quotes an interactive shell would take the one for their end, and the other for a question to its history.
            hidden if is_hidden(hidden) || matches!(hidden, '\'' | '!') => {
                for byte in hidden.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(quoted, "\\{byte:03o}");
                }
            }
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    Ok(quoted)
}

/// One word for any shell: the server runs commands with /bin/sh, which need not know bash's `$'…'`.
pub(super) fn posix_word(text: &str) -> Result<String, Refusal> {
    check(text)?;
    shlex::try_quote(text)
        .map(|quoted| quoted.into_owned())
        .map_err(|_| Refusal::NotQuotable)
}

/// What stands for bytes that are no characters names another file than the one that is meant.
fn check(text: &str) -> Result<(), Refusal> {
    if text.contains(['\0', char::REPLACEMENT_CHARACTER]) {
        return Err(Refusal::NotQuotable);
    }
    Ok(())
}

/// A path below a directory, as one word.
pub(super) fn below(directory: &str, name: &str) -> Result<String, Refusal> {
    word(&format!("{}/{name}", directory.trim_end_matches('/')))
}

/// A line of postgresql.conf. Its lexer (guc-file.l) takes no line break within quotes, but knows the octal numbers of bytes
/// (`DeescapeQuotedString()`).
pub(super) fn setting(name: &str, value: &str) -> Result<String, Refusal> {
    check(value)?;
    let mut line = format!("{name} = '");
    for character in value.chars() {
        match character {
            '\\' => line.push_str("\\\\"),
            '\'' => line.push_str("''"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            hidden if is_hidden(hidden) => {
                for byte in hidden.encode_utf8(&mut [0; 4]).bytes() {
                    // Writing to a String cannot fail.
                    let _ = write!(line, "\\{byte:03o}");
                }
            }
            other => line.push(other),
        }
    }
    line.push('\'');
    Ok(line)
}

/// A string of SQL on one line, whatever standard_conforming_strings says.
pub(super) fn literal(text: &str) -> String {
    let is_special = |character: char| character == '\\' || is_hidden(character);
    let mut string = String::from(if text.contains(is_special) { "E'" } else { "'" });
    for character in text.chars() {
        match (character, u32::from(character)) {
            ('\\', _) => string.push_str("\\\\"),
            ('\'', _) => string.push_str("''"),
            // Writing to a String cannot fail.
            (hidden, code @ ..=0x7f) if is_hidden(hidden) => drop(write!(string, "\\x{code:02x}")),
            (hidden, code) if is_hidden(hidden) => drop(write!(string, "\\U{code:08x}")),
            (other, _) => string.push(other),
        }
    }
    string.push('\'');
    string
}

/// A database for psql, which takes a name with an equals sign, or one that begins like a URI, for a connection string
/// (`recognized_connection_string()`, fe-connect.c).
pub(super) fn database(name: &str) -> Result<String, Refusal> {
    let is_misread = name.contains('=') || name.starts_with("postgresql://") || name.starts_with("postgres://");
    if !is_misread {
        return word(name);
    }
    word(&format!("dbname='{}'", name.replace('\\', "\\\\").replace('\'', "\\'")))
}

/// Commands that run one after the other, each only if those before went well.
pub(super) fn each(commands: &[String]) -> String {
    commands.join(" &&\n")
}

/// A command that adds these lines to a file. No line can end the text early, since none is the mark alone.
pub(super) fn append(file: &str, lines: &[String]) -> Result<String, Refusal> {
    const MARK: &str = "END_OF_SETTINGS";
    let mut command = format!("cat >> {} <<'{MARK}'\n\n", word(file)?);
    for line in lines {
        // Writing to a String cannot fail.
        let _ = writeln!(command, "{line}");
    }
    command.push_str(MARK);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_survives_quotes_backslashes_and_line_breaks() {
        assert_eq!(setting("a", r"it's \x").unwrap(), r"a = 'it''s \\x'");
        assert_eq!(setting("a", "b\nc\r").unwrap(), r"a = 'b\nc\r'");
        assert_eq!(setting("a", "\u{1b}\t\u{9b}").unwrap(), r"a = '\033\011\302\233'");
        for value in ["b\0", "b\u{fffd}"] {
            assert_eq!(setting("a", value), Err(Refusal::NotQuotable));
        }
    }

    #[test]
    fn a_word_is_one_word_whatever_it_holds() {
        for text in ["plain", "two words", "it's", "$HOME `id` \"x\"", "", "-rf", "é", "!x^y"] {
            let quoted = word(text).unwrap();
            assert_eq!(shlex::split(&quoted), Some(vec![text.to_owned()]), "{quoted}");
        }
        for text in ["a\0b", "a\u{fffd}b"] {
            assert_eq!(word(text), Err(Refusal::NotQuotable));
            assert_eq!(posix_word(text), Err(Refusal::NotQuotable));
        }
    }

    #[test]
    fn a_string_of_sql_keeps_its_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(literal("a\nEND_OF_SQL\n\t'é"), r"E'a\x0aEND_OF_SQL\x0a\x09''é'");
    }
}
