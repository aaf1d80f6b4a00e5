//! Who is registered and who is alive: pure state, cursors and watches.
//!
//! This crate knows no socket, starts no task and waits for nothing but its own changes. One writer changes
//! it ([`Draft`] plans, [`Registry::apply`] carries out); any number of readers take immutable snapshots.

pub mod draft;
pub mod edit;
pub mod record;

pub use edit::{Change, Edit, Effect, Key};
pub use record::{Health, Record};
