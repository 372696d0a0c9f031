//! History and backup history files of the archive: a few lines each, few in number, and read whole.

use super::{Inspection, store_news};
use crate::access::ReadOutcome;
use crate::catalog;
use crate::catalog::archive::Unread;
use crate::detection;
use crate::error::Result;
use crate::verification::TextFinding;
use archive::Status;
use archive::chain::{Decision, Held, Loss};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};
use wal::WalFileName;

/// So many files are looked at again in each look, in turn.
const ROUND: usize = 256;

/// An archive that cannot be listed is asked so often for a file that was not to be had, or was no good...
const BETWEEN_QUESTIONS: Duration = Duration::from_secs(20);
/// ... and so often for one that was sound.
const BETWEEN_PROOFS: Duration = Duration::from_secs(600);

/// What is known of them from one look to the next.
#[derive(Default)]
pub(super) struct Texts {
    /// Names that have a row.
    known: BTreeSet<String>,
    /// When an archive that cannot be listed was last asked for a file.
    asked: BTreeMap<String, Instant>,
    /// Where the round of [`ROUND`] goes on.
    round: Option<String>,
}

impl Texts {
    /// Learns which files have a row. Needs a transaction.
    pub(super) fn load() -> Result<Self> {
        Ok(Self {
            known: catalog::archive::recorded_texts()?.into_iter().collect(),
            ..Self::default()
        })
    }

    /// Whether an archive that cannot be listed is to be asked for a file (again): each time costs a process.
    fn may_ask(&mut self, name: &str, is_proven: bool) -> bool {
        let pause = if is_proven { BETWEEN_PROOFS } else { BETWEEN_QUESTIONS };
        let may = self.asked.get(name).is_none_or(|asked| asked.elapsed() >= pause);
        if may {
            self.asked.insert(name.to_owned(), Instant::now());
        }
        may
    }

    /// The files on which a decision is due, and where the next round goes on.
    fn due(
        &self,
        held: &BTreeMap<String, WalFileName>,
        needed: &BTreeSet<String>,
        is_listed: bool,
    ) -> (BTreeSet<String>, Option<String>) {
        let known = &self.known;
        let mut due: BTreeSet<&String> = held.keys().filter(|name| !known.contains(*name)).collect();
        due.extend(needed.iter().filter(|name| !held.contains_key(*name)));
        // An archive that cannot be listed says of no file that it is not there.
        if is_listed {
            due.extend(known.iter().filter(|name| !held.contains_key(*name)));
        }
        let after = self.round.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        let mut round: Vec<&String> = held
            .range::<String, _>((after, Bound::Unbounded))
            .map(|(name, _)| name)
            .take(ROUND)
            .collect();
        round.extend(held.keys().take(ROUND - round.len()));
        due.extend(&round);
        (
            due.into_iter().cloned().collect(),
            round.last().map(|name| (*name).clone()),
        )
    }
}

/// A file that was looked up.
pub struct LookedUp {
    kind: Option<WalFileName>,
    name: String,
    held: Held,
    needed: bool,
}

/// What is to be done about them.
#[derive(Default)]
pub struct TextNews {
    /// Read these.
    pub to_read: Vec<(WalFileName, String)>,
    absent: Vec<Unread>,
    forgotten: Vec<String>,
}

impl TextNews {
    /// Whether there is nothing to do.
    pub fn is_silent(&self) -> bool {
        self.to_read.is_empty() && !self.is_to_be_recorded()
    }

    /// Whether anything is to be said of files that are not there.
    pub fn is_to_be_recorded(&self) -> bool {
        !(self.absent.is_empty() && self.forgotten.is_empty())
    }
}

impl Inspection {
    /// Looks up the files on which a decision is due: new ones, some of the known ones in turn, and those that should be there
    /// and are not.
    ///
    /// # Errors
    /// Where the archive cannot be read.
    pub fn look_up_texts(&mut self) -> Result<Vec<LookedUp>> {
        let held: BTreeMap<String, WalFileName> = self
            .access
            .texts(&self.history, self.size())
            .into_iter()
            .map(|(kind, name)| (name, kind))
            .collect();
        let needed = self.needed_histories();
        let (due, round) = self.texts.due(&held, &needed, self.access.is_listed());
        self.texts.round = round;
        let there: Vec<String> = due.iter().filter(|name| held.contains_key(*name)).cloned().collect();
        let mut looked_up = self.access.look_up(there)?.into_iter();
        Ok(due
            .into_iter()
            .map(|name| {
                let kind = held.get(&name).copied();
                LookedUp {
                    kind,
                    held: kind.and_then(|_| looked_up.next()).unwrap_or(Held::Absent),
                    needed: needed.contains(&name),
                    name,
                }
            })
            .collect())
    }

    /// A recovery that crosses into a timeline needs its history file. The first timeline's is not asked for: nothing is before it.
    fn needed_histories(&self) -> BTreeSet<String> {
        self.expected
            .iter()
            .skip(1)
            .map(|stretch| format!("{:08X}.history", stretch.timeline.0))
            .collect()
    }

    /// Decides about files that were looked up. Needs a transaction.
    pub fn decide_texts(&mut self, looked_up: Vec<LookedUp>) -> Result<TextNews> {
        let rows = self.recorded(looked_up.iter().map(|text| text.name.clone()).collect())?;
        let mut news = TextNews::default();
        for text in looked_up {
            let record = rows.get(&text.name);
            let decision = self.judge().decide(&text.name, text.held, record);
            if text.held == Held::Unlisted {
                let is_proven = record.is_some_and(|record| record.status == Status::Verified);
                let is_asked_for = matches!(decision, Decision::Read(_)) || is_proven && text.needed;
                if let Some(kind) = text
                    .kind
                    .filter(|_| is_asked_for && self.texts.may_ask(&text.name, is_proven))
                {
                    news.to_read.push((kind, text.name));
                }
                continue;
            }
            match (decision, text.kind) {
                (Decision::Read(_), Some(kind)) => news.to_read.push((kind, text.name)),
                (Decision::Await, None) if text.needed => news.absent.push(self.absent_text(&text.name, None)),
                (Decision::Lose(loss), None) if text.needed => {
                    news.absent.push(self.absent_text(&text.name, Some(loss)));
                }
                (_, None) if !text.needed && record.is_some() => news.forgotten.push(text.name),
                _ => {}
            }
        }
        Ok(news)
    }

    fn absent_text(&self, name: &str, loss: Option<Loss>) -> Unread {
        let timeline = match WalFileName::classify(name, self.size()) {
            Some(WalFileName::History(timeline)) => timeline.0,
            _ => self.server.timeline.0,
        };
        self.absent_history(name, timeline, loss)
    }

    /// Enters what was decided about files that are not there. Needs a transaction.
    pub fn record_texts(&mut self, news: &TextNews) -> Result<()> {
        catalog::archive::store_unread(&news.absent)?;
        catalog::archive::forget(news.forgotten.clone())?;
        let known = &mut self.texts.known;
        known.extend(news.absent.iter().map(|unread| unread.name.clone()));
        for name in &news.forgotten {
            known.remove(name);
        }
        Ok(())
    }

    /// Reads a file; `None` if it is not there.
    ///
    /// # Errors
    /// Where the archive as a whole cannot be read now.
    pub fn read_text(&mut self, kind: WalFileName, name: &str) -> Result<Option<TextFinding>> {
        Ok(match self.access.read_text(kind, name)? {
            ReadOutcome::Found(finding) => Some(finding),
            ReadOutcome::NotThere(_) => None,
        })
    }

    /// Makes the ledger know of the backup that a file tells of. Needs a transaction; to be called before the file has a
    /// row, without which its turn comes again.
    pub fn record_backup(&self, name: &str, read: &TextFinding) -> Result<()> {
        match &read.backup {
            Some(backup) => detection::record(&self.server, &self.history, name, backup),
            None => Ok(()),
        }
    }

    /// Stores what a file tells of itself. Needs a transaction.
    pub fn store_text(&mut self, name: &str, read: Option<&TextFinding>) -> Result<()> {
        let Some(read) = read else {
            return self.store_text_not_there(name);
        };
        store_news(&read.finding)?;
        self.texts.known.insert(name.to_owned());
        Ok(())
    }

    /// What restore_command did not bring. Only a history file that the chain needs is missed.
    fn store_text_not_there(&mut self, name: &str) -> Result<()> {
        if self.access.is_listed() || !self.needed_histories().contains(name) {
            return Ok(());
        }
        let rows = self.recorded(vec![name.to_owned()])?;
        let decision = rows
            .get(name)
            .map_or(Decision::Await, |record| self.judge().absent(name, record));
        let absent = match decision {
            Decision::Await => self.absent_text(name, None),
            Decision::Lose(loss) => self.absent_text(name, Some(loss)),
            Decision::Stands | Decision::Waits | Decision::Read(_) => return Ok(()),
        };
        self.record_texts(&TextNews {
            absent: vec![absent],
            ..TextNews::default()
        })
    }

    /// History and backup history files that the archive holds.
    pub fn held_texts(&self) -> Vec<(WalFileName, String)> {
        self.access.texts(&self.history, self.size())
    }
}
