//! The attacks. Each opens what it needs, and holds it.

use std::{net::SocketAddr, time::Duration};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    error::{Context, Failure, Result},
    plan::Plan,
    server::Server,
    wire::Wire,
};

/// Metadata of an instance whose changes fill the log, as much as it may have.
const META: usize = 16_000;
const NAMESPACES: usize = 10;
/// Instances that change, of each namespace.
const CHANGING: usize = 10;
/// Watches of one connection, which is what grows its buffers most, and names of one watch.
const WATCHES_EACH: usize = 1;
const NAMES: usize = 1_024;
const DEADLINE: Duration = Duration::from_secs(250);

/// What keeps memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    Unread,
    Grown,
    Logs,
    Wide,
}

/// Where, and how much.
#[derive(Clone, Copy, Debug)]
pub(super) struct Assault {
    server: SocketAddr,
    unread: usize,
    grown: usize,
    changes: usize,
    wide: usize,
}

// === impl Way ===

impl Way {
    pub(super) const ALL: [Self; 4] = [Self::Unread, Self::Grown, Self::Logs, Self::Wide];

    pub(super) fn describe(self, plan: &Plan) -> String {
        match self {
            Self::Unread => format!("{} lists of 6 MB left unread", plan.unread_lists),
            Self::Grown => format!("{} connections that listed 6 MB and idle", plan.unread_lists / 2),
            Self::Logs => {
                format!("changes of 16 KB, {} in each of {NAMESPACES} namespaces", plan.logged_changes)
            }
            Self::Wide => format!("{} watches of {NAMES} names each", plan.wide_watches),
        }
    }
}

// === impl Assault ===

impl Assault {
    pub(super) fn new(server: &Server, plan: &Plan) -> Self {
        Self {
            server: server.rpc,
            unread: plan.unread_lists,
            grown: plan.unread_lists / 2,
            changes: plan.logged_changes,
            wide: plan.wide_watches,
        }
    }

    /// Attacks; the connections that come back hold what was reached. To be refused is no failure.
    pub(super) async fn run(self, way: Way) -> Result<Vec<Wire>> {
        match way {
            Way::Unread => self.unread().await,
            Way::Grown => self.grown().await,
            Way::Logs => self.logs().await,
            Way::Wide => self.wide().await,
        }
    }

    async fn unread(self) -> Result<Vec<Wire>> {
        let mut wires = Vec::new();
        for _ in 0..self.unread {
            let mut wire = Wire::open(self.server, "default").await?;
            drop(wire.send("List", json!({"query": {}}), DEADLINE).await);
            wires.push(wire);
        }
        Ok(wires)
    }

    async fn grown(self) -> Result<Vec<Wire>> {
        let (mut wires, mut scratch) = (Vec::new(), vec![0; 256 * 1_024]);
        for _ in 0..self.grown {
            let mut wire = Wire::open(self.server, "default").await?;
            drop(wire.send("List", json!({"query": {}}), DEADLINE).await);
            drop(wire.skip(&mut scratch).await);
            wires.push(wire);
        }
        Ok(wires)
    }

    async fn logs(self) -> Result<Vec<Wire>> {
        let mut tasks = JoinSet::new();
        for namespace in 0..NAMESPACES {
            tasks.spawn(async move {
                let mut wire = Wire::open(self.server, &format!("attacker-{namespace}")).await?;
                for change in 0..self.changes {
                    let id = format!("changing-{}", change % CHANGING);
                    let address = format!("10.8.{namespace}.{}:80", change % CHANGING);
                    let meta = json!({"notes": format!("{change:08}{}", "n".repeat(META))});
                    let registration =
                        json!({"name": "changing", "id": id, "address": address, "check": {"kind": "none"}, "meta": meta});
                    // Over its budget it is told so, and goes on.
                    drop(wire.call("Register", json!({"registration": registration})).await);
                }
                Ok::<_, Failure>(wire)
            });
        }
        let mut wires = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            wires.push(ended.context("attacking")??);
        }
        Ok(wires)
    }

    async fn wide(self) -> Result<Vec<Wire>> {
        let names: Vec<String> = (0..NAMES).map(|number| format!("{number:04}{}", "w".repeat(59))).collect();
        let mut wires = Vec::new();
        for _ in 0..self.wide / WATCHES_EACH {
            let mut wire = Wire::open(self.server, "default").await?;
            let none = json!({"query": {"services": ["nobody"]}, "after": null, "wait": "0s"});
            let cursor = wire.call("Watch", none).await?.get("cursor").cloned().unwrap_or_default();
            let watch = json!({"query": {"services": names}, "after": cursor, "wait": "240s"});
            for _ in 0..WATCHES_EACH {
                drop(wire.send("Watch", watch.clone(), DEADLINE).await);
            }
            wires.push(wire);
        }
        Ok(wires)
    }
}
