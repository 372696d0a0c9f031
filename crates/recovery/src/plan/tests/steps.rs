//! The steps and commands that are made of a choice.

use super::*;

pub(super) fn site(major: u32) -> Site {
    Site {
        major,
        is_standby: false,
        bindir: "/usr/lib/pg/bin".to_owned(),
        config_file: None,
        port: 5432,
        socket: Some("/run/postgresql".to_owned()),
        superuser: "postgres".to_owned(),
        database: "postgres".to_owned(),
        schema: "public".to_owned(),
        tablespaces: vec![(16385, "/fast/ts".to_owned())],
    }
}

pub(super) fn without_tablespaces() -> Site {
    Site {
        tablespaces: Vec::new(),
        ..site(17)
    }
}

pub(super) fn account(target: Target, data_directory: Option<&str>, copied: Copied) -> Account {
    Account {
        choice: chosen(target).unwrap(),
        chain: vec![Link { backup: 4, copied }],
        tool: None,
        backup_at: Some(minutes(30)),
        now: now(),
        to: Destination::choose(data_directory, "/srv/data", &[], &[]).unwrap(),
        restore_command: Some("cp '/my archive/'%f \"%p\"".to_owned()),
        action: Action::Promote,
        predicted: None,
    }
}

pub(super) fn plain() -> Copied {
    Copied::Plain {
        path: "/my backup".to_owned(),
        tablespaces: vec![Tablespace {
            oid: 16385,
            from: "/my backup ts".to_owned(),
        }],
        wal: None,
    }
}

/// All commands, as a shell gets them.
pub(super) fn script(account: &Account, site: &Site) -> String {
    let steps = steps(account, site).unwrap();
    let commands: Vec<String> = steps.into_iter().filter_map(|step| step.command).collect();
    commands.join("\n")
}

#[test]
fn a_copy_beside_the_server_archives_nothing_and_writes_into_nothing_but_itself() {
    let script = script(&account(Target::Lsn(at(25.0)), Some("/srv/copy"), plain()), &site(15));
    for line in [
        "archive_mode = 'off'",
        "archive_cleanup_command = ''",
        "synchronous_standby_names = ''",
        "listen_addresses = ''",
        "recovery_target_lsn = '0/19000000'",
        "recovery_target_timeline = '1'",
        "restore_command = 'cp ''/my archive/''%f \"%p\"'",
        "ln -s -- /srv/copy.tablespaces/16385 /srv/copy/pg_tblspc/16385",
        "cp -a -- '/my backup ts/.' /srv/copy.tablespaces/16385/",
        "rm -f -- /srv/copy/tablespace_map",
    ] {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
    assert!(
        !script.contains("/fast/ts") && !script.contains("pg_ctl stop"),
        "{script}"
    );
    // An empty target behind the one that is meant would take it back.
    let meant = script.find("recovery_target_lsn = '0").unwrap();
    assert!(script.rfind("recovery_target_xid = ''").unwrap() < meant, "{script}");
    assert!(!script.contains("recovery_target_lsn = ''"), "{script}");
}

#[test]
fn a_copy_answers_elsewhere_where_its_own_directory_is_no_name_of_a_socket() {
    for path in ["/srv/one, two".to_owned(), format!("/srv/{}", "long".repeat(25))] {
        let script = script(&account(Target::Latest, Some(&path), plain()), &site(15));
        assert!(script.contains("unix_socket_directories = '\"/tmp\"'"), "{script}");
        assert!(
            script.contains("port = '5433'") && script.contains("-h /tmp -p 5433"),
            "{script}"
        );
    }
}

#[test]
fn in_place_of_the_server_what_was_there_is_kept_and_unarchived_wal_is_added() {
    let script = script(&account(Target::Latest, None, plain()), &site(15));
    for line in [
        "/usr/lib/pg/bin/pg_ctl stop -D /srv/data -m fast",
        "mv -T -- /srv/data /srv/data.before-recovery-20231114T221320Z",
        "mv -T -- /fast/ts /fast/ts.before-recovery-20231114T221320Z",
        "ln -s -- /fast/ts /srv/data/pg_tblspc/16385",
        "/srv/data.before-recovery-20231114T221320Z/pg_wal/????????????????????????",
    ] {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
    assert!(!script.contains("archive_mode"), "{script}");
}

#[test]
fn tar_files_are_unpacked_with_their_compression_and_the_map_leads_to_the_copy() {
    let copied = Copied::Tar {
        path: "/b".to_owned(),
        base: "base.tar.gz".to_owned(),
        wal: Some("pg_wal.tar.gz".to_owned()),
        tablespaces: vec![Tablespace {
            oid: 16385,
            from: "/b/16385.tar.zst".to_owned(),
        }],
    };
    let script = script(&account(Target::Latest, Some("/srv/copy"), copied), &site(18));
    for line in [
        "tar -x -p -z -f /b/base.tar.gz -C /srv/copy",
        "tar -x -p -z -f /b/pg_wal.tar.gz -C /srv/copy/pg_wal",
        "tar -x -p -I zstd -f /b/16385.tar.zst -C /srv/copy.tablespaces/16385",
        "printf '%s\\n' '16385 /srv/copy.tablespaces/16385' > /srv/copy/tablespace_map",
    ] {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
}

#[test]
fn a_chain_is_combined_since_17_and_refused_before() {
    let mut account = account(Target::Latest, Some("/srv/copy"), plain());
    account.chain = vec![
        Link {
            backup: 3,
            copied: Copied::Plain {
                path: "/full".to_owned(),
                tablespaces: Vec::new(),
                wal: None,
            },
        },
        Link {
            backup: 4,
            copied: plain(),
        },
    ];
    let script = script(&account, &site(17));
    assert!(
        script.contains(
                "/usr/lib/pg/bin/pg_combinebackup -o /srv/copy -T '/my backup ts=/srv/copy.tablespaces/16385' -- /full '/my backup'"
        ),
        "{script}"
    );
    let refusal = steps(&account, &site(16)).unwrap_err();
    assert_eq!(refusal, Refusal::NoCombining { backup: 4, major: 16 });
}

#[test]
fn a_backup_whose_place_is_not_on_record_leaves_a_step_without_command_and_all_others() {
    let steps = steps(&account(Target::Latest, Some("/srv/copy"), Copied::Nowhere), &site(15)).unwrap();
    let without: Vec<&Step> = steps.iter().filter(|step| step.command.is_none()).collect();
    assert_eq!(without.len(), 2, "{steps:?}");
    assert!(
        without.iter().any(|step| step.action.contains("not on record")),
        "{without:?}"
    );
}

#[test]
fn on_a_standby_the_rehearsal_is_left_to_the_primary_to_record() {
    let standby = Site {
        is_standby: true,
        ..site(15)
    };
    let steps = steps(&account(Target::Latest, Some("/srv/copy"), plain()), &standby).unwrap();
    let last = steps.last().unwrap();
    assert!(
        last.action.contains("on the primary") && last.command.is_none(),
        "{last:?}"
    );
}

#[test]
fn without_an_archive_recovery_uses_the_wal_in_the_backup() {
    let mut account = account(Target::Latest, Some("/srv/copy"), plain());
    account.restore_command = None;
    let script = script(&account, &site(15));
    // With recovery.signal the server wants one (validateRecoveryParameters, xlogrecovery.c).
    assert!(script.contains("restore_command = 'false'"), "{script}");
}

#[test]
fn a_pause_is_waited_for_shown_and_ended() {
    let mut account = account(Target::Time(minutes(20)), Some("/srv/copy"), plain());
    account.action = Action::Pause;
    let script = script(&account, &site(15));
    let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text} in\n{script}"));
    assert!(place("recovery_target_action = 'pause'") < place("pg_get_wal_replay_pause_state"));
    assert!(place("pg_get_wal_replay_pause_state") < place("pg_wal_replay_resume"));
    assert!(place("pg_wal_replay_resume") < place("pg_is_in_recovery"));
}

#[test]
fn a_tool_restores_its_own_backups_with_the_same_target() {
    let mut account = account(Target::Time(minutes(20)), Some("/srv/copy"), Copied::Nowhere);
    account.tool = Some(Tool::PgBackRest {
        stanza: Some("main".to_owned()),
        set: None,
        start_wal_file: None,
    });
    let script = script(&account, &site(15));
    assert!(
        script.contains(
            "pgbackrest --stanza=main --pg1-path=/srv/copy --archive-mode=off --tablespace-map-all=/srv/copy.tablespaces \
             --type=time '--target=2023-11-14 21:53:20+00' "
        ) || script.contains("--type=time --target='2023-11-14 21:53:20+00' --target-action=promote --target-timeline=1 restore"),
        "{script}"
    );
    assert!(!script.contains("restore_command"), "{script}");
}

pub(super) fn at_pgbackrest(set: Option<&str>) -> Option<Tool> {
    Some(Tool::PgBackRest {
        stanza: Some("main".to_owned()),
        set: set.map(str::to_owned),
        start_wal_file: Some("000000010000000000000018".to_owned()),
    })
}

#[test]
fn pgbackrest_gets_no_command_that_would_take_another_set_than_the_one_that_is_meant() {
    let mut account = account(Target::Lsn(at(25.0)), Some("/srv/copy"), Copied::Nowhere);
    account.tool = at_pgbackrest(None);
    let all = steps(&account, &site(15)).unwrap();
    let step = all.iter().find(|step| step.action.contains("pgBackRest")).unwrap();
    assert_eq!(step.command, None);
    for part in [
        "whose first WAL segment is 000000010000000000000018 from pgbackrest --stanza=main info",
        "--set=SET",
        "--target=0/19000000",
    ] {
        assert!(step.action.contains(part), "no {part:?} in {}", step.action);
    }
    account.tool = at_pgbackrest(Some("20261121-153817F"));
    assert!(script(&account, &site(15)).contains("--set=20261121-153817F "));
}

#[test]
fn what_is_recorded_tells_how_long_restore_and_replay_took() {
    let mut account = account(Target::Time(minutes(20)), Some("/srv/copy"), plain());
    for action in [Action::Promote, Action::Pause] {
        account.action = action;
        let script = script(&account, &site(15));
        let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text} in\n{script}"));
        let mut order = vec![
            "BACKSTOP_STARTED=$(date",
            "BACKSTOP_RESTORING=$(date",
            "cp -a",
            "BACKSTOP_RESTORED=$(date",
            "BACKSTOP_REPLAYING=$(date",
            "pg_ctl start",
            "BACKSTOP_REPLAYED=$(date",
        ];
        if action == Action::Pause {
            order.extend(["BACKSTOP_RESUMED=$(date", "BACKSTOP_OPENED=$(date"]);
        }
        order.push("record_recovery_complete(");
        let places: Vec<usize> = order.iter().map(|text| place(text)).collect();
        assert!(places.is_sorted(), "{places:?} in\n{script}");
        for argument in ["restore_seconds => ", "replay_seconds => ", "startup_seconds => "] {
            assert!(script.contains(argument), "no {argument} in\n{script}");
        }
    }
}

#[test]
fn no_name_ends_the_sql_that_it_stands_in() {
    let mut account = account(Target::Latest, Some("/srv/copy"), plain());
    account.choice.stop = Stop::Name("x\nEND_OF_SQL\ntouch /tmp/owned\n".to_owned());
    let script = script(&account, &site(15));
    assert_eq!(
        script.lines().filter(|line| *line == "END_OF_SQL").count(),
        1,
        "{script}"
    );
    assert!(
        script.contains(r"target_name => E'x\x0aEND_OF_SQL\x0atouch /tmp/owned\x0a'"),
        "{script}"
    );
    let schema = Site {
        schema: "\"x\nEND_OF_SQL\n\"".to_owned(),
        ..site(15)
    };
    let refusal = steps(&account, &schema).unwrap_err();
    assert!(matches!(refusal, Refusal::ControlInSchema { .. }), "{refusal}");
}
