//! The chain against a made-up archive, look by look, and against any archive at all.

use proptest::prelude::*;
use wal::{SegmentName, SegmentSize, Timeline, TimelineHistory};

use super::*;
use crate::expected::Stretch;
use crate::index::{Index, State};

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

/// What one look led to: the segments on which something was decided, without those of which what is on record stands.
type Look = Vec<(u64, Decision)>;

/// A cluster's archive and what pg_backstop has on record of it.
struct World {
    files: BTreeMap<SegmentName, Mark>,
    recorded: BTreeMap<SegmentName, Recorded>,
    index: Index,
    ready: BTreeSet<String>,
    local: BTreeSet<String>,
    expected: Stretch,
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
        world.look();
        world
    }

    fn empty(first: u64, last: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            recorded: BTreeMap::new(),
            index: Index::default(),
            ready: BTreeSet::new(),
            local: BTreeSet::new(),
            expected: Stretch {
                timeline: Timeline(1),
                first,
                last,
                size: SIZE,
            },
            now: 1000 * SECOND,
            memory: Memory::new(PgTimestamp(1000 * SECOND)),
            changes: 0,
        }
    }

    fn store(&mut self, number: u64) {
        self.changes += 1;
        let mark = Mark {
            bytes: SIZE.bytes(),
            changed_at: PgTimestamp(self.changes),
        };
        self.files.insert(segment(number), mark);
    }

    fn remove(&mut self, number: u64) {
        self.files.remove(&segment(number));
    }

    /// The worker's process ends; what is on record stays.
    fn restart(&mut self) {
        self.memory = Memory::new(PgTimestamp(self.now));
        self.index = Index::default();
    }

    /// Looks, does what was decided (everything that is read turns out sound), and lets ten seconds pass.
    fn look(&mut self) -> Look {
        self.memory
            .observe(&self.ready, Duration::from_secs(60), PgTimestamp(self.now));
        self.index.align(&[self.expected]);
        let files = &self.files;
        let mut candidates: BTreeSet<SegmentName> = self
            .index
            .undecided(|segment| Some(files.contains_key(segment)))
            .collect();
        candidates.extend(
            self.index
                .round(&[State::Sound, State::Bad, State::Lost], None, usize::MAX),
        );
        let mut look = Look::new();
        for segment in candidates {
            let held = self.files.get(&segment).map_or(Held::Absent, |mark| Held::File(*mark));
            let judge = Judge {
                ready: &self.ready,
                local: &self.local,
                grace: Duration::from_secs(60),
                now: PgTimestamp(self.now),
                memory: &self.memory,
            };
            let decision = judge.decide(&segment.to_string(), held, self.recorded.get(&segment));
            self.carry_out(segment, held, decision);
            if !matches!(decision, Decision::Stands | Decision::Waits) {
                look.push((segment.number, decision));
            }
        }
        self.now += 10 * SECOND;
        look
    }

    fn carry_out(&mut self, segment: SegmentName, held: Held, decision: Decision) {
        let before = self.recorded.get(&segment).copied();
        let fresh = Recorded {
            status: Status::Pending,
            mark: None,
            noticed_at: PgTimestamp(self.now),
            due: false,
            absent: false,
            rescuable: false,
        };
        let (record, state) = match decision {
            Decision::Stands => (before, None),
            Decision::Waits | Decision::Await => (
                before.filter(|_| decision == Decision::Waits).or(Some(fresh)),
                Some(State::Awaited),
            ),
            Decision::Read(_) => {
                let mark = match held {
                    Held::File(mark) => Some(mark),
                    Held::Absent | Held::Unlisted => None,
                };
                let status = Status::Verified;
                (Some(Recorded { status, mark, ..fresh }), Some(State::Sound))
            }
            Decision::Lose(loss) => (
                Some(Recorded {
                    status: Status::Missing,
                    absent: true,
                    rescuable: loss == Loss::NotArchived,
                    mark: before.and_then(|before| before.mark),
                    ..fresh
                }),
                Some(State::Lost),
            ),
        };
        if let Some(record) = record {
            self.recorded.insert(segment, record);
            let state = state.unwrap_or(match record.status {
                Status::Verified => State::Sound,
                Status::Missing | Status::Acknowledged => State::Lost,
                _ => State::Bad,
            });
            self.index.set(&segment, state);
        }
    }

    fn status(&self, number: u64) -> Option<Status> {
        self.recorded.get(&segment(number)).map(|r| r.status)
    }
}

#[test]
fn an_archive_without_news_asks_for_nothing() {
    let mut world = World::verified(1, 50);
    assert_eq!(world.look(), []);
    world.restart();
    assert_eq!(world.look(), [], "nor after a restart");
}

#[test]
fn a_new_segment_is_read_once() {
    let mut world = World::verified(1, 3);
    world.expected.last = 5;
    world.store(4);
    assert_eq!(world.look(), [(4, Decision::Read(Why::New)), (5, Decision::Await)]);
    world.store(5);
    assert_eq!(world.look(), [(5, Decision::Read(Why::New))]);
    assert_eq!(world.look(), []);
}

#[test]
fn a_deleted_segment_is_missing_at_once_and_verified_again_when_it_returns() {
    let mut world = World::verified(1, 9);
    world.remove(4);
    assert_eq!(world.look(), [(4, Decision::Lose(Loss::Gone))]);
    assert_eq!(world.look(), [], "said once");
    world.store(4);
    assert_eq!(world.look(), [(4, Decision::Read(Why::BackAgain))]);
    assert_eq!(world.status(4), Some(Status::Verified));
}

#[test]
fn a_segment_that_the_archiver_called_done_is_missing_after_the_grace() {
    let mut world = World::verified(1, 3);
    world.expected.last = 4;
    assert_eq!(world.look(), [(4, Decision::Await)]);
    for _ in 0..5 {
        assert_eq!(world.look(), []);
    }
    assert_eq!(world.look(), [(4, Decision::Lose(Loss::NeverArrived))]);
}

#[test]
fn a_segment_never_archived_can_be_rescued_while_pg_wal_has_it() {
    let mut world = World::verified(1, 3);
    world.expected.last = 4;
    world.local.insert(segment(4).to_string());
    for _ in 0..6 {
        assert_ne!(world.status(4), Some(Status::Missing));
        world.look();
    }
    assert_eq!(world.look(), [(4, Decision::Lose(Loss::NotArchived))]);
    assert_eq!(world.look(), []);
    world.local.clear();
    assert_eq!(world.look(), [(4, Decision::Lose(Loss::NeverArrived))], "recycled");
    assert_eq!(world.look(), []);
    world.local.insert(segment(3).to_string());
    world.remove(3);
    assert_eq!(world.look(), [(3, Decision::Lose(Loss::Gone))], "it had been archived");
    assert_eq!(world.look(), []);
}

#[test]
fn a_segment_that_the_archiver_has_yet_to_send_is_pending_however_long_it_takes() {
    let mut world = World::verified(1, 3);
    world.expected.last = 4;
    world.ready.insert(segment(4).to_string());
    world.look();
    for _ in 0..100 {
        assert_eq!(world.look(), []);
    }
    assert_eq!(world.status(4), Some(Status::Pending));
    world.ready.clear();
    for _ in 0..5 {
        assert_eq!(
            world.look(),
            [],
            "the grace counts from when the archiver called it done"
        );
    }
    world.look();
    assert_eq!(world.status(4), Some(Status::Missing));
}

#[test]
fn a_missing_segment_that_the_archiver_means_to_send_again_is_pending() {
    let mut world = World::verified(1, 4);
    world.remove(4);
    world.look();
    world.ready.insert(segment(4).to_string());
    assert_eq!(world.look(), [(4, Decision::Await)]);
}

#[test]
fn a_file_that_the_archiver_is_still_writing_is_not_read() {
    let mut world = World::verified(1, 3);
    world.expected.last = 4;
    world.store(4);
    world.ready.insert(segment(4).to_string());
    assert_eq!(world.look(), [(4, Decision::Await)]);
    assert_eq!(world.look(), []);
    world.ready.clear();
    assert_eq!(world.look(), [(4, Decision::Read(Why::New))]);
}

#[test]
fn a_file_that_changed_is_read_again() {
    let mut world = World::verified(1, 3);
    world.store(2);
    assert_eq!(world.look(), [(2, Decision::Read(Why::Changed))]);
    world.recorded.get_mut(&segment(3)).unwrap().due = true;
    assert_eq!(world.look(), [(3, Decision::Read(Why::Due))]);
    assert_eq!(world.look(), []);
}

#[test]
fn an_empty_directory_in_place_of_the_archive_is_an_unmounted_file_system() {
    let mut memory = Memory::new(PgTimestamp(0));
    let nine = || Ok::<_, ()>(9);
    assert_eq!(memory.trust(root(1), false, nine), Ok(Ok(())));
    let distrust = memory.trust(root(2), true, nine).unwrap().unwrap_err();
    assert_eq!(distrust, EmptyElsewhere { files: 9 });
    assert!(distrust.to_string().contains("mounted"));
    assert_eq!(
        memory.trust(root(1), true, nine),
        Ok(Ok(())),
        "emptied under the eyes of the worker"
    );
    assert_eq!(
        Memory::new(PgTimestamp(0)).trust(root(1), true, || Ok::<_, ()>(0)),
        Ok(Ok(())),
        "a new archive"
    );
}

#[test]
fn an_acknowledged_loss_is_not_reported_again_but_its_return_is() {
    let mut world = World::verified(1, 9);
    world.remove(4);
    world.look();
    world.recorded.get_mut(&segment(4)).unwrap().status = Status::Acknowledged;
    assert_eq!(world.look(), []);
    world.store(4);
    assert_eq!(world.look(), [(4, Decision::Read(Why::BackAgain))]);
}

#[test]
fn an_acknowledged_fault_is_not_read_again_until_the_file_changes() {
    let mut world = World::verified(1, 9);
    world.recorded.get_mut(&segment(4)).unwrap().status = Status::Acknowledged;
    assert_eq!(world.look(), []);
    world.store(4);
    assert_eq!(world.look(), [(4, Decision::Read(Why::Changed))]);
}

#[test]
fn an_archive_that_cannot_be_listed_is_asked_for_what_is_not_proven() {
    let memory = Memory::new(PgTimestamp(0));
    let (ready, local) = (BTreeSet::from(["sending".to_owned()]), BTreeSet::new());
    let judge = Judge {
        ready: &ready,
        local: &local,
        grace: Duration::from_secs(60),
        now: PgTimestamp(1000 * SECOND),
        memory: &memory,
    };
    let record = |status, due| Recorded {
        status,
        mark: None,
        noticed_at: PgTimestamp(0),
        due,
        absent: status == Status::Missing,
        rescuable: false,
    };
    let decide = |name, record: Option<Recorded>| judge.decide(name, Held::Unlisted, record.as_ref());
    assert_eq!(decide("new", None), Decision::Read(Why::New));
    assert_eq!(decide("sending", None), Decision::Await);
    assert_eq!(decide("sending", Some(record(Status::Pending, false))), Decision::Waits);
    assert_eq!(
        decide("a", Some(record(Status::Pending, false))),
        Decision::Read(Why::New)
    );
    assert_eq!(
        decide("a", Some(record(Status::Missing, false))),
        Decision::Read(Why::BackAgain)
    );
    assert_eq!(decide("a", Some(record(Status::Verified, false))), Decision::Stands);
    assert_eq!(
        decide("a", Some(record(Status::Corrupt, true))),
        Decision::Read(Why::Due)
    );
    assert_eq!(
        judge.absent("a", &record(Status::Pending, false)),
        Decision::Lose(Loss::NeverArrived)
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
    Look,
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
        Just(Event::Look),
        Just(Event::Look),
    ]
}

proptest! {
    #[test]
    fn no_segment_is_ever_called_missing_that_is_there_or_will_be_sent(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::empty(3, 10);
        for event in events {
            match event {
                Event::Store(n) => world.store(n),
                Event::Remove(n) => world.remove(n),
                Event::Ready(n) => { world.ready.insert(segment(n).to_string()); }
                Event::Done(n) => { world.ready.remove(&segment(n).to_string()); }
                Event::Fill => world.expected.last += 1,
                Event::Acknowledge(n) => {
                    if let Some(row) = world.recorded.get_mut(&segment(n)).filter(|r| r.status == Status::Missing) {
                        row.status = Status::Acknowledged;
                    }
                }
                Event::Restart => world.restart(),
                Event::Seconds(s) => world.now += s * SECOND,
                Event::Look => {
                    for (number, decision) in world.look() {
                        let (held, ready) = (
                            world.files.contains_key(&segment(number)),
                            world.ready.contains(&segment(number).to_string()),
                        );
                        match decision {
                            Decision::Lose(_) => prop_assert!(!held && !ready, "{number} is there, or will be sent"),
                            Decision::Read(_) => prop_assert!(held && !ready, "{number} cannot be read"),
                            _ => {}
                        }
                    }
                    for number in 3..=world.expected.last {
                        let held = world.files.get(&segment(number)).copied();
                        let row = world.recorded.get(&segment(number)).copied();
                        let Some(row) = row else { return Err(TestCaseError::fail(format!("{number} has no row"))) };
                        match row.status {
                            Status::Verified => prop_assert_eq!(held, row.mark),
                            Status::Missing | Status::Acknowledged => prop_assert!(held.is_none()),
                            Status::Pending => {
                                let ready = world.ready.contains(&segment(number).to_string());
                                prop_assert!(held.is_none() || ready, "{number} is in the archive and was not read");
                            }
                            other => return Err(TestCaseError::fail(format!("{number} is {other}"))),
                        }
                    }
                    world.now -= 10 * SECOND;
                    prop_assert_eq!(world.look(), vec![], "the same look again has no news");
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
