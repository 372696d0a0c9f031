//! Two sides taking turns, and what came of it.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tests::progress::step;

use crate::cpu;

/// How often each side has its turn, unless a comparison says otherwise.
pub const TURNS: usize = 11;

/// The middle of what was measured, and the quartiles to both sides of it.
#[derive(Debug)]
struct Spread {
    low: f64,
    median: f64,
    high: f64,
}

impl Spread {
    fn of(mut measured: Vec<f64>) -> Result<Self> {
        measured.sort_by(f64::total_cmp);
        let at = |index: usize| measured.get(index).copied().context("nothing was measured");
        let last = measured.len().saturating_sub(1);
        Ok(Self {
            low: at(last / 4)?,
            median: at(last / 2)?,
            high: at(last - last / 4)?,
        })
    }
}

/// What was measured of one side, in the unit of the line.
#[derive(Debug)]
struct Side {
    name: &'static str,
    rates: Spread,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { low, median, high } = self.rates;
        let digits = if median < 100.0 { 2 } else { 0 };
        f.pad(&format!(
            "{}: {median:.digits$} ({low:.digits$}–{high:.digits$})",
            self.name
        ))
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Line {
    what: String,
    turns: usize,
    ours: Side,
    peer: Side,
    /// Of the two turns of each pair.
    ratios: Spread,
}

impl Line {
    /// Of pairs of rates, ours and the peer's.
    ///
    /// # Errors
    /// When there are none.
    pub fn of(what: String, ours: &'static str, peer: &'static str, pairs: &[(f64, f64)]) -> Result<Self> {
        let side = |name, rates: Vec<f64>| {
            anyhow::Ok(Side {
                name,
                rates: Spread::of(rates)?,
            })
        };
        let (our_rates, peer_rates) = pairs.iter().copied().unzip();
        Ok(Self {
            what,
            turns: pairs.len(),
            ours: side(ours, our_rates)?,
            peer: side(peer, peer_rates)?,
            ratios: Spread::of(pairs.iter().map(|(ours, peer)| ours / peer).collect())?,
        })
    }

    /// Of what is to take no more than `limit`, and took this. The ratio tells how many times it would fit.
    ///
    /// # Errors
    /// When nothing was measured.
    pub fn within(what: &str, limit: f64, took: &[f64]) -> Result<Self> {
        let pairs: Vec<_> = took.iter().map(|took| (*took, limit)).collect();
        let line = Self::of(what.to_owned(), "took", "at most", &pairs)?;
        let fits = took.iter().map(|took| limit / took).collect();
        Ok(Self {
            ratios: Spread::of(fits)?,
            ..line
        })
    }

    /// The titles above the lines.
    pub fn header() -> String {
        format!(
            "{:<47} {:>5} {:<36} {:<38} {}",
            "what is measured", "turns", "ours", "peer", "ratio"
        )
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread { low, median, high } = self.ratios;
        let digits = if median < 10.0 { 3 } else { 0 };
        write!(
            f,
            "{:<47} {:>5} {:<36} {:<38} {median:.digits$} ({low:.digits$}–{high:.digits$})",
            self.what, self.turns, self.ours, self.peer
        )
    }
}

/// A side of a comparison: its name, and one turn of it, which gives a rate for each line (more is better).
pub type Contender<'a, const N: usize> = (&'static str, &'a mut dyn FnMut() -> Result<[f64; N]>);

/// Lets both sides take their turns, after one each to warm up. Which of them begins changes from pair to pair, so that
/// neither has the better place when the machine gets slower or faster.
pub fn compare<const N: usize>(
    whats: [String; N],
    turns: usize,
    ours: Contender<'_, N>,
    peer: Contender<'_, N>,
) -> Result<Vec<Line>> {
    let mut pairs = Vec::new();
    step(&whats.join("; "), || {
        for turn in 0..=turns {
            let pair = if turn % 2 == 0 {
                let one = (ours.1)()?;
                (one, (peer.1)()?)
            } else {
                let other = (peer.1)()?;
                ((ours.1)()?, other)
            };
            if turn > 0 {
                pairs.push(pair);
            }
        }
        anyhow::Ok(())
    })?;
    let line = |(index, what)| {
        let of = |rates: &[f64; N]| rates.get(index).copied().unwrap_or(f64::NAN);
        let pairs: Vec<_> = pairs.iter().map(|(ours, peer)| (of(ours), of(peer))).collect();
        Line::of(what, ours.0, peer.0, &pairs)
    };
    whats.into_iter().enumerate().map(line).collect()
}

/// What a piece of work took.
pub struct Cost {
    /// From its beginning to its end.
    pub wall: Duration,
    /// Of processor time, in user and system mode, of this process and of the children that it waited for.
    pub cpu: Duration,
}

impl Cost {
    /// Does the work.
    ///
    /// # Errors
    /// Those of the work.
    pub fn of(work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let (began, before) = (Instant::now(), cpu::ours()?);
        work()?;
        Ok(Self {
            wall: began.elapsed(),
            cpu: cpu::ours()?.saturating_sub(before),
        })
    }

    /// So much work, per second and per second of processor time.
    pub fn rates(&self, work: f64) -> [f64; 2] {
        [work / self.wall.as_secs_f64(), work / self.cpu.as_secs_f64()]
    }
}
