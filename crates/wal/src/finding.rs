//! A fault as it is found, with what would make it something else: one page alone cannot tell a damaged header from a page of
//! another cluster, version, segment or timeline. Two pages that agree can.

use crate::lsn::{Lsn, Timeline};
use crate::page::PageHeader;
use crate::problem::{Fault, Problem};

/// The first thing wrong. Boxed wherever it is returned: it is made once a segment at most.
#[derive(Debug)]
pub(crate) struct Finding {
    /// What it is if the next page does not say otherwise.
    pub fault: Fault,
    pub witness: Option<Witness>,
}

/// What the next page must hold to show that the file is sound but foreign, and what to say then.
#[derive(Debug)]
pub(crate) struct Witness {
    pub evidence: Evidence,
    pub problem: Problem,
    pub sentence: String,
}

#[derive(Debug)]
pub(crate) enum Evidence {
    /// The same magic.
    Magic(u16),
    /// This address: the one that follows the first page's.
    Address(Lsn),
    /// This timeline, although another one is expected there too.
    Timeline(Timeline),
}

impl Finding {
    pub fn boxed(problem: Problem, offset: u64, lsn: Lsn, sentence: String) -> Box<Self> {
        Box::new(Self {
            fault: Fault {
                problem,
                offset,
                lsn,
                sentence,
            },
            witness: None,
        })
    }

    pub fn unless(mut self: Box<Self>, evidence: Evidence, problem: Problem, sentence: String) -> Box<Self> {
        self.witness = Some(Witness {
            evidence,
            problem,
            sentence,
        });
        self
    }

    /// The verdict, given the header of the page after the one at fault. `expected` is the timeline that belongs on that page,
    /// where it is known.
    pub fn judge(self, next: &PageHeader, expected: Option<Timeline>) -> Fault {
        let Self { fault, witness } = self;
        let Some(witness) = witness else { return fault };
        let confirmed = match witness.evidence {
            Evidence::Magic(magic) => next.magic == magic,
            Evidence::Address(address) => next.address == address,
            Evidence::Timeline(timeline) => next.timeline == timeline && expected != Some(timeline),
        };
        if confirmed {
            Fault {
                problem: witness.problem,
                sentence: witness.sentence,
                ..fault
            }
        } else {
            fault
        }
    }
}
