//! Throw-away PostgreSQL clusters on real servers, for the tests, the demo and the benchmarks.
//!
//! Everything is RAII: a [`Cluster`] stops its server and removes its directory when it is dropped, on a panic too, and a
//! signal handler does the same for all of them on Ctrl-C. A process that dies harder than that takes its servers with it
//! (see [`process`]), and the next one sweeps what it left on disk (see [`scratch`]).

pub mod archive;
pub mod barman;
pub mod cluster;
pub mod codec;
pub mod full_disk;
pub mod layout;
pub mod many;
pub mod memory;
pub mod mount;
pub mod past;
pub mod pgbackrest;
pub mod process;
pub mod progress;
pub mod recovery;
pub mod restored;
pub mod running;
pub mod scene;
pub mod scratch;
pub mod server;
pub mod settings;
pub mod template;
pub mod wait;
pub mod waldump;
pub mod worker;

pub use archive::Archive;
pub use cluster::{Cluster, Shutdown};
pub use codec::Codec;
pub use layout::Layout;
pub use mount::Mount;
pub use past::Past;
pub use recovery::Recovery;
pub use restored::Restored;
pub use scene::Scene;
pub use server::Server;
pub use settings::Settings;
pub use wait::{Look, wait_until};
