//! Two sides taking turns, and what came of it.

use std::fmt;

use anyhow::{Context, Result};
use tests::progress::step;

/// How often each side has its turn.
pub const TURNS: usize = 7;

/// What was measured of one side, in the unit of the line.
#[derive(Debug)]
struct Side {
    name: &'static str,
    median: f64,
    least: f64,
    most: f64,
}

impl Side {
    fn of(name: &'static str, mut measured: Vec<f64>) -> Result<Self> {
        measured.sort_by(f64::total_cmp);
        let at = |index: usize| measured.get(index).copied().context("nothing was measured");
        Ok(Self {
            name,
            median: at(measured.len() / 2)?,
            least: at(0)?,
            most: at(measured.len().saturating_sub(1))?,
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median < 100.0 { 2 } else { 0 };
        let (median, least, most) = (self.median, self.least, self.most);
        f.pad(&format!(
            "{}: {median:.digits$} ({least:.digits$}–{most:.digits$})",
            self.name
        ))
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Line {
    what: String,
    ours: Side,
    peer: Side,
}

impl Line {
    /// The titles above the lines.
    pub fn header() -> String {
        format!(
            "{:<36} {:<44} {:<38} {:>6}",
            "what is measured", "ours", "peer", "ratio"
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratio = self.ours.median / self.peer.median;
        write!(f, "{:<36} {:<44} {:<38} {ratio:>5.2}×", self.what, self.ours, self.peer)
    }
}

/// A side of a comparison: its name, and one turn of it, which gives a rate (more is better).
pub type Contender<'a> = (&'static str, &'a mut dyn FnMut() -> Result<f64>);

/// Lets both sides take their turns, after one each to warm up.
pub fn compare(what: String, ours: Contender<'_>, peer: Contender<'_>) -> Result<Line> {
    let (mut of_ours, mut of_peer) = (Vec::new(), Vec::new());
    step(&what, || {
        for turn in 0..=TURNS {
            let (one, other) = ((ours.1)()?, (peer.1)()?);
            if turn > 0 {
                of_ours.push(one);
                of_peer.push(other);
            }
        }
        anyhow::Ok(())
    })?;
    Ok(Line {
        what,
        ours: Side::of(ours.0, of_ours)?,
        peer: Side::of(peer.0, of_peer)?,
    })
}
