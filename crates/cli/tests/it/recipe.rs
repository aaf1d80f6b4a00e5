//! The recipe of docs/rpc.md: a program in another language stays registered through what happens to its server.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::support::{Served, eventually};

struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/stay_registered.py");

#[test]
fn the_script_asks_often_enough_for_its_ttl_and_says_how_it_is_used() {
    let code = "import os, sys; sys.path.insert(0, os.path.dirname(sys.argv[1])); import stay_registered as script
print([script.renewal(check) for check in [{'kind': 'http'}, {'kind': 'ttl', 'ttl': '3s'}, {'ttl': '1500ms'}, {'ttl': '1h 30m'}]])";
    let printed = Command::new("python3").args(["-B", "-c", code, PATH]).output().unwrap();
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), "[5.0, 1.0, 0.5, 5.0]\n");
    let address = "10.0.0.9:80";
    for wrong in [&[][..], &["noport", "legacy", address], &["h:1", "legacy", address, "http"], &["h:1", "legacy"]] {
        let ended = Command::new("python3").arg(PATH).args(wrong).output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(ended.status.code() == Some(1) && said.contains("HOST:PORT [CHECK]"), "{wrong:?}: {said}");
        assert!(!said.contains("Traceback"), "{said}");
    }
}

#[test]
fn the_script_in_the_guide_stays_registered_and_leaves_in_order() {
    let server = Served::start();
    let rpc = server.rpc.clone();
    let mut command = Command::new("python3");
    command.args([PATH, &rpc, "legacy", "10.0.0.9:80", r#"{"kind":"none"}"#]).stdout(Stdio::piped());
    let mut script =
        Script(command.spawn().expect("python3 could not be started: install it (./scripts/test.sh does)"));
    let mut said = BufReader::new(script.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = said.next().unwrap();
    let id = first.strip_prefix("registered as ").unwrap_or_else(|| panic!("{first}")).to_owned();
    assert_eq!(server.run(&["get", "legacy", "-o", "name"]).ok().trim(), id);

    // Somebody takes it out: it is back under its id, as was to be expected.
    let said_so = server.run(&["deregister", &id]).stderr;
    assert!(said_so.contains("keeps it registered, and will register it again"), "{said_so}");
    assert_eq!(said.next().unwrap(), "forgotten; registering again");
    assert_eq!(said.next().unwrap(), first);

    // The server is killed, and comes back with nothing.
    drop(server);
    assert!(said.next().unwrap().starts_with("lost the server: "));
    let server = Served::start_on(&rpc);
    let again = said.find(|line| line.starts_with("registered"));
    assert_eq!(again.as_deref(), Some(&*first));
    assert_eq!(server.run(&["list", "legacy", "-o", "name"]).ok().trim(), id, "and it is there once");

    assert!(Command::new("kill").args(["-s", "TERM", &script.0.id().to_string()]).status().unwrap().success());
    assert_eq!(eventually("it ends", || script.0.try_wait().unwrap()).code(), Some(0));
    let left = server.run(&["events", "--instance", &id, "-o", "json"]).json();
    let kinds: Vec<_> = left.as_array().unwrap().iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds[..2], ["deregistered", "drained"], "callers were given notice: {left}");
}
