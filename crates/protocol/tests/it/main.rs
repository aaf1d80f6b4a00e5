//! What strangers may send, read by everything that reads it.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and what they share has none"
)]

mod fuzz;
#[path = "../../../../fuzz/mutations.rs"]
mod mutations;
#[path = "../../../../fuzz/readers.rs"]
mod readers;
