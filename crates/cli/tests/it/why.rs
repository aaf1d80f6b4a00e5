//! `roundsman why`: the way to a state, in sentences.

use crate::support::{Served, eventually};

#[test]
fn it_tells_the_whole_way_in_order_in_sentences() {
    let server = Served::start();
    let target = Served::start();
    let visits = ["--health", "/ready", "--interval", "200ms", "--timeout", "150ms"];
    server.run(&[&["register", "--name", "web", "--id", "w", "--address", &target.http][..], &visits].concat()).ok();
    eventually("it passes", || server.run(&["list", "web"]).ok().contains(" passing ").then_some(()));
    server.run(&["drain", "w"]).ok();
    let draining = server.run(&["why", "w"]).ok();
    assert!(draining.ends_with("`roundsman drain w --undo` hands it out again.\n"), "{draining}");
    server.run(&["drain", "w", "--undo"]).ok();
    drop(target);
    eventually("it is evicted", || server.run(&["why", "w"]).ok().contains("It was evicted").then_some(()));

    let text = server.run(&["why", "w"]).ok();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("w of web at 127.0.0.1:") && lines[0].contains(" is evicted for "), "{text}");
    let order = [
        "It was registered at 127.0.0.1:",
        "A visit passed: GET /ready: 200",
        "It was drained, asked for from 127.0.0.1:",
        "Its drain was undone, asked for from 127.0.0.1:",
        "It was evicted: GET /ready: ",
    ];
    let places =
        order.map(|part| lines.iter().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}: {text}")));
    assert!(places.is_sorted(), "{places:?}: {text}");
    assert!(lines[1..lines.len() - 1].iter().all(|line| line.starts_with("20") && line.contains("Z  ")), "{text}");
    assert!(lines[lines.len() - 1].starts_with("It is visited about every half minute"), "{text}");

    let json = server.run(&["why", "w", "-o", "json"]).json();
    assert_eq!((&json["instance"]["status"], &json["events"][0]["kind"]), (&"evicted".into(), &"registered".into()));
    let short = server.run(&["why", "w", "--limit", "1"]).ok();
    assert!(short.contains("(What was before is left out: see --limit.)"), "{short}");
}

#[test]
fn those_who_are_gone_are_remembered_and_strangers_are_not_found() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let args = ["register", "--name", "product", "--id", "odd", "--address", "10.0.0.7:1", "--check", "none"];
    // With a note: it replaces the other.
    assert_eq!(server.run(&args).code, 0);
    server.run(&["deregister", "odd"]).ok();
    let text = server.run(&["why", "odd"]).ok();
    assert!(
        text.starts_with("odd is not registered; the last of it was ") && text.contains("It was deregistered"),
        "{text}"
    );
    assert_eq!(
        server.run(&["why", "nobody"]).complaint(3),
        "roundsman: `nobody` is not registered, and nothing is remembered of it; see `roundsman events` for what is"
    );
    let replaced = server.run(&["events", "--kind", "replaced,deregistered", "-o", "json"]).json();
    let kinds: Vec<_> = replaced.as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["deregistered", "replaced"]);
    assert!(server.run(&["events", "--kind", "shot"]).complaint(2).contains("'shot'"));
    let status = server.run(&["status"]).ok();
    let removed = status.lines().skip_while(|line| !line.starts_with("REMOVED")).nth(1).unwrap();
    assert!(removed.contains("odd") && removed.contains("deregistered"), "{status}");
    assert!(status.lines().any(|line| line.starts_with("clients   ") && line.contains("connection")), "{status}");
}
