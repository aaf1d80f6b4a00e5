//! Lookups with real clients, 64 under way, and the same work of the peers.

use std::time::Duration;

use super::{load, missing, ratio};
use crate::{
    error::Result,
    peers::{
        CALLERS, CONNECTIONS,
        etcd::{Etcd, Range},
        if_installed,
        nats::{Ask, Nats},
        redis::{Hgetall, Redis},
        roundsman::{Get, LibraryGet, getters, library_getters},
    },
    plan::Plan,
    population,
    report::Row,
    series::{Contestant, Sample},
    server::{Server, Setup, Store},
};

/// Instances of each service.
const INSTANCES: u32 = 3;

/// Everyone who takes part; a peer that is not installed does not.
struct Field {
    eight: Contestant<Get>,
    sixty_four: Contestant<Get>,
    library: Contestant<LibraryGet>,
    etcd: Option<Contestant<Range>>,
    redis: Option<Contestant<Hgetall>>,
    nats: Option<Contestant<Ask>>,
}

/// A server with so many services of three instances each, all handed out.
pub(super) async fn filled(setup: Setup, services: u32) -> Result<Server> {
    let server = setup.start().await?;
    let count = services * INSTANCES;
    population::register(server.rpc, count, move |number| population::instance(number, services)).await?;
    population::wait_until_passing(server.rpc, count, Duration::from_secs(20)).await?;
    Ok(server)
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let services = plan.services;
    let server = filled(Setup::new(Store::Memory), services).await?;
    let etcd = if_installed(Etcd::start_with(services).await)?;
    let redis = if_installed(Redis::start_with(services).await)?;
    let nats = if_installed(Nats::start().await)?;
    let mut field = Field {
        eight: Contestant::new(getters(server.rpc, services, CONNECTIONS, CALLERS).await?, &server.process),
        sixty_four: Contestant::new(getters(server.rpc, services, CALLERS, CALLERS).await?, &server.process),
        library: Contestant::new(library_getters(server.rpc, services).await?, &server.process),
        etcd: match &etcd {
            Some(etcd) => Some(Contestant::new(etcd.readers(services).await?, &etcd.process)),
            None => None,
        },
        redis: match &redis {
            Some(redis) => Some(Contestant::new(redis.readers(services).await?, &redis.process)),
            None => None,
        },
        nats: match &nats {
            Some(nats) => Some(Contestant::new(nats.askers().await?, &nats.process)),
            None => None,
        },
    };
    field.warm_up(plan.reads / 3).await?;
    for _ in 0..plan.rounds {
        field.round(plan.reads).await?;
    }
    Ok(field.rows())
}

// === impl Field ===

impl Field {
    async fn warm_up(&mut self, time: Duration) -> Result<()> {
        self.eight.warm_up(time).await?;
        self.sixty_four.warm_up(time).await?;
        self.library.warm_up(time).await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.warm_up(time).await?;
        }
        if let Some(redis) = &mut self.redis {
            redis.warm_up(time).await?;
        }
        if let Some(nats) = &mut self.nats {
            nats.warm_up(time).await?;
        }
        Ok(())
    }

    async fn round(&mut self, time: Duration) -> Result<()> {
        self.eight.round(time).await?;
        if let Some(etcd) = &mut self.etcd {
            etcd.round(time).await?;
        }
        if let Some(nats) = &mut self.nats {
            nats.round(time).await?;
        }
        self.library.round(time).await?;
        if let Some(redis) = &mut self.redis {
            redis.round(time).await?;
        }
        self.sixty_four.round(time).await
    }

    fn rows(&self) -> Vec<Row> {
        let ours = self.eight.median();
        let (etcd, nats) = (self.etcd.as_ref().map(Contestant::median), self.nats.as_ref().map(Contestant::median));
        let times = |peer: Option<Sample>| peer.map(|peer| ratio(ours.rate, peer.rate));
        let what = "lookups over tarpc, 64 in flight on 8 connections";
        vec![
            Row::figure(what, load(ours)),
            versus("… against etcd range", times(etcd), 10.0),
            versus("… against NATS request", times(nats), 3.0),
            Row::figure("… 64 connections, one in flight on each", load(self.sixty_four.median())),
            Row::figure("… through the client library, 8 connections", load(self.library.median())),
            etcd.map_or_else(
                || missing("etcd range, the same way", "etcd"),
                |etcd| Row::figure("etcd range, the same way", load(etcd)),
            ),
            nats.map_or_else(
                || missing("NATS request, the same way", "nats-server"),
                |nats| Row::figure("NATS request, the same way", load(nats)),
            ),
            self.redis.as_ref().map_or_else(
                || missing("redis HGETALL, the same way", "redis-server"),
                |redis| {
                    Row::figure(
                        "redis HGETALL, the same way",
                        format!("{} (three instances each)", load(redis.median())),
                    )
                },
            ),
        ]
    }
}

fn versus(what: &str, times: Option<f64>, goal: f64) -> Row {
    let measured = times.map_or_else(|| "nothing to compare with".to_owned(), |times| format!("{times:.1} ×"));
    Row::figure(what, measured).goal(format!("≥ {goal} ×"), times.map(|times| times >= goal))
}
