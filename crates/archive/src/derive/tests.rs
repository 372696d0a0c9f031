//! Archive commands as the documentation and DBAs write them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const DATA: &str = "/var/lib/postgresql/15/main";

fn of(command: &str) -> Result<Derived, DeriveError> {
    derive(command, "", "", Path::new(DATA))
}

#[track_caller]
fn finds(command: &str, directory: &str) {
    let derived = of(command).unwrap_or_else(|e| panic!("{command}: {e}"));
    assert_eq!(derived.source, Source::Directory(PathBuf::from(directory)), "{command}");
    assert!(derived.because.contains("archive_command"), "{}", derived.because);
}

#[track_caller]
fn refuses(command: &str, because: &str) {
    let error = of(command).expect_err(command).to_string();
    assert!(error.contains(because), "{error}");
    assert!(error.contains("set pg_backstop.archive_source"), "{error}");
}

#[test]
fn plain_copies_are_followed() {
    for command in [
        "cp %p /mnt/archive/%f",
        "cp -i %p /mnt/archive/%f </dev/null",
        "cp -n %p /mnt/archive/%f < /dev/null",
        "/usr/bin/cp %p /mnt/archive/%f",
        "cp --preserve=timestamps -- %p /mnt/archive/%f",
        "install -m 600 %p /mnt/archive/%f",
        "install -m600 -o postgres %p /mnt/archive/%f",
        "install -D -m 0640 -g backup %p /mnt/archive/%f",
        "rsync -a %p /mnt/archive/%f",
        "rsync -az --ignore-existing %p /mnt/archive/%f",
        "ln %p /mnt/archive/%f",
        "cat %p > /mnt/archive/%f",
        "cat <%p >/mnt/archive/%f",
        "dd if=%p of=/mnt/archive/%f bs=1M conv=fsync",
        "cp %p /mnt/archive/%f 2>>/var/log/archive.log",
        "cp %p /mnt/archive/%f 2>&1",
    ] {
        finds(command, "/mnt/archive");
    }
}

#[test]
fn guards_and_housekeeping_around_a_copy_are_looked_past() {
    for command in [
        "test ! -f /mnt/archive/%f && cp %p /mnt/archive/%f",
        "[ ! -e /mnt/archive/%f ] && cp %p /mnt/archive/%f",
        "! test -f /mnt/archive/%f && cp %p /mnt/archive/%f",
        "test -f /mnt/archive/%f || cp %p /mnt/archive/%f",
        "mkdir -p /mnt/archive && cp %p /mnt/archive/%f && sync /mnt/archive/%f",
        "cp %p /mnt/archive/%f && chmod 640 /mnt/archive/%f; exit 0",
        "nice -n 10 cp %p /mnt/archive/%f",
        "ionice -c 2 -n 7 nice cp %p /mnt/archive/%f",
    ] {
        finds(command, "/mnt/archive");
    }
}

#[test]
fn quotes_and_spaces_are_read_as_the_shell_reads_them() {
    for command in [
        "cp \"%p\" \"/mnt/my archive/%f\"",
        "cp '%p' '/mnt/my archive/%f'",
        "cp %p /mnt/my\\ archive/%f",
        "test ! -f '/mnt/my archive'/%f && cp %p '/mnt/my archive'/%f",
    ] {
        finds(command, "/mnt/my archive");
    }
    finds("cp %p /mnt/100%%/%f", "/mnt/100%");
    finds("cp %p /mnt/it\\'s/%f", "/mnt/it's");
}

#[test]
fn a_copy_under_a_temporary_name_counts_as_what_it_is_renamed_to() {
    finds(
        "cp %p /mnt/archive/%f.tmp && mv /mnt/archive/%f.tmp /mnt/archive/%f",
        "/mnt/archive",
    );
    finds(
        "cp %p /mnt/tmp/%f && sync && mv -n /mnt/tmp/%f /mnt/archive/",
        "/mnt/archive",
    );
    refuses("cp %p /mnt/archive/%f.tmp", "under another name");
}

#[test]
fn a_target_directory_is_understood() {
    finds("cp %p /mnt/archive/", "/mnt/archive");
    finds("cp -t /mnt/archive %p", "/mnt/archive");
    finds("cp --target-directory=/mnt/archive %p", "/mnt/archive");
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_str().unwrap();
    finds(&format!("cp %p {path}"), path);
    refuses(&format!("cp %p {path}/absent"), "no directory");
}

#[test]
fn relative_paths_start_at_the_data_directory() {
    finds("cp %p archive/%f", "/var/lib/postgresql/15/main/archive");
    finds("cp %p ../archive/%f", "/var/lib/postgresql/15/archive");
    finds("cp %p ../../x/../archive/%f", "/var/lib/postgresql/x/../archive");
}

#[test]
fn two_copies_leave_the_first_to_be_read() {
    finds("cp %p /mnt/a/%f && cp %p /mnt/b/%f", "/mnt/a");
    finds("cp %p /mnt/a/%f && rsync -a /mnt/a/%f backup:/mnt/b/%f", "/mnt/a");
}

#[test]
fn what_is_not_a_plain_copy_is_refused_with_the_reason_and_the_way_out() {
    refuses("/bin/true", "stores nothing");
    refuses("exit 0", "stores nothing");
    refuses("pgbackrest --stanza=main archive-push %p", "pgBackRest");
    refuses("wal-g wal-push %p", "WAL-G");
    refuses("barman-wal-archive backup main %p", "Barman");
    refuses("/usr/local/bin/archive.sh %p %f", "archive.sh");
    refuses("bash -c 'cp %p /mnt/archive/%f'", "bash");
    refuses("gzip < %p > /mnt/archive/%f.gz", "compresses");
    refuses("cp %p /mnt/archive/%f && gzip /mnt/archive/%f", "compresses");
    refuses("gzip -c %p | ssh host 'cat > /a/%f.gz'", "pipe");
    refuses("cat %p | gzip > /mnt/archive/%f.gz", "pipe");
    refuses("gpg -e -o /mnt/archive/%f %p", "encrypts");
    refuses("cp %p $ARCHIVE/%f", "variable");
    refuses("cp %p ~/archive/%f", "~");
    refuses("ln -s %p /mnt/archive/%f", "symbolic link");
    refuses("cp %p /mnt/archive/%f/%f", "directory of its own");
    refuses("cp %p /mnt/archive/%p", "%p");
    refuses("cp pg_wal/%f /mnt/archive/%f", "another file than %p");
    refuses("cp %p '/mnt/archive/%f", "quotes");
    refuses("copy \"%p\" \"C:\\\\server\\\\archivedir\\\\%f\"", "copy");
}

#[test]
fn another_host_is_named_as_such() {
    refuses(
        "rsync -a %p backup@host:/mnt/archive/%f",
        "another host (backup@host:/mnt/archive/%f)",
    );
    refuses("rsync -a %p rsync://host/module/%f", "another host");
    refuses("scp %p host:/mnt/archive/%f", "scp");
}

#[test]
fn an_archive_library_says_where_or_is_refused_by_name() {
    let derived = derive("", "basic_archive", "/mnt/archive", Path::new(DATA)).unwrap();
    assert_eq!(derived.source, Source::Directory(PathBuf::from("/mnt/archive")));
    assert!(
        derived.because.contains("basic_archive.archive_directory"),
        "{}",
        derived.because
    );
    assert_eq!(
        derive("", "$libdir/basic_archive.so", "", Path::new(DATA)),
        Err(DeriveError::NoBasicDirectory)
    );
    let error = derive("cp %p /a/%f", "pgbackrest_archive", "", Path::new(DATA)).unwrap_err();
    assert!(error.to_string().contains("pgbackrest_archive"), "{error}");
}

#[test]
fn archiving_that_is_off_is_told_from_archiving_that_is_not_set_up() {
    assert_eq!(of("(disabled)"), Err(DeriveError::Off));
    assert_eq!(of("  "), Err(DeriveError::NotSet));
}

proptest! {
    #[test]
    fn whatever_the_command_the_answer_is_a_place_or_a_sentence(command in "(cp|mv|ln|install|rsync|cat|dd|test|nice|[a-z]{1,5}| |-[a-z]{1,3}|--|%p|%f|%%|/a/|/[a-z.]{1,4}|'|\"|\\\\|&&|;|<|>|2>|\\||é){0,12}") {
        let marked = |text: &str| text.contains(['\u{1}', '\u{2}']);
        match of(&command) {
            Ok(Derived { source, .. }) => {
                prop_assert!(source.root().is_some_and(Path::is_absolute), "{}", source);
                prop_assert!(!marked(&source.to_string()), "{}", source);
            }
            Err(error) => {
                let sentence = error.to_string();
                prop_assert!(sentence.contains("set "), "{}", sentence);
                prop_assert!(!marked(&sentence), "{}", sentence);
            }
        }
    }

    #[test]
    fn no_text_at_all_makes_it_panic(command in "\\PC{0,60}") {
        let _ = of(&command);
    }
}
