//! The real binary, as a person or a script runs it.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and helpers have none"
)]

mod changing;
mod commands;
mod completing;
mod documented;
mod durability;
mod events;
mod failures;
mod filters;
mod formats;
mod frozen;
mod graph;
mod lag;
mod outlasting;
mod promises;
mod proxies;
mod recipe;
mod registering;
mod render;
mod rendering;
mod support;
mod usage;
mod waiting;
mod watch;
mod why;
