//! Commands that are told of several servers, of which the first are frozen.

use std::{net::TcpListener, process::Stdio};

use crate::support::{Ended, Served, eventually, roundsman};

#[test]
fn a_command_goes_to_another_server_when_the_first_is_stopped() {
    let (stopped, healthy) = (Served::start(), Served::start());
    let id = healthy.register("product", "10.0.0.7:7070");
    stopped.signal("STOP");
    let both = format!("{},{}", stopped.rpc, healthy.rpc);
    let run = |args: &[&str]| Ended::from(roundsman().args(args).env("ROUNDSMAN_SERVER", &both).output().unwrap());
    assert_eq!(run(&["get", "product"]).ok(), "10.0.0.7:7070\n");
    assert!(run(&["list", "product"]).ok().contains(&id));
    run(&["drain", &id]).ok();
    run(&["deregister", &id]).ok();
    assert!(run(&["list", "product"]).complaint(3).contains("no service named `product`"));
    stopped.signal("CONT");
}

#[test]
fn frozen_servers_are_not_waited_for_one_after_the_other() {
    // With nobody who accepts, the system answers for them, as for a process that is stopped.
    let frozen: Vec<TcpListener> = (0..20).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let healthy = Served::start();
    healthy.register("product", "10.0.0.7:7070");
    let mut servers: Vec<String> = frozen.iter().map(|one| one.local_addr().unwrap().to_string()).collect();
    servers.push(healthy.rpc.clone());
    let mut command = roundsman();
    command.args(["get", "product"]).env("ROUNDSMAN_SERVER", servers.join(","));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // One after the other, two seconds each, would be later than anything is waited for here.
    eventually("the command ends", || child.try_wait().unwrap());
    assert_eq!(Ended::from(child.wait_with_output().unwrap()).ok(), "10.0.0.7:7070\n");
}
