//! The client against real servers on real sockets, and against what is not one.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and helpers have none"
)]

mod balancing;
mod breaking;
mod calls;
mod crowd;
mod failing;
mod registering;
mod resolving;
mod serving;
mod support;
mod tenants;
mod watching;
