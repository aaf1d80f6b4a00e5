//! The registry against a naive model of itself, and its watches against the clock.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and what they share has none"
)]

mod costs;
mod growing;
mod late;
mod model;
mod operating;
mod owners;
mod snapshots;
mod watching;
