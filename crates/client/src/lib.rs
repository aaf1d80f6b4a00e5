//! Service discovery for Rust services: register, find each other, follow what changes.
//!
//! Roundsman visits each registered instance's `/health` every few seconds, stops handing out whoever no longer
//! answers, and tells everyone who is watching. This crate is what a service depends on to take part.
//!
//! # The first two minutes
//!
//! With a server running (`roundsman serve`), register at start, deregister at the end, and find others in between:
//!
//! ```no_run
//! use roundsman::{Discovery, NewInstance};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), roundsman::Error> {
//!     // Several servers, if there are several: "10.0.0.1:5555,10.0.0.2:5555".
//!     let discovery = Discovery::connect("127.0.0.1:5555").await?;
//!
//!     // The address is the one that others use, never 0.0.0.0. It must answer GET /health with a 2xx.
//!     let me = discovery.register(NewInstance::new("order", "127.0.0.1:6060")?.version("1.0.0")).await?;
//!     println!("registered as {}", me.id());
//!
//!     // One instance that is alive, in turn.
//!     let product = discovery.get("product").await?;
//!     println!("product is at {}", product.address);
//!
//!     me.close().await?;
//!     discovery.close().await;
//!     Ok(())
//! }
//! ```
//!
//! # Many lookups
//!
//! Whoever calls a service often resolves it once and picks from memory, in nanoseconds and without a server:
//!
//! ```no_run
//! # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
//! let products = discovery.resolver("product").await?;
//! let product = products.pick();
//! # Ok(())
//! # }
//! ```
//!
//! # Calls over HTTP
//!
//! Or leave all of it to [`Discovery::http`]: it finds the service, balances, keeps a deadline, and goes to another instance
//! when one fails and the request may be repeated:
//!
//! ```no_run
//! # #[derive(serde::Deserialize)] struct Product { name: String }
//! # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::http::Error> {
//! let product: Product = discovery.http("product").get("/product/aaa").send().await?.error_for_status()?.json()?;
//! # Ok(())
//! # }
//! ```
//!
//! # Serving
//!
//! A service says how it is ([`Health`]), and leaves so that no caller notices ([`Registration::graceful`]): it is drained, gives
//! callers the time to see that, deregisters, and only then stops accepting. `roundsman::service` is all of that in one
//! call, command line and logs included.
//!
//! ```no_run
//! # use roundsman::{Discovery, Health, NewInstance};
//! # #[cfg(feature = "axum")]
//! # async fn example(discovery: Discovery) -> Result<(), Box<dyn std::error::Error>> {
//! let health = Health::new().check("shelf", async || Ok::<(), String>(()));
//! // Visits look for its id in the answer, so that nobody who takes over the address is mistaken for it.
//! let me = discovery.register_in_background(NewInstance::new("order", "10.0.0.8:6060")?.identified())?;
//! health.follow(&me);
//! let stop = async { drop(tokio::signal::ctrl_c().await) };
//! # let router = axum::Router::new();
//! let router = router.merge(health.router());
//! let listener = tokio::net::TcpListener::bind("10.0.0.8:6060").await?;
//! axum::serve(listener, router).with_graceful_shutdown(me.graceful(stop)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Tests
//!
//! [`Discovery::fixed`] is a client that asks no server: it knows what it was given. `roundsman::testing::Server` is a small
//! server in the test's own process, for programs that are told an address.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), roundsman::Error> {
//! let discovery = roundsman::Discovery::fixed([("product", "127.0.0.1:7070")])?;
//! assert_eq!(discovery.get("product").await?.address.to_string(), "127.0.0.1:7070");
//! # Ok(())
//! # }
//! ```
//!
//! # Features
//!
//! | feature | brings |
//! |---|---|
//! | `http` (default) | [`Discovery::http`], and [`TraceContext`] |
//! | `reqwest` | `Builder::http_client`: the same through a reqwest client of one's own |
//! | `middleware` | `Discovery::middleware`: the same as a layer of such a client |
//! | `grpc` | `Discovery::grpc`: a balanced channel for the clients that tonic generates |
//! | `metrics` | `roundsman::metrics`: what calls tell of themselves, through the `metrics` facade |
//! | `tower` | `Resolver::endpoints`: a service's instances as a `tower::discover::Discover` |
//! | `axum` | [`Health`] as a route, and with `http` the trace of each request |
//! | `service` | `roundsman::service`: everything around a service |
//! | `testing` | `roundsman::testing`: a small server in memory, for tests |
//!
//! Without any it looks up, picks, watches and registers.
//!
//! It builds with Rust 1.88 and later, and `roundsman-protocol` with 1.85 and later.
//!
//! # What happens when things fail
//!
//! - The connection breaks, the server restarts, or another one takes over: it is made again in the background, calls
//!   wait for it within their deadline, registrations register again, watches go on.
//! - No server is there: calls fail within their deadline (five seconds unless [`Builder::timeout`] says otherwise) with
//!   [`Error::Unreachable`], a sentence that names each address and what came of it.
//! - Calls to an instance fail: resolvers pass it over for a while, and the servers visit it at once, see [`CircuitBreaker`].
//!   Calls over HTTP go to another one meanwhile, within a budget, so that a service in trouble does not drown in them.
//! - All servers are away: a [`Resolver`] goes on with what it knew last, marked stale with its age.
//! - A server is frozen: it is noticed by the first call that is not answered in time, and otherwise within fifteen seconds.
//!   When it is frozen already while we connect, the next server is asked 300 ms later, beside it.
//!
//! # Logs
//!
//! This crate logs through `tracing` under the target `roundsman`: connections made (info) and lost (warn), registrations
//! lost (warn) and back (info), lists kept against the word of an empty server (warn), snapshot files of no use (warn).
//! tarpc below it opens a span of level INFO around every call, which costs as much as the call itself when it is
//! recorded: filter with `info,tarpc=warn`.

mod backoff;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only calls over HTTP watch their answers so closely"))]
mod balance;
#[cfg_attr(not(feature = "http"), allow(dead_code, reason = "only calls over HTTP watch their answers so closely"))]
mod breaker;
mod builder;
mod cache;
mod call;
mod changes;
mod dial;
mod discovery;
#[cfg(feature = "tower")]
mod endpoints;
mod error;
mod fixed;
mod global;
mod graceful;
#[cfg(feature = "grpc")]
pub mod grpc;
mod health;
#[cfg(feature = "http")]
pub mod http;
mod keeper;
mod link;
mod measure;
mod memory;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "middleware")]
pub mod middleware;
mod new_instance;
mod registration;
mod reports;
mod resolver;
mod servers;
#[cfg(feature = "service")]
pub mod service;
mod share;
mod snapshot;
mod supervisor;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "http")]
pub mod trace;
mod watch;
mod wire;
mod wish;

pub use balance::{Pick, Policy};
pub use breaker::CircuitBreaker;
pub use builder::{Builder, DEFAULT_EMPTY_GRACE, DEFAULT_NOTICE, DEFAULT_SERVER, DEFAULT_TIMEOUT};
pub use changes::Changes;
pub use discovery::Discovery;
#[cfg(feature = "tower")]
pub use endpoints::Endpoints;
pub use error::{Attempt, Attempts, Error};
pub use health::{CHECK_TIMEOUT, CheckReport, Health, HealthReport, HealthStatus, INSTANCE_HEADER};
pub use new_instance::NewInstance;
pub use registration::{Registration, RegistrationState};
pub use resolver::{Resolve, Resolver};
pub use roundsman_protocol::{
    Address, Callee, Check, CheckKind, Codec, DiscoveryError, Edge, Expect, Flip, Graph, HistoryPage, HistoryQuery,
    Instance, InstanceId, InstanceStatus, Invalid, Meta, Namespace, Query, Removed, Scope, ServiceName, ServiceSummary,
    Status, Timestamp, Trouble, instance::Outcome, instance::Registered,
};
pub use servers::Servers;
pub use snapshot::Snapshot;
#[cfg(feature = "http")]
pub use trace::TraceContext;
pub use watch::{Event, Watch};

/// The names, types and messages of the protocol, for what is not re-exported above.
pub use roundsman_protocol as protocol;
