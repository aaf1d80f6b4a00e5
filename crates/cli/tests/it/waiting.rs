//! `roundsman wait` and `roundsman exec`: for scripts.

use std::process::Stdio;

use crate::support::{Ended, Served, Watching, eventually, roundsman};

#[test]
fn a_wait_ends_when_enough_are_there() {
    let server = Served::start();
    let waiting = |args: &[&str]| {
        let mut command = server.command(&[&["wait", "product", "--timeout", "1h"], args].concat());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut two = waiting(&["--passing", "2"]);
    let mut zone = waiting(&["--zone", "b", "-o", "name"]);
    server.register("product", "10.0.0.7:1");
    assert!(two.try_wait().unwrap().is_none() && zone.try_wait().unwrap().is_none());
    let args = ["register", "--name", "product", "--id", "b-1", "--address", "10.0.0.7:2", "--check", "none"];
    server.run(&[&args[..], &["--zone", "b"]].concat()).ok();
    assert_eq!(Ended::from(two.wait_with_output().unwrap()).answer(), "2 instances of product are there\n");
    assert_eq!(Ended::from(zone.wait_with_output().unwrap()).answer(), "b-1\n");
    assert_eq!(server.run(&["wait", "product", "-o", "json"]).json().as_array().unwrap().len(), 2);
    server.run(&["drain", "b-1"]).ok();
    assert_eq!(server.run(&["wait", "product", "--status", "draining"]).ok(), "1 instance of product is there\n");
}

#[test]
fn a_wait_that_was_in_vain_says_whom_it_missed() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let late = server.run(&["wait", "product", "--passing", "3", "--timeout", "300ms"]).complaint(3);
    assert_eq!(
        late,
        "roundsman: waited 300ms for 3 instances of `product`, 1 there; see `roundsman list product` for the reasons"
    );
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gone = roundsman().args(["wait", "product", "--timeout", "300ms", "--server", &nowhere]).output().unwrap();
    assert!(Ended::from(gone).complaint(4).contains("no discovery server could be reached"));
    server.signal("STOP");
    assert_eq!(server.run(&["wait", "product", "--timeout", "300ms"]).code, 4, "a frozen server says nothing");
    server.signal("CONT");
    server.run(&["wait", "product", "--passing", "0"]).complaint(2);
    server.run(&["wait", "product", "--timeout", "soon"]).complaint(2);
}

#[test]
fn a_wait_for_a_name_that_nobody_has_says_so_at_once_and_at_the_end() {
    let server = Served::start();
    for waiting in [
        &["wait", "prodcut", "--timeout", "1h"][..],
        &["exec", "--service", "prodcut", "--wait", "1h", "--zone", "b", "--", "true"],
    ] {
        assert_eq!(
            Watching::start(&server, waiting).note(),
            "roundsman: nobody has the name `prodcut` yet; waiting (see `roundsman list` for the names that there are)"
        );
    }
    let ended = server.run(&["wait", "prodcut", "--timeout", "5s"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (3, ""), "{}", ended.stderr);
    assert!(
        ended.stderr.ends_with(
            "\nroundsman: waited 5s for 1 instance of `prodcut`, which is nobody's name; see `roundsman list` for the names that \
             there are\n"
        ),
        "{}",
        ended.stderr
    );
    // A name that somebody has is none of those, whoever is handed out.
    let id = server.register("product", "10.0.0.7:1");
    server.run(&["drain", &id]).ok();
    let drained = server.run(&["wait", "product", "--timeout", "1s"]).complaint(3);
    assert!(drained.ends_with("0 there; see `roundsman list product` for the reasons"), "{drained}");
}

#[test]
fn a_wait_begins_before_its_server() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    drop(held);
    let mut command = roundsman();
    command.args(["wait", "product", "--timeout", "1h", "--server", &address]);
    let waiting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let server = Served::start_on(&address);
    server.register("product", "10.0.0.7:1");
    Ended::from(waiting.wait_with_output().unwrap()).answer();
}

#[test]
fn a_command_finds_addresses_in_its_environment() {
    let server = Served::start();
    server.register("product", "10.0.0.7:7070");
    server.register("my-cache", "[::1]:6379");
    server.register("2nd", "10.0.0.8:1");
    let exec = |services: &[&str], script: &str| {
        let services = services.iter().flat_map(|service| ["--service", service]);
        let args = ["exec"].into_iter().chain(services).chain(["--", "sh", "-c", script]);
        server.run(&args.collect::<Vec<_>>())
    };
    assert_eq!(
        exec(&["product"], "echo $PRODUCT_ADDRESS $PRODUCT_HOST $PRODUCT_PORT").ok(),
        "10.0.0.7:7070 10.0.0.7 7070\n"
    );
    let both = exec(&["my-cache", "2nd"], "echo $MY_CACHE_ADDRESS $MY_CACHE_HOST $_2ND_PORT $ROUNDSMAN_NAMESPACE").ok();
    assert_eq!(both, "[::1]:6379 ::1 1 default\n");
    assert_eq!(exec(&["product"], "echo $ROUNDSMAN_SERVER").ok(), format!("{}\n", server.rpc));
    assert_eq!(exec(&["product"], "exit 17").code, 17, "its exit code is its own");
    assert!(exec(&["nobody"], "echo never").complaint(3).contains("no service named `nobody`"));
    let missing = server.run(&["exec", "--service", "product", "--", "no-such-command-anywhere"]).complaint(127);
    assert!(missing.contains("cannot run `no-such-command-anywhere`"), "{missing}");
    server.run(&["exec", "--service", "product"]).complaint(2);
    server.run(&["exec", "--", "true"]).complaint(2);
    server.run(&["exec", "-o", "json", "--service", "product", "--", "true"]).complaint(2);
}

#[test]
fn a_command_waits_for_whom_it_needs() {
    let server = Served::start();
    let mut command =
        server.command(&["exec", "--service", "late", "--wait", "1h", "--", "sh", "-c", "echo $LATE_PORT"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    assert!(child.try_wait().unwrap().is_none());
    server.register("late", "10.0.0.7:7");
    eventually("it has run", || child.try_wait().unwrap());
    assert_eq!(Ended::from(child.wait_with_output().unwrap()).answer(), "7\n");
    assert_eq!(server.run(&["exec", "--service", "never", "--wait", "200ms", "--", "true"]).code, 3);
}

#[test]
fn whoever_has_no_patience_asks_once() {
    let server = Served::start();
    assert!(
        server.run(&["wait", "product", "--timeout", "0s"]).complaint(3).contains("nobody has the name `product`; see")
    );
    server.register("product", "10.0.0.7:1");
    assert_eq!(server.run(&["wait", "product", "--timeout", "0s"]).ok(), "1 instance of product is there\n");
    assert_eq!(
        server.run(&["wait", "product", "--timeout", "0s", "--passing", "2"]).complaint(3),
        "roundsman: 1 of 2 instances of `product` are there; see `roundsman list product` for the reasons"
    );
    server.run(&["wait", "product", "--timeout", "0s", "--status", "draining"]).complaint(3);
    let exec = ["exec", "--service", "product", "--wait", "0s", "--", "sh", "-c", "echo $PRODUCT_PORT"];
    for _ in 0..5 {
        assert_eq!(server.run(&exec).ok(), "1\n");
    }
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let gone = roundsman().args(["wait", "product", "--timeout", "0s", "--server", &nowhere]).output().unwrap();
    Ended::from(gone).complaint(4);
}
