//! Records sessions, given the binaries of releases. By hand, once for each release:
//!
//! `RELEASES="v1=/path/to/roundsman v2=/path" cargo test -p roundsman-discovery --test it -- --ignored recorded_anew`

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::{JoinSet, spawn_blocking},
    time::{sleep, timeout},
};

use tokio_util::sync::CancellationToken;

use super::{Said, Side, path};
use crate::support::SOON;

/// A release's server, a proxy in front of it, and what was said through that.
struct Recorder {
    binary: String,
    server: Child,
    direct: String,
    proxy: String,
    said: Arc<Mutex<Vec<Said>>>,
    _tasks: JoinSet<()>,
    _folder: tempfile::TempDir,
}

#[tokio::test]
#[ignore = "only by hand, when there is a new release"]
#[allow(clippy::disallowed_methods, reason = "the only way to give a test something")]
async fn sessions_are_recorded_anew() {
    let releases = std::env::var("RELEASES").expect("set RELEASES=\"v1=/path/to/roundsman v2=/path\"");
    for (name, binary) in releases.split_whitespace().map(|release| release.split_once('=').unwrap()) {
        let version: u32 = name.trim_start_matches('v').parse().unwrap();
        let recorder = Recorder::start(binary).await;
        recorder.command_line(version).await;
        recorder.finish(&format!("{name}-postcard"));
        let recorder = Recorder::start(binary).await;
        recorder.by_hand(version).await;
        recorder.finish(&format!("{name}-json"));
    }
}

impl Recorder {
    async fn start(binary: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready");
        let mut server = Command::new(binary);
        server.args(["serve", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store", "memory:", "--ready-file"]);
        let server = server.arg(&ready).stderr(Stdio::null()).spawn().unwrap();
        let direct = until("the server to be ready", || address(&ready)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap().to_string();
        let (said, mut tasks) = (Arc::new(Mutex::new(Vec::new())), JoinSet::new());
        tasks.spawn(relay(listener, direct.clone(), Arc::clone(&said)));
        Self { binary: binary.to_owned(), server, direct, proxy, said, _tasks: tasks, _folder: folder }
    }

    /// What the release's command line says.
    async fn command_line(&self, version: u32) {
        let one = ["--id", "product-1", "--address", "10.0.0.7:7070", "--check", "none", "--tag", "a", "--meta", "k=v"];
        let more = ["--zone", "z", "--version", "1.2", "--weight", "2"];
        self.run(&[&["register", "--name", "product"], &one[..], &more].concat()).await;
        let two = ["--id", "product-2", "--address", "10.0.0.8:7070", "--check", "ttl", "--ttl", "1h"];
        self.run(&[&["register", "--name", "product"], &two[..]].concat()).await;
        self.settled().await;
        self.run(&["get", "product"]).await;
        self.run(&["list"]).await;
        self.run(&["list", "product"]).await;
        let mut watch = self.command(&self.proxy, &["watch"]).stdout(Stdio::null()).spawn().unwrap();
        let connection = until("the watch to begin", || {
            let said = self.said.lock().unwrap();
            let last = said.iter().map(|said| said.connection).max();
            last.filter(|last| asked(&said, *last) == 3)
        });
        let connection = connection.await;
        for (nth, change) in
            [&["drain", "product-1"][..], &["drain", "--undo", "product-1"], &["deregister", "product-2"]]
                .iter()
                .enumerate()
        {
            self.run(change).await;
            until("the watch to hear of it", || {
                (asked(&self.said.lock().unwrap(), connection) == 4 + nth).then_some(())
            })
            .await;
        }
        watch.kill().unwrap();
        watch.wait().unwrap();
        let shop = ["register", "--name", "shop", "--id", "shop-1", "--address", "127.0.0.1:9", "--health", "/alive"];
        let expect: &[&str] = if version > 1 { &["--expect-header", "x-instance: shop-1"] } else { &[] };
        self.run(&[&shop[..], expect].concat()).await;
        for rest in [&["list", "shop"][..], &["status"], &["graph"], &["get", "nobody"], &["deregister", "product-2"]] {
            self.run(rest).await;
        }
    }

    /// What a client says that writes its JSON itself.
    async fn by_hand(&self, version: u32) {
        let mut raw = Raw::connect(&self.proxy, version).await;
        raw.call(json!({"Register": {"registration": {"name": "product", "id": "product-1", "address": "10.0.0.7:7070",
            "check": {"kind": "none"}, "tags": ["a"], "meta": {"k": "v"}, "zone": "z", "version": "1.2", "weight": 2}}}))
            .await;
        raw.call(
            json!({"Register": {"registration": {"name": "product", "id": "product-2", "address": "10.0.0.8:7070",
            "check": {"kind": "ttl", "ttl": "1h"}}}}),
        )
        .await;
        self.settled().await;
        let mut check = json!({"kind": "http", "path": "/alive", "interval": "5s", "timeout": "1s"});
        if version > 1 {
            check["expect"] = json!({"header": "x-instance: shop-1"});
        }
        raw.call(json!({"Get": {"service": "product"}})).await;
        raw.call(json!({"List": {"query": {"services": ["product"], "scope": "all", "history": true}}})).await;
        raw.call(json!({"List": {"query": {"tags": ["a"], "meta": {"k": "v"}, "zone": "z", "version": "1.2"}}})).await;
        raw.call(json!({"Services": {}})).await;
        raw.call(json!({"Renew": {"id": "product-2"}})).await;
        let mut watch = Raw::connect(&self.proxy, version).await;
        let asked = json!({"services": ["product"], "scope": "all"});
        let told = watch.call(json!({"Watch": {"query": asked, "after": null, "wait": "1s"}})).await;
        let mut cursor = told["message"]["Ok"]["Watch"]["Ok"]["cursor"].clone();
        for change in [
            json!({"Drain": {"id": "product-1", "on": true}}),
            json!({"Drain": {"id": "product-1", "on": false}}),
            json!({"Deregister": {"id": "product-2"}}),
        ] {
            watch.send(json!({"Watch": {"query": asked, "after": cursor, "wait": "30s"}})).await;
            raw.call(change).await;
            cursor = watch.receive().await["message"]["Ok"]["Watch"]["Ok"]["cursor"].clone();
        }
        raw.call(json!({"Register": {"registration": {"name": "shop", "id": "shop-1", "address": "127.0.0.1:9",
            "check": check}}}))
            .await;
        for call in [
            json!({"List": {"query": {"services": ["shop"], "scope": "registered"}}}),
            json!({"Report": {"id": "product-1", "trouble": {"status": 503}}}),
            json!({"Status": {}}),
            json!({"Graph": {}}),
            json!({"Get": {"service": "nobody"}}),
            json!({"Get": {"service": "a b"}}),
            json!({"Deregister": {"id": "product-2"}}),
        ] {
            raw.call(call).await;
        }
    }

    /// Waits, unrecorded, until both instances are handed out.
    async fn settled(&self) {
        let both = async {
            loop {
                let listed = self.output(&self.direct, &["list", "product"]).await;
                if listed.matches("passing").count() == 2 {
                    return;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, both).await.expect("both instances to be handed out");
    }

    fn command(&self, server: &str, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).args(["--server", server]);
        command
    }

    async fn run(&self, args: &[&str]) {
        self.output(&self.proxy, args).await;
    }

    async fn output(&self, server: &str, args: &[&str]) -> String {
        let mut command = self.command(server, args);
        let output = spawn_blocking(move || command.output().unwrap()).await.unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn finish(mut self, name: &str) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        let said = self.said.lock().unwrap();
        let lines: String = said.iter().map(|said| said.line() + "\n").collect();
        std::fs::write(path(name), lines).unwrap();
    }
}

/// How many frames the client of a connection has sent.
fn asked(said: &[Said], connection: usize) -> usize {
    said.iter().filter(|said| said.connection == connection && said.by == Side::Client).count()
}

fn address(ready: &Path) -> Option<String> {
    let text = std::fs::read_to_string(ready).ok()?;
    let ready: Value = serde_json::from_str(&text).ok()?;
    ready["rpc.addr"].as_str().or(ready["rpc"]["addr"].as_str()).map(str::to_owned)
}

async fn until<T>(what: &str, true_of: impl Fn() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(found) = true_of() {
                return found;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, waited).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

async fn relay(listener: TcpListener, server: String, said: Arc<Mutex<Vec<Said>>>) {
    let mut tasks = JoinSet::new();
    for connection in 1.. {
        let (client, _) = listener.accept().await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = TcpStream::connect(&server).await.unwrap().into_split();
        let heard = CancellationToken::new();
        tasks.spawn(copy(connection, Side::Client, from_client, to_server, Arc::clone(&said), heard.clone()));
        tasks.spawn(copy(connection, Side::Server, from_server, to_client, Arc::clone(&said), heard));
    }
}

async fn copy(
    connection: usize,
    by: Side,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    said: Arc<Mutex<Vec<Said>>>,
    heard: CancellationToken,
) {
    while let Ok(length) = from.read_u32().await {
        let mut frame = vec![0; length as usize];
        if from.read_exact(&mut frame).await.is_err() {
            break;
        }
        // What is said to a client that is gone belongs to no session.
        if !heard.is_cancelled() {
            said.lock().unwrap().push(Said { connection, by, frame: frame.clone() });
        }
        let frame = [&length.to_be_bytes(), frame.as_slice()].concat();
        if to.write_all(&frame).await.is_err() {
            break;
        }
    }
    heard.cancel();
}

/// A client that writes its JSON itself.
struct Raw(TcpStream, u64);

impl Raw {
    async fn connect(server: &str, version: u32) -> Self {
        let mut raw = Self(TcpStream::connect(server).await.unwrap(), 0);
        raw.write(&json!({"roundsman": version, "codec": "json", "namespace": "default", "service": "order"})).await;
        assert_eq!(raw.receive().await["ok"], true);
        raw
    }

    async fn write(&mut self, message: &Value) {
        let text = message.to_string();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&length, text.as_bytes()].concat()).await.unwrap();
    }

    async fn send(&mut self, message: Value) {
        self.1 += 1;
        self.write(&json!({"Request": {"id": self.1, "message": message}})).await;
    }

    async fn receive(&mut self) -> Value {
        let frame = async {
            let mut frame = vec![0; self.0.read_u32().await.unwrap() as usize];
            self.0.read_exact(&mut frame).await.unwrap();
            serde_json::from_slice(&frame).unwrap()
        };
        timeout(SOON, frame).await.expect("an answer")
    }

    async fn call(&mut self, message: Value) -> Value {
        self.send(message).await;
        self.receive().await
    }
}
