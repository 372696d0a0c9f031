//! Names, paths and labels from whoever may give them, and real shells that read what is made of them.

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::steps::{account, plain, script, site, without_tablespaces};
use super::*;
use crate::plan::shell::{posix_word, setting, word};

/// What shells, terminals and configuration files have meanings for.
const HOSTILE: [&str; 22] = [
    "plain",
    "two  words",
    "it's",
    "$(touch x) `touch x` $HOME ${HOME}",
    "\"double\" \\ \\\\ \\n",
    "!! !x ^a^b^ x!'y!",
    "a\nb\n",
    "tab\there",
    "\u{3}\u{4}\u{1b}[2J\u{7f}",
    "\u{9b}2J",
    "-rf --help",
    "~ ~root * ? [a] {a,b}",
    "a;b&c|d<e>f(g)#h",
    "é 大きい 🐘",
    "\u{202e}fr- mr\u{202c}",
    "END_OF_SETTINGS\nEND_OF_SQL\n",
    "%p %f %% %",
    "=x a=b",
    "\r\n\r",
    "'",
    "'\n'",
    "$'\\x41'",
];

/// What a shell makes of these words.
fn read_by(shell: &[&str], words: &[String]) -> Vec<String> {
    let mut child = Command::new(shell[0])
        .args(&shell[1..])
        .env_remove("HISTFILE")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    writeln!(input, "printf '%s\\0' {}\nexit", words.join(" ")).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.split_terminator('\0').map(str::to_owned).collect()
}

#[test]
fn a_word_is_what_it_was_to_every_shell_that_reads_it() {
    let bash: Vec<String> = HOSTILE.iter().map(|text| word(text).unwrap()).collect();
    let every: Vec<String> = HOSTILE.iter().map(|text| posix_word(text).unwrap()).collect();
    assert_eq!(read_by(&["bash", "--norc"], &bash), HOSTILE);
    // As it is pasted: with a history that an exclamation mark asks.
    assert_eq!(read_by(&["bash", "--norc", "-i", "-o", "histexpand"], &bash), HOSTILE);
    assert_eq!(read_by(&["/bin/sh"], &every), HOSTILE);
    for quoted in bash {
        assert!(!quoted.contains(archive::is_hidden), "{quoted:?}");
    }
}

/// DeescapeQuotedString() of guc-file.l.
fn read_by_the_server(line: &str) -> String {
    let quoted = line.split_once(" = '").unwrap().1.strip_suffix('\'').unwrap();
    let (mut bytes, mut rest) = (Vec::new(), quoted.bytes().peekable());
    while let Some(byte) = rest.next() {
        assert!(byte != b'\n', "{line:?}");
        match byte {
            b'\'' => assert_eq!(rest.next(), Some(b'\''), "{line}"),
            b'\\' => {
                let mut number = String::new();
                while let Some(digit) = rest.next_if(|byte| number.len() < 3 && matches!(byte, b'0'..=b'7')) {
                    number.push(char::from(digit));
                }
                bytes.push(match number.as_str() {
                    "" => match rest.next().unwrap() {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        other => other,
                    },
                    number => u8::from_str_radix(number, 8).unwrap(),
                });
                continue;
            }
            _ => {}
        }
        bytes.push(byte);
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_setting_is_what_it_was_to_the_server() {
    for text in HOSTILE {
        let line = setting("a", text).unwrap();
        assert!(!line.contains(archive::is_hidden), "{line:?}");
        assert_eq!(read_by_the_server(&line), text);
    }
}

#[test]
fn nothing_that_is_printed_acts_on_a_terminal() {
    for hostile in HOSTILE {
        let mut account = account(
            Target::Latest,
            Some("/srv/copy"),
            Copied::Plain {
                path: format!("/b/{hostile}"),
                tablespaces: vec![Tablespace {
                    oid: 16385,
                    from: format!("/t/{hostile}"),
                }],
                wal: Some(format!("/w/{hostile}")),
            },
        );
        account.choice.stop = Stop::Name(hostile.to_owned());
        let site = Site {
            database: hostile.to_owned(),
            superuser: hostile.to_owned(),
            socket: Some(format!("/run/{hostile}")),
            ..site(17)
        };
        let is_seen = |text: &str| text.chars().all(|c| c == '\n' || !archive::is_hidden(c));
        for step in steps(&account, &site).unwrap() {
            assert!(
                is_seen(&step.action) && !step.action.contains('\n'),
                "{:?}",
                step.action
            );
            assert!(step.command.as_deref().is_none_or(is_seen), "{:?}", step.command);
        }
        for refusal in [
            Refusal::UnknownName {
                name: hostile.to_owned(),
                newest: vec![hostile.to_owned()],
            },
            Refusal::NotForPgCtl {
                what: "configuration file",
                path: hostile.to_owned(),
            },
        ] {
            let said = format!("{refusal} {} {}", refusal.detail(), refusal.hint());
            assert!(is_seen(&said) && !said.contains('\n'), "{said:?}");
        }
    }
}

#[test]
fn a_configuration_file_or_a_program_that_pg_ctl_cannot_be_given_is_refused() {
    let account = account(Target::Latest, None, Copied::Nowhere);
    for path in [
        "/etc/$(touch x)/a.conf",
        "/etc/`x`",
        "/etc/\"x\"",
        "/etc/a\\b",
        "/etc/a\nb",
    ] {
        let configured = Site {
            config_file: Some(path.to_owned()),
            ..site(17)
        };
        let installed = Site {
            bindir: path.to_owned(),
            ..site(17)
        };
        for (site, named) in [(configured, "configuration file"), (installed, "program directory")] {
            let refusal = steps(&account, &site).unwrap_err();
            assert!(
                matches!(&refusal, Refusal::NotForPgCtl { what, .. } if *what == named),
                "{path}: {refusal}"
            );
            assert!(refusal.is_about_state() && refusal.detail().contains("second shell"));
        }
    }
    let site = Site {
        config_file: Some("/etc/my it's.conf".to_owned()),
        ..site(17)
    };
    assert!(steps(&account, &site).is_ok());
}

#[test]
fn a_command_that_the_settings_cannot_keep_is_refused() {
    let account = Account {
        restore_command: Some("cp /a/%f %p\n".to_owned()),
        ..account(Target::Latest, Some("/srv/copy"), plain())
    };
    let refusal = steps(&account, &without_tablespaces()).unwrap_err();
    assert_eq!(refusal, Refusal::LineBreakInCommand);
    assert!(refusal.hint().contains("script of its own"), "{}", refusal.hint());
}

#[test]
fn a_name_that_a_tool_would_write_unquoted_is_refused_with_the_lsn_of_the_same_place() {
    for (tool, name) in [
        (
            Tool::PgBackRest {
                stanza: Some("main".to_owned()),
                set: Some("20261121-153817F".to_owned()),
                start_wal_file: None,
            },
            "pgBackRest",
        ),
        (
            Tool::Barman {
                server: Some("main".to_owned()),
                backup: Some("20261121T153817".to_owned()),
            },
            "Barman",
        ),
    ] {
        let mut account = Account {
            tool: Some(tool),
            ..account(Target::Latest, Some("/srv/copy"), Copied::Nowhere)
        };
        account.choice.stop_lsn = Some(Lsn(0x0100_0028));
        account.choice.stop = Stop::Name("before the upgrade".to_owned());
        assert!(steps(&account, &without_tablespaces()).is_ok());
        for hostile in ["x'\narchive_command = 'touch /tmp/owned", "it's", "a\\b", "a\u{1b}"] {
            account.choice.stop = Stop::Name(hostile.to_owned());
            let refusal = steps(&account, &without_tablespaces()).unwrap_err();
            assert!(refusal.to_string().contains(name), "{refusal}");
            assert_eq!(
                refusal.hint(),
                "Pass target_lsn => '0/1000028', target_inclusive => false for the same place."
            );
        }
    }
}

#[test]
fn a_database_whose_name_psql_would_take_for_a_connection_string_is_named_in_one() {
    let named = |name: &str| {
        let site = Site {
            database: name.to_owned(),
            ..without_tablespaces()
        };
        script(&account(Target::Latest, Some("/srv/copy"), plain()), &site)
    };
    assert!(named("my db").contains("-d 'my db'"));
    assert!(named("host=evil's").contains(r#"-d "dbname='host=evil\\'s'""#));
    assert!(named("postgres://evil/x").contains(r#"-d "dbname='postgres://evil/x'""#));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Commands are words for a shell, whatever paths and names hold.
    #[test]
    fn every_path_survives_the_shell(name in "[^\0\u{fffd}]{0,20}") {
        let path = format!("/b/{name}");
        let copied = Copied::Plain { path: path.clone(), tablespaces: Vec::new(), wal: None };
        let steps = steps(&account(Target::Latest, Some("/srv/copy"), copied), &without_tablespaces()).unwrap();
        let commands: Vec<String> = steps.into_iter().filter_map(|step| step.command).collect();
        let copies = commands.iter().find_map(|command| command.find("cp -a").and_then(|at| command.get(at..))).unwrap();
        let copy = copies.split(" &&\n").next().unwrap();
        let words = read_by(&["bash", "--norc"], &[copy.to_owned()]);
        prop_assert_eq!(&words[3], &format!("{}/.", path.trim_end_matches('/')));
    }

    #[test]
    fn every_setting_survives_the_servers_lexer(value in "[^\0\u{fffd}]{0,40}") {
        prop_assert_eq!(read_by_the_server(&setting("a", &value).unwrap()), value);
    }
}
