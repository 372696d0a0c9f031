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
    left: Vec<SegmentName>,
    gone: Vec<String>,
}

impl Strangers {
    /// Whether there is none.
    pub fn is_silent(&self) -> bool {
        self.came.is_empty() && self.left.is_empty()
    }
}

impl Inspection {
    /// Segments of other branches that came since they were last recorded, and those that went.
    ///
    /// # Errors
    /// Where the archive cannot be read, or the server not be asked how far it is.
    pub fn news_of_strangers(&mut self) -> Result<Strangers> {
        let Some(listing) = self.access.listing() else {
            return Ok(Strangers::default());
        };
        let here = &listing.strangers().newest;
        // The archive was listed after the server had been asked; meanwhile it may have archived more.
        let flush = Server::observe()?.flush;
        let is_ours_by_now =
            |segment: &SegmentName| segment.timeline == self.server.timeline && segment.start() <= flush;
        let came = here
            .iter()
            .filter(|segment| !self.strangers.contains(segment) && !self.index.covers(segment))
            .filter(|segment| !is_ours_by_now(segment))
            .copied()
            .collect();
        let left: Vec<SegmentName> = self.strangers.difference(here).copied().collect();
        // Of too many, only the newest are known by name: those that gave way to others are still there.
        let names = left.iter().filter(|segment| !self.index.covers(segment));
        let gone = self.gone(names.map(ToString::to_string).collect())?;
        Ok(Strangers { came, left, gone })
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
        catalog::archive::forget(news.gone.clone())?;
        self.strangers.extend(&news.came);
        for segment in &news.left {
            self.strangers.remove(segment);
        }
        Ok(())
    }
}
