//! What a Roundsman server and its clients say to each other: names, types, the RPC trait, the
//! handshake and the codecs.
//!
//! This crate does no IO and knows neither sockets nor stores. Everything in it is a contract with
//! programs that were built earlier, and postcard is positional: what a release has said stays as it is. Both sides
//! agree on a [`Version`] in the handshake. The types of the current one are those of this crate's modules;
//! those of earlier ones, where they differ, stand beside them in [`v1`] and [`v2`], and are converted
//! where messages are read and written ([`wire`]).

pub mod address;
mod bounded;
pub mod check;
pub mod codec;
mod differences;
pub mod digest;
pub mod error;
pub mod graph;
pub mod handshake;
pub mod history;
pub mod instance;
pub mod limits;
pub mod meta;
pub mod name;
pub mod operating;
pub mod query;
pub mod rpc;
pub mod status;
pub mod subset;
pub mod time;
pub mod update;
pub mod v1;
pub mod v2;
pub mod version;
pub mod wire;

pub use address::{Address, Host};
pub use check::{Check, CheckKind, Expect};
pub use codec::Codec;
pub use digest::Digest;
pub use error::{DiscoveryError, Invalid};
pub use graph::{Callee, Edge, Graph};
pub use history::{Event, EventKind, HistoryPage, HistoryQuery, Who};
pub use instance::{Flip, Instance, InstanceStatus, Registered, Registration};
pub use meta::Meta;
pub use name::{InstanceId, Namespace, ServiceName};
pub use operating::{Dismissed, Patch, Patched};
pub use query::{Query, Scope, ServiceSummary, Trouble};
pub use rpc::{Discovery, DiscoveryClient, DiscoveryRequest, DiscoveryResponse};
pub use status::Status;
pub use subset::Subset;
pub use time::{Clock, Timestamp};
pub use update::{Bookmark, Cursor, Known, Page, Removed, Update};
pub use version::{Dialect, Version};
