//! A server whose timeline 2 began in segment 30 of timeline 1, of which nothing is verified yet.

use wal::TimelineHistory;

use super::*;

fn kept(target: Target, asked: Option<Timeline>, data_directory: Option<&str>) -> Choice {
    let history =
        TimelineHistory::parse(Timeline(2), format!("1\t{}\tno recovery target specified\n", at(30.5))).unwrap();
    let windows = windows();
    let wanted = Wanted {
        timeline: asked,
        ..wanted(target)
    };
    let mut choice = choose(&windows, &windows.as_slice(), &wanted, &Evidence::default(), now()).unwrap();
    let to = Destination::choose(data_directory, "/srv/data", &[], &[]).unwrap();
    choice.keep_to_history(&windows[choice.stretch], &history, asked, &to);
    choice
}

#[test]
fn beside_the_server_recovery_stops_before_what_the_server_left_behind() {
    let end = windows()[1].bounds.to_lsn;
    for (asked, place) in [(None, Some("/srv/copy")), (Some(Timeline(1)), None)] {
        let choice = kept(Target::Latest, asked, place);
        assert_eq!(
            (choice.stop, choice.timeline, choice.inclusive, choice.unverified),
            (Stop::Lsn(end), Timeline(1), true, None)
        );
    }
}

#[test]
fn in_its_place_recovery_goes_on_into_the_servers_own_timeline() {
    let choice = kept(Target::Latest, None, None);
    assert_eq!(
        (&choice.stop, choice.timeline, choice.unverified),
        (&Stop::End, Timeline(2), Some(segment(2, 30)))
    );
    let mut account = steps::account(Target::Latest, None, steps::plain());
    account.choice = choice;
    let script = steps::script(&account, &steps::site(15));
    for line in [
        "if [ ! -f /srv/data/pg_wal/00000002000000000000001E ]; then",
        "pg_wal/????????.history; do",
        "recovery_target_timeline = '2'",
    ] {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
    let stop = script.find("pg_ctl stop").unwrap();
    assert!(script.find("[ ! -f /srv/data/pg_wal/").unwrap() < stop, "{script}");
}

#[test]
fn a_target_before_the_end_needs_nothing_of_that() {
    let choice = kept(Target::Lsn(at(25.0)), None, None);
    assert_eq!(
        (choice.stop, choice.timeline, choice.unverified),
        (Stop::Lsn(at(25.0)), Timeline(1), None)
    );
}
