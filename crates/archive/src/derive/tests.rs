//! Archive commands as the documentation and DBAs write them.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::*;

const DATA: &str = "/var/lib/postgresql/15/main";

fn of(command: &str) -> Result<Derived, DeriveError> {
    let settings = ServerSettings {
        archive_command: command,
        ..ServerSettings::default()
    };
    derive(&settings, Path::new(DATA))
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
    assert!(!error.contains(['\u{1}', '\u{2}']), "{error}");
}

/// Refused, and only the archiver's own program can help.
#[track_caller]
fn must_be_fetched(command: &str, because: &str) {
    refuses(command, because);
    let error = of(command).expect_err(command).to_string();
    assert!(
        error.contains("pg_backstop.archive_source = restore_command"),
        "{error}"
    );
}

#[track_caller]
fn gives(command: &str, source: Source) {
    let derived = of(command).unwrap_or_else(|e| panic!("{command}: {e}"));
    assert_eq!(derived.source, source, "{command}");
    assert!(derived.because.contains("archive_command"), "{}", derived.because);
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
    refuses("barman-wal-archive backup main %p", "Barman");
    refuses("/usr/local/bin/archive.sh %p %f", "archive.sh");
    refuses("bash -c 'cp %p /mnt/archive/%f'", "bash");
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
    let of = |archive_command, archive_library, basic_archive_directory| {
        let settings = ServerSettings {
            archive_command,
            archive_library,
            basic_archive_directory,
            ..ServerSettings::default()
        };
        derive(&settings, Path::new(DATA))
    };
    let derived = of("", "basic_archive", "/mnt/archive").unwrap();
    assert_eq!(derived.source, Source::Directory(PathBuf::from("/mnt/archive")));
    assert!(
        derived.because.contains("basic_archive.archive_directory"),
        "{}",
        derived.because
    );
    assert_eq!(
        of("", "$libdir/basic_archive.so", ""),
        Err(DeriveError::NoBasicDirectory)
    );
    let error = of("cp %p /a/%f", "pgbackrest_archive", "").unwrap_err();
    assert!(error.to_string().contains("pgbackrest_archive"), "{error}");
}

#[test]
fn a_restore_command_is_the_truth_whatever_the_archiver_does() {
    let settings = ServerSettings {
        restore_command: "cp /mnt/archive/%f %p",
        archive_command: "cp %p /elsewhere/%f",
        archive_library: "x",
        basic_archive_directory: "/y",
    };
    let derived = derive(&settings, Path::new(DATA)).unwrap();
    assert_eq!(
        derived.source,
        Source::RestoreCommand("cp /mnt/archive/%f %p".to_owned())
    );
    assert!(
        derived.because.starts_with("restore_command is set"),
        "{}",
        derived.because
    );
    let settings = ServerSettings {
        restore_command: " ",
        archive_command: "cp %p /mnt/archive/%f",
        ..ServerSettings::default()
    };
    let derived = derive(&settings, Path::new(DATA)).unwrap();
    assert_eq!(derived.source, Source::Directory(PathBuf::from("/mnt/archive")));
}

#[test]
fn compressing_copies_are_followed() {
    for command in [
        "gzip < %p > /mnt/archive/%f.gz",
        "gzip -c %p > /mnt/archive/%f.gz",
        "gzip -9 --stdout \"%p\" > \"/mnt/archive/%f.gz\"",
        "test ! -f /mnt/archive/%f.gz && gzip -c6 < %p >/mnt/archive/%f.gz",
        "pigz -p 4 -c %p > /mnt/archive/%f.gz",
        "gzip -c %p > /mnt/archive/%f",
        "bzip2 -c %p > /mnt/archive/%f.bz2",
        "xz -T0 -c %p > /mnt/archive/%f.xz",
        "zstd -q %p -o /mnt/archive/%f.zst",
        "zstd -q -3 -T2 --rsyncable -o/mnt/archive/%f.zst %p",
        "zstd -qc %p > /mnt/archive/%f.zst",
        "nice -n 19 zstd -q < %p > /mnt/archive/%f.zst",
        "lz4 -q %p /mnt/archive/%f.lz4",
        "lz4 -qc %p > /mnt/archive/%f.lz4",
        "cp %p /mnt/archive/%f && gzip /mnt/archive/%f",
        "cp %p /mnt/archive/%f && gzip -f /mnt/archive/%f && sync",
        "cp %p /mnt/archive/%f && zstd -q /mnt/archive/%f",
        "gzip -c %p > /mnt/archive/%f.tmp && mv /mnt/archive/%f.tmp /mnt/archive/%f.gz",
    ] {
        finds(command, "/mnt/archive");
    }
}

#[test]
fn compressing_copies_whose_effect_is_in_doubt_are_not_followed() {
    refuses("gzip -c %p > /mnt/archive/%f.zst", "another name");
    refuses("gzip -c %p > /mnt/archive/%f.gz.tmp", "another name");
    refuses("gzip -c %p > /mnt/archive/current.gz", "every compressed segment");
    refuses("cp %p /mnt/archive/%f.gz", "another name");
    refuses("gzip %p", "where it lies");
    refuses("gzip -dc %p > /mnt/archive/%f", "option -d");
    refuses("gzip -c --suffix=.z %p > /mnt/archive/%f.gz", "option --suffix is");
    refuses("zstd -q --patch-from=/x %p -o /mnt/archive/%f.zst", "--patch-from");
    refuses("lz4 -l %p /mnt/archive/%f.lz4", "option -l");
    refuses("gzip -c /other/file > /mnt/archive/%f.gz", "not followed");
    refuses("gzip pg_wal/%f", "another file than %p");
    refuses("gzip -c %p > /mnt/archive/%f && gzip /mnt/archive/%f", "twice");
    must_be_fetched("lzop -c %p > /mnt/archive/%f.lzo", "lzop");
}

#[test]
fn barmans_incoming_directory_leads_to_the_archive_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join("main");
    std::fs::create_dir_all(home.join("incoming")).unwrap();
    let commands = [
        format!("cp %p {}/incoming/%f", home.display()),
        format!("rsync -a %p {}/incoming/%f", home.display()),
    ];
    for command in &commands {
        refuses(command, "no directory wals");
    }
    std::fs::create_dir(home.join("wals")).unwrap();
    for command in &commands {
        gives(command, Source::Barman(home.join("wals")));
    }
    must_be_fetched(
        "rsync -a %p barman@backup:/var/lib/barman/main/incoming/%f",
        "another host",
    );
    must_be_fetched("barman-wal-archive backup main %p", "Barman");
}

#[test]
fn walg_is_followed_where_its_command_line_names_the_storage() {
    let storage = || Source::WalG(PathBuf::from("/mnt/walg"));
    gives("WALG_FILE_PREFIX=/mnt/walg wal-g wal-push %p", storage());
    gives(
        "env WALG_FILE_PREFIX=/mnt/walg/ WALG_COMPRESSION_METHOD=zstd /usr/bin/wal-g wal-push \"%p\"",
        storage(),
    );
    gives(
        "WALG_FILE_PREFIX=file://localhost/mnt/walg nice wal-g wal-push %p",
        storage(),
    );
    must_be_fetched("wal-g wal-push %p", "does not say where");
    must_be_fetched("WALG_S3_PREFIX=s3://b wal-g wal-push %p", "WALG_S3_PREFIX");
    must_be_fetched(
        "WALG_FILE_PREFIX=/a WALE_S3_PREFIX=s3://b wal-g wal-push %p",
        "WALE_S3_PREFIX",
    );
    must_be_fetched("WALG_FILE_PREFIX=/a WALG_LIBSODIUM_KEY=x wal-g wal-push %p", "encrypts");
    must_be_fetched("WALG_FILE_PREFIX=a wal-g wal-push %p", "no absolute path");
    must_be_fetched("wal-g --config /etc/walg.json wal-push %p", "wal-g wal-push %p");
    must_be_fetched("envdir /nowhere/env wal-g wal-push %p", "/nowhere/env");
    refuses("env -u X wal-g wal-push %p", "env with the option -u");

    let directory = tempfile::tempdir().unwrap();
    let env = directory.path().join("env");
    std::fs::create_dir(&env).unwrap();
    std::fs::write(env.join("WALG_FILE_PREFIX"), "/mnt/walg \nignored\n").unwrap();
    std::fs::write(env.join("AWS_SECRET"), vec![b'x'; 1 << 20]).unwrap();
    let command = format!("envdir {} wal-g wal-push %p", env.display());
    gives(&command, storage());
    std::fs::write(env.join("WALG_PGP_KEY_PATH"), "/key").unwrap();
    must_be_fetched(&command, "encrypts");
    std::fs::write(env.join("WALG_PGP_KEY_PATH"), vec![b'x'; 1 << 20]).unwrap();
    must_be_fetched(&command, "more than 64 kB");
}

/// A configuration of pgBackRest, and the command that names it.
fn configured(content: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pgbackrest.conf");
    std::fs::write(&path, content).unwrap();
    let command = format!("pgbackrest --stanza=main --config={} archive-push %p", path.display());
    (directory, command)
}

#[test]
fn pgbackrests_repository_is_read_off_its_configuration() {
    let main = |repository: &str| Source::PgBackRest(Path::new(repository).join("archive/main"));
    for (content, repository) in [
        ("", "/var/lib/pgbackrest"),
        ("[global]\nrepo1-path=/repo\n", "/repo"),
        (
            "# comment\n[global]\n repo1-path = /repo/ \n\n[other]\nrepo1-path=/wrong\n",
            "/repo",
        ),
        (
            "[global]\nrepo-path=/repo\nrepo1-type=posix\nrepo1-cipher-type=none\n",
            "/repo",
        ),
        ("[global]\nrepo1-path=/wrong\n[main]\nrepo1-path=/repo\n", "/repo"),
        (
            "[global]\nrepo1-path=/wrong\n[global:archive-push]\nrepo1-path=/repo\n",
            "/repo",
        ),
        (
            "[main]\nrepo1-path=/wrong\n[main:archive-push]\nrepo1-path=/repo\n",
            "/repo",
        ),
        ("[global:backup]\nrepo1-path=/wrong\n", "/var/lib/pgbackrest"),
        ("[global]\nrepo2-path=/repo\nrepo3-type=s3\n", "/repo"),
        ("[global]\nrepo1-path=/repo\nrepo2-type=s3\nrepo2-path=/b\n", "/repo"),
    ] {
        let (_directory, command) = configured(content);
        gives(&command, main(repository));
        gives(
            &command.replace(
                "--stanza=main",
                "--stanza main --log-level-console=info --archive-async",
            ),
            main(repository),
        );
        gives(
            &command.replace("archive-push", "--repo1-path=/cli archive-push"),
            main("/cli"),
        );
    }
    let (_directory, command) = configured("[global]\nrepo1-path=/wrong\n");
    gives(&format!("PGBACKREST_REPO1_PATH=/repo {command}"), main("/repo"));
    gives(
        &format!("PGBACKREST_STANZA=main {}", command.replace("--stanza=main", "")),
        main("/wrong"),
    );
}

#[test]
fn parts_of_pgbackrests_configuration_count_as_well() {
    let (directory, _) = configured("[global]\nrepo1-path=/repo\n");
    let parts = directory.path().join("conf.d");
    std::fs::create_dir(&parts).unwrap();
    std::fs::write(parts.join("a.conf"), "[main]\nrepo1-cipher-type=aes-256-cbc\n").unwrap();
    std::fs::write(parts.join("b.txt"), "[main]\nrepo1-host=x\n").unwrap();
    let command = format!(
        "pgbackrest --stanza=main --config-path={} archive-push %p",
        directory.path().display()
    );
    must_be_fetched(&command, "encrypted");
    std::fs::remove_file(parts.join("a.conf")).unwrap();
    gives(&command, Source::PgBackRest(PathBuf::from("/repo/archive/main")));
}

#[test]
fn a_repository_that_cannot_be_read_from_here_is_named_as_such() {
    for (content, because) in [
        ("[global]\nrepo1-host=backup\n", "another host (backup)"),
        ("[global]\nrepo1-type=s3\n", "type s3"),
        ("[main]\nrepo1-cipher-type=aes-256-cbc\n", "encrypted"),
        ("[global]\nrepo1-type=s3\nrepo2-path=/a\n", "type s3"),
        ("[global]\nrepo1-path=relative\n", "no absolute path"),
        ("[global]\nnonsense\n", "no setting"),
        ("[global]\nrepo1-path=/a\n[global]\nrepo1-path=/b\n", "twice"),
        (&"#".repeat(70_000), "more than 64 kB"),
    ] {
        let (_directory, command) = configured(content);
        must_be_fetched(&command, because);
    }
    must_be_fetched("pgbackrest archive-push %p", "without --stanza");
    must_be_fetched(
        "pgbackrest --stanza=main --config=/nowhere/x archive-push %p",
        "does not exist",
    );
    must_be_fetched(
        "pgbackrest --stanza=main --config=x archive-push %p",
        "no absolute path",
    );
    must_be_fetched("pgbackrest --stan=main archive-push %p", "--stan is not known");
    must_be_fetched("pgbackrest --stanza=main --no-config archive-push %p", "--no-config");
    must_be_fetched("pgbackrest --stanza=../x archive-push %p", "no name of a stanza");
    must_be_fetched("pgbackrest --stanza=main backup", "not called as");
    must_be_fetched(
        "pgbackrest --stanza=main --process-max 4 archive-push %p",
        "--name=value",
    );
}

#[test]
fn archiving_that_is_off_is_told_from_archiving_that_is_not_set_up() {
    assert_eq!(of("(disabled)"), Err(DeriveError::Off));
    assert_eq!(of("  "), Err(DeriveError::NotSet));
}

proptest! {
    #[test]
    fn whatever_the_command_the_answer_is_a_place_or_a_sentence(command in "(cp|mv|ln|install|rsync|cat|dd|test|nice|gzip|zstd|lz4|env|A=b|wal-g|wal-push|WALG_FILE_PREFIX=/w|[a-z]{1,5}| |-[a-z]{1,3}|-c|-o|--|%p|%f|%%|/a/|/[a-z.]{1,4}|[.]gz|'|\"|\\\\|&&|;|<|>|2>|\\||é){0,12}") {
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
