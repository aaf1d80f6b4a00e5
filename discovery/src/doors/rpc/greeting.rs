//! The handshake: one frame each way, always JSON.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    Namespace, ServiceName,
    handshake::{Hello, MAX_BYTES, Welcome},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::codec::Framed;

use super::frame::{Frames, Outgoing};
use crate::context::Context;

/// How long a connection may take to greet. Whoever connects and says nothing holds a permit for no longer.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a refusal may take to be written.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection after the handshake.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) frames: Framed<TcpStream, Frames>,
    pub(super) namespace: Namespace,
    /// Which service is calling, if it said so.
    pub(super) service: Option<ServiceName>,
}

/// Shakes hands.
///
/// # Errors
/// Why the connection is closed, as metrics name it. The client was told, if it could be.
pub(super) async fn greet(stream: TcpStream, context: &Arc<Context>) -> Result<Greeted, &'static str> {
    let mut frames = Framed::new(stream, Frames::new(MAX_BYTES));
    let frame = match timeout(GREETING_TIMEOUT, frames.next()).await {
        Err(_) => return Err("handshake-timeout"),
        Ok(None) => return Err("handshake-eof"),
        Ok(Some(Err(_))) => {
            let rule = format!(
                "the first frame must be a handshake of at most {MAX_BYTES} bytes: a length (4 bytes, big-endian) and JSON"
            );
            farewell(&mut frames, rule).await;
            return Err("handshake-garbage");
        }
        Ok(Some(Ok(frame))) => frame,
    };
    let hello = match Hello::read(&frame) {
        Ok(hello) => hello,
        Err(reason) => {
            farewell(&mut frames, reason).await;
            return Err("handshake-refused");
        }
    };
    let welcome = Welcome::accept(env!("CARGO_PKG_VERSION"), context.server.as_str());
    let written = timeout(GREETING_TIMEOUT, say(&mut frames, &welcome)).await;
    if !matches!(written, Ok(Ok(()))) {
        return Err("handshake-unread");
    }
    frames.codec_mut().switch(context.config.max_frame, hello.codec);
    Ok(Greeted { frames, namespace: hello.namespace, service: hello.service })
}

/// Tells a client that there are too many already.
pub(super) async fn turn_away(stream: TcpStream, limit: usize) {
    let mut frames = Framed::new(stream, Frames::new(MAX_BYTES));
    farewell(&mut frames, format!("the server's limit --max-connections ({limit}) is reached")).await;
}

async fn farewell(frames: &mut Framed<TcpStream, Frames>, reason: String) {
    let goodbye = async {
        say(frames, &Welcome::refuse(reason)).await?;
        frames.close().await
    };
    // The connection is closed either way; whether the client reads why is up to the client.
    if !matches!(timeout(FAREWELL_TIMEOUT, goodbye).await, Ok(Ok(()))) {
        tracing::debug!("a refused client did not read why");
    }
}

async fn say(frames: &mut Framed<TcpStream, Frames>, welcome: &Welcome) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(welcome).map_err(std::io::Error::other)?;
    frames.send(Outgoing::Raw(bytes)).await
}
