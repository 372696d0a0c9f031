//! What is restored writes into nothing but its own directories.

use super::steps::{account, at_pgbackrest, plain, script, site, without_tablespaces};
use super::*;

#[test]
fn a_link_to_pg_wal_is_never_followed_into_another_server() {
    for wal in [None, Some("/my backup wal".to_owned())] {
        let mut copied = plain();
        if let Copied::Plain { wal: of_it, .. } = &mut copied {
            of_it.clone_from(&wal);
        }
        let script = script(&account(Target::Latest, Some("/srv/copy"), copied), &site(15));
        let place = |text: &str| script.find(text).unwrap_or_else(|| panic!("no {text} in\n{script}"));
        let unlinked = place("if [ -L /srv/copy/pg_wal ]; then rm -f -- /srv/copy/pg_wal; fi");
        assert!(place("cp -a -- '/my backup/.'") < unlinked);
        assert!(unlinked < place("mkdir -p -m 0700 -- /srv/copy/pg_wal"));
        assert_eq!(
            script.contains("cp -a -- '/my backup wal/.' /srv/copy/pg_wal/"),
            wal.is_some(),
            "{script}"
        );
    }
}

#[test]
fn a_tablespace_made_after_the_backup_is_not_replayed_into_beside_the_server() {
    let mut newer = site(15);
    newer.tablespaces.push((16999, "/fast/newer".to_owned()));
    let tar = Copied::Tar {
        path: "/b".to_owned(),
        base: "base.tar".to_owned(),
        wal: None,
        tablespaces: vec![Tablespace {
            oid: 16385,
            from: "/b/16385.tar".to_owned(),
        }],
    };
    for copied in [plain(), tar] {
        let refusal = steps(&account(Target::Latest, Some("/srv/copy"), copied.clone()), &newer).unwrap_err();
        assert_eq!(
            refusal,
            Refusal::TablespaceNotInBackup {
                backup: 4,
                oid: 16999,
                place: "/fast/newer".to_owned()
            }
        );
        assert!(refusal.is_about_state() && refusal.hint().contains("new backup"));
        // In the server's place an empty directory waits for it.
        let script = script(&account(Target::Latest, None, copied), &newer);
        assert!(script.contains("mkdir -m 0700 -- /fast/newer"), "{script}");
    }
}

#[test]
fn a_backup_that_was_not_looked_at_is_not_replayed_over_the_servers_tablespaces() {
    let unseen = Copied::Unseen {
        path: "/b".to_owned(),
        why: "why".to_owned(),
    };
    let check = "[ ! -d /srv/copy/pg_tblspc/16385 ] || [ /srv/copy/pg_tblspc/16385 -ef /fast/ts ]";
    let mut of_tool = account(Target::Latest, Some("/srv/copy"), Copied::Nowhere);
    of_tool.tool = at_pgbackrest(None);
    for account in [account(Target::Latest, Some("/srv/copy"), unseen), of_tool] {
        let steps = steps(&account, &site(15)).unwrap();
        let step = steps
            .iter()
            .find(|step| step.command.as_deref().is_some_and(|command| command.contains(check)))
            .unwrap();
        assert!(step.action.contains("made after the backup"), "{}", step.action);
        assert!(!script(&account, &without_tablespaces()).contains("pg_tblspc"));
    }
    assert!(!script(&account(Target::Latest, Some("/srv/copy"), plain()), &site(15)).contains("-ef"));
}

#[test]
fn tar_files_without_tablespaces_leave_no_map_to_those_of_the_server() {
    let copied = Copied::Tar {
        path: "/b".to_owned(),
        base: "base.tar".to_owned(),
        wal: None,
        tablespaces: Vec::new(),
    };
    let script = script(
        &account(Target::Latest, Some("/srv/copy"), copied),
        &without_tablespaces(),
    );
    let unpacked = script.find("tar -x -p -f /b/base.tar -C /srv/copy").unwrap();
    assert!(
        script.find("rm -f -- /srv/copy/tablespace_map").unwrap() > unpacked,
        "{script}"
    );
}

#[test]
fn directories_beside_the_new_one_are_made_before_anything_is_copied_and_only_those_are_removed() {
    let script = script(&account(Target::Latest, Some("/srv/copy"), plain()), &site(15));
    let made = script.find("mkdir -m 0700 -- /srv/copy.tablespaces/16385").unwrap();
    assert!(made < script.find("cp -a").unwrap(), "{script}");
    let mut chain = account(Target::Latest, Some("/srv/copy"), Copied::Nowhere);
    chain.chain = [3, 4]
        .map(|backup| Link {
            backup,
            copied: Copied::Tar {
                path: format!("/b{backup}"),
                base: "base.tar".to_owned(),
                wal: None,
                tablespaces: Vec::new(),
            },
        })
        .to_vec();
    let steps = steps(&chain, &without_tablespaces()).unwrap();
    let command = steps
        .iter()
        .filter_map(|step| step.command.as_deref())
        .find(|command| command.contains("pg_combinebackup"))
        .unwrap();
    let place = |text: &str| command.find(text).unwrap_or_else(|| panic!("no {text} in\n{command}"));
    assert!(place("mkdir -m 0700 -- /srv/copy.backup-4") < place("tar -x"));
    assert!(place("tar -x") < place("rm -rf -- /srv/copy.backup-3 /srv/copy.backup-4"));
    assert!(!command.contains("mkdir -p -m 0700 -- /srv/copy.backup"), "{command}");
}
