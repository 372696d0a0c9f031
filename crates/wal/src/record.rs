//! Records (XLogRecord, xlogrecord.h), and what the few kinds that matter here say (xact.h, pg_control.h, xlog_internal.h).

use crate::bytes::{i64_at, u16_at, u32_at, u64_at};
use crate::commits::DO_NOT_REPLICATE;
use crate::ledger_head::LedgerHead;
use crate::lsn::Lsn;
use crate::timestamp::PgTimestamp;

/// SizeOfXLogRecord.
pub(crate) const RECORD_HEADER: usize = 24;
/// offsetof(XLogRecord, xl_crc): what the CRC covers of the header.
pub(crate) const HEADER_UNDER_CRC: usize = 20;
/// How much of a record's body is kept to be understood: the longest is a restore point's two bytes of data header, an origin
/// (3), a top-level transaction (5), a time (8) and a name (64).
pub(crate) const PREFIX: usize = 96;

/// RM_XLOG_ID.
pub(crate) const RM_XLOG: u8 = 0;
/// RM_XACT_ID.
const RM_XACT: u8 = 1;
/// RM_LOGICALMSG_ID.
const RM_LOGICALMSG: u8 = 21;
/// XLOG_CHECKPOINT_SHUTDOWN.
const XLOG_CHECKPOINT_SHUTDOWN: u8 = 0x00;
/// XLOG_SWITCH.
const XLOG_SWITCH: u8 = 0x40;
/// XLOG_RESTORE_POINT.
const XLOG_RESTORE_POINT: u8 = 0x70;
/// XLOG_OVERWRITE_CONTRECORD.
const XLOG_OVERWRITE_CONTRECORD: u8 = 0xD0;
/// ~XLR_INFO_MASK: the bits of xl_info that belong to the resource manager.
const RMGR_INFO: u8 = 0xF0;
/// XLOG_XACT_OPMASK.
const XACT_OPERATION: u8 = 0x70;
const XACT_COMMIT: u8 = 0x00;
const XACT_ABORT: u8 = 0x20;
const XACT_COMMIT_PREPARED: u8 = 0x30;
const XACT_ABORT_PREPARED: u8 = 0x40;
/// XLOG_XACT_HAS_INFO: an xl_xact_xinfo follows the time.
const XACT_HAS_INFO: u8 = 0x80;
/// FirstNormalTransactionId (transam.h).
const FIRST_NORMAL_XID: u32 = 3;
/// MAXFNAMELEN: bytes for a restore point's name.
const RESTORE_POINT_NAME: usize = 64;

/// A record's fixed header but for its CRC, which [`RecordHeader::crc`] reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordHeader {
    pub total_length: u32,
    /// xl_xid: the transaction that wrote it; 0 for none.
    pub xid: u32,
    pub previous: Lsn,
    pub info: u8,
    pub resource_manager: u8,
    pub crc: u32,
}

impl RecordHeader {
    pub fn read(bytes: &[u8; RECORD_HEADER]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            resource_manager,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        Self {
            total_length: u32::from_ne_bytes([l0, l1, l2, l3]),
            xid: u32::from_ne_bytes([x0, x1, x2, x3]),
            previous: Lsn(u64::from_ne_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            resource_manager,
            crc: u32::from_ne_bytes([c0, c1, c2, c3]),
        }
    }

    /// The rest of the segment behind such a record is padding.
    pub const fn is_switch(&self) -> bool {
        self.resource_manager == RM_XLOG && self.info & RMGR_INFO == XLOG_SWITCH
    }

    /// The last record of a server that is shut down in order.
    pub const fn is_shutdown(&self) -> bool {
        self.resource_manager == RM_XLOG && self.info & RMGR_INFO == XLOG_CHECKPOINT_SHUTDOWN
    }

    /// Whether anything of the body is of interest.
    pub const fn is_read(&self) -> bool {
        matches!(self.resource_manager, RM_XLOG | RM_XACT | RM_LOGICALMSG)
    }
}

/// A record whose CRC was right.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    pub start: Lsn,
    /// Where the next record can start, as the server counts: EndRecPtr.
    pub end: Lsn,
    pub header: RecordHeader,
    /// The first bytes of the body, at most [`PREFIX`], for resource managers that are read.
    pub prefix: &'a [u8],
}

/// What a record says that matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    Commit {
        at: Option<PgTimestamp>,
        origin: Option<u16>,
        xid: Option<u32>,
    },
    /// Of interest for its time only: a recovery to a time stops before an abort as it does before a commit.
    Abort {
        at: Option<PgTimestamp>,
    },
    RestorePoint {
        name: Vec<u8>,
        at: Option<PgTimestamp>,
    },
    /// The newest event of a ledger of pg_backstop.
    LedgerHead(LedgerHead),
    /// A record was given up after a crash: its start.
    OverwriteContrecord {
        overwritten: Option<Lsn>,
    },
}

impl Record<'_> {
    #[inline]
    pub fn meaning(&self) -> Option<Meaning> {
        match self.header.resource_manager {
            RM_XACT if matches!(self.header.info & XACT_OPERATION, XACT_COMMIT | XACT_COMMIT_PREPARED) => {
                let (origin, data) = self.main_data();
                Some(Meaning::Commit {
                    at: timestamp(data),
                    origin,
                    xid: self.committed_xid(data),
                })
            }
            RM_XACT if matches!(self.header.info & XACT_OPERATION, XACT_ABORT | XACT_ABORT_PREPARED) => {
                Some(Meaning::Abort {
                    at: timestamp(self.main_data().1),
                })
            }
            RM_XLOG => self.meaning_of_xlog(),
            RM_LOGICALMSG => {
                // Anybody may write such a message; the origin is a superuser's to set, and the worker's sets it.
                let (origin, data) = self.main_data();
                let head = LedgerHead::of_record(data).filter(|_| origin == Some(DO_NOT_REPLICATE));
                head.map(Meaning::LedgerHead)
            }
            _ => None,
        }
    }

    /// Which transaction the commit is of. COMMIT PREPARED is written by another one, so that its own number is in the body.
    fn committed_xid(&self, data: &[u8]) -> Option<u32> {
        let xid = match self.header.info & XACT_OPERATION {
            XACT_COMMIT_PREPARED if self.header.info & XACT_HAS_INFO == 0 => None,
            XACT_COMMIT_PREPARED => prepared_xid(data),
            _ => Some(self.header.xid),
        };
        xid.filter(|xid| *xid >= FIRST_NORMAL_XID)
    }

    fn meaning_of_xlog(&self) -> Option<Meaning> {
        match self.header.info & RMGR_INFO {
            // xl_restore_point
            XLOG_RESTORE_POINT => {
                let (_, data) = self.main_data();
                let name = data.get(8..).unwrap_or_default();
                let name = name.get(..RESTORE_POINT_NAME).unwrap_or(name);
                let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                Some(Meaning::RestorePoint {
                    name: name.to_vec(),
                    at: timestamp(data),
                })
            }
            // xl_overwrite_contrecord
            XLOG_OVERWRITE_CONTRECORD => Some(Meaning::OverwriteContrecord {
                overwritten: u64_at(self.main_data().1, 0).map(Lsn),
            }),
            _ => None,
        }
    }

    /// The replication origin, and what is kept of the main data (DecodeXLogRecord, xlogreader.c). These kinds of records refer
    /// to no blocks; one that does is not understood, and gives nothing.
    fn main_data(&self) -> (Option<u16>, &[u8]) {
        const SHORT: u8 = 255; // XLR_BLOCK_ID_DATA_SHORT
        const LONG: u8 = 254; // XLR_BLOCK_ID_DATA_LONG
        const ORIGIN: u8 = 253; // XLR_BLOCK_ID_ORIGIN
        const TOPLEVEL_XID: u8 = 252; // XLR_BLOCK_ID_TOPLEVEL_XID
        let mut rest = self.prefix;
        let mut origin = None;
        while let Some((id, after)) = rest.split_first() {
            let skipped = match *id {
                ORIGIN => {
                    origin = u16_at(after, 0);
                    2
                }
                TOPLEVEL_XID => 4,
                SHORT => {
                    let length = after.first().map_or(0, |length| usize::from(*length));
                    return (origin, bounded(after.get(1..), length));
                }
                LONG => {
                    let length = u32_at(after, 0).map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
                    return (origin, bounded(after.get(4..), length));
                }
                _ => break,
            };
            rest = after.get(skipped..).unwrap_or_default();
        }
        (origin, &[])
    }
}

fn bounded(data: Option<&[u8]>, length: usize) -> &[u8] {
    let data = data.unwrap_or_default();
    data.get(..length).unwrap_or(data)
}

/// The number of the prepared transaction in a commit record's body (ParseCommitRecord, xactdesc.c), where it lies within what is
/// kept of the body: behind the lists of subtransactions, files and invalidations, which can be long.
fn prepared_xid(data: &[u8]) -> Option<u32> {
    const DATABASE: u32 = 1; // XACT_XINFO_HAS_DBINFO
    const TWOPHASE: u32 = 1 << 4; // XACT_XINFO_HAS_TWOPHASE
    const DROPPED_STATS: u32 = 1 << 8; // XACT_XINFO_HAS_DROPPED_STATS, of items whose size depends on the major
    // XACT_XINFO_HAS_SUBXACTS, _RELFILELOCATORS, _INVALS: a count each, and items of so many bytes, in this order.
    const LISTS: [(u32, usize); 3] = [(1 << 1, 4), (1 << 2, 12), (1 << 3, 16)];
    let has = u32_at(data, 8)?;
    if has & TWOPHASE == 0 || has & DROPPED_STATS != 0 {
        return None;
    }
    let mut at = if has & DATABASE == 0 { 12 } else { 20_usize };
    for (list, item) in LISTS {
        if has & list != 0 {
            let items = usize::try_from(u32_at(data, at)?).ok()?;
            at = at.checked_add(4)?.checked_add(items.checked_mul(item)?)?;
        }
    }
    u32_at(data, at)
}

/// The time that such records start with, when it is one.
fn timestamp(data: &[u8]) -> Option<PgTimestamp> {
    i64_at(data, 0).map(PgTimestamp).filter(|at| at.is_valid())
}
