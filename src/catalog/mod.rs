//! Every SQL statement that the extension runs, and the one way to run them.
//!
//! A statement is a [`Statement`] in the module of its noun, with a Rust function around it that says what goes in and what
//! comes out; nothing else in `src/` holds SQL. How statements run is in [`statement`].

pub mod archive;
pub mod backup;
pub mod candidates;
pub mod detection;
mod encoding;
mod extension;
pub mod facts;
pub mod hourly;
mod ids;
mod image;
pub mod ledger;
pub mod ledger_check;
pub mod ledger_head;
pub mod lives;
mod lsn;
mod names;
pub mod outline;
pub mod plan;
pub mod prepare;
pub mod recovery;
pub mod samples;
mod scope;
mod statement;
mod text;
mod trust;
mod value;
pub mod windows;
pub mod worker;

pub use encoding::sayable;
pub use extension::Extension;
pub use ids::Ids;
pub use image::Image;
pub use lsn::PgLsn;
pub use scope::{NO_JIT, Scope};
pub use statement::Statement;
pub use text::Text;
