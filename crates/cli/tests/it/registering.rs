//! `roundsman register --forget-after`, `deregister --block`, and who keeps an instance registered.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use serde_json::json;

use crate::support::{Served, eventually};

const INSTANCE: [&str; 9] =
    ["register", "--name", "product", "--id", "mine", "--address", "10.0.0.7:7070", "--check", "none"];

#[test]
fn what_nothing_keeps_registered_is_remembered_for_three_days_unless_said_otherwise() {
    let server = Served::start();
    let registered = server.run(&[&INSTANCE[..], &["-o", "json"]].concat()).json();
    assert_eq!(registered["forget_after"], "72h");
    let wide = server.run(&["list", "product", "-o", "wide"]).ok();
    assert!(wide.contains("FORGET-AFTER") && wide.contains(" 72h "), "{wide}");
    server.run(&[&INSTANCE[..], &["--forget-after", "1h"]].concat()).ok();
    assert_eq!(server.run(&["get", "product", "-o", "json"]).json()["forget_after"], "1h");
    let said = server.run(&["update", "mine", "--forget-after", "0s"]).ok();
    assert!(said.starts_with("mine: forget-after 1h → default\n"), "{said}");
    let refused = server.run(&[&INSTANCE[..], &["--forget-after", "9000h"]].concat()).complaint(2);
    assert!(refused.contains("forget_after: must be between 1s and 8760h"), "{refused}");
}

#[test]
fn why_says_how_long_an_evicted_one_is_remembered() {
    let server = Served::start();
    let args = ["register", "--name", "dead", "--id", "dead-1", "--address", "127.0.0.1:1", "--check", "ttl"];
    server.run(&[&args[..], &["--ttl", "1s"]].concat()).ok();
    eventually("it is evicted", || server.run(&["list", "dead"]).stdout.contains(" evicted ").then_some(()));
    let why = server.run(&["why", "dead-1"]).ok();
    assert!(why.contains("72h after its eviction it is forgotten."), "{why}");
    server.run(&["update", "dead-1", "--forget-after", "1s"]).ok();
    eventually("it is forgotten", || server.run(&["why", "dead-1"]).ok().contains("It was forgotten: ").then_some(()));
    let events = server.run(&["events", "--kind", "forgotten", "-o", "json"]).json();
    assert_eq!(events[0]["reason"], "not well again within 1s of its eviction");
}

#[test]
fn a_blocked_id_stays_out_and_the_command_line_says_what_to_do() {
    let server = Served::start();
    server.run(&INSTANCE).ok();
    let said = server.run(&["deregister", "mine", "--block", "1h"]).ok();
    let lifts = "`roundsman deregister mine --block 0s` lets it in again";
    assert!(said.starts_with("mine is deregistered, and kept out until 2") && said.contains(lifts), "{said}");
    let refused = server.run(&INSTANCE).complaint(1);
    assert!(refused.contains("`mine` is blocked until 2") && refused.contains(lifts), "{refused}");
    server.run(&["drain", "mine"]).complaint(1);
    server.run(&["deregister", "mine"]).complaint(1);
    let listed = server.run(&["list", "product"]).ok();
    assert!(listed.contains(" evicted ") && listed.contains("blocked until 2"), "{listed}");
    assert!(server.run(&["why", "mine"]).ok().contains("Nobody may register under this id until then."));
    assert_eq!(
        server.run(&["deregister", "mine", "--block", "0s"]).ok(),
        "mine is deregistered, and may register again\n"
    );
    server.run(&INSTANCE).ok();
    let why = server.run(&["why", "mine"]).ok();
    assert!(why.contains("It was deregistered, and blocked until 2") && why.contains("It was let in again"), "{why}");
    assert!(server.run(&["deregister", "nobody", "--block", "1h"]).complaint(3).contains("`nobody` is not registered"));
    assert!(server.run(&["deregister", "mine", "--block", "1"]).complaint(2).contains("--block"));
}

#[test]
fn who_keeps_an_instance_registered_is_named() {
    let server = Served::start();
    let mut keeper = TcpStream::connect(&server.rpc).unwrap();
    let registration = json!({"name": "product", "id": "mine", "address": "10.0.0.7:7070", "check": {"kind": "none"}});
    let hello = json!({"roundsman": 3, "codec": "json", "service": "product"});
    for message in [hello, json!({"Request": {"id": 1, "message": {"Register": {"registration": registration}}}})] {
        let text = message.to_string();
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        keeper.write_all(&[&length, text.as_bytes()].concat()).unwrap();
        let mut length = [0; 4];
        keeper.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        keeper.read_exact(&mut answer).unwrap();
    }
    let ended = server.run(&["deregister", "mine"]);
    assert_eq!((ended.code, &*ended.stdout), (0, "mine is deregistered\n"));
    for part in [
        "product at 127.0.0.1:",
        "keeps it registered",
        "`roundsman drain mine`",
        "`roundsman deregister mine --block 1h`",
    ] {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    // Whom nothing keeps registered is kept by nobody, connected or not.
    server.run(&INSTANCE).ok();
    assert_eq!(server.run(&["deregister", "mine"]).stderr, "");
}

#[test]
fn whoever_takes_an_address_says_from_whom() {
    let server = Served::start();
    server.run(&INSTANCE).ok();
    let args = ["register", "--name", "product", "--id", "other", "--address", "10.0.0.7:7070", "--check", "none"];
    let ended = server.run(&args);
    assert_eq!((ended.code, &*ended.stdout), (0, "other\n"));
    assert!(ended.stderr.contains("it replaced mine, which was registered at the same address"), "{}", ended.stderr);
    let why = server.run(&["why", "other"]).ok();
    assert!(why.contains("It was registered at 10.0.0.7:7070, replaced mine"), "{why}");
    assert!(server.run(&["why", "mine"]).ok().contains("It was replaced by other at the same address."));
}
