//! Making one connection: TCP, then one handshake frame each way, in a version that both sides speak.

use std::{collections::HashMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    Version,
    handshake::{self, Hello, Welcome},
    limits,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::error::Attempt;

/// Longest wait for the TCP connection, and again for the handshake.
const PATIENCE: Duration = Duration::from_secs(2);
/// For so long it counts that a server let in only those who said an older version first. One that was upgraded
/// meanwhile picks the newest all the same, unless it is one of those itself.
const FRESH: Duration = Duration::from_secs(600);

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

/// Which version to say first to servers that know of no range: they let in only who says theirs.
#[derive(Debug, Default)]
pub(crate) struct Spoken(HashMap<Arc<str>, (Version, Instant)>);

enum Failure {
    /// Nobody there, or gone again.
    Away(String),
    /// Somebody there who does not let us in.
    Refused(String),
    /// Somebody there who wants to hear another version.
    Version(String),
}

/// Connects and shakes hands, within `limit` for each of the two steps, and does so again with an older version where
/// the server speaks nothing else.
pub(crate) async fn dial(
    server: &Arc<str>,
    hello: &Hello,
    spoken: &mut Spoken,
    limit: Duration,
) -> Result<Dialed, Attempt> {
    let failed = |reason, refused| Attempt { server: Arc::clone(server), reason, refused };
    let mut refusal = None;
    for version in spoken.order(server) {
        match meet(server, hello.saying(version), limit.min(PATIENCE)).await {
            Ok(dialed) => {
                spoken.note(server, version);
                return Ok(dialed);
            }
            Err(Failure::Away(reason)) => return Err(failed(reason, false)),
            Err(Failure::Refused(reason)) => return Err(failed(reason, true)),
            // Of several, the first sentence: it is about the version that we would rather speak.
            Err(Failure::Version(reason)) => refusal = refusal.or(Some(reason)),
        }
    }
    Err(failed(refusal.unwrap_or_else(|| "it gave no reason".to_owned()), true))
}

/// One connection, and one greeting on it.
async fn meet(server: &str, hello: Hello, limit: Duration) -> Result<Dialed, Failure> {
    let late = |what| Failure::Away(format!("{what} within {}", roundsman_protocol::time::display(limit)));
    let stream = match timeout(limit, TcpStream::connect(server)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(Failure::Away(describe(&error))),
        Err(_) => return Err(late("no connection")),
    };
    timeout(limit, shake_hands(stream, &hello)).await.unwrap_or_else(|_| Err(late("no answer to the handshake")))
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

// === impl Spoken ===

impl Spoken {
    /// The versions to say, the one that is most likely right first.
    fn order(&self, server: &str) -> Vec<Version> {
        let known = self.0.get(server).filter(|(_, since)| since.elapsed() < FRESH).map(|(version, _)| *version);
        let others = Version::ALL.into_iter().filter(|version| Some(*version) != known);
        known.into_iter().chain(others).collect()
    }

    /// This server let us in when we said this version.
    fn note(&mut self, server: &Arc<str>, version: Version) {
        if version == Version::CURRENT {
            self.0.remove(server);
        } else if self.order(server).first() != Some(&version) {
            self.0.insert(Arc::clone(server), (version, Instant::now()));
        }
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

#[cfg(test)]
mod tests {
    use roundsman_protocol::{Codec, Namespace};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each greeting with the next of these, and returns what it was told.
    async fn server(answers: Vec<String>) -> (Arc<str>, tokio::task::JoinSet<Vec<Hello>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = Arc::from(listener.local_addr().unwrap().to_string());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let mut heard = Vec::new();
            for answer in answers {
                let (stream, _) = listener.accept().await.unwrap();
                let mut framed = LengthDelimitedCodec::builder().new_framed(stream);
                heard.push(serde_json::from_slice(&framed.next().await.unwrap().unwrap()).unwrap());
                framed.send(Bytes::from(answer)).await.unwrap();
            }
            heard
        });
        (addr, tasks)
    }

    fn refusal(version: u32) -> String {
        format!(
            r#"{{"ok":false,"error":"this server speaks version {version} of the protocol, the client version 9"}}"#
        )
    }

    const OLD_WELCOME: &str = r#"{"ok":true,"version":"0.1.0","server":"roundsman-1"}"#;
    const PATIENT: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn it_falls_back_step_by_step_and_remembers_for_a_while() {
        let hello = Hello::new(Codec::Postcard, Namespace::default(), None);
        let upgraded = serde_json::to_string(&Welcome::accept(Version::V3, "0.2.0", "roundsman-2")).unwrap();
        let answers = [&refusal(1), &refusal(1), OLD_WELCOME, OLD_WELCOME, &upgraded].map(str::to_owned);
        let (addr, mut tasks) = server(answers.to_vec()).await;
        let mut spoken = Spoken::default();
        let mut versions = Vec::new();
        for _ in 0..3 {
            versions.push(dial(&addr, &hello, &mut spoken, PATIENT).await.unwrap().version);
        }
        assert_eq!(versions, [Version::V1, Version::V1, Version::V3]);
        let heard = tasks.join_next().await.unwrap().unwrap();
        let said: Vec<_> = heard.iter().map(|hello| (hello.roundsman, hello.oldest, hello.newest)).collect();
        let again = (1, Some(1), Some(3));
        assert_eq!(said, [(3, Some(1), None), (2, Some(1), Some(3)), again, again, again]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_remembered_grows_old() {
        let (server, mut spoken) = (Arc::from("a:1"), Spoken::default());
        assert_eq!(spoken.order(&server), Version::ALL);
        spoken.note(&server, Version::V1);
        assert_eq!(spoken.order(&server), [Version::V1, Version::V3, Version::V2]);
        assert_eq!(spoken.order("b:1"), Version::ALL);
        tokio::time::advance(FRESH - Duration::from_secs(1)).await;
        spoken.note(&server, Version::V1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(spoken.order(&server), Version::ALL, "though it was used meanwhile");
        spoken.note(&server, Version::V2);
        spoken.note(&server, Version::V3);
        assert_eq!(spoken.order(&server), Version::ALL);
    }

    #[tokio::test]
    async fn a_server_that_speaks_nothing_of_ours_is_a_sentence() {
        let hello = Hello::new(Codec::Postcard, Namespace::default(), None);
        let dialed = async |answers: Vec<String>| {
            let (addr, _tasks) = server(answers).await;
            dial(&addr, &hello, &mut Spoken::default(), PATIENT).await.unwrap_err()
        };
        let strange = dialed(vec![refusal(7), refusal(8), refusal(9)]).await;
        assert!(strange.refused && strange.reason.contains("speaks version 7"), "{strange:?}");
        let newer =
            r#"{"ok":false,"roundsman":9,"oldest":7,"error":"this server speaks versions 7 to 9 of the protocol"}"#;
        assert!(dialed(vec![newer.to_owned()]).await.reason.contains("7 to 9"), "told at once");
        let odd = dialed(vec![r#"{"ok":true,"roundsman":4}"#.to_owned()]).await;
        assert!(odd.refused && odd.reason.contains("not offered"), "{odd:?}");
    }
}
