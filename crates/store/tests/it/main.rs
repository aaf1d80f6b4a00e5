//! Every store against the one contract, and each against what can happen to it alone.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "all of it is tests"
)]

mod apart;
mod audit;
mod contract;
mod damaged;
mod disk;
mod history;
mod lasting;
mod memory;
mod migration;
mod owners;
mod records;
mod redis;
mod redis_damaged;
mod redis_faults;
mod redis_replicas;
mod redis_server;
mod sqlite;
mod sqlite_faults;
