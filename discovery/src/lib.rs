//! The Roundsman server: its doors, its configuration, and how it starts and stops.
//!
//! What it keeps is the registry's business, where it lasts the store's, and who is alive the rounds'. This
//! crate puts them together: one writer task owns every change, the doors read snapshots.

mod api;
mod calls;
pub mod config;
mod context;
mod doors;
mod edges;
mod error;
mod files;
mod follower;
mod inventory;
mod keepers;
mod loading;
mod logging;
mod memory;
mod method;
mod metrics;
mod offload;
mod principal;
mod run;
mod server;
mod store_state;
mod subsets;
mod visits;
mod writer;

pub use config::{Config, args::ServeArgs};
pub use error::ServeError;
pub use run::serve;
pub use server::Server;
