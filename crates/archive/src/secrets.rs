//! Passwords kept out of messages: what a program printed goes to the server's log and to a table that monitoring reads.

use regex_lite::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// What stands in place of a secret.
const MASK: &str = "***";

// In each, the group `secret` is what nobody should see. Values end at white space, a quote, or what separates settings.
const PATTERNS: [&str; 4] = [
    // PGPASSWORD=x, "token": "x", repo1-cipher-pass = x, AWS_SECRET_ACCESS_KEY=x
    r#"(?i)(?:passw(?:or)?d|passphrase|cipher-pass|secret|token|credentials?|(?:api|access|account|private|encryption)[_-]?key)[a-z0-9_.-]*["']?\s*[=:]\s*(?<secret>"[^"]*"|'[^']*'|[^\s"',;&]+)"#,
    // --password x
    r#"(?i)--?[a-z0-9-]*(?:passw(?:or)?d|passphrase|cipher-pass|secret|token|key)[a-z0-9-]*\s+(?<secret>"[^"]*"|'[^']*'|[^\s"',;&-][^\s"',;&]*)"#,
    // scheme://user:x@host, user:x@host
    r#"[^\s:/@"']+:(?<secret>[^\s:/@"'][^\s/@"']*)@"#,
    // Authorization: Bearer x
    r#"(?i)\b(?:bearer|basic)\s+(?<secret>[a-z0-9+/=._~-]{8,})"#,
];

static SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    // A pattern that does not compile fails every test below.
    #[expect(clippy::expect_used, reason = "constants")]
    let compile = |pattern: &&str| Regex::new(pattern).expect("a constant pattern");
    PATTERNS.iter().map(compile).collect()
});

/// `text` with everything that looks like a password, a key or a token replaced by `***`.
///
/// It is a net, not a wall: a secret that is printed without a word that gives it away stays.
pub fn masked(text: &str) -> String {
    let mut text = Cow::Borrowed(text);
    for pattern in SECRETS.iter() {
        let ranges: Vec<_> = pattern
            .captures_iter(&text)
            .filter_map(|found| found.name("secret").map(|secret| secret.range()))
            .collect();
        for range in ranges.into_iter().rev() {
            text.to_mut().replace_range(range, MASK);
        }
    }
    text.into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        for (said, shown) in [
            ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
            ("password = 'two words' host=a", "password = *** host=a"),
            ("repo1-cipher-pass=abc", "repo1-cipher-pass=***"),
            (r#"{"token": "abc.def", "a": 1}"#, r#"{"token": ***, "a": 1}"#),
            ("AWS_SECRET_ACCESS_KEY=a/b+c==", "AWS_SECRET_ACCESS_KEY=***"),
            ("?access_key=abc&region=x", "?access_key=***&region=x"),
            ("curl --token abc file", "curl --token *** file"),
            (
                "fatal: https://me:hunter2@host/x refused",
                "fatal: https://me:***@host/x refused",
            ),
            ("sftp me:hunter2@host", "sftp me:***@host"),
            ("me:p:w@host and me:pw@host", "me:***@host and me:***@host"),
            ("> Authorization: Bearer abcdefgh.ijkl", "> Authorization: Bearer ***"),
        ] {
            assert_eq!(masked(said), shown);
        }
    }

    #[test]
    fn ordinary_messages_stay_as_they_are() {
        for said in [
            "cp: cannot stat '/archive/000000010000000000000003': No such file or directory",
            "FATAL:  password authentication failed for user \"me\"",
            "rsync: backup@host:/archive/x: connection refused (111)",
            "ERROR: [103]: unable to find a valid repository",
            "sh: 1: nosuch: not found",
            "2026-01-01 10:00:00 UTC",
            "über: ärger",
            "",
        ] {
            assert_eq!(masked(said), said);
        }
    }
}
