//! The client against real servers on real sockets, and against what is not one.
#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, and helpers have none"
)]

#[cfg(feature = "http")]
mod backend;
mod balancing;
#[cfg(feature = "http")]
mod bodies;
mod breaking;
mod calls;
mod crowd;
mod digests;
#[cfg(all(feature = "axum", feature = "grpc", feature = "middleware", feature = "tower"))]
mod examples;
mod failing;
mod fixed;
mod frozen;
#[cfg(feature = "grpc")]
mod grpc;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "http")]
mod http_deaths;
#[cfg(feature = "http")]
mod http_faults;
mod identity;
#[cfg(all(feature = "http", feature = "metrics"))]
mod metrics;
#[cfg(feature = "middleware")]
mod middleware;
mod model;
mod paging;
mod registering;
mod replaced;
mod resolving;
#[cfg(feature = "http")]
mod selecting;
#[cfg(feature = "service")]
mod service;
mod serving;
#[cfg(feature = "grpc")]
mod shop;
mod strange;
mod subsets;
mod support;
mod tenants;
#[cfg(feature = "testing")]
mod testing;
#[cfg(feature = "tower")]
mod tower;
#[cfg(all(feature = "http", feature = "axum"))]
mod traces;
mod versions;
mod watching;
