//! Secrets as programs print them and as command lines hold them, and what is no secret.

use proptest::prelude::*;

use super::*;

#[test]
fn what_looks_like_a_secret_is_masked() {
    for (said, shown) in [
        ("PGPASSWORD=hunter2 psql", "PGPASSWORD=*** psql"),
        ("PGPASSWORD='hun'\"ter\"2\\ 3 psql", "PGPASSWORD=*** psql"),
        ("PGPASSWORD=hunt,er;2 psql", "PGPASSWORD=*** psql"),
        ("PGPASSWORD='never closed", "PGPASSWORD=***"),
        ("password = 'two words' host=a", "password = *** host=a"),
        ("repo1-cipher-pass=abc", "repo1-cipher-pass=***"),
        (r#"{"token": "abc.def", "a": 1}"#, r#"{"token": ***, "a": 1}"#),
        (r#"{"password":"ab\"c","a":1}"#, r#"{"password":***,"a":1}"#),
        ("AWS_SECRET_ACCESS_KEY=a/b+c==", "AWS_SECRET_ACCESS_KEY=***"),
        ("aws_access_key_id = AKIAIOSFODNN7EXAMPLE", "aws_access_key_id = ***"),
        ("key AKIAIOSFODNN7EXAMPLE refused", "key *** refused"),
        ("?access_key=abc&region=x", "?access_key=***&region=x"),
        ("curl --token abc file", "curl --token *** file"),
        ("pg_x --password secret file", "pg_x --password *** file"),
        ("x --password=secret file", "x --password=*** file"),
        ("tool -p secret file", "tool -p *** file"),
        ("sshpass -psecret scp x y:z", "sshpass -p*** scp x y:z"),
        ("sshpass -p /secret scp", "sshpass -p *** scp"),
        ("SSHPASS=abc sshpass -e", "SSHPASS=*** sshpass -e"),
        ("mysqldump -u root -psecret db", "mysqldump -u root -p*** db"),
        ("openssl enc -pass pass:abc -in x", "openssl enc -pass pass:*** -in x"),
        ("curl -u me:hunter2 x", "curl -u me:*** x"),
        (
            "https://a.blob.core.windows.net/c/f?sv=2020&sig=ab%2Bc%3D&se=1",
            "https://a.blob.core.windows.net/c/f?sv=2020&sig=***&se=1",
        ),
        (
            "https://s3/x?X-Amz-Credential=AK/2026/s3&X-Amz-Signature=fe01",
            "https://s3/x?X-Amz-Credential=***&X-Amz-Signature=***",
        ),
        ("DefaultEndpoints;AccountKey=abc==", "DefaultEndpoints;AccountKey=***"),
        (
            "fatal: https://me:hunter2@host/x refused",
            "fatal: https://me:***@host/x refused",
        ),
        ("postgres://me:hun/t:er2@host/x", "postgres://me:***@host/x"),
        ("redis://:hunter2@host", "redis://:***@host"),
        ("https://0123456789abcdef@github.com/x", "https://***@github.com/x"),
        ("sftp me:hunter2@host", "sftp me:***@host"),
        ("me:p:w@host and me:pw@host", "me:***@host and me:***@host"),
        ("> Authorization: Bearer abcdefgh.ijkl", "> Authorization: Bearer ***"),
        ("remote: ghp_0123456789abcdefghij said no", "remote: *** said no"),
        (
            "-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----",
            "-----BEGIN RSA PRIVATE KEY-----***-----END RSA PRIVATE KEY-----",
        ),
    ] {
        assert_eq!(masked(said), shown);
        assert_eq!(masked(shown), shown, "masked twice");
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
        "mkdir -p /archive && cp -p %p /archive/%f",
        "psql -p 5432 -h host",
        "pgbackrest --stanza=main archive-push %p",
        "ssh://backup@host/x, https://host:8443/x",
        "set pg_backstop.archive_source, such as dir:/mnt/archive",
        "design=x, the check passed: 3 files",
        "über: ärger",
        "",
    ] {
        assert_eq!(masked(said), said);
    }
}

#[test]
fn a_command_is_named_by_its_program_and_by_nothing_else_of_it() {
    for (command, program) in [
        ("cp %p /archive/%f", Some("cp")),
        ("/usr/bin/wal-g wal-push %p", Some("/usr/bin/wal-g")),
        ("PGPASSWORD='two words' A=b pg_x %p", Some("pg_x")),
        ("  \"cp\" x", Some("cp")),
        ("PGPASSWORD='never closed", None),
        ("PGPASSWORD=x", None),
        ("$(cat secret) x", None),
        ("secret:x@host", None),
        ("", None),
    ] {
        assert_eq!(program_of(command).as_deref(), program, "{command}");
    }
}

/// How a secret is given, and where it stands in it.
const GIVEN: [&str; 22] = [
    "PGPASSWORD={}",
    "password={}",
    "--password {}",
    "--password={}",
    "--secret-key {}",
    "-p {}x",
    "sshpass -p {}",
    "sshpass -p{}",
    "SSHPASS={}",
    "AWS_SECRET_ACCESS_KEY={}",
    "AWS_SESSION_TOKEN={}",
    "AZURE_STORAGE_KEY={}",
    "WALG_LIBSODIUM_KEY_SECRET={}",
    "postgresql://user:{}@host/db",
    "https://h/x?sv=1&sig={}&se=2",
    "https://h/x?X-Amz-Signature={}",
    "https://h/x?X-Amz-Credential={}",
    "https://h/x?X-Goog-Signature={}",
    "Authorization: Bearer {}abcdefgh",
    "{\"password\": \"{}\"}",
    "repo1-cipher-pass={}",
    "curl --user me:{}",
];

proptest! {
    /// Whatever stands around it, and however often.
    #[test]
    fn no_secret_is_left_however_it_is_given(
        secret in "[A-Za-z][A-Za-z0-9+/=_.~]{7,30}",
        given in prop::sample::subsequence(GIVEN.to_vec(), 1..6),
        before in "[a-z ]{0,20}",
        after in "[a-z ]{0,20}",
        separator in prop::sample::select(vec![" ", "\n", " && ", " | ", " > /x "]),
    ) {
        let parts: Vec<String> = given.iter().map(|given| given.replace("{}", &secret)).collect();
        let said = format!("{before} {} {after}", parts.join(separator));
        let shown = masked(&said);
        prop_assert!(!shown.contains(&secret), "{said:?} is {shown:?}");
        prop_assert!(shown.contains(MASK));
        prop_assert_eq!(masked(&shown), shown);
    }

    #[test]
    fn whatever_is_said_there_is_an_answer(said in any::<String>()) {
        let shown = masked(&said);
        prop_assert!(shown.len() <= said.len() * 4 + MASK.len());
        let _ = program_of(&said);
    }

    #[test]
    fn no_program_is_anything_but_a_plain_word(command in "[ -~]{0,60}") {
        if let Some(program) = program_of(&command) {
            prop_assert!(command.contains(program.trim_matches('/')) || command.contains(['\'', '"', '\\']));
            prop_assert!(!program.contains(['=', ' ', ':', '@']));
        }
    }
}
