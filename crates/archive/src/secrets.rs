//! Passwords kept out of messages: what a program printed goes to the server's log and to a table that monitoring reads.

use regex_lite::Regex;
use std::borrow::Cow;
use std::sync::LazyLock;

/// What stands in place of a secret.
const MASK: &str = "***";

/// A value as a shell, a connection string, JSON or a URL has it: quoted and unquoted pieces, up to white space or to the next of
/// several parameters. A quote that is never closed ends with the text.
const VALUE: &str = r#"(?<secret>(?:"(?:[^"\\]|\\.)*(?:"|$)|'[^']*(?:'|$)|\\.|[,;]+[^\s"',;&\\]|[^\s"',;&\\])+)"#;

/// What stands in front of one. In each, `{value}` is what nobody should see.
const PATTERNS: [&str; 12] = [
    // A key, whole or cut.
    r"(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----(?<secret>.*?)(?:-----END|$)",
    // scheme://user:x@host, where x may hold slashes and colons
    r#"(?i)\b[a-z][a-z0-9+.-]*://[^\s:/@"']*:(?<secret>[^\s"']*)@"#,
    // https://x@host: a token. Elsewhere it is a user.
    r#"(?i)\bhttps?://(?<secret>[^\s:/@"']+)@"#,
    // user:x@host
    r#"[^\s:/@"']+:(?<secret>[^\s:/@"'][^\s/@"']*)@"#,
    // PGPASSWORD=x, "token": "x", repo1-cipher-pass = x, AWS_SECRET_ACCESS_KEY=x, X-Amz-Credential=x, -passin pass:x
    r#"(?i)(?:passw(?:or)?d|passphrase|cipher-pass|secret|token|credentials?|signature|(?:api|access|account|private|encryption|storage)[_-]?key(?:id)?)[a-z0-9_.-]*(?:\\?["'])?\s*[=:]\s*{value}"#,
    // SSHPASS=x, pass:x, pwd=x, ?sig=x, AccountKey=x
    r#"(?i)(?:\b|_)(?:(?:ssh)?pass|pwd|sig|auth|accountkey|sharedaccesssignature)(?:\\?["'])?\s*[=:]\s*{value}"#,
    // sshpass -p x, mysqldump -px
    r#"(?i)\b(?:sshpass|mysql[a-z]*|mariadb[a-z-]*|smbclient|7z[ar]?|zip|unzip|ncftpput|curl|redis-cli)\b[^|;&\n]*?\s-[pa]\s*{value}"#,
    // --password x, --secret-key x
    r#"(?i)(?:^|\s)--?[a-z0-9-]*(?:passw(?:or)?d|passphrase|cipher-pass|secret|token|credentials?|signature|(?:api|access|account|private|encryption|storage|secret)-?key|--key|--pass)[a-z0-9-]*\s+{value}"#,
    // -p x, but for a port and a directory
    r#"(?:^|\s)-p\s+(?<secret>[^\s"'/.~%0-9-][^\s"']*|[0-9]{1,5}[^\s"'0-9][^\s"']*|[0-9]{6}[^\s"']*)"#,
    // curl -u name:x
    r#"(?:^|\s)(?:-u|--user)[\s=]*["']?[^\s:"']+:(?<secret>[^\s"']+)"#,
    // Authorization: Bearer x
    r"(?i)\b(?:bearer|basic|aws4-hmac-sha256|sharedkey)\s+(?<secret>[a-z0-9+/=._~:-]{8,})",
    // What is a secret by its own look: of AWS, GitHub, GitLab, Slack, JSON Web Tokens
    r"\b(?<secret>(?:AKIA|ASIA)[0-9A-Z]{16}|(?:gh[oprsu]|github_pat|glpat|xox[abprs])[_-][0-9A-Za-z_-]{16,}|eyJ[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]{8,}\.[0-9A-Za-z_-]*)",
];

static SECRETS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    // A pattern that does not compile fails every test below.
    #[expect(clippy::expect_used, reason = "constants")]
    let compile = |pattern: &&str| Regex::new(&pattern.replace("{value}", VALUE)).expect("a constant pattern");
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

/// The program that a command line begins with, where that is a plain word. What follows it may hold anything.
pub fn program_of(command: &str) -> Option<String> {
    const LONGEST: usize = 64;
    // More is no command line.
    let words = shlex::split(command.get(..10_000).unwrap_or(command))?;
    let program = words.into_iter().find(|word| {
        // PGPASSWORD=x command
        word.split_once('=')
            .is_none_or(|(name, _)| !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
    })?;
    let is_plain = program.len() <= LONGEST
        && program
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'/' | b'+'));
    is_plain.then_some(program)
}

#[cfg(test)]
mod tests;
