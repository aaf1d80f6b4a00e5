//! `roundsman events`: what happened, through a restart of the server.

use roundsman::{Check, Discovery, NewInstance};

use crate::support::{Served, eventually};

/// The words of a line: time, kind, service, instance, status, who, server, and the reason's first.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn it_tells_who_came_who_died_and_who_asked_through_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let server = Served::start_with("127.0.0.1:0", &store);
    // Another server's HTTP door is a target that can be killed.
    let target = Served::start();
    let visits = ["--health", "/ready", "--interval", "200ms", "--timeout", "150ms"];
    let web = ["register", "--name", "web", "--id", "web-1", "--address", &target.http];
    server.run(&[&web[..], &visits].concat()).ok();
    eventually("it passes", || server.run(&["list", "web"]).ok().contains(" passing ").then_some(()));

    let order = Discovery::builder().servers(server.rpc.as_str()).service("order").connect().await.unwrap();
    let database = NewInstance::new("database", "10.0.0.9:5432").unwrap().check(Check::none());
    let database = database.id("database-1").unwrap().into_registration().unwrap();
    order.register_once(&database).await.unwrap();
    server.run(&["drain", "database-1"]).ok();
    server.run(&["drain", "database-1", "--undo"]).ok();
    // With a note: who registered it is still connected.
    assert_eq!(server.run(&["deregister", "database-1"]).code, 0);
    drop(target);
    let evicted = || server.run(&["events", "web"]).ok().contains(" evicted ").then_some(());
    eventually("the death is written down", evicted);
    order.close().await;
    drop(server);

    let server = Served::start_with("127.0.0.1:0", &store);
    let table = server.run(&["events", "database"]).ok();
    let lines: Vec<_> = table.lines().map(words).collect();
    assert_eq!(lines[0], ["TIME", "KIND", "SERVICE", "INSTANCE", "STATUS", "WHO", "SERVER", "REASON"]);
    let kinds: Vec<_> = lines[1..].iter().map(|line| line[1]).collect();
    assert_eq!(kinds, ["deregistered", "undrained", "drained", "registered"], "newest first: {table}");
    assert!(lines[1..].iter().all(|line| line[2..4] == ["database", "database-1"]), "{table}");
    assert!(lines[4][5].starts_with("order@127.0.0.1:"), "who said who it is: {table}");
    assert!(lines[1][5].starts_with("127.0.0.1:"), "the command line has no name: {table}");
    assert_eq!(lines[3][4], "passing→draining", "{table}");

    let web = server.run(&["events", "--instance", "web-1", "-o", "json"]).json();
    let events = web.as_array().unwrap();
    let about =
        |kind: &str| events.iter().find(|event| event["kind"] == kind).unwrap_or_else(|| panic!("{kind}: {web}"));
    let evicted = about("evicted");
    assert!(evicted["reason"].as_str().unwrap().contains("connection"), "{evicted}");
    assert_eq!(
        (&evicted["to"], &evicted["who"]),
        (&"evicted".into(), &serde_json::Value::Null),
        "it was seen: {evicted}"
    );
    assert!(about("registered")["who"]["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{web}");

    let times =
        |args: &[&str]| server.run(&[&["events", "-o", "json"], args].concat()).json().as_array().unwrap().len();
    assert_eq!((times(&["--limit", "2"]), times(&["--since", "1h", "--limit", "5"])), (2, 5));
    assert_eq!(times(&["--until", "1h"]), 0, "nothing is that old");
    assert_eq!(server.run(&["history", "database"]).ok(), table, "its earlier name");
    let nobody = server.run(&["events", "nobody"]).nothing();
    assert_eq!(nobody, "roundsman: nothing is remembered that matches\n");
    let empty = server.run(&["events", "--namespace", "empty"]).nothing();
    assert_eq!(empty, "roundsman: nothing is remembered yet in namespace `empty`\n");
}

#[test]
fn more_than_a_page_is_read_on() {
    let server = Served::start();
    let id = server.register("product", "10.0.0.7:7070");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let discovery = Discovery::connect(server.rpc.as_str()).await.unwrap();
        for on in [true, false].repeat(510) {
            discovery.drain(&id.parse().unwrap(), on).await.unwrap();
        }
        discovery.close().await;
    });
    let all = server.run(&["events", "--limit", "2000", "-o", "json"]).json();
    let all = all.as_array().unwrap();
    assert_eq!(all.len(), 1_021);
    assert_eq!((&all[0]["kind"], &all[1_020]["kind"]), (&"undrained".into(), &"registered".into()));
}

#[test]
fn what_cannot_be_asked_is_said() {
    let server = Served::start();
    let backwards = server.run(&["events", "--since", "1m", "--until", "1h"]).complaint(2);
    assert!(backwards.contains("since: ") && backwards.contains("later than `until`"), "{backwards}");
    let when = server.run(&["events", "--since", "yesterday"]);
    assert!(when.code == 2 && when.stderr.contains("such as 30m or 1h"), "{}", when.stderr);
    let away = crate::support::roundsman().args(["events", "--server", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(away.status.code(), Some(4));
}
