//! The real server, stopped and thawed, and started again among instances that hang: nobody is evicted for what the server
//! could not hear, and nobody dead stays for those who are silent.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{eventually, roundsman};

/// For whatever must happen but may take its time on a busy machine.
const SOON: Duration = Duration::from_secs(60);
/// Longer than the ttl of everybody.
const STOP: Duration = Duration::from_secs(6);
const CALLING_IN: usize = 100;
const HUNG: usize = 2_000;

/// A server process with an embedded store. Killed when dropped.
struct Serving {
    child: Child,
    rpc: String,
    http: String,
}

impl Serving {
    fn start(store: &Path, more: &[&str]) -> Self {
        let ready = store.with_extension("ready");
        drop(std::fs::remove_file(&ready));
        let child = roundsman()
            .args(["serve", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"])
            .arg(format!("sqlite:{}", store.display()))
            .arg("--ready-file")
            .arg(&ready)
            .args(more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bound =
            eventually("the server serves", || serde_json::from_slice::<Value>(&std::fs::read(&ready).ok()?).ok());
        let address = |name: &str| bound[name].as_str().unwrap().to_owned();
        Self { rpc: address("rpc.addr"), http: address("http.addr"), child }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn metric(&self, name: &str) -> f64 {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A client that speaks JSON.
struct Session(TcpStream);

impl Session {
    fn open(serving: &Serving) -> Self {
        let stream = TcpStream::connect(&serving.rpc).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut session = Self(stream);
        session.send(&json!({"roundsman": 2, "codec": "json"}));
        assert_eq!(session.receive()["ok"], true);
        session
    }

    fn send(&mut self, message: &Value) {
        let body = message.to_string().into_bytes();
        let frame = [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat();
        self.0.write_all(&frame).unwrap();
    }

    fn receive(&mut self) -> Value {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut body).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    fn answer(&mut self) -> Value {
        let answer = self.receive();
        answer["message"]["Ok"].as_object().unwrap_or_else(|| panic!("{answer}")).values().next().unwrap().clone()
    }

    fn call(&mut self, request: &Value) -> Value {
        self.send(&json!({"Request": {"id": 1, "message": request}}));
        self.answer()
    }

    /// Registers many at once.
    fn register(&mut self, registrations: &[Value]) {
        for some in registrations.chunks(250) {
            for (id, registration) in some.iter().enumerate() {
                self.send(&json!({"Request": {"id": id, "message": {"Register": {"registration": registration}}}}));
            }
            for _ in some {
                let answer = self.answer();
                assert_eq!(answer["Ok"]["outcome"], "created", "{answer}");
            }
        }
    }

    fn statuses(&mut self, service: &str) -> Vec<String> {
        let listed = self.call(&json!({"List": {"query": {"services": [service], "scope": "all"}}}));
        listed["Ok"].as_array().unwrap().iter().map(|one| one["status"].as_str().unwrap().to_owned()).collect()
    }

    fn rounds(&mut self) -> Value {
        self.call(&json!({"Status": {}}))["Ok"]["rounds"].clone()
    }
}

/// Calls in for everybody, again and again, and counts the rounds. Ends with what was answered that should not have been.
fn call_in(serving: &Serving, rounds: &AtomicUsize, enough: &AtomicBool) -> Vec<Value> {
    let mut session = Session::open(serving);
    let mut bad = Vec::new();
    while !enough.load(Ordering::SeqCst) {
        for n in 0..CALLING_IN {
            let answer = session.call(&json!({"Renew": {"id": format!("batch-{n}")}}));
            if answer != json!({"Ok": null}) {
                bad.push(answer);
            }
        }
        rounds.fetch_add(1, Ordering::SeqCst);
        thread::park_timeout(Duration::from_millis(300));
    }
    bad
}

#[test]
#[allow(clippy::disallowed_methods, reason = "nothing tells from outside how long a stopped process was stopped")]
fn a_server_that_was_stopped_evicts_nobody_who_calls_in() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::start(&folder.path().join("roundsman.db"), &[]);
    let mut session = Session::open(&serving);
    let check = json!({"kind": "ttl", "ttl": "4s"});
    let one = |n| json!({"name": "batch", "id": format!("batch-{n}"), "address": format!("10.0.0.{}:1", n + 1), "check": check});
    session.register(&(0..CALLING_IN).map(one).collect::<Vec<_>>());
    let (rounds, enough) = (AtomicUsize::new(0), AtomicBool::new(false));
    let done = |more: usize| {
        let before = rounds.load(Ordering::SeqCst);
        eventually("everybody called in", || (rounds.load(Ordering::SeqCst) >= before + more).then_some(()));
    };
    thread::scope(|scope| {
        let clients = scope.spawn(|| call_in(&serving, &rounds, &enough));
        done(1);
        serving.signal("STOP");
        thread::sleep(STOP);
        serving.signal("CONT");
        done(3);
        enough.store(true, Ordering::SeqCst);
        assert_eq!(clients.join().unwrap(), Vec::<Value>::new(), "a renewal was refused");
    });
    let status = session.rounds();
    assert_eq!(status["evictions"], 0, "{status}");
    assert!(status["lag"]["last"].is_string() || status["lag"]["last"].is_number(), "{status}");
    assert!(status["lag"]["worst"] != "0ms" && status["lag"]["voided"].as_u64().unwrap() > 0, "{status}");
    assert!(serving.metric("roundsman_lag_seconds") > 1.0);
    assert!(serving.metric("roundsman_voided_total") > 0.0);
}

#[test]
fn after_a_restart_a_dead_instance_does_not_stay_for_two_thousand_that_hang() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("roundsman.db");
    let alive = TcpListener::bind("127.0.0.1:0").unwrap();
    // Connections are accepted by the kernel, or not at all, and never answered.
    let hole = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = hole.local_addr().unwrap().port();
    let first = Serving::start(&store, &[]);
    let mut session = Session::open(&first);
    let check = json!({"kind": "tcp", "interval": "1h"});
    session.register(&[json!({"name": "product", "address": alive.local_addr().unwrap().to_string(), "check": check})]);
    eventually("it passes", || (session.statuses("product") == ["passing"]).then_some(()));
    let check = json!({"kind": "http", "interval": "1m", "timeout": "1m"});
    let hung =
        |n| json!({"name": "hung", "address": format!("127.1.{}.{}:{port}", n / 250, n % 250 + 1), "check": check});
    session.register(&(0..HUNG).map(hung).collect::<Vec<_>>());
    drop((session, first));
    drop(alive);
    let second = Serving::start(&store, &["--max-visits", "10000"]);
    let mut session = Session::open(&second);
    eventually("the dead one is evicted", || (session.statuses("product") == ["evicted"]).then_some(()));
    let status = session.rounds();
    assert_eq!(status["unvisited"], HUNG, "those who hang are still being waited for: {status}");
    assert_eq!(status["evictions"], 1, "{status}");
}
