//! The rounds against real servers on loopback, and against time that stands still.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "clippy knows only the functions marked as tests, not what they call"
)]

mod answers;
mod brake;
mod connections;
mod deaths;
mod garbage;
mod gate;
mod hanging;
mod icmp;
mod identity;
mod lag;
mod lives;
mod names;
mod nameserver;
mod support;
mod tls;
