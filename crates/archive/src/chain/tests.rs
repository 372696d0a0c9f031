//! The chain against a made-up archive, tick by tick, and against any archive at all.

use proptest::prelude::*;
use wal::{SegmentSize, TimelineHistory};

use super::*;

const SIZE: SegmentSize = SegmentSize::DEFAULT;
const SECOND: i64 = 1_000_000;

fn segment(number: u64) -> SegmentName {
    SegmentName {
        timeline: Timeline(1),
        number,
        size: SIZE,
    }
}

fn root(inode: u64) -> RootId {
    RootId { device: 1, inode }
}

/// A cluster's archive and what pg_backstop has on record of it.
struct World {
    listing: Listing,
    recorded: BTreeMap<SegmentName, Recorded>,
    recorded_others: BTreeMap<String, Recorded>,
    ready: BTreeSet<String>,
    expected: Vec<Stretch>,
    now: i64,
    memory: Memory,
    changes: i64,
}

impl World {
    /// Segments `first..=last` of timeline 1 are expected, in the archive, and verified.
    fn verified(first: u64, last: u64) -> Self {
        let mut world = Self::empty(first, last);
        for number in first..=last {
            world.store(number);
        }
        world.tick();
        world
    }

    fn empty(first: u64, last: u64) -> Self {
        Self {
            listing: Listing {
                segments: BTreeMap::new(),
                others: Vec::new(),
                ignored: 0,
                ignored_examples: Vec::new(),
                root: root(1),
                stamp: None,
            },
            recorded: BTreeMap::new(),
            recorded_others: BTreeMap::new(),
            ready: BTreeSet::new(),
            expected: vec![Stretch {
                timeline: Timeline(1),
                first,
                last,
                size: SIZE,
            }],
            now: 1000 * SECOND,
            memory: Memory::new(PgTimestamp(1000 * SECOND)),
            changes: 0,
        }
    }

    fn file(&mut self, name: String) -> StoredFile {
        self.changes += 1;
        StoredFile {
            name,
            bytes: SIZE.bytes(),
            changed_at: PgTimestamp(self.changes),
            inode: 7,
        }
    }

    fn store(&mut self, number: u64) {
        let file = self.file(segment(number).to_string());
        self.listing.segments.insert(segment(number), file);
    }

    fn remove(&mut self, number: u64) {
        self.listing.segments.remove(&segment(number));
    }

    fn plan(&mut self) -> Plan {
        self.plan_with(true)
    }

    fn plan_with(&mut self, listed: bool) -> Plan {
        plan(
            &Inputs {
                expected: &self.expected,
                listing: listed.then_some(&self.listing),
                recorded: &self.recorded,
                recorded_others: &self.recorded_others,
                ready: &self.ready,
                grace: Duration::from_secs(60),
                now: PgTimestamp(self.now),
            },
            &mut self.memory,
        )
    }

    /// Does what a plan says; everything that is read turns out sound.
    fn carry_out(&mut self, plan: &Plan) {
        let row = |status, mark| Recorded {
            status,
            mark,
            noticed_at: PgTimestamp(self.now),
            due: false,
        };
        for (segment, mark) in &plan.newly_pending {
            self.recorded.insert(*segment, row(Status::Pending, *mark));
        }
        for (segment, _) in &plan.newly_missing {
            self.recorded
                .entry(*segment)
                .or_insert(row(Status::Missing, None))
                .status = Status::Missing;
        }
        for segment in &plan.forgotten {
            self.recorded.remove(segment);
        }
        for look in &plan.to_verify {
            self.recorded
                .insert(look.segment, row(Status::Verified, Some(Mark::of(&look.file))));
        }
        for look in &plan.to_read {
            self.recorded_others.insert(
                look.file.name.clone(),
                row(Status::Verified, Some(Mark::of(&look.file))),
            );
        }
        for (timelines, status) in [
            (plan.newly_pending_histories.clone(), Status::Pending),
            (
                plan.newly_missing_histories.iter().map(|(t, _)| *t).collect(),
                Status::Missing,
            ),
        ] {
            for timeline in timelines {
                let name = format!("{:08X}.history", timeline.0);
                self.recorded_others.entry(name).or_insert(row(status, None)).status = status;
            }
        }
        for name in &plan.forgotten_others {
            self.recorded_others.remove(name);
        }
    }

    fn tick(&mut self) -> Plan {
        let plan = self.plan();
        self.carry_out(&plan);
        self.now += 10 * SECOND;
        plan
    }

    fn status(&self, number: u64) -> Option<Status> {
        self.recorded.get(&segment(number)).map(|r| r.status)
    }
}

fn names(segments: &[SegmentName]) -> Vec<u64> {
    segments.iter().map(|s| s.number).collect()
}

fn pending(plan: &Plan) -> Vec<u64> {
    plan.newly_pending.iter().map(|(segment, _)| segment.number).collect()
}

#[test]
fn an_archive_without_news_asks_for_nothing() {
    let mut world = World::verified(1, 50);
    assert_eq!(world.tick(), Plan::default());
}

#[test]
fn new_segments_are_verified_once_and_in_order() {
    let mut world = World::verified(1, 3);
    world.expected[0].last = 6;
    for number in [6, 4, 5] {
        world.store(number);
    }
    let plan = world.tick();
    assert_eq!(
        plan.to_verify.iter().map(|v| v.segment.number).collect::<Vec<_>>(),
        [4, 5, 6]
    );
    assert_eq!(pending(&plan), [4, 5, 6], "a row comes before the verdict");
    assert_eq!(plan.unverified, 3);
    assert_eq!(world.tick(), Plan::default());
}

#[test]
fn a_deleted_segment_is_missing_at_once_and_verified_again_when_it_returns() {
    let mut world = World::verified(1, 9);
    world.remove(4);
    let plan = world.tick();
    assert_eq!(plan.newly_missing, [(segment(4), Loss::Gone)]);
    assert_eq!(world.tick(), Plan::default(), "said once");
    world.store(4);
    let plan = world.tick();
    assert_eq!(names(&plan.back_again), [4]);
    assert_eq!(plan.to_verify[0].why, Why::BackAgain);
    assert_eq!(world.status(4), Some(Status::Verified));
}

#[test]
fn a_segment_that_the_archiver_called_done_is_missing_after_the_grace() {
    let mut world = World::verified(1, 3);
    world.expected[0].last = 4;
    assert_eq!(pending(&world.tick()), [4]);
    for _ in 0..5 {
        assert_eq!(world.tick().newly_missing, []);
    }
    assert_eq!(world.tick().newly_missing, [(segment(4), Loss::NeverArrived)]);
}

#[test]
fn a_segment_that_the_archiver_has_yet_to_send_is_pending_however_long_it_takes() {
    let mut world = World::verified(1, 3);
    world.expected[0].last = 4;
    world.ready.insert(segment(4).to_string());
    for _ in 0..100 {
        assert_eq!(world.tick().newly_missing, []);
    }
    assert_eq!(world.status(4), Some(Status::Pending));
    world.ready.clear();
    for _ in 0..5 {
        assert_eq!(
            world.tick().newly_missing,
            [],
            "the grace counts from when the archiver called it done"
        );
    }
    world.tick();
    assert_eq!(world.status(4), Some(Status::Missing));
    world.ready.insert(segment(4).to_string());
    world.tick();
    assert_eq!(world.status(4), Some(Status::Pending), "it will be sent after all");
}

#[test]
fn a_file_that_the_archiver_is_still_writing_is_not_read() {
    let mut world = World::verified(1, 3);
    world.expected[0].last = 4;
    world.store(4);
    world.ready.insert(segment(4).to_string());
    let plan = world.tick();
    assert_eq!((plan.to_verify.len(), pending(&plan)), (0, vec![4]));
    assert_eq!(world.tick().unverified, 1);
    world.ready.clear();
    assert_eq!(world.tick().to_verify[0].why, Why::New);
}

#[test]
fn a_file_that_changed_is_read_again() {
    let mut world = World::verified(1, 3);
    world.store(2);
    let plan = world.tick();
    assert_eq!(
        (
            plan.to_verify.len(),
            plan.to_verify[0].segment.number,
            plan.to_verify[0].why
        ),
        (1, 2, Why::Changed)
    );
    world.recorded.get_mut(&segment(3)).unwrap().due = true;
    assert_eq!(world.tick().to_verify[0].why, Why::Due);
    assert_eq!(world.tick(), Plan::default());
}

#[test]
fn what_no_backup_needs_is_forgotten_when_it_goes() {
    let mut world = World::verified(1, 9);
    world.expected[0].first = 5;
    assert_eq!(world.tick(), Plan::default(), "while it is there it stays on record");
    world.remove(1);
    world.remove(2);
    assert_eq!(names(&world.tick().forgotten), [1, 2]);
    assert_eq!(world.status(1), None);
    assert_eq!(world.tick(), Plan::default());
}

#[test]
fn a_row_ahead_of_what_this_look_expects_is_left_alone() {
    let mut world = World::verified(1, 9);
    world.recorded.insert(
        segment(10),
        Recorded {
            status: Status::Pending,
            mark: None,
            noticed_at: PgTimestamp(world.now),
            due: false,
        },
    );
    assert_eq!(world.tick(), Plan::default());
}

#[test]
fn an_archive_that_cannot_be_listed_changes_nothing() {
    let mut world = World::verified(1, 9);
    world.expected[0].last = 12;
    world.remove(3);
    for _ in 0..100 {
        world.now += 10 * SECOND;
        assert_eq!(world.plan_with(false), Plan::default());
    }
}

#[test]
fn an_empty_directory_in_place_of_the_archive_is_an_unmounted_file_system() {
    let mut world = World::verified(1, 9);
    let mounted = std::mem::take(&mut world.listing.segments);
    world.listing.root = root(2);
    let plan = world.tick();
    assert_eq!(
        plan,
        Plan {
            suspicion: Some(Suspicion::EmptyElsewhere { files: 9 }),
            ..Plan::default()
        }
    );
    assert!(plan.suspicion.unwrap().to_string().contains("mounted"));
    world.listing.segments = mounted;
    world.listing.root = root(1);
    assert_eq!(world.tick(), Plan::default());
    world.listing.segments.clear();
    assert_eq!(
        world.tick().newly_missing.len(),
        9,
        "emptied under the eyes of the worker"
    );
}

#[test]
fn an_acknowledged_loss_is_not_reported_again_but_its_return_is() {
    let mut world = World::verified(1, 9);
    world.remove(4);
    world.tick();
    world.recorded.get_mut(&segment(4)).unwrap().status = Status::Acknowledged;
    assert_eq!(world.tick(), Plan::default());
    world.store(4);
    assert_eq!(names(&world.tick().back_again), [4]);
}

#[test]
fn the_history_file_of_every_timeline_crossed_is_expected() {
    let mut world = World::empty(1, 2);
    world.expected.push(Stretch {
        timeline: Timeline(2),
        first: 3,
        last: 4,
        size: SIZE,
    });
    assert_eq!(world.tick().newly_pending_histories, [Timeline(2)]);
    let history = world.file("00000002.history".to_owned());
    world.listing.others.push((WalFileName::History(Timeline(2)), history));
    assert_eq!(world.tick().to_read.len(), 1);
    assert_eq!(world.tick().to_read, []);
    world.listing.others.clear();
    assert_eq!(world.tick().newly_missing_histories, [(Timeline(2), Loss::Gone)]);
    assert_eq!(world.tick().newly_missing_histories, []);
}

#[test]
fn a_backup_history_file_is_read_once_and_not_missed() {
    let mut world = World::verified(1, 2);
    let file = world.file("000000010000000000000001.00000028.backup".to_owned());
    let kind = WalFileName::BackupHistory {
        segment: segment(1),
        offset: 0x28,
    };
    world.listing.others.push((kind, file));
    assert_eq!(world.tick().to_read.len(), 1);
    assert_eq!(world.tick(), Plan::default());
    world.listing.others.clear();
    assert_eq!(world.tick().forgotten_others.len(), 1);
}

#[test]
fn runs_break_at_holes_at_timelines_and_where_the_verdict_differs() {
    let other = SegmentName {
        timeline: Timeline(2),
        number: 9,
        size: SIZE,
    };
    let of = [
        (segment(1), 'm'),
        (segment(2), 'm'),
        (segment(3), 'c'),
        (segment(5), 'c'),
        (segment(8), 'm'),
        (other, 'm'),
    ];
    let shown: Vec<_> = runs(of)
        .into_iter()
        .map(|r| (r.first.number, r.last.number, r.segments, r.about))
        .collect();
    assert_eq!(
        shown,
        [
            (1, 2, 2, 'm'),
            (3, 3, 1, 'c'),
            (5, 5, 1, 'c'),
            (8, 8, 1, 'm'),
            (9, 9, 1, 'm')
        ]
    );
}

/// What can happen between two looks.
#[derive(Debug, Clone)]
enum Event {
    Store(u64),
    Remove(u64),
    Ready(u64),
    Done(u64),
    Fill,
    Acknowledge(u64),
    Restart,
    Seconds(i64),
    Tick { listed: bool },
}

fn event() -> impl Strategy<Value = Event> {
    let number = 1..20_u64;
    prop_oneof![
        number.clone().prop_map(Event::Store),
        number.clone().prop_map(Event::Remove),
        number.clone().prop_map(Event::Ready),
        number.clone().prop_map(Event::Done),
        number.prop_map(Event::Acknowledge),
        Just(Event::Fill),
        Just(Event::Restart),
        (0..100_i64).prop_map(Event::Seconds),
        any::<bool>().prop_map(|listed| Event::Tick { listed }),
        Just(Event::Tick { listed: true }),
    ]
}

proptest! {
    #[test]
    fn no_segment_is_ever_called_missing_without_a_listing_that_lacks_it(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::empty(3, 10);
        for event in events {
            match event {
                Event::Store(n) => world.store(n),
                Event::Remove(n) => world.remove(n),
                Event::Ready(n) => { world.ready.insert(segment(n).to_string()); }
                Event::Done(n) => { world.ready.remove(&segment(n).to_string()); }
                Event::Fill => world.expected[0].last += 1,
                Event::Acknowledge(n) => {
                    if let Some(row) = world.recorded.get_mut(&segment(n)).filter(|r| r.status == Status::Missing) {
                        row.status = Status::Acknowledged;
                    }
                }
                Event::Restart => world.memory = Memory::new(PgTimestamp(world.now)),
                Event::Seconds(s) => world.now += s * SECOND,
                Event::Tick { listed: false } => prop_assert_eq!(world.plan_with(false), Plan::default()),
                Event::Tick { listed: true } => {
                    let before = world.recorded.clone();
                    let plan = world.plan();
                    world.carry_out(&plan);
                    if plan.suspicion.is_some() {
                        prop_assert_eq!(&before, &world.recorded);
                        continue;
                    }
                    for (lost, _) in &plan.newly_missing {
                        prop_assert!(!world.listing.segments.contains_key(lost), "{lost} is there");
                        prop_assert!(!world.ready.contains(&lost.to_string()), "{lost} will still be sent");
                    }
                    for back in &plan.back_again {
                        let read = plan.to_verify.iter().any(|v| v.segment == *back);
                        prop_assert!(read || world.ready.contains(&back.to_string()), "{back} came back unread");
                    }
                    for number in 3..=world.expected[0].last {
                        let held = world.listing.segments.get(&segment(number));
                        let row = world.recorded.get(&segment(number)).copied();
                        let Some(row) = row else { return Err(TestCaseError::fail(format!("{number} has no row"))) };
                        match row.status {
                            Status::Verified => prop_assert_eq!(held.map(Mark::of), row.mark),
                            Status::Missing | Status::Acknowledged => prop_assert!(held.is_none()),
                            Status::Pending => {
                                let ready = world.ready.contains(&segment(number).to_string());
                                prop_assert!(held.is_none() || ready, "{number} is in the archive and was not read");
                            }
                            other => return Err(TestCaseError::fail(format!("{number} is {other}"))),
                        }
                    }
                    prop_assert_eq!(world.plan().to_verify, vec![], "the same look again has no news");
                }
            }
        }
    }

    #[test]
    fn expected_segments_do_not_overlap_and_leave_no_hole(
        switches in prop::collection::btree_set(1..200_u64, 0..5), from in 0..220_u64, to in 0..220_u64,
    ) {
        let lines: String = switches.iter().enumerate().map(|(i, s)| format!("{}\t{}\tx\n", i + 1, wal::Lsn(s << 23))).collect();
        let last = Timeline(u32::try_from(switches.len()).unwrap() + 1);
        let history = if switches.is_empty() { TimelineHistory::root(last) } else { TimelineHistory::parse(last, &lines).unwrap() };
        let stretches = crate::expected::expected(&history, SIZE, wal::Lsn(from << 23), wal::Lsn(to << 23));
        let numbers: Vec<u64> = stretches.iter().flat_map(|s| s.first..=s.last).collect();
        let wanted: Vec<u64> = ((from / 2).max(1)..to / 2).collect();
        prop_assert_eq!(numbers, wanted);
        for stretch in &stretches {
            for number in stretch.first..=stretch.last {
                prop_assert_eq!(history.timeline_of_segment(number, SIZE), stretch.timeline);
            }
        }
    }
}
