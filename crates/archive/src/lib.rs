//! Where archived WAL comes from, and whether its chain is whole.
//!
//! [`source`] says where, [`derive()`] reads it off the server's own settings, [`store`] knows what lies there and opens it,
//! [`content`] decompresses it, and [`chain`] compares what is there with what the server must have archived. Nothing here reads
//! what is inside a segment: that is crate `wal`.
#![forbid(unsafe_code)]

pub mod chain;
mod comparison;
pub mod compression;
mod containment;
pub mod content;
pub mod derive;
pub mod expected;
#[cfg(fuzzing)]
pub mod fuzzing;
pub mod index;
pub mod printable;
pub mod restore_command;
pub mod secrets;
mod shell;
mod small_file;
pub mod source;
pub mod status;
pub mod store;
mod stored;

pub use comparison::Comparison;
pub use compression::{Compression, DecompressionError};
pub use containment::{Callback, contained, panic_message};
pub use content::Content;
pub use derive::{DeriveError, Derived, Remedy, ServerSettings, derive};
pub use printable::{brief, is_hidden, printable, printable_lines};
pub use source::{Setting, Source, SourceError};
pub use status::Status;
pub use store::{Listing, Store, Strangers};
pub use stored::{DirectoryStamp, ReadError, RootId, StoredFile};
