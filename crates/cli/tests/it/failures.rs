//! How commands fail: which code, which sentence, and never a panic.

use std::{
    io::{Read, Write},
    process::Stdio,
};

use crate::support::{Ended, Served, eventually, roundsman};

fn alone(args: &[&str]) -> Ended {
    Ended::from(roundsman().args(args).output().unwrap())
}

/// An address on which nobody listens.
fn nowhere() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

#[test]
fn what_is_not_found_is_code_3() {
    let server = Served::start();
    assert_eq!(
        server.run(&["get", "product"]).complaint(3),
        "roundsman: no service named `product` is registered; see `roundsman list` for those that are"
    );
    server.run(&["list", "product"]).complaint(3);
    server.run(&["list", "product", "-o", "json"]).complaint(3);
    assert!(server.run(&["deregister", "product-1"]).complaint(3).contains("`product-1` is not registered"));
    server.run(&["drain", "product-1"]).complaint(3);
    let id = server.register("product", "10.0.0.7:7070");
    server.run(&["drain", &id]).ok();
    assert_eq!(
        server.run(&["get", "product"]).complaint(3),
        "roundsman: service `product` has no passing instance (1 registered); see `roundsman list product` for the reasons"
    );
}

#[test]
fn an_unreachable_server_is_code_4() {
    let (nowhere, other) = (nowhere(), nowhere());
    for command in [&["get", "a"][..], &["list"], &["watch"], &["status"], &["graph"], &["deregister", "a-1"]] {
        let args = [command, &["--server", &nowhere]].concat();
        assert_eq!(
            alone(&args).complaint(4),
            format!(
                "roundsman: no discovery server could be reached (tried {nowhere}: connection refused); start one with \
                 `roundsman serve`, or name another with --server or ROUNDSMAN_SERVER"
            )
        );
    }
    let both = format!("{nowhere},{other}");
    assert!(alone(&["list", "--server", &both]).complaint(4).contains(&format!("; {other}: connection refused)")));
    // The HTTP port is the mistake that everybody makes once.
    let server = Served::start();
    assert!(alone(&["list", "--server", &server.http]).complaint(4).contains("is this its RPC port?"));
    // One of two is enough.
    alone(&["list", "--server", &format!("{nowhere},{}", server.rpc)]).nothing();
}

#[test]
fn wrong_usage_is_code_2() {
    let usage = |args: &[&str], says: &str| {
        let ended = alone(args);
        let line = ended.complaint(2);
        assert!(line.contains(says), "{args:?}: {line}");
    };
    usage(&["lst"], "'list'");
    usage(&["get"], "NAME");
    usage(&["get", "a b"], "must be 1 to 63 characters");
    usage(&["deregister", ""], "id: must be");
    usage(&["graph", "-o", "xml"], "possible values: tree, dot, json, yaml");
    usage(&["list", "-o", "xml"], "possible values: table, wide, json, yaml, name");
    usage(&["list", "--server", "nowhere"], "server: must be HOST:PORT");
    usage(&["list", "--namespace", "a b"], "namespace: must be");
    let register = |more: &[&'static str]| [&["register", "--name", "a", "--address", "10.0.0.1:80"], more].concat();
    usage(&register(&["--meta", "k"]), "KEY=VALUE");
    usage(&register(&["--health", "health"]), "check.path: must begin with /");
    usage(&register(&["--weight", "0"]), "weight: must be between");
    usage(&register(&["--check", "ttl"]), "check.ttl: a ttl check needs a ttl");
    usage(
        &register(&["--check", "tcp", "--health", "/x"]),
        "check.path: is for checks of kind http and https, and this one is `tcp`; leave it out, or",
    );
    usage(&register(&["--ttl", "5s"]), "check.ttl: is for checks of kind ttl, and this one is `http`");
    usage(&register(&["--weight", "-1"]), "invalid value '-1' for '--weight <N>'");
    usage(&register(&["--check", "udp"]), "http, https, tcp, ttl or none");
    usage(&register(&["--interval", "often"]), "such as 5s");
    usage(&["register", "--name", "a", "--address", "0.0.0.0:80"], "which nobody can reach");
    usage(&["serve", "--interval", "never"], "interval");
    usage(&["events", "--kind", "dead"], "[possible values: registered, updated, flip, evicted");
    usage(&["--server", "127.0.0.1:1", "serve"], "asks no server; leave --server out");
    usage(&["-o", "json", "completions", "bash"], "leave --output out");
    // Refused by the server: its rounds must not be turned against the cloud's metadata service.
    let server = Served::start();
    let refused = server.run(&["register", "--name", "a", "--address", "169.254.169.254:80"]);
    assert!(refused.complaint(2).contains("address: "));
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let server = Served::start();
    let taken = alone(&["serve", "--rpc", &server.rpc, "--http", "127.0.0.1:0", "--store", "memory:"]);
    assert_eq!(taken.code, 1);
    assert!(taken.stderr.lines().any(|line| line.starts_with("roundsman: cannot listen on")), "{}", taken.stderr);
    assert!(taken.stderr.trim_end().ends_with("; name another with --rpc"), "{}", taken.stderr);
    let checked = alone(&["serve", "--rpc", &server.rpc, "--store", "memory:", "--check-config"]).ok();
    assert!(checked.contains(&server.rpc), "{checked}");
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let server = Served::start();
    server.register("product", "10.0.0.7:7070");
    for args in [&["status"][..], &["list", "product", "-o", "json"], &["completions", "bash"], &["watch"]] {
        let mut child = server.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Nobody reads: the first write fails.
        drop(child.stdout.take());
        if args == ["watch"] {
            // It notices with the first line that it has to say after the pipe was closed.
            eventually("the watch has ended", || {
                // Each time the next one takes its address, and says so.
                server.run(&["register", "--name", "order", "--address", "10.0.0.8:6060", "--check", "none"]);
                child.try_wait().unwrap()
            });
        }
        let ended = Ended::from(child.wait_with_output().unwrap());
        assert_eq!((ended.code, ended.stderr.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn what_a_server_says_is_one_line_of_a_sane_length() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let strange = std::thread::spawn(move || {
        let more = "x".repeat(2_000);
        let welcome =
            format!(r#"{{"ok":false,"roundsman":9,"oldest":8,"error":"go\u001b[31m away\nplease \u202eyawa {more}"}}"#);
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut hello = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut hello).unwrap();
        stream.write_all(&u32::try_from(welcome.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(welcome.as_bytes()).unwrap();
    });
    let line = alone(&["list", "--server", &address]).complaint(4);
    strange.join().unwrap();
    assert!(line.contains("[31m away") && line.ends_with("name another with --server or ROUNDSMAN_SERVER"), "{line}");
    assert!(!line.contains(['\u{1b}', '\u{202e}']) && line.len() < 1_000, "{line}");
}

#[test]
fn an_empty_variable_is_one_that_nobody_has_set() {
    let server = Served::start();
    let listed = server.command(&["list", "--server", &server.rpc]).env("ROUNDSMAN_NAMESPACE", "").output().unwrap();
    assert!(Ended::from(listed).nothing().contains("in namespace `default`"));
    let default = roundsman().args(["list"]).env("ROUNDSMAN_SERVER", "").output().unwrap();
    assert!([Some(0), Some(4)].contains(&default.status.code()), "{default:?}");
    for empty in [["list", "--server", ""], ["--server", "", "list"]] {
        assert!(alone(&empty).complaint(2).contains("server: "), "a flag says what it says: {empty:?}");
    }
    assert!(alone(&["--namespace", "", "list"]).complaint(2).contains("namespace: "));
}
