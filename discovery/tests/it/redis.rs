//! Redis under a running server: stopped, started, emptied, frozen, shared.

use roundsman_discovery::Server;
use serde_json::{Value, json};

use crate::support::{Raw, config, metric_reaches};

#[path = "../../../crates/store/tests/it/redis_server.rs"]
mod redis_server;
