//! What was acknowledged is there: after `kill -9` in the middle of a stream of registrations, and after a full disk.

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

/// For whatever must happen but may take its time on a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// A server process with an embedded store. Killed when dropped.
struct Serving {
    child: Child,
    rpc: String,
}

impl Serving {
    fn start(store: &Path) -> Self {
        let ready = store.with_extension("ready");
        drop(std::fs::remove_file(&ready));
        let child = Command::new(env!("CARGO_BIN_EXE_roundsman"))
            .args(["serve", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--store"])
            .arg(format!("sqlite:{}", store.display()))
            .arg("--ready-file")
            .arg(&ready)
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let content = until("the server serves", || std::fs::read(&ready).ok().filter(|content| !content.is_empty()));
        let bound: Value = serde_json::from_slice(&content).unwrap();
        Self { child, rpc: bound["rpc.addr"].as_str().unwrap().to_owned() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let patience = std::iter::repeat_n(Duration::from_millis(10), usize::try_from(SOON.as_millis() / 10).unwrap());
    for pause in patience {
        if let Some(seen) = look() {
            return seen;
        }
        thread::park_timeout(pause);
    }
    panic!("waited in vain until {what}");
}

/// A client that speaks JSON and stops at the first trouble.
struct Session(TcpStream);

impl Session {
    fn open(rpc: &str) -> Self {
        Self::open_in(2, rpc)
    }

    fn open_in(version: u32, rpc: &str) -> Self {
        let stream = TcpStream::connect(rpc).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut session = Self(stream);
        let welcome = session.exchange(&json!({"roundsman": version, "codec": "json"})).unwrap();
        assert_eq!(welcome["ok"], true);
        session
    }

    fn exchange(&mut self, message: &Value) -> std::io::Result<Value> {
        let body = message.to_string().into_bytes();
        self.0.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes())?;
        self.0.write_all(&body)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length)?;
        let mut body = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        self.0.read_exact(&mut body)?;
        Ok(serde_json::from_slice(&body)?)
    }

    fn call(&mut self, request: &Value) -> std::io::Result<Value> {
        let answer = self.exchange(&json!({"Request": {"id": 1, "message": request}}))?;
        Ok(answer["message"]["Ok"].as_object().unwrap().values().next().unwrap().clone())
    }

    fn register(&mut self, id: &str, port: usize, blob: &str) -> std::io::Result<Value> {
        let address = format!("10.0.{}.{}:{}", port / 256 % 256, port % 256, 1 + port % 60_000);
        let registration =
            json!({"name": "db", "id": id, "address": address, "check": {"kind": "none"}, "meta": {"blob": blob}});
        self.call(&json!({"Register": {"registration": registration}}))
    }

    fn leave(&mut self, id: &str) {
        let answer = self.call(&json!({"Deregister": {"id": id}})).unwrap();
        assert!(answer.get("Ok").is_some(), "{answer}");
    }

    fn status(&mut self, id: &str) -> String {
        let listed = self.call(&json!({"List": {"query": {"services": ["db"], "scope": "all"}}})).unwrap();
        let found = listed["Ok"].as_array().unwrap().iter().find(|i| i["id"] == id);
        found.unwrap()["status"].as_str().unwrap().to_owned()
    }

    fn ids(&mut self) -> BTreeSet<String> {
        let listed = self.call(&json!({"List": {"query": {"services": ["db"], "scope": "all"}}})).unwrap();
        listed["Ok"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
    }
}

#[test]
fn kill_dash_nine_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("roundsman.db");
    let mut acknowledged: BTreeSet<String> = BTreeSet::new();
    for round in 0..3 {
        let mut serving = Serving::start(&store);
        let count = AtomicUsize::new(0);
        thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|client| {
                    let (rpc, count) = (&serving.rpc, &count);
                    scope.spawn(move || register_until_it_dies(rpc, round, client, count))
                })
                .collect();
            until("a few hundred are registered", || (count.load(Ordering::Relaxed) > 300).then_some(()));
            serving.child.kill().unwrap();
            for client in clients {
                acknowledged.extend(client.join().unwrap());
            }
        });
        let serving = Serving::start(&store);
        let kept = Session::open(&serving.rpc).ids();
        let lost: Vec<&String> = acknowledged.difference(&kept).collect();
        assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    }
    assert!(acknowledged.len() > 900);
}

fn register_until_it_dies(rpc: &str, round: usize, client: usize, count: &AtomicUsize) -> BTreeSet<String> {
    let mut session = Session::open(rpc);
    let mut acknowledged = BTreeSet::new();
    for n in 0.. {
        let id = format!("db-{round}-{client}-{n}");
        let port = (round * 8 + client) * 2_000 + n % 2_000;
        let Ok(answer) = session.register(&id, port, "") else { break };
        if answer.get("Ok").is_some() {
            acknowledged.insert(id);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

/// Registers instances of 8 kB, and returns the first refusal.
fn register_until_refused(session: &mut Session, prefix: &str, blob: &str, kept: &mut BTreeSet<String>) -> Value {
    let refusal = (0..10_000).find_map(|n| {
        // Their addresses are told apart by the prefix.
        let id = format!("{prefix}-{n}");
        let answer = session.register(&id, prefix.len() * 10_000 + n, blob).unwrap();
        if answer.get("Ok").is_some() {
            kept.insert(id);
        }
        answer.get("Err").cloned()
    });
    refusal.expect("ten thousand times 8 kB do not fit on 4 MB")
}

/// Needs the right to mount; everywhere else the store's own tests show the same with SQLite's page limit.
#[test]
fn a_full_disk_refuses_registrations_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("no right to mount a small disk: this test did nothing");
        return;
    };
    disk.take_room();
    let store = disk.0.join("roundsman.db");
    let mut serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    let (mut kept, blob) = (BTreeSet::new(), "x".repeat(8_000));
    let refusal = register_until_refused(&mut session, "db", &blob, &mut kept);
    assert!(refusal["StoreUnavailable"]["reason"].as_str().unwrap().contains("full"), "{refusal}");
    assert_eq!(session.ids(), kept, "reads go on");

    // Whoever leaves, leaves, and stays away: also when the server is killed now, and starts on the full disk.
    let leaving: Vec<String> = kept.iter().take(60).cloned().collect();
    for id in &leaving[..40] {
        session.leave(id);
        kept.remove(id);
    }
    let drained = kept.last().unwrap().clone();
    assert!(session.call(&json!({"Drain": {"id": drained, "on": true}})).unwrap().get("Ok").is_some());
    // Those who left made some room, of which it may know by now.
    let refusal = register_until_refused(&mut session, "more", &blob, &mut kept);
    assert!(refusal["StoreUnavailable"]["retry_after"].is_string(), "{refusal}");
    // Each second the server looks whether there is room again: that must give away none of what it has.
    thread::park_timeout(Duration::from_millis(1_500));
    serving.child.kill().unwrap();
    drop(serving);
    disk.take_what_is_left();

    let serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    assert_eq!(session.ids(), kept);
    assert_eq!(session.status(&drained), "draining");
    let refusal = register_until_refused(&mut session, "again", &blob, &mut kept);
    assert!(refusal["StoreUnavailable"]["retry_after"].is_string(), "{refusal}");
    for id in &leaving[40..] {
        session.leave(id);
        kept.remove(id);
    }
    disk.make_room();
    until("it recovers without a restart", || session.register("db-new", 65_000, "").unwrap().get("Ok").map(drop));
    kept.insert("db-new".to_owned());
    drop(serving);

    let serving = Serving::start(&store);
    assert_eq!(Session::open(&serving.rpc).ids(), kept);
}

/// There was no room for the event when the drain was acknowledged. It waits for room, and not longer than the server runs.
#[test]
fn what_a_full_disk_kept_out_of_the_history_is_told_once_there_is_room() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("no right to mount a small disk: this test did nothing");
        return;
    };
    disk.take_room();
    let store = disk.0.join("roundsman.db");
    let mut serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    let (mut kept, blob) = (BTreeSet::new(), "x".repeat(8_000));
    register_until_refused(&mut session, "db", &blob, &mut kept);
    let drained = kept.last().unwrap().clone();
    assert!(session.call(&json!({"Drain": {"id": drained, "on": true}})).unwrap().get("Ok").is_some());
    disk.make_room();
    until("it recovers", || session.register("db-new", 65_000, "").unwrap().get("Ok").map(drop));
    Command::new("kill").args(["-TERM", &serving.child.id().to_string()]).status().unwrap();
    assert!(serving.child.wait().unwrap().success());

    let serving = Serving::start(&store);
    let history = json!({"History": {"query": {"instance": drained, "limit": 10}}});
    let events = Session::open_in(3, &serving.rpc).call(&history).unwrap();
    let kinds: Vec<_> = events["Ok"]["events"].as_array().unwrap().iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["drained", "registered"]);
}

/// Killed again and again while removals use up the reserve: what was acknowledged is gone, and nothing else is.
#[test]
fn kill_dash_nine_on_a_full_disk_undoes_no_deregistration() {
    let Some(disk) = SmallDisk::mount() else {
        eprintln!("no right to mount a small disk: this test did nothing");
        return;
    };
    disk.take_room();
    let store = disk.0.join("roundsman.db");
    let mut serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    let (mut kept, blob) = (BTreeSet::new(), "x".repeat(2_000));
    for n in 0..10_000 {
        if session.register(&format!("db-{n}"), n, &blob).unwrap().get("Ok").is_none() {
            break;
        }
        kept.insert(format!("db-{n}"));
    }
    for _ in 0..3 {
        let ids: Vec<String> = kept.iter().take(60).cloned().collect();
        let (rpc, count) = (serving.rpc.clone(), AtomicUsize::new(0));
        let (gone, unsure) = thread::scope(|scope| {
            let count = &count;
            let leaving = scope.spawn(move || leave_until_it_dies(&rpc, ids, count));
            until("some have left", || (count.load(Ordering::Relaxed) > 20).then_some(()));
            serving.child.kill().unwrap();
            leaving.join().unwrap()
        });
        kept.retain(|id| !gone.contains(id));
        drop(serving);
        serving = Serving::start(&store);
        let there = Session::open(&serving.rpc).ids();
        // The one whose answer did not arrive may be there or not.
        kept.retain(|id| Some(id) != unsure.as_ref() || there.contains(id));
        assert_eq!(there, kept);
    }
}

/// Who has left, and for whom the answer did not arrive.
fn leave_until_it_dies(rpc: &str, ids: Vec<String>, count: &AtomicUsize) -> (BTreeSet<String>, Option<String>) {
    let mut session = Session::open(rpc);
    let mut gone = BTreeSet::new();
    for id in ids {
        let Ok(answer) = session.call(&json!({"Deregister": {"id": id}})) else { return (gone, Some(id)) };
        assert!(answer.get("Ok").is_some(), "{answer}");
        gone.insert(id);
        count.fetch_add(1, Ordering::Relaxed);
    }
    (gone, None)
}

#[test]
fn a_damaged_record_is_moved_aside_at_the_start_and_strict_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("roundsman.db");
    let serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    for n in 1..=3 {
        session.register(&format!("db-{n}"), n, "").unwrap();
    }
    drop(serving);
    let damage = "UPDATE instances SET meta = CAST(x'ff' AS TEXT) WHERE id = 'db-2'";
    rusqlite::Connection::open(&store).unwrap().execute_batch(damage).unwrap();

    let serve = ["serve", "--rpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--strict", "--store"];
    let mut strict = Command::new(env!("CARGO_BIN_EXE_roundsman"));
    let strict = strict.args(serve).arg(format!("sqlite:{}", store.display())).output().unwrap();
    let says = String::from_utf8(strict.stderr).unwrap();
    assert_eq!(strict.status.code(), Some(1), "{says}");
    assert!(says.contains("row 2") && says.contains("without --strict"), "{says}");
    assert!(!folder.path().join("roundsman.db.damaged").exists());

    let serving = Serving::start(&store);
    let mut session = Session::open(&serving.rpc);
    assert_eq!(session.ids(), ["db-1".to_owned(), "db-3".to_owned()].into());
    let kept = std::fs::read_to_string(folder.path().join("roundsman.db.damaged")).unwrap();
    assert!(kept.contains("db-2") && kept.contains("\"hex\":\"ff\""), "{kept}");
    let status = session.call(&json!({"Status": {}})).unwrap();
    assert_eq!(status["Ok"]["store"]["damaged"], 1);
}

/// A file system of 4 MB, half of which can be taken and given back. Unmounted when dropped.
struct SmallDisk(PathBuf, #[allow(dead_code, reason = "removed when dropped")] tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder.path()).output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then(|| Self(folder.path().to_owned(), folder))
    }

    fn take_room(&self) {
        std::fs::write(self.0.join("ballast"), vec![0; 2 << 20]).unwrap();
    }

    fn take_what_is_left(&self) {
        let mut ballast = std::fs::OpenOptions::new().append(true).open(self.0.join("ballast")).unwrap();
        let mut chunk = 64 * 1_024;
        while chunk > 0 {
            if ballast.write_all(&vec![0; chunk]).is_err() {
                chunk /= 2;
            }
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || thread::panicking());
    }
}
