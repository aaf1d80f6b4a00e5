//! etcd, over gRPC. Four messages written by hand spare everyone the protobuf compiler.

use std::{net::SocketAddr, process::Command};

use tempfile::TempDir;
use tonic::{
    Request,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{CALLERS, CONNECTIONS, Walk};
use crate::{
    error::{Context, Failure, Result},
    isolated::Core,
    load::Caller,
    population,
    process::Process,
    server,
};

/// A running etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    folder: TempDir,
}

/// Reads one key after the other.
#[derive(Debug)]
pub(crate) struct Range {
    grpc: Grpc<Channel>,
    walk: Walk,
}

/// Writes one new key after the other.
#[derive(Debug)]
pub(crate) struct Put {
    grpc: Grpc<Channel>,
    caller: usize,
    written: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

// === impl Etcd ===

impl Etcd {
    pub(crate) async fn start() -> Result<Self> {
        Self::start_in(server::folder()?).await
    }

    /// Started with a key for each service. After loading it is started again: right after a bulk load this
    /// version of etcd reads three times slower.
    pub(crate) async fn start_with(services: u32) -> Result<Self> {
        let etcd = Self::start().await?;
        let mut putting = tokio::task::JoinSet::new();
        let channels = channels(etcd.address).await?;
        for (caller, channel) in channels.iter().cycle().take(CALLERS).enumerate() {
            let mut grpc = Grpc::new(channel.clone());
            let mine = (0..services).skip(caller).step_by(CALLERS);
            putting.spawn(async move {
                for number in mine {
                    put(&mut grpc, key(number)?, super::value()).await?;
                }
                Ok(())
            });
        }
        while let Some(ended) = putting.join_next().await {
            ended.context("filling etcd")??;
        }
        let Self { process, folder, .. } = etcd;
        process.stop().await?;
        Self::start_in(folder).await
    }

    async fn start_in(folder: TempDir) -> Result<Self> {
        let (address, peers) = (super::free_address().await?, super::free_address().await?);
        let mut command = Command::new(super::find("etcd")?);
        command.current_dir(folder.path()).env_clear();
        for (flag, value) in [
            ("--data-dir", folder.path().join("data").display().to_string()),
            ("--name", "bench".to_owned()),
            ("--listen-client-urls", format!("http://{address}")),
            ("--advertise-client-urls", format!("http://{address}")),
            ("--listen-peer-urls", format!("http://{peers}")),
            ("--initial-advertise-peer-urls", format!("http://{peers}")),
            ("--initial-cluster", format!("bench=http://{peers}")),
            ("--log-level", "error".to_owned()),
        ] {
            command.arg(flag).arg(value);
        }
        let mut process = Process::start("etcd", Core::Any, command, &folder.path().join("log"))?;
        super::listening(address, &mut process, "etcd").await?;
        let etcd = Self { process, address, folder };
        // It listens before it has elected itself; the first write waits for that.
        put(&mut Grpc::new(channel(address).await?), b"ready".to_vec(), super::value()).await?;
        Ok(etcd)
    }

    /// One who reads, on a connection of its own.
    pub(crate) async fn reader(address: SocketAddr, services: u32) -> Result<Range> {
        Ok(Range { grpc: Grpc::new(channel(address).await?), walk: Walk::new(0, services) })
    }

    /// 64 who read, on 8 connections.
    pub(crate) async fn readers(&self, services: u32) -> Result<Vec<Range>> {
        let channels = channels(self.address).await?;
        let reader = |(caller, channel): (usize, &Channel)| Range {
            grpc: Grpc::new(channel.clone()),
            walk: Walk::new(caller, services),
        };
        Ok(channels.iter().cycle().take(CALLERS).enumerate().map(reader).collect())
    }

    /// 64 who write, on 8 connections.
    pub(crate) async fn writers(&self) -> Result<Vec<Put>> {
        let channels = channels(self.address).await?;
        let writer =
            |(caller, channel): (usize, &Channel)| Put { grpc: Grpc::new(channel.clone()), caller, written: 0 };
        Ok(channels.iter().cycle().take(CALLERS).enumerate().map(writer).collect())
    }
}

async fn channel(address: SocketAddr) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).context("etcd's address")?;
    endpoint.tcp_nodelay(true).connect().await.context("connecting to etcd")
}

async fn channels(address: SocketAddr) -> Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..CONNECTIONS {
        channels.push(channel(address).await?);
    }
    Ok(channels)
}

fn key(number: u32) -> Result<Vec<u8>> {
    Ok(format!("/services/{}", population::service(number)?).into_bytes())
}

async fn put(grpc: &mut Grpc<Channel>, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
    grpc.ready().await.context("waiting for etcd")?;
    let codec: ProstCodec<PutRequest, PutResponse> = ProstCodec::default();
    let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
    grpc.unary(Request::new(PutRequest { key, value }), path, codec).await.context("etcd put").map(drop)
}

impl Caller for Range {
    async fn call(&mut self) -> Result<()> {
        let key = key(self.walk.next())?;
        self.grpc.ready().await.context("waiting for etcd")?;
        let codec: ProstCodec<RangeRequest, RangeResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Range");
        let answer = self.grpc.unary(Request::new(RangeRequest { key }), path, codec).await.context("etcd range")?;
        match answer.into_inner().kvs.as_slice() {
            [found] if !found.value.is_empty() => Ok(()),
            _ => Err(Failure::new("etcd range", "the key was not found")),
        }
    }
}

impl Caller for Put {
    async fn call(&mut self) -> Result<()> {
        self.written += 1;
        let key = format!("/instances/{}-{}", self.caller, self.written).into_bytes();
        put(&mut self.grpc, key, super::value()).await
    }
}
