//! The protocol's generated client on a connection of its own, without the client library around it.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    Codec, DiscoveryClient, DiscoveryError, DiscoveryRequest, Namespace,
    handshake::{Hello, Welcome},
    limits,
};
use tarpc::{
    ClientMessage, Request,
    client::{Config, NewClient, RpcError},
    context,
};
use tokio::{net::TcpStream, task::JoinSet, time::Instant};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::error::{Context, Failure, Result};

/// A connection, for as long as this value lives.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) client: DiscoveryClient,
    /// tarpc's end of it; ends with the set.
    _dispatch: JoinSet<()>,
}

// === impl Connection ===

impl Connection {
    pub(crate) async fn open(server: SocketAddr) -> Result<Self> {
        let framed = shake_hands(server).await?;
        let mut config = Config::default();
        config.max_in_flight_requests = 1_000;
        config.pending_request_buffer = 1_000;
        let NewClient { client, dispatch } =
            DiscoveryClient::new(config, tarpc::serde_transport::new(framed, Codec::Postcard));
        let mut tasks = JoinSet::new();
        // When the connection breaks, its callers hear of it.
        tasks.spawn(async move { drop(dispatch.await) });
        Ok(Self { client, _dispatch: tasks })
    }

    pub(crate) async fn open_many(server: SocketAddr, count: usize) -> Result<Vec<Self>> {
        let mut connections = Vec::new();
        for _ in 0..count {
            connections.push(Self::open(server).await?);
        }
        Ok(connections)
    }
}

/// Connects and introduces us, with postcard as the codec.
pub(crate) async fn shake_hands(server: SocketAddr) -> Result<Framed<TcpStream, LengthDelimitedCodec>> {
    let stream = TcpStream::connect(server).await.context(format!("connecting to {server}"))?;
    stream.set_nodelay(true).context("setting nodelay")?;
    let mut framed = LengthDelimitedCodec::builder().max_frame_length(limits::MAX_ANSWER_BYTES).new_framed(stream);
    let hello = Hello::new(Codec::Postcard, Namespace::default(), None);
    let hello = serde_json::to_vec(&hello).context("writing the handshake")?;
    framed.send(Bytes::from(hello)).await.context("sending the handshake")?;
    let answer = framed.next().await.ok_or_else(|| Failure::new("the handshake", "the connection was closed"))?;
    let welcome: Welcome =
        serde_json::from_slice(&answer.context("the handshake")?).context("reading the handshake")?;
    match welcome.error {
        Some(error) => Err(Failure::new("the handshake", error)),
        None => Ok(framed),
    }
}

/// A context that waits for so long.
pub(crate) fn within(time: Duration) -> context::Context {
    let mut context = context::current();
    context.deadline = (Instant::now() + time).into_std();
    context
}

/// A call's frame, length included, as the generated client would send it.
pub(crate) fn frame(id: u64, message: DiscoveryRequest) -> Result<Vec<u8>> {
    let request = ClientMessage::Request(Request { context: within(Duration::from_secs(60)), id, message });
    let body = Codec::Postcard.write(&request).context("writing a request")?;
    let length = u32::try_from(body.len()).context("a request's length")?;
    Ok([&length.to_be_bytes(), body.as_slice()].concat())
}

/// What a call answered.
pub(crate) fn answer<T>(what: &str, answer: Result<Result<T, DiscoveryError>, RpcError>) -> Result<T> {
    answer.context(what)?.context(what)
}
