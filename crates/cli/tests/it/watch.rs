//! `roundsman watch`, as its lines come in.

use crate::support::{Served, Watching};

#[test]
fn programs_get_an_object_a_line() {
    let server = Served::start();
    let first = server.register("product", "10.0.0.7:7070");
    let mut watching = Watching::start(&server, &["watch", "product", "-o", "json"]);
    let present = watching.json();
    assert_eq!((present["event"].as_str(), present["instance"]["id"].as_str()), (Some("present"), Some(&*first)));
    server.register("order", "10.0.0.8:6060");
    server.run(&["drain", &first]).ok();
    let changed = watching.json();
    assert_eq!((&changed["event"], &changed["instance"]["status"]), (&"changed".into(), &"draining".into()));
    server.run(&["deregister", &first]).ok();
    let removed = watching.json();
    assert_eq!((removed["event"].as_str(), removed["removed"]["id"].as_str()), (Some("removed"), Some(&*first)));
    assert!(removed["removed"]["reason"].as_str().unwrap().contains("deregistered"));
}

#[test]
fn people_get_a_line_a_change() {
    let server = Served::start();
    server.register("order", "10.0.0.7:1");
    let id = server.register("product", "10.0.0.7:7070");
    let mut watching = Watching::start(&server, &["watch"]);
    assert!(watching.line().contains("  10.0.0.7:1     not checked"), "as wide as what follows");
    let line = watching.line();
    assert!(line.contains(&format!("passing   {id}  10.0.0.7:7070  not checked")), "{line}");
    server.run(&["drain", &id]).ok();
    let line = watching.line();
    assert!(line.contains("draining") && line.ends_with("(was passing)"), "{line}");
    server.run(&["deregister", &id]).ok();
    let line = watching.line();
    assert!(line.contains("removed ") && line.contains(&id), "{line}");
}

#[test]
fn a_restarted_server_is_told_as_what_it_changed() {
    let server = Served::start();
    let rpc = server.rpc.clone();
    let id = server.register("product", "10.0.0.7:7070");
    let mut watching = Watching::start(&server, &["watch", "-o", "json"]);
    assert_eq!(watching.json()["event"], "present");
    drop(server);
    assert!(watching.note().starts_with("roundsman: lost the server ("));
    let _server = Served::start_on(&rpc);
    assert_eq!(watching.note(), "roundsman: connected again");
    // It kept nothing, so what was there is gone.
    let removed = watching.json();
    assert_eq!((removed["event"].as_str(), removed["removed"]["id"].as_str()), (Some("removed"), Some(&*id)));
}

#[test]
fn whoever_leaves_a_filter_is_not_told_as_removed() {
    let server = Served::start();
    let args = ["register", "--name", "product", "--id", "p-1", "--address", "10.0.0.7:1", "--check", "none"];
    server.run(&[&args[..], &["--zone", "q"]].concat()).ok();
    let mut watching = Watching::start(&server, &["watch", "product", "--zone", "q"]);
    assert!(watching.line().contains("passing   p-1"));
    server.run(&["update", "p-1", "--zone", "r"]).ok();
    let line = watching.line();
    assert!(line.contains("left      p-1  10.0.0.7:1  no longer what you ask for; it is passing: "), "{line}");
    server.run(&["update", "p-1", "--zone", "q"]).ok();
    assert!(watching.line().contains("passing   p-1"));
    server.run(&["deregister", "p-1"]).ok();
    assert!(watching.line().contains("removed   p-1"));
}
