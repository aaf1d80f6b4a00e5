//! Who is registered and who is alive: pure state, cursors and watches.
//!
//! This crate knows no socket, starts no task and waits for nothing but its own changes. One writer changes
//! it ([`Draft`] plans, [`Registry::apply`] carries out); any number of readers take immutable snapshots.

mod changes;
pub mod draft;
pub mod edit;
mod hub;
mod index;
mod ledger;
mod log;
pub mod look;
mod namespaces;
mod recent;
pub mod record;
pub mod registry;
mod roster;
mod shards;
pub mod snapshot;
mod subset;
mod table;
mod tally;
mod tombstones;
mod view;
pub mod watch;

pub use draft::{Draft, Limits};
pub use edit::{Change, Edit, Effect, Key, Known, LET_IN, Part, Ruling, Tombstone};
pub use hub::Counted;
pub use look::{Changes, Look, Snapshot};
pub use record::{Asked, Health, Observed, Record};
pub use registry::{Loaded, Loading, Registry};
pub use subset::{Full, Moved, Subsets};
pub use tombstones::Tombstones;
