//! One lookup at a time: mostly what it takes to wake a process up, so the echo is the measure.

use std::net::SocketAddr;

use futures::StreamExt;
use roundsman_protocol::DiscoveryRequest;
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::{missing, ratio, time};
use crate::{
    error::{Context, Failure, Result},
    isolated::{self, Core},
    load::{self, Caller},
    peers::{
        etcd::Etcd,
        floor::{Echo, Floor},
        if_installed,
        nats::Nats,
        redis::Redis,
        roundsman::getters,
    },
    plan::Plan,
    population,
    report::Row,
    rows::lookups::filled,
    rpc,
    series::{Sample, Series},
    server::{Setup, Store},
};

/// Bytes that the echo gets: those of a request.
const ECHO: usize = 64;
/// Shows how much of a call is the server, and how much the client.
struct Raw {
    framed: Framed<TcpStream, LengthDelimitedCodec>,
    request: Vec<u8>,
}

/// Services of the peers; one after the other, there is no hurry that more of them would show.
const SERVICES: u32 = 1_000;

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let server = filled(Setup::new(Store::Memory), SERVICES).await?;
    let floor = Floor::start(Core::Any, SERVICES, 200).await?;
    let etcd = if_installed(Etcd::start_with(SERVICES).await)?;
    let redis = if_installed(Redis::start_with(SERVICES).await)?;
    let nats = if_installed(Nats::start().await)?;
    let (rpc, echo_address) = (server.rpc, floor.echo);
    let [mut ours, mut raw, mut echo, mut etcds, mut redises, mut natses] = [const { Series::new() }; 6];
    for _ in 0..plan.rounds {
        echo.push_sample(alone(plan, move || async move { Echo::connect(echo_address, ECHO).await }).await?);
        ours.push_sample(alone(plan, move || async move { first(getters(rpc, SERVICES, 1, 1).await?) }).await?);
        raw.push_sample(alone(plan, move || async move { Raw::open(rpc).await }).await?);
        if let Some(etcd) = &etcd {
            let address = etcd.address;
            etcds.push_sample(alone(plan, move || async move { Etcd::reader(address, SERVICES).await }).await?);
        }
        if let Some(nats) = &nats {
            let address = nats.address;
            natses.push_sample(alone(plan, move || async move { Nats::asker(address).await }).await?);
        }
        if let Some(redis) = &redis {
            let address = redis.address;
            redises.push_sample(alone(plan, move || async move { Redis::reader(address, SERVICES).await }).await?);
        }
    }
    let (ours, echo) = (ours.median(), echo.median());
    let times = ratio(ours.p50, echo.p50);
    let measured = format!("p50 {}, p99 {}: {times:.2} × the echo", time(ours.p50), time(ours.p99));
    let peer = |name: &str, program, there: bool, series: &Series| {
        if there { Row::figure(name, latencies(series.median())) } else { missing(name, program) }
    };
    Ok(vec![
        Row::figure("one lookup at a time", measured).goal("≤ 1.2 × the echo", Some(times <= 1.2)),
        Row::figure("… with a request written beforehand, its answer not decoded", latencies(raw.median())),
        Row::figure("raw TCP echo, one at a time", latencies(echo)),
        peer("etcd range, one at a time", "etcd", etcd.is_some(), &etcds),
        peer("NATS request, one at a time", "nats-server", nats.is_some(), &natses),
        peer("redis HGETALL, one at a time", "redis-server", redis.is_some(), &redises),
    ])
}

fn latencies(sample: Sample) -> String {
    format!("p50 {}, p99 {}", time(sample.p50), time(sample.p99))
}

fn first<C>(callers: Vec<C>) -> Result<C> {
    callers.into_iter().next().ok_or_else(|| Failure::new("making a caller", "there is none"))
}

/// A single caller, on a thread of its own.
async fn alone<C, F, R>(plan: &Plan, make: F) -> Result<Sample>
where
    C: Caller,
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = Result<C>>,
{
    let time = plan.reads * 2 / 3;
    isolated::run(Core::Any, move || async move {
        let mut callers = vec![make().await?];
        load::run(&mut callers, time / 10).await?;
        let load = load::run(&mut callers, time).await?;
        let mut series = Series::new();
        series.push(&load, std::time::Duration::ZERO);
        Ok(series.median())
    })
    .await
}

// === impl Raw ===

impl Raw {
    async fn open(server: SocketAddr) -> Result<Self> {
        let framed = rpc::shake_hands(server).await?;
        // One at a time, the same id will do for all.
        let request = rpc::frame(1, DiscoveryRequest::Get { service: population::service(7)? })?;
        Ok(Self { framed, request })
    }
}

impl Caller for Raw {
    async fn call(&mut self) -> Result<()> {
        self.framed.get_mut().write_all(&self.request).await.context("sending a lookup")?;
        let answer = self.framed.next().await.ok_or_else(|| Failure::new("reading an answer", "closed"))?;
        answer.context("reading an answer").map(drop)
    }
}
