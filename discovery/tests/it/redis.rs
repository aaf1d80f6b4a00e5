//! Redis under a running server: read by a person, stopped, started, emptied, shared.

mod operating;
mod owners;

use std::{
    collections::{BTreeSet, HashMap},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use roundsman_discovery::Server;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::support::{Healthy, Raw, SOON, config, metric, metric_reaches};

/// A redis-server of this test's own. Appends to its file at every write when `durable`.
struct Redis {
    folder: tempfile::TempDir,
    port: u16,
    durable: bool,
    child: Option<Child>,
}

impl Redis {
    async fn start(durable: bool) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = Self { folder: tempfile::tempdir().unwrap(), port, durable, child: None };
        redis.run().await;
        redis
    }

    async fn run(&mut self) {
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--port", &self.port.to_string(), "--dir"]);
        command.arg(self.folder.path()).stdout(Stdio::null());
        command.args(["--appendonly", if self.durable { "yes" } else { "no" }, "--appendfsync", "always"]);
        let child = command.spawn().expect("install redis-server (./scripts/test.sh does)");
        self.child = Some(child);
        self.until(&["PING"], |answer| answer.trim() == "PONG").await;
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What redis-cli prints.
    fn cli(&self, args: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        let output = command.args(["-p", &self.port.to_string()]).args(args).output();
        String::from_utf8(output.expect("install redis-tools").stdout).unwrap()
    }

    fn hash(&self, key: &str) -> HashMap<String, String> {
        let printed = self.cli(&["HGETALL", key]);
        let lines: Vec<&str> = printed.lines().collect();
        lines.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
    }

    async fn until(&self, args: &[&str], right: impl Fn(&str) -> bool) {
        let asked = async {
            while !right(&self.cli(args)) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, asked)
            .await
            .unwrap_or_else(|_| panic!("never came true: redis-cli {args:?}: {}", self.cli(args)));
    }

    async fn server(&self) -> Server {
        Server::start(config(&format!("redis://127.0.0.1:{}/0", self.port))).await.unwrap()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn database(port: u16) -> Value {
    json!({"name": "db", "id": format!("db-{port}"), "address": format!("10.0.0.7:{port}"), "check": {"kind": "none"}})
}

fn is_cut(event: &Value) -> bool {
    event["kind"] == "cut" && event["reason"].as_str().is_some_and(|reason| reason.contains("is lost"))
}

fn is(status: &'static str) -> impl Fn(&Value) -> bool {
    move |answer| answer["Ok"][0]["status"] == status
}

#[tokio::test]
async fn a_person_with_redis_cli_understands_it() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    let product = Healthy::start().await;
    raw.register(json!({"name": "product", "id": "p-1", "address": product.addr.to_string(), "zone": "a"})).await;
    raw.until(Raw::list("product"), is("passing")).await;
    let live = "roundsman:{default}:instance:product:p-1";
    redis.until(&["HGET", live, "status"], |answer| answer.trim() == "passing").await;
    let hash = redis.hash(live);
    for (field, value) in
        [("name", "product"), ("health", "/health"), ("id", "p-1"), ("zone", "a"), ("namespace", "default")]
    {
        assert_eq!(hash[field], value, "{hash:?}");
    }
    assert_eq!(hash["address"], product.addr.to_string());
    product.kill().await;
    raw.until(Raw::list("product"), is("evicted")).await;
    redis.until(&["EXISTS", live], |answer| answer.trim() == "0").await;
    redis
        .until(&["TTL", "roundsman:{default}:evicted:product:p-1"], |answer| answer.trim().parse::<i64>().unwrap() > 0)
        .await;
    server.stop().await;
}

#[tokio::test]
async fn without_redis_reads_and_evictions_go_on_and_writes_are_refused() {
    let mut redis = Redis::start(true).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    let product = Healthy::start().await;
    raw.register(json!({"name": "product", "id": "p-1", "address": product.addr.to_string()})).await;
    raw.register(database(1)).await;
    raw.until(Raw::list("product"), is("passing")).await;
    redis.kill();

    let refused = raw.register(database(2)).await;
    assert!(refused["Err"]["StoreUnavailable"]["retry_after"].is_string(), "{refused}");
    assert_eq!(raw.get("db").await["Ok"]["id"], "db-1");
    product.kill().await;
    raw.until(Raw::list("product"), is("evicted")).await;
    let status = raw.call(json!({"Status": {}})).await;
    assert_eq!(status["Ok"]["store"]["available"], false, "{status}");
    assert!(status["Ok"]["store"]["unwritten"].as_u64().unwrap() >= 1);

    redis.run().await;
    raw.until(json!({"Register": {"registration": database(2)}}), |answer| answer.get("Ok").is_some()).await;
    redis.until(&["EXISTS", "roundsman:{default}:instance:product:p-1"], |answer| answer.trim() == "0").await;
    redis.until(&["EXISTS", "roundsman:{default}:evicted:product:p-1"], |answer| answer.trim() == "1").await;
    assert!(metric(&server, "roundsman_store_errors_total").await >= 1.0);
    server.stop().await;
}

#[tokio::test]
async fn an_emptied_redis_is_filled_again() {
    let mut redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    for port in 1..=20 {
        assert_eq!(raw.register(database(port)).await["Ok"]["outcome"], "created");
    }
    redis.cli(&["FLUSHALL"]);
    redis
        .until(&["HGET", "roundsman:{default}:instance:db:db-20", "address"], |answer| answer.trim() == "10.0.0.7:20")
        .await;
    metric_reaches(&server, "roundsman_store_refills_total", 1.0).await;
    // The history is gone, and says so where it begins.
    let mut today = Raw::connect_today(&server).await;
    let cut =
        |answer: &Value| answer["Ok"]["events"].as_array().is_some_and(|events| events.last().is_some_and(is_cut));
    let answer = today.until(json!({"History": {"query": {"limit": 0}}}), cut).await;
    assert!(answer["Ok"]["events"].as_array().unwrap().len() == 1, "{answer}");

    // Killed without persistence it comes back empty as well; a registration is what notices it first, or the probe.
    redis.kill();
    redis.run().await;
    raw.until(json!({"Register": {"registration": database(21)}}), |answer| answer.get("Ok").is_some()).await;
    for port in 1..=21 {
        let key = format!("roundsman:{{default}}:instance:db:db-{port}");
        redis.until(&["EXISTS", &key], |answer| answer.trim() == "1").await;
    }
    server.stop().await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(raw.call(Raw::list("db")).await["Ok"].as_array().unwrap().len(), 21);
    server.stop().await;
}

/// Redis is killed and started again while clients register: whatever was acknowledged is there afterwards.
#[tokio::test]
async fn nothing_acknowledged_is_lost_while_redis_comes_and_goes() {
    let mut redis = Redis::start(true).await;
    let server = redis.server().await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Raw::connect(&server).await);
    }
    let (done, doing) = tokio::sync::watch::channel(false);
    let registering = clients.into_iter().zip(1_u16..).map(|(mut raw, client)| {
        let doing = doing.clone();
        async move {
            let mut acknowledged = BTreeSet::new();
            for port in (client..60_000).step_by(4) {
                if *doing.borrow() {
                    break;
                }
                if raw.register(database(port)).await.get("Ok").is_some() {
                    acknowledged.insert(format!("db-{port}"));
                } else {
                    sleep(Duration::from_millis(20)).await;
                }
            }
            acknowledged
        }
    });
    let chaos = async {
        for _ in 0..2 {
            metric_reaches(&server, "roundsman_registrations_total", 50.0).await;
            sleep(Duration::from_millis(100)).await;
            redis.kill();
            sleep(Duration::from_millis(300)).await;
            redis.run().await;
            let before = metric(&server, "roundsman_registrations_total").await;
            metric_reaches(&server, "roundsman_registrations_total", before + 50.0).await;
        }
        done.send(true).unwrap();
    };
    let (acknowledged, ()) = tokio::join!(futures::future::join_all(registering), chaos);
    let acknowledged: BTreeSet<String> = acknowledged.into_iter().flatten().collect();
    server.stop().await;

    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    let listed = raw.call(Raw::list("db")).await;
    let kept: BTreeSet<String> =
        listed["Ok"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect();
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "{} of {} lost: {lost:?}", lost.len(), acknowledged.len());
    server.stop().await;
}

#[tokio::test]
async fn two_servers_on_one_redis_see_each_other() {
    let redis = Redis::start(false).await;
    let (one, two) = (redis.server().await, redis.server().await);
    let (mut a, mut b) = (Raw::connect(&one).await, Raw::connect(&two).await);
    a.register(database(1)).await;
    b.until(json!({"Get": {"service": "db"}}), |answer| answer["Ok"]["id"] == "db-1").await;
    b.call(json!({"Drain": {"id": "db-1", "on": true}})).await;
    a.until(Raw::list("db"), is("draining")).await;
    a.call(json!({"Deregister": {"id": "db-1"}})).await;
    b.until(Raw::list("db"), |answer| answer["Err"].get("NoSuchService").is_some()).await;
    one.stop().await;
    two.stop().await;
}

/// What a client was told, by id.
#[derive(Debug, Default)]
struct Told {
    registered: BTreeSet<String>,
    removed: BTreeSet<String>,
}

impl Told {
    fn add(&mut self, other: Self) {
        self.registered.extend(other.registered);
        self.removed.extend(other.removed);
    }
}

fn ids(listed: &Value) -> BTreeSet<String> {
    listed["Ok"].as_array().unwrap().iter().map(|i| i["id"].as_str().unwrap().to_owned()).collect()
}

/// Registers and deregisters without pause until `done`, and counts what was removed. No id is used twice.
async fn churn(
    mut raw: Raw,
    first: u16,
    step: usize,
    done: tokio::sync::watch::Receiver<bool>,
    removed: &AtomicUsize,
) -> Told {
    let (mut told, mut mine) = (Told::default(), std::collections::VecDeque::new());
    for port in (first..60_000).step_by(step) {
        if *done.borrow() {
            break;
        }
        if raw.register(database(port)).await.get("Ok").is_some() {
            mine.push_back(format!("db-{port}"));
        }
        if mine.len() > 20 {
            let id = mine.pop_front().unwrap();
            if raw.call(json!({"Deregister": {"id": id}})).await.get("Ok").is_some() {
                told.removed.insert(id);
                removed.fetch_add(1, Ordering::Relaxed);
            } else {
                mine.push_back(id);
            }
        }
    }
    told.registered.extend(mine);
    told
}

/// FLUSHALL again and again under churn: what was acknowledged holds, in memory and in Redis.
#[tokio::test]
async fn no_acknowledged_deregistration_comes_back_after_flushall() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    let mut all = Told::default();
    // Many that stay, so that reading the store again takes its time.
    for port in 63_000..=64_000 {
        raw.register(database(port)).await;
        all.registered.insert(format!("db-{port}"));
    }
    let (done, doing) = tokio::sync::watch::channel(false);
    let (removed, mut clients) = (AtomicUsize::new(0), Vec::new());
    for first in 1..=16 {
        clients.push(churn(Raw::connect(&server).await, first, 16, doing.clone(), &removed));
    }
    let chaos = async {
        for round in 1..=4_u16 {
            redis.cli(&["FLUSHALL"]);
            metric_reaches(&server, "roundsman_store_refills_total", f64::from(round)).await;
            // Long enough for the follower to have the store read again.
            sleep(Duration::from_millis(1_500)).await;
            // On a busy machine that is not much.
            while removed.load(Ordering::Relaxed) < 50 * usize::from(round) {
                sleep(Duration::from_millis(20)).await;
            }
        }
        done.send(true).unwrap();
    };
    let (told, ()) = tokio::join!(futures::future::join_all(clients), chaos);
    told.into_iter().for_each(|told| all.add(told));
    assert!(all.removed.len() > 100, "{}", all.removed.len());

    let check = |what: &str, there: &BTreeSet<String>| {
        let back: Vec<_> = all.removed.intersection(there).collect();
        let lost: Vec<_> = all.registered.difference(there).collect();
        assert!(
            back.is_empty() && lost.is_empty(),
            "{what}: {} back {back:?}, {} lost {lost:?}",
            back.len(),
            lost.len()
        );
    };
    check("memory", &ids(&raw.call(Raw::list("db")).await));
    server.stop().await;
    let there = redis.cli(&["HKEYS", "roundsman:{default}:instances"]).lines().map(str::to_owned).collect();
    check("redis", &there);
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    check("after a restart", &ids(&raw.call(Raw::list("db")).await));
    server.stop().await;
}

#[tokio::test]
async fn a_record_deleted_by_hand_is_written_back() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    for port in 1..=20 {
        raw.register(database(port)).await;
    }
    redis.cli(&["DEL", "roundsman:{default}:instance:db:db-7"]);
    redis.cli(&["HDEL", "roundsman:{default}:instances", "db-9"]);
    redis.until(&["EXISTS", "roundsman:{default}:instance:db:db-7"], |answer| answer.trim() == "1").await;
    redis.until(&["HEXISTS", "roundsman:{default}:instances", "db-9"], |answer| answer.trim() == "1").await;
    raw.until(json!({"Status": {}}), |answer| answer["Ok"]["store"]["repaired"].as_u64() == Some(2)).await;
    server.stop().await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(ids(&raw.call(Raw::list("db")).await).len(), 20);
    server.stop().await;
}

/// A backup from before a deregistration holds what was removed since. What the client was told wins.
#[tokio::test]
async fn a_restored_backup_brings_back_nobody_who_was_deregistered() {
    let mut redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    for port in 1..=5 {
        raw.register(database(port)).await;
    }
    redis.cli(&["SAVE"]);
    assert_eq!(raw.call(json!({"Deregister": {"id": "db-3"}})).await["Ok"], Value::Null);
    raw.register(database(6)).await;
    redis.kill();
    redis.run().await;
    metric_reaches(&server, "roundsman_store_refills_total", 1.0).await;
    redis.until(&["HEXISTS", "roundsman:{default}:instances", "db-6"], |answer| answer.trim() == "1").await;
    redis.until(&["HEXISTS", "roundsman:{default}:instances", "db-3"], |answer| answer.trim() == "0").await;
    let expected: BTreeSet<String> = [1, 2, 4, 5, 6].map(|port| format!("db-{port}")).into();
    assert_eq!(ids(&raw.call(Raw::list("db")).await), expected);
    server.stop().await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(ids(&raw.call(Raw::list("db")).await), expected);
    server.stop().await;
}

#[tokio::test]
async fn a_damaged_hash_does_not_keep_the_server_from_starting() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    raw.register(database(1)).await;
    raw.register(database(2)).await;
    server.stop().await;
    redis.cli(&["HSET", "roundsman:{default}:instance:db:db-1", "weight", "heavy"]);

    let url = format!("redis://127.0.0.1:{}/0", redis.port);
    let refused = Server::start(roundsman_discovery::Config { strict: true, ..config(&url) }).await.unwrap_err();
    assert!(refused.to_string().contains("--strict") && refused.to_string().contains("db:db-1"), "{refused}");
    let server = redis.server().await;
    let mut raw = Raw::connect(&server).await;
    assert_eq!(ids(&raw.call(Raw::list("db")).await), ["db-2".to_owned()].into());
    assert_eq!(raw.call(json!({"Status": {}})).await["Ok"]["store"]["damaged"], 1);
    raw.register(database(1)).await;
    assert_eq!(redis.hash("roundsman:{default}:damaged:instance:db:db-1")["weight"], "heavy");
    server.stop().await;
}

/// What is wrong with one namespace in Redis hurts no other, and heals by itself once it is mended.
#[tokio::test]
async fn a_namespace_that_redis_refuses_hurts_no_other() {
    let redis = Redis::start(false).await;
    let server = redis.server().await;
    let (mut shop, mut raw) = (Raw::connect_to(&server, "shop").await, Raw::connect(&server).await);
    shop.register(database(1)).await;
    raw.register(database(1)).await;
    redis.cli(&["RENAME", "roundsman:{shop}:changes", "aside"]);
    redis.cli(&["SET", "roundsman:{shop}:changes", "something else"]);
    for port in 2..6 {
        let refused = shop.register(database(port)).await;
        assert!(refused["Err"]["StoreUnavailable"]["reason"].as_str().unwrap().contains("something else"), "{refused}");
        let taken = raw.register(database(port)).await;
        assert_eq!(taken["Ok"]["id"], format!("db-{port}"), "{taken}");
    }
    assert_eq!(shop.get("db").await["Ok"]["id"], "db-1", "lookups go on");
    redis.cli(&["RENAME", "aside", "roundsman:{shop}:changes"]);
    let again = async { while shop.register(database(2)).await.get("Ok").is_none() {} };
    timeout(SOON, again).await.expect("the namespace never came back");
    server.stop().await;
}
