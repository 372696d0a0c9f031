//! Words, lines and settings quoted for whoever reads them: a shell, or postgresql.conf.

use std::fmt::Write;

use super::Refusal;

/// One word for a shell.
pub(super) fn word(text: &str) -> Result<String, Refusal> {
    shlex::try_quote(text)
        .map(|quoted| quoted.into_owned())
        .map_err(|_| Refusal::NotQuotable)
}

/// A path below a directory, as one word.
pub(super) fn below(directory: &str, name: &str) -> Result<String, Refusal> {
    word(&format!("{}/{name}", directory.trim_end_matches('/')))
}

/// A line of postgresql.conf. Its lexer (guc-file.l) takes no line break within quotes, but knows `\n` and `\r`.
pub(super) fn setting(name: &str, value: &str) -> Result<String, Refusal> {
    let mut line = format!("{name} = '");
    for character in value.chars() {
        match character {
            '\0' => return Err(Refusal::NotQuotable),
            '\\' => line.push_str("\\\\"),
            '\'' => line.push_str("''"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            other => line.push(other),
        }
    }
    line.push('\'');
    Ok(line)
}

/// A string of SQL on one line, whatever standard_conforming_strings says.
pub(super) fn literal(text: &str) -> String {
    let is_special = |character: char| character == '\\' || character.is_ascii_control();
    let mut string = String::from(if text.contains(is_special) { "E'" } else { "'" });
    for character in text.chars() {
        match character {
            '\\' => string.push_str("\\\\"),
            '\'' => string.push_str("''"),
            // Writing to a String cannot fail.
            control if control.is_ascii_control() => drop(write!(string, "\\x{:02x}", u32::from(control))),
            other => string.push(other),
        }
    }
    string.push('\'');
    string
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
        assert_eq!(setting("a", "b\0"), Err(Refusal::NotQuotable));
    }

    #[test]
    fn a_word_is_one_word_whatever_it_holds() {
        for text in ["plain", "two words", "it's", "$HOME `id` \"x\"", "", "-rf", "a\nb", "é"] {
            let quoted = word(text).unwrap();
            assert_eq!(shlex::split(&quoted), Some(vec![text.to_owned()]), "{quoted}");
        }
        assert_eq!(word("a\0b"), Err(Refusal::NotQuotable));
    }

    #[test]
    fn a_string_of_sql_keeps_its_backslashes() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"a\'b"), r"E'a\\''b'");
        assert_eq!(literal("a\nEND_OF_SQL\n\t'é"), r"E'a\x0aEND_OF_SQL\x0a\x09''é'");
    }
}
