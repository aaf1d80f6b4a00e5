//! The server's CPU time per lookup against the floor: requests written beforehand, server and load on a core each.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use futures::future::try_join_all;
use roundsman_protocol::DiscoveryRequest;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::Instant,
};

use super::{lookups::filled, rate, ratio};
use crate::{
    error::{Context, Failure, Result},
    isolated::{self, Core},
    kernel,
    peers::floor::Floor,
    plan::Plan,
    population,
    report::Row,
    rpc,
    series::{Sample, Series},
    server::{Setup, Store},
};

/// Requests written beforehand for each connection: far more than are under way, so that no id is used twice at a time.
const RING: u32 = 4_096;

/// Connections, and requests under way on each.
#[derive(Clone, Copy, Debug)]
struct Shape {
    connections: u32,
    depth: usize,
}

/// One who answers, and how to get in.
#[derive(Clone, Copy, Debug)]
struct Contestant {
    pid: u32,
    address: SocketAddr,
    handshake: bool,
}

pub(super) async fn measure(plan: &Plan) -> Result<Vec<Row>> {
    let services = plan.services;
    let server = filled(Setup::new(Store::Memory).on(Core::First), services).await?;
    let answer = answer_bytes(server.rpc).await?;
    let mut floor = Floor::start(Core::First, services, answer).await?;
    let ours = Contestant { pid: server.process.pid(), address: server.rpc, handshake: true };
    let theirs = Contestant { pid: floor.helper.process().pid(), address: floor.lookups, handshake: false };
    let shapes = [
        (Shape { connections: 8, depth: 8 }, "8 connections, 8 in flight on each", 2.0),
        (Shape { connections: 64, depth: 1 }, "64 connections, one in flight on each", 1.6),
    ];
    let mut rows = Vec::new();
    for (shape, name, goal) in shapes {
        let (mut our_series, mut their_series) = (Series::new(), Series::new());
        for _ in 0..plan.rounds {
            our_series.push_sample(pipelined(ours, shape, services, plan.reads).await?);
            their_series.push_sample(pipelined(theirs, shape, services, plan.reads).await?);
        }
        let (ours, theirs) = (our_series.median(), their_series.median());
        let times = ratio(ours.cpu, theirs.cpu);
        let measured = format!(
            "{:.2} µs against {:.2} µs: {times:.2} × ({} and {})",
            ours.cpu,
            theirs.cpu,
            rate(ours.rate),
            rate(theirs.rate)
        );
        let what = format!("server CPU per lookup against a raw framed one, {name}");
        rows.push(Row::figure(what, measured).goal(format!("≤ {goal} ×"), Some(times <= goal)));
    }
    Ok(rows)
}

/// How many bytes the server answers a lookup with.
async fn answer_bytes(server: SocketAddr) -> Result<usize> {
    use futures::StreamExt;
    let mut framed = rpc::shake_hands(server).await?;
    let request = rpc::frame(1, DiscoveryRequest::Get { service: population::service(0)? })?;
    framed.get_mut().write_all(&request).await.context("asking once")?;
    let answer = framed.next().await.ok_or_else(|| Failure::new("asking once", "the connection was closed"))?;
    let answer = answer.context("asking once")?;
    // An answer that the service was not found would be much shorter, and would measure nothing.
    if answer.len() < 64 {
        return Err(Failure::new("asking once", format!("an answer of {} bytes is no instance", answer.len())));
    }
    Ok(answer.len())
}

async fn pipelined(contestant: Contestant, shape: Shape, services: u32, time: Duration) -> Result<Sample> {
    isolated::run(Core::Second, move || async move {
        let mut connections = Vec::new();
        for number in 0..shape.connections {
            connections.push(Pipeline::open(contestant, number, services).await?);
        }
        // The windows of new connections open first.
        all(&mut connections, shape.depth, time / 4).await?;
        let (start, cpu) = (Instant::now(), kernel::cpu_time(contestant.pid)?);
        let answers = all(&mut connections, shape.depth, time).await?;
        let cpu = kernel::cpu_time(contestant.pid)?.saturating_sub(cpu);
        let elapsed = start.elapsed().as_secs_f64();
        let count = answers.max(1) as f64;
        Ok(Sample { rate: count / elapsed, cpu: cpu.as_secs_f64() * 1e6 / count, ..Sample::default() })
    })
    .await
}

/// Lets all connections send and count until the time is over.
async fn all(connections: &mut [Pipeline], depth: usize, time: Duration) -> Result<u64> {
    let end = Instant::now() + time;
    let runs = connections.iter_mut().map(|connection| connection.run(depth, end));
    Ok(try_join_all(runs.map(tokio::task::unconstrained)).await?.into_iter().sum())
}

/// A connection that sends what was written beforehand, a new request for each answer.
struct Pipeline {
    stream: TcpStream,
    ring: Vec<Vec<u8>>,
    next: usize,
}

// === impl Pipeline ===

impl Pipeline {
    async fn open(contestant: Contestant, number: u32, services: u32) -> Result<Self> {
        let stream = if contestant.handshake {
            rpc::shake_hands(contestant.address).await?.into_inner()
        } else {
            TcpStream::connect(contestant.address).await.context("connecting to the floor")?
        };
        stream.set_nodelay(true).context("setting nodelay")?;
        let request = |at: u32| {
            let service = population::service((number * 977 + at * 7) % services)?;
            rpc::frame(u64::from(at) + 1, DiscoveryRequest::Get { service })
        };
        Ok(Self { stream, ring: (0..RING).map(request).collect::<Result<_>>()?, next: 0 })
    }

    /// Returns how many answers came.
    async fn run(&mut self, depth: usize, end: Instant) -> Result<u64> {
        let (mut requests, mut answers) = (Vec::with_capacity(4_096), BytesMut::with_capacity(65_536));
        let (mut answered, mut under_way) = (0_u64, 0);
        let mut wanted = depth;
        loop {
            if Instant::now() >= end {
                wanted = 0;
            }
            requests.clear();
            for request in self.ring.iter().cycle().skip(self.next).take(wanted) {
                requests.extend_from_slice(request);
            }
            self.next = (self.next + wanted) % self.ring.len();
            under_way += wanted;
            if under_way == 0 {
                return Ok(answered);
            }
            if wanted > 0 {
                self.stream.write_all(&requests).await.context("sending lookups")?;
            }
            if self.stream.read_buf(&mut answers).await.context("reading answers")? == 0 {
                return Err(Failure::new("reading answers", "the connection was closed"));
            }
            wanted = take_frames(&mut answers);
            answered += wanted as u64;
            under_way -= wanted;
        }
    }
}

/// Cuts off all whole frames and counts them.
fn take_frames(buffer: &mut BytesMut) -> usize {
    let mut count = 0;
    while let Some((head, _)) = buffer.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX).saturating_add(4);
        if buffer.len() < length {
            break;
        }
        buffer.advance(length);
        count += 1;
    }
    count
}
