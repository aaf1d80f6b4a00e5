//! What a Roundsman server and its clients say to each other: names, types, the RPC trait, the
//! handshake and the codecs.
//!
//! This crate does no IO and knows neither sockets nor stores. Everything in it is a contract with
//! programs that were built earlier: postcard is positional, so methods, fields and variants are only
//! ever appended, and [`handshake::VERSION`] changes when that is not enough.

pub mod address;
pub mod check;
pub mod codec;
pub mod digest;
pub mod error;
pub mod graph;
pub mod handshake;
pub mod instance;
pub mod limits;
pub mod meta;
pub mod name;
pub mod query;
pub mod rpc;
pub mod status;
pub mod time;
pub mod wire;

pub use address::{Address, Host};
pub use check::{Check, CheckKind, Expect};
pub use codec::Codec;
pub use digest::Digest;
pub use error::{DiscoveryError, Invalid};
pub use graph::{Callee, Edge, Graph};
pub use instance::{Flip, Instance, InstanceStatus, Registered, Registration};
pub use meta::Meta;
pub use name::{InstanceId, Namespace, ServiceName};
pub use query::{Cursor, Query, Removed, Scope, ServiceSummary, Trouble, Update};
pub use rpc::{Discovery, DiscoveryClient, DiscoveryRequest, DiscoveryResponse};
pub use status::Status;
pub use time::{Clock, Timestamp};
