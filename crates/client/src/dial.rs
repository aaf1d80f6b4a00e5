//! Making one connection: TCP, then one handshake frame each way.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    handshake::{self, Hello, Welcome},
    limits,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::error::Attempt;

/// Longest wait for the TCP connection, and again for the handshake.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection on which calls may follow.
#[derive(Debug)]
pub(crate) struct Dialed {
    /// The socket, framed, ready for answers of any size.
    pub(crate) framed: Framed<TcpStream, LengthDelimitedCodec>,
    /// The server's name, new at each of its starts.
    pub(crate) name: Option<String>,
}

enum Failure {
    /// Nobody there, or gone again.
    Away(String),
    /// Somebody there who does not let us in.
    Refused(String),
}

/// Connects and shakes hands, within `limit` for each of the two steps.
pub(crate) async fn dial(server: &Arc<str>, hello: &Hello, limit: Duration) -> Result<Dialed, Attempt> {
    let limit = limit.min(PATIENCE);
    let failed = |failure| {
        let (reason, refused) = match failure {
            Failure::Away(reason) => (reason, false),
            Failure::Refused(reason) => (reason, true),
        };
        Attempt { server: Arc::clone(server), reason, refused }
    };
    let late = |what| failed(Failure::Away(format!("{what} within {}", roundsman_protocol::time::display(limit))));
    let stream = match timeout(limit, TcpStream::connect(&**server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(failed(Failure::Away(describe(&error)))),
        Err(_) => return Err(late("no connection")),
    };
    match timeout(limit, shake_hands(stream, hello)).await {
        Ok(dialed) => dialed.map_err(failed),
        Err(_) => Err(late("no answer to the handshake")),
    }
}

async fn shake_hands(stream: TcpStream, hello: &Hello) -> Result<Dialed, Failure> {
    stream.set_nodelay(true).map_err(|error| Failure::Away(describe(&error)))?;
    let mut framed = LengthDelimitedCodec::builder().max_frame_length(handshake::MAX_BYTES).new_framed(stream);
    let hello = serde_json::to_vec(hello).map_err(|error| Failure::Refused(error.to_string()))?;
    framed.send(Bytes::from(hello)).await.map_err(|error| Failure::Away(describe(&error)))?;
    let stranger = || Failure::Refused("it does not speak Roundsman's RPC protocol; is this its RPC port?".to_owned());
    let frame = match framed.next().await {
        Some(Ok(frame)) => frame,
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(stranger()),
        Some(Err(error)) => return Err(Failure::Away(describe(&error))),
        None => return Err(Failure::Away("it closed the connection during the handshake".to_owned())),
    };
    let welcome: Welcome = serde_json::from_slice(&frame).map_err(|_| stranger())?;
    if !welcome.ok {
        return Err(Failure::Refused(welcome.error.unwrap_or_else(|| "it gave no reason".to_owned())));
    }
    framed.codec_mut().set_max_frame_length(limits::MAX_ANSWER_BYTES);
    Ok(Dialed { framed, name: welcome.server })
}

/// An IO error in the words of a person: without the number, where the kind says it all.
pub(crate) fn describe(error: &io::Error) -> String {
    use io::ErrorKind as Kind;
    match error.kind() {
        kind @ (Kind::ConnectionRefused
        | Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::TimedOut) => kind.to_string(),
        _ => error.to_string(),
    }
}
