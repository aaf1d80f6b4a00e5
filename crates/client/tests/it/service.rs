//! What `roundsman::service` does with a program that does not get as far as serving; the rest is tested with the services
//! of this repository.

use std::{convert::Infallible, io, process::Stdio};

use axum::Router;
use roundsman::service::{Failure, Service, Start};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::support::{nowhere, soon};

/// Runs one of the ignored tests below in a process of its own.
fn process(test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

async fn arguments() -> Vec<String> {
    let nobody = nowhere().await.to_string();
    ["service", "--listen", "127.0.0.1:0", "--discovery", &nobody].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_start_that_fails_is_one_line_with_its_causes() {
    let output = soon(process("service::fails_to_start").wait_with_output()).await.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains("(1)"), "{out}");
    let lines: Vec<_> = err.lines().filter(|line| line.starts_with("service: ")).collect();
    assert_eq!(lines, ["service: no shelf: permission denied"], "{err}");
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by a_start_that_fails_is_one_line_with_its_causes"]
async fn fails_to_start() {
    #[derive(Debug, thiserror::Error)]
    #[error("no shelf")]
    struct NoShelf(#[source] io::Error);
    let start = async |_: Start| {
        let cause = io::Error::from(io::ErrorKind::PermissionDenied);
        Err::<Router, Failure>(NoShelf(cause).into())
    };
    let code = Service::new("service", 1).run_from(arguments().await, start).await;
    println!("{code:?}");
}

#[tokio::test]
async fn a_start_that_hangs_can_be_stopped() {
    let mut process = process("service::never_starts");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    // The test harness prints its own words before, in the same line.
    while !soon(lines.next_line()).await.unwrap().expect("it starts").ends_with("starting") {}
    let pid = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(soon(lines.next_line()).await.unwrap().is_some_and(|line| line.contains("(0)")));
    assert!(soon(process.wait()).await.unwrap().success());
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by a_start_that_hangs_can_be_stopped"]
async fn never_starts() {
    let start = async |start: Start| {
        println!("starting");
        start.registration.registered().await;
        Ok::<_, Infallible>(Router::new())
    };
    let code = Service::new("service", 1).run_from(arguments().await, start).await;
    println!("{code:?}");
}
