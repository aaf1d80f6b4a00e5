//! `roundsman update`, `renew` and `namespaces`.

use crate::support::{Served, eventually};

fn registered(server: &Served) {
    let args = ["register", "--name", "product", "--id", "mine", "--address", "10.0.0.7:7070", "--check", "none"];
    let more = ["--zone", "a", "--version", "1", "--tag", "blue", "--meta", "team=fruit", "--meta", "shelf=1"];
    server.run(&[&args[..], &more].concat()).ok();
}

#[test]
fn an_update_changes_what_is_named_and_nothing_else() {
    let server = Served::start();
    registered(&server);
    let before = server.run(&["get", "product", "-o", "json"]).json();
    let said = server.run(&["update", "mine", "--weight", "50"]).ok();
    assert!(said.starts_with("mine: weight 1 → 50\n") && said.contains("undoes this: change it there"), "{said}");
    let mut expected = before.clone();
    expected["weight"] = 50.into();
    let after = || {
        let mut after = server.run(&["get", "product", "-o", "json"]).json();
        for field in ["since", "reason"] {
            after[field] = before[field].clone();
        }
        after
    };
    assert_eq!(after(), expected);
    assert_eq!(server.run(&["update", "mine", "--weight", "50"]).ok(), "mine is so already\n");

    let args =
        ["--tag", "canary", "--untag", "blue", "--meta", "shelf=2", "--unmeta", "team", "--zone", "", "--version", "2"];
    let changed = server.run(&[&["update", "mine", "-o", "json"], &args[..]].concat()).json();
    assert_eq!((&changed["tags"], &changed["zone"]), (&serde_json::json!(["canary"]), &serde_json::Value::Null));
    assert_eq!((&changed["meta"], &changed["version"]), (&serde_json::json!({"shelf": "2"}), &"2".into()));
    assert_eq!(changed["weight"], 50, "what was not named stays");
}

#[test]
fn an_update_keeps_a_drain_and_says_what_it_cannot_keep() {
    let server = Served::start();
    let args = ["register", "--name", "web", "--id", "web-1", "--address", &server.http, "--health", "/ready"];
    server.run(&args).ok();
    server.run(&["drain", "web-1"]).ok();
    server.run(&["update", "web-1", "--weight", "3"]).ok();
    let status = || server.run(&["list", "web", "-o", "json"]).json()[0]["status"].clone();
    assert_eq!(status(), "draining");
    let ended = server.run(&["update", "web-1", "--health", "/health"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "it is not starting, as far as anybody sees");
    assert_eq!(status(), "draining", "in its new life, too");
    server.run(&["drain", "web-1", "--undo"]).ok();
    let ended = server.run(&["update", "web-1", "--health", "/ready"]);
    assert!(ended.stderr.contains("starting until a visit passes"), "{}", ended.stderr);
}

#[test]
fn an_update_of_nobody_or_of_nothing_is_refused() {
    let server = Served::start();
    registered(&server);
    assert!(server.run(&["update", "mine"]).complaint(2).contains("--weight"));
    assert!(server.run(&["update", "nobody", "--weight", "2"]).complaint(3).contains("`nobody` is not registered"));
    assert!(server.run(&["update", "mine", "--weight", "0"]).complaint(2).contains("weight: must be between"));
    assert!(server.run(&["update", "mine", "--health", "/x"]).complaint(2).contains("this one is `none`"));
    server
        .run(&[
            "register",
            "--name",
            "dead",
            "--id",
            "dead-1",
            "--address",
            "127.0.0.1:1",
            "--check",
            "ttl",
            "--ttl",
            "1s",
        ])
        .ok();
    eventually("it is evicted", || server.run(&["list", "dead"]).stdout.contains(" evicted ").then_some(()));
    assert!(server.run(&["update", "dead-1", "--weight", "2"]).ok().starts_with("dead-1: weight 1 → 2"));
    assert!(server.run(&["list", "dead"]).stdout.contains(" evicted "), "an update brings nobody back");
}

#[test]
fn a_script_renews_what_it_registered() {
    let server = Served::start();
    server
        .run(&[
            "register",
            "--name",
            "cron",
            "--id",
            "cron-1",
            "--address",
            "10.0.0.7:1",
            "--check",
            "ttl",
            "--ttl",
            "1h",
        ])
        .ok();
    assert_eq!(server.run(&["renew", "cron-1"]).ok(), "cron-1 is renewed\n");
    assert_eq!(server.run(&["renew", "cron-1", "-o", "json"]).json()["renewed"], true);
    server.run(&["renew", "cron-2"]).complaint(3);
}

#[test]
fn namespaces_are_all_that_the_server_has() {
    let server = Served::start();
    assert_eq!(server.run(&["namespaces"]).nothing(), "roundsman: nobody is registered in any namespace\n");
    server.register("product", "10.0.0.7:1");
    server.run(&["--namespace", "shop", "register", "--name", "a", "--address", "h:1", "--check", "none"]).ok();
    let names = server.run(&["namespaces", "-o", "name"]).ok();
    assert_eq!(names.lines().collect::<Vec<_>>(), ["default", "shop"]);
    let table = server.run(&["namespaces", "--namespace", "elsewhere"]).ok();
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAMESPACE", "SERVICES", "INSTANCES", "PASSING", "EVICTED"]);
    assert_eq!(rows[2], ["shop", "1", "1", "1", "0"]);
    assert_eq!(server.run(&["namespaces", "-o", "json"]).json()[1]["namespace"], "shop");
}
