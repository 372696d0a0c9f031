//! What the fuzzer reaches and nobody else does.

use wal::{Major, SegmentSize, WalFileName, WalFormat};

use crate::store::layout::{self, Layout};
use crate::{derive, store};

/// Every layout.
pub const LAYOUTS: [Named; 4] = [
    Named(Layout::Flat),
    Named(Layout::PgBackRest),
    Named(Layout::Barman),
    Named(Layout::WalG),
];

/// A layout.
#[derive(Clone, Copy, Debug)]
pub struct Named(Layout);

/// A name that a layout knows.
#[derive(Debug)]
pub struct Known {
    /// What it is.
    pub kind: WalFileName,
    /// What the server calls it.
    pub own_name: String,
    /// Where it would be looked for; empty where names hold checksums.
    pub stored_names: Vec<String>,
}

/// What a layout makes of a name.
pub fn classify(layout: Named, name: &str, size: SegmentSize) -> Option<Known> {
    let stored = layout.0.classify(name, size)?;
    let own_name = layout::own_name(&stored.kind);
    let stored_names = match layout.0 {
        Layout::PgBackRest => Vec::new(),
        _ => Layout::stored_names(&own_name, &stored.kind, stored.compression),
    };
    Some(Known {
        kind: stored.kind,
        own_name,
        stored_names,
    })
}

/// Reads any bytes as an `archive.info`.
pub fn archive_info(content: &[u8]) {
    store::pgbackrest::fuzz(content, &WalFormat::new(Major::V15, SegmentSize::DEFAULT, 1));
}

/// Reads any text as a configuration of pgBackRest.
pub fn pgbackrest_configuration(content: &str) {
    derive::fuzz_pgbackrest(content);
}
