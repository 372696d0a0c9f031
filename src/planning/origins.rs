//! The best backup of a window for a target, found among however many there are: page by page, the newest first, until one will do.

use std::cell::RefCell;
use std::cmp::Reverse;

use recovery::outline::{self, Lookup};
use recovery::plan::fit::newer;
use recovery::plan::{Best, Fit, Origin, Origins, Stretch};
use recovery::{BackupFact, Usable, Window, backups};
use wal::Lsn;

use super::Planning;
use crate::catalog::candidates::{self, BackupPlaces, Position};
use crate::error::{Error, Result};
use crate::memory;

/// All backups of the windows, those included that no window holds.
pub struct Recorded<'a> {
    planning: &'a Planning,
    stretches: &'a [Stretch],
    windows: &'a [&'a Window],
    lookups: Vec<Lookup>,
    trouble: RefCell<Option<Error>>,
}

impl<'a> Recorded<'a> {
    pub fn new(planning: &'a Planning, stretches: &'a [Stretch], windows: &'a [&'a Window]) -> Self {
        let mut lookups = outline::lookups(&planning.assessment.facts);
        // The one that ends last first.
        lookups.sort_by_key(|lookup| Reverse(lookup.ends_by));
        Self {
            planning,
            stretches,
            windows,
            lookups,
            trouble: RefCell::new(None),
        }
    }

    /// What went wrong meanwhile: a question without an answer looks like one that nothing answers.
    ///
    /// # Errors
    /// The first that did.
    pub fn finish(self) -> Result<()> {
        self.trouble.into_inner().map_or(Ok(()), Err)
    }

    fn find(&self, stretch: &Stretch, window: &Window, fit: &Fit) -> Result<Option<Best>> {
        let mut found: Vec<Origin> = stretch
            .origins
            .iter()
            .filter(|origin| fit.suits(origin))
            .cloned()
            .collect();
        for lookup in &self.lookups {
            let overlaps = lookup.ends_by >= window.from_lsn && lookup.ends_after < window.to_lsn;
            let best_so_far = found
                .iter()
                .filter(|origin| origin.has_place)
                .map(|origin| origin.consistent_at)
                .max();
            if overlaps && best_so_far.is_none_or(|best| lookup.ends_by >= best) {
                self.look_through(lookup, stretch, window, fit, &mut found)?;
            }
        }
        found.sort_by_key(|origin| Reverse(newer(origin)));
        found.dedup_by_key(|origin| origin.id);
        Ok(Best::of(found.into_iter()))
    }

    /// Adds the newest that fits, and the newest that fits and of which it is on record where it is.
    fn look_through(
        &self,
        lookup: &Lookup,
        stretch: &Stretch,
        window: &Window,
        fit: &Fit,
        found: &mut Vec<Origin>,
    ) -> Result<()> {
        let mut fit = *fit;
        fit.consistent_by = fit.consistent_by.min(window.to_lsn);
        let mut before: Option<Position> = None;
        let mut has_one = false;
        loop {
            memory::check_for_interrupts();
            let page = candidates::page(
                self.planning.server.system_identifier(),
                lookup,
                self.planning.assessment.facts.size.bytes(),
                &fit,
                before,
            )?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            before = last.end.map(|end| (end, last.id));
            let (backups, places): (Vec<BackupFact>, BackupPlaces) = candidates::apart(page);
            for origin in self.origins(&backups, &places, stretch, window)? {
                if !fit.suits(&origin) {
                    continue;
                }
                let ends_the_search = origin.has_place;
                if ends_the_search || !has_one {
                    has_one = true;
                    found.push(origin);
                }
                if ends_the_search {
                    return Ok(());
                }
            }
            let is_last_page = backups.len() < usize::try_from(candidates::PAGE).unwrap_or_default();
            let is_before_window = before.is_none_or(|(end, _)| end < window.from_lsn);
            if is_last_page || is_before_window {
                return Ok(());
            }
        }
    }

    /// The usable ones of these, in their order.
    fn origins(
        &self,
        page: &[BackupFact],
        places: &BackupPlaces,
        stretch: &Stretch,
        window: &Window,
    ) -> Result<Vec<Origin>> {
        let assessment = &self.planning.assessment;
        let parents: Vec<i64> = page
            .iter()
            .filter(|backup| backup.backup_type.needs_parent())
            .filter_map(|backup| backup.parent_id)
            .collect();
        let mut all = candidates::with_parents(self.planning.server.system_identifier(), &parents)?;
        all.retain(|parent| !page.iter().any(|backup| backup.id == parent.id));
        all.extend_from_slice(page);
        let verdicts = backups::verdicts(&assessment.facts, &all);
        let is_in_window = |usable: &Usable| {
            usable.on_history == stretch.on_history
                && (usable.on_history || usable.timeline == window.timeline)
                && (window.from_lsn..=window.to_lsn).contains(&usable.consistent_at)
        };
        let usable = |id: i64| {
            let verdict = verdicts.iter().find(|(backup, _)| *backup == id)?;
            verdict.1.as_ref().ok().filter(|usable| is_in_window(usable))
        };
        let usable: Vec<(&BackupFact, &Usable)> = page
            .iter()
            .filter_map(|backup| Some((backup, usable(backup.id)?)))
            .collect();
        let facts: Vec<&BackupFact> = usable.iter().map(|(backup, _)| *backup).collect();
        let consistent = assessment.consistent_times_of(&facts)?;
        let origin = |(backup, usable): &(&BackupFact, &Usable)| {
            let start: Lsn = backup.start.unwrap_or(usable.consistent_at);
            self.planning.origin(usable, start, &consistent, places)
        };
        Ok(usable.iter().filter_map(origin).collect())
    }
}

impl Origins for Recorded<'_> {
    fn best(&self, stretch: usize, fit: &Fit) -> Option<Best> {
        let found = match (self.stretches.get(stretch), self.windows.get(stretch)) {
            (Some(of), Some(window)) => self.find(of, window, fit),
            _ => Ok(None),
        };
        found.unwrap_or_else(|error| {
            self.trouble.borrow_mut().get_or_insert(error);
            None
        })
    }
}
