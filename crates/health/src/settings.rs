//! What an operator decides about the rounds.

use std::{net::SocketAddr, time::Duration};

use crate::target::TargetPolicy;

/// What an operator decides about the rounds. An instance's own check may name another interval and timeout.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time between two visits of an instance.
    pub interval: Duration,
    /// Time that a visit may take, connecting included.
    pub timeout: Duration,
    /// Failed visits in a row that evict; at least 1.
    pub failures: u32,
    /// How long an evicted instance may come back without registering.
    pub probation: Duration,
    /// Whether other servers may share the store, and hear of instances that do not call in here.
    pub replicas: bool,
    /// How long a new instance may take until its first visit passes.
    pub start_deadline: Duration,
    /// How long evictions for silence are held back at most.
    pub brake_limit: Duration,
    /// Most visits under way at a time, those that wait for somebody who hangs included. Beyond it the one that has waited
    /// longest is ended early, so that nobody's silence delays another's visit.
    pub max_visits: usize,
    /// Most visits that are just asking, which takes milliseconds; others wait for their turn. At most half of all visits.
    pub asking: usize,
    /// Most connections kept open between visits; beyond it each visit opens its own.
    pub max_kept: usize,
    /// Which addresses may be visited.
    pub targets: TargetPolicy,
    /// Which name servers to ask for host names; `None`: those of the system.
    pub name_servers: Option<Vec<SocketAddr>>,
    /// What the visits call themselves. Control characters in it are left out.
    pub user_agent: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            failures: 2,
            probation: Duration::from_secs(60),
            replicas: false,
            start_deadline: Duration::from_secs(30),
            brake_limit: Duration::from_secs(120),
            max_visits: 10_000,
            asking: 512,
            max_kept: 10_000,
            targets: TargetPolicy::default(),
            name_servers: None,
            user_agent: concat!("roundsman/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}
