//! Says to today's server what clients of earlier releases said, and compares what it answers.

use std::{collections::HashMap, time::Duration};

use roundsman_discovery::{Config, Server};
use roundsman_protocol::{
    Codec, Cursor, Dialect, DiscoveryResponse, Version,
    handshake::Hello,
    v1, v2,
    wire::{Body, Head},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tarpc::Response;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use super::{Said, Side, recorded};
use crate::support::{SOON, config};

/// One connection of a session that is said again.
struct Connection {
    stream: TcpStream,
    dialect: Dialect,
    /// What was asked last, to be asked again while the answer is not right yet.
    asked: Vec<u8>,
    /// Where the server stood in its last answer.
    cursor: Option<Value>,
}

#[tokio::test]
async fn todays_server_answers_clients_of_earlier_releases_as_theirs_did() {
    let sessions = recorded();
    let mut spoken: Vec<_> = sessions.iter().map(|(name, _)| name.as_str()).collect();
    spoken.sort_unstable();
    assert_eq!(spoken, ["v1-json", "v1-postcard", "v2-json", "v2-postcard"]);
    for (name, said) in &sessions {
        // As the releases were started: how an instance is visited is part of what is told of it.
        let server = Config { timeout: Config::default().timeout, ..config("memory:") };
        let server = Server::start(server).await.unwrap();
        let mut connections = HashMap::new();
        for said in said {
            match (said.by, connections.remove(&said.connection)) {
                (Side::Client, None) => {
                    connections.insert(said.connection, Connection::open(&server, said).await);
                }
                (Side::Client, Some(mut connection)) => {
                    connection.ask(&said.frame).await;
                    connections.insert(said.connection, connection);
                }
                (Side::Server, Some(mut connection)) => {
                    connection.hear(name, said).await;
                    connections.insert(said.connection, connection);
                }
                (Side::Server, None) => panic!("{name}: the server speaks first"),
            }
        }
        drop(connections);
        server.stop().await;
    }
}

impl Connection {
    async fn open(server: &Server, hello: &Said) -> Self {
        let stream = TcpStream::connect(server.rpc_addr()).await.unwrap();
        let read = Hello::read(&hello.frame).unwrap();
        let dialect = Dialect { version: read.agree().unwrap(), codec: read.codec };
        assert_eq!(dialect.version.number(), read.roundsman, "who knows of no range gets what it says");
        let mut connection = Self { stream, dialect, asked: Vec::new(), cursor: None };
        connection.send(&hello.frame).await;
        connection
    }

    async fn send(&mut self, frame: &[u8]) {
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        self.stream.write_all(&[&length, frame].concat()).await.unwrap();
    }

    async fn receive(&mut self) -> Vec<u8> {
        let stream = &mut self.stream;
        let frame = async {
            let mut frame = vec![0; stream.read_u32().await.unwrap() as usize];
            stream.read_exact(&mut frame).await.unwrap();
            frame
        };
        let asked = || String::from_utf8_lossy(&self.asked).into_owned();
        timeout(SOON, frame).await.unwrap_or_else(|_| panic!("neither answered nor hung up: {}", asked()))
    }

    /// Says the same bytes, but for the cursor: that of the recording is another server's.
    async fn ask(&mut self, frame: &[u8]) {
        self.asked = match self.dialect {
            Dialect { codec: Codec::Json, .. } => self.with_cursor_in_json(frame),
            Dialect { version: Version::V1, .. } => self.with_cursor::<v1::Registration>(frame),
            Dialect { version: Version::V2, .. } => self.with_cursor::<v2::Registration>(frame),
            Dialect { version: Version::V3, .. } => panic!("a version of its own has its own types"),
        };
        let asked = self.asked.clone();
        self.send(&asked).await;
    }

    fn with_cursor_in_json(&self, frame: &[u8]) -> Vec<u8> {
        let mut message: Value = serde_json::from_slice(frame).unwrap();
        match (message.pointer_mut("/Request/message/Watch/after"), &self.cursor) {
            (Some(after), Some(cursor)) if !after.is_null() => *after = cursor.clone(),
            _ => return frame.to_vec(),
        }
        serde_json::to_vec(&message).unwrap()
    }

    /// The types of that version read the recorded bytes, and write them again just so.
    fn with_cursor<R: Serialize + DeserializeOwned>(&self, frame: &[u8]) -> Vec<u8> {
        let Ok(Head::Request { body: Body::Postcard(body), .. }) = Head::read(Codec::Postcard, frame) else {
            return frame.to_vec();
        };
        let mut request: v2::Request<R> = postcard::from_bytes(body).unwrap();
        assert_eq!(postcard::to_allocvec(&request).unwrap(), body);
        if let (v2::Request::Watch { after: Some(after), .. }, Some(cursor)) = (&mut request, &self.cursor) {
            *after = serde_json::from_value::<Cursor>(cursor.clone()).unwrap();
        }
        [&frame[..frame.len() - body.len()], &postcard::to_allocvec(&request).unwrap()].concat()
    }

    /// Reads an answer, and asks again until it says what the recording says: an instance is not handed out at once.
    async fn hear(&mut self, name: &str, recorded: &Said) {
        let (deadline, expected) = (Instant::now() + SOON, self.told(&recorded.frame));
        loop {
            let frame = self.receive().await;
            let answer = self.told(&frame);
            if let Some(cursor) = answer.pointer("/message/Ok/Watch/Ok/cursor") {
                self.cursor = Some(cursor.clone());
            }
            let (said, meant) = (masked(&answer, ""), masked(&expected, ""));
            if said == meant {
                return;
            }
            let again = ["Get", "List", "Services"].iter().any(|read| answer["message"]["Ok"].get(read).is_some());
            assert!(again && Instant::now() < deadline, "{name}, connection {}:\n{said}\n{meant}", recorded.connection);
            sleep(Duration::from_millis(10)).await;
            let asked = self.asked.clone();
            self.send(&asked).await;
        }
    }

    /// An answer as this version's types read it; in JSON, just as it was written.
    fn told(&self, frame: &[u8]) -> Value {
        let Dialect { version, codec } = self.dialect;
        if self.asked.is_empty() {
            return serde_json::from_slice(frame).unwrap();
        }
        let read = match version {
            Version::V1 => told::<v1::Response>(codec, frame),
            Version::V2 => told::<v2::Response>(codec, frame),
            Version::V3 => told::<DiscoveryResponse>(codec, frame),
        };
        if codec == Codec::Json { serde_json::from_slice(frame).unwrap() } else { read }
    }
}

fn told<T: DeserializeOwned + Serialize>(codec: Codec, frame: &[u8]) -> Value {
    serde_json::to_value(codec.read::<Response<T>>(frame).unwrap()).unwrap()
}

/// An answer without what is another one each time: times, cursors, counts of what happened, and the server's own words.
fn masked(value: &Value, key: &str) -> Value {
    match value {
        Value::Object(fields) if key == "Welcome" || fields.contains_key("ok") => {
            serde_json::json!({ "ok": fields["ok"] })
        }
        Value::Object(fields) => {
            // Of the parts of a status, and of their parts, their shape.
            let counts = matches!(key, "store" | "rounds" | "brake" | "doors" | "memory" | "since");
            let masked = fields.iter().map(|(name, value)| {
                let inner = if counts { "since" } else { name.as_str() };
                // A status has a version, too: that of the release.
                let inner = if fields.contains_key("started_at") && name == "version" { "since" } else { inner };
                (name.clone(), masked(value, inner))
            });
            Value::Object(masked.collect())
        }
        Value::Array(_) if matches!(key, "recent" | "history") => Value::Array(Vec::new()),
        Value::Array(values) => {
            let mut values: Vec<_> = values.iter().map(|value| masked(value, key)).collect();
            values.sort_by_key(ToString::to_string);
            Value::Array(values)
        }
        _ if matches!(
            key,
            "since"
                | "registered_at"
                | "reason"
                | "epoch"
                | "revision"
                | "server"
                | "started_at"
                | "now"
                | "last"
                | "lookups"
                | "watching"
                | "detail"
        ) =>
        {
            Value::Null
        }
        other => other.clone(),
    }
}
