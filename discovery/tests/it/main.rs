//! The server on real sockets.

#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and what they share has none"
)]

mod bad_input;
mod blocked;
mod by_hand;
mod fuzz;
mod graph;
mod health;
mod history;
mod http_attacks;
mod http_door;
mod large;
mod limits;
#[path = "../../../fuzz/mutations.rs"]
mod mutations;
mod pages;
mod redis;
mod remembered;
mod restart;
mod sentences;
mod sessions;
mod stopping;
mod subsets;
mod support;
