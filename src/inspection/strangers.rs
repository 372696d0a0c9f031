//! Segments of other branches in the archive: told apart by their names, and forgotten when they go.

use super::Inspection;
use crate::catalog;
use crate::catalog::archive::Unread;
use crate::error::Result;
use crate::server::Server;
use wal::SegmentName;

/// News of segments of other branches.
#[derive(Default)]
pub struct Strangers {
    came: Vec<SegmentName>,
    went: Vec<SegmentName>,
}

impl Strangers {
    /// Whether there is none.
    pub fn is_silent(&self) -> bool {
        self.came.is_empty() && self.went.is_empty()
    }
}

impl Inspection {
    /// Segments of other branches that came since they were last recorded, and those that went.
    ///
    /// # Errors
    /// Where the server cannot be asked how far it is.
    pub fn news_of_strangers(&self) -> Result<Strangers> {
        let Some(store) = self.access.store() else {
            return Ok(Strangers::default());
        };
        let here = &store.strangers().newest;
        // The archive was listed after the server had been asked; meanwhile it may have archived more.
        let flush = Server::observe()?.flush;
        let is_ours_by_now =
            |segment: &SegmentName| segment.timeline == self.server.timeline && segment.start() <= flush;
        Ok(Strangers {
            came: here
                .iter()
                .filter(|segment| !self.strangers.contains(segment) && !self.index.covers(segment))
                .filter(|segment| !is_ours_by_now(segment))
                .copied()
                .collect(),
            went: self.strangers.difference(here).copied().collect(),
        })
    }

    /// Enters segments of other branches, by their names alone: nothing here needs them. Needs a transaction.
    pub fn record_strangers(&mut self, news: &Strangers) -> Result<()> {
        let known = self.recorded(news.came.iter().map(ToString::to_string).collect())?;
        let unread: Vec<Unread> = news
            .came
            .iter()
            .filter(|segment| !known.contains_key(&segment.to_string()))
            .map(|segment| self.stranger(segment))
            .collect();
        catalog::archive::store_unread(&unread)?;
        let is_left = |segment: &&SegmentName| !self.index.covers(segment);
        let went = news.went.iter().filter(is_left).map(ToString::to_string).collect();
        catalog::archive::forget(went)?;
        self.strangers.extend(&news.came);
        for segment in &news.went {
            self.strangers.remove(segment);
        }
        Ok(())
    }
}
