//! Names, labels and paths as they are printed: whoever may give something a name must not move the cursor of a terminal, begin a
//! line of the server's log, or turn the direction of what is read.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character shows nothing of its own, and acts on what stands around it.
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` with such characters as PostgreSQL's `E''` has them: `\n`, `\x1b`, `\u202e`.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, is_hidden)
}

/// The same for a text of several lines.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |character| {
        is_hidden(character) && !matches!(character, '\n' | '\t')
    })
}

/// The beginning of a text that somebody passed, as a message quotes it.
pub fn brief(text: &str) -> String {
    const MOST: usize = 200;
    let Some((end, _)) = text.char_indices().nth(MOST) else {
        return printable(text).into_owned();
    };
    let beginning = text.get(..end).unwrap_or_default();
    format!("{}…", printable(beginning))
}

fn escaped(text: &str, is_meant: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_meant) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if !is_meant(character) {
            shown.push(character);
            continue;
        }
        // Writing to a String cannot fail.
        let _ = match (character, u32::from(character)) {
            ('\n', _) => write!(shown, "\\n"),
            ('\r', _) => write!(shown, "\\r"),
            ('\t', _) => write!(shown, "\\t"),
            (_, code @ ..=0x7f) => write!(shown, "\\x{code:02x}"),
            (_, code @ ..=0xffff) => write!(shown, "\\u{code:04x}"),
            (_, code) => write!(shown, "\\U{code:08x}"),
        };
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_acts_on_a_terminal_or_on_the_reading_is_written_out() {
        assert_eq!(
            printable("a\nb\tc\r\u{1b}[2Jd\u{9b}e\u{7f}"),
            r"a\nb\tc\r\x1b[2Jd\u009be\x7f"
        );
        assert_eq!(
            printable("x\u{202e}y\u{2028}z\u{e0041}"),
            "x\\u202ey\\u2028z\\U000e0041"
        );
        assert_eq!(printable_lines("a\nb\tc\r"), "a\nb\tc\\r");
    }

    #[test]
    fn what_people_write_stays_as_it_is() {
        for text in ["before the upgrade", "größer 大きい 🐘", r"it's \ 100%", ""] {
            assert!(matches!(printable(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn a_long_text_is_quoted_as_far_as_it_tells() {
        assert_eq!(brief("a\nb"), r"a\nb");
        assert_eq!(brief(&"é".repeat(200)), "é".repeat(200));
        assert_eq!(brief(&"é".repeat(201)), "é".repeat(200) + "…");
    }

    proptest! {
        #[test]
        fn nothing_hidden_is_left(text in any::<String>()) {
            prop_assert!(!printable(&text).contains(is_hidden));
        }
    }
}
