//! Making one connection: TCP, then one handshake frame each way, in a version that both sides speak.

mod race;
mod spoken;
#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    Version,
    handshake::{self, Hello, Welcome},
    limits,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

pub(crate) use self::{race::race, spoken::Spoken};
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
    /// What is spoken on it.
    pub(crate) version: Version,
}

#[derive(Debug)]
enum Failure {
    /// Nobody there, or gone again.
    Away(String),
    /// Somebody there who does not let us in.
    Refused(String),
    /// Somebody there who wants to hear another version.
    Version(String),
}

/// Connects and shakes hands, within `limit` for each of the two steps, saying these versions one after the other where the
/// server does not let in who says another. A name that stands for several addresses is several servers.
pub(crate) async fn dial(
    server: &Arc<str>,
    hello: &Hello,
    versions: &[Version],
    limit: Duration,
) -> Result<Dialed, Attempt> {
    let limit = limit.min(PATIENCE);
    let away = |reason| Attempt { server: Arc::clone(server), reason, refused: false };
    let addresses = match timeout(limit, lookup_host(&**server)).await {
        Ok(Ok(addresses)) => distinct(addresses),
        Ok(Err(error)) => return Err(away(describe(&error))),
        Err(_) => return Err(away(late("no address for this name", limit))),
    };
    let met = race(addresses, |address| async move {
        greet(address, hello, versions, limit).await.map_err(|failure| (address, failure))
    });
    met.await.map(|(_, dialed)| dialed).map_err(|failures| attempt(server, &failures))
}

/// Greets with one version after the other.
async fn greet(address: SocketAddr, hello: &Hello, versions: &[Version], limit: Duration) -> Result<Dialed, Failure> {
    let mut refusal = None;
    for version in versions {
        match meet(address, hello.saying(*version), limit).await {
            // Of several, the first sentence: it is about the version that we would rather speak.
            Err(Failure::Version(reason)) => refusal = refusal.or(Some(reason)),
            met => return met,
        }
    }
    Err(Failure::Refused(refusal.unwrap_or_else(|| "it gave no reason".to_owned())))
}

/// One connection, and one greeting on it.
async fn meet(address: SocketAddr, hello: Hello, limit: Duration) -> Result<Dialed, Failure> {
    let stream = match timeout(limit, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Away(describe(&error))),
        Err(_) => return Err(Failure::Away(late("no connection", limit))),
    };
    let answer = timeout(limit, shake_hands(stream, &hello)).await;
    answer.unwrap_or_else(|_| Err(Failure::Away(late("no answer to the handshake", limit))))
}

fn late(what: &str, limit: Duration) -> String {
    format!("{what} within {}", roundsman_protocol::time::display(limit))
}

/// Each address once, in the order in which they are to be tried.
fn distinct(addresses: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut distinct = Vec::new();
    for address in addresses {
        if !distinct.contains(&address) {
            distinct.push(address);
        }
    }
    distinct
}

/// What came of one server. Its addresses are told apart where they failed in different ways.
fn attempt(server: &Arc<str>, failures: &[(SocketAddr, Failure)]) -> Attempt {
    let refused = failures.iter().any(|(_, failure)| !matches!(failure, Failure::Away(_)));
    let reason = match failures {
        [] => "its name has no address".to_owned(),
        [(_, first), rest @ ..] if rest.iter().all(|(_, failure)| failure.reason() == first.reason()) => {
            first.reason().to_owned()
        }
        _ => {
            let each = failures.iter().map(|(address, failure)| format!("{address}: {}", failure.reason()));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    Attempt { server: Arc::clone(server), reason, refused }
}

async fn shake_hands(stream: TcpStream, hello: &Hello) -> Result<Dialed, Failure> {
    stream.set_nodelay(true).map_err(|error| Failure::Away(describe(&error)))?;
    let mut framed = LengthDelimitedCodec::builder().max_frame_length(handshake::MAX_BYTES).new_framed(stream);
    let greeting = serde_json::to_vec(hello).map_err(|error| Failure::Refused(error.to_string()))?;
    framed.send(Bytes::from(greeting)).await.map_err(|error| Failure::Away(describe(&error)))?;
    let stranger = || Failure::Refused("it does not speak Roundsman's RPC protocol; is this its RPC port?".to_owned());
    let frame = match framed.next().await {
        Some(Ok(frame)) => frame,
        Some(Err(error)) if error.kind() == io::ErrorKind::InvalidData => return Err(stranger()),
        Some(Err(error)) => return Err(Failure::Away(describe(&error))),
        None => return Err(Failure::Away("it closed the connection during the handshake".to_owned())),
    };
    let welcome: Welcome = serde_json::from_slice(&frame).map_err(|_| stranger())?;
    if welcome.wants_another_version() {
        return Err(Failure::Version(welcome.error.unwrap_or_default()));
    }
    if !welcome.ok {
        return Err(Failure::Refused(welcome.error.unwrap_or_else(|| "it gave no reason".to_owned())));
    }
    // A server that knows of no range speaks what it was told.
    let number = welcome.roundsman.unwrap_or(hello.roundsman);
    let Some(version) = Version::of(number) else {
        return Err(Failure::Refused(format!(
            "it answered in version {number} of the protocol, which was not offered"
        )));
    };
    framed.codec_mut().set_max_frame_length(limits::MAX_ANSWER_BYTES);
    Ok(Dialed { framed, name: welcome.server, version })
}

// === impl Failure ===

impl Failure {
    fn reason(&self) -> &str {
        let (Self::Away(reason) | Self::Refused(reason) | Self::Version(reason)) = self;
        reason
    }
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
