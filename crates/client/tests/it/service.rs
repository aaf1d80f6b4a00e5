//! What `roundsman::service` does with a program that does not get as far as serving; the rest is tested with the services
//! of this repository.

use std::{convert::Infallible, io, process::Stdio};

use axum::Router;
use roundsman::{
    Discovery,
    service::{App, Failure, Start},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};

use crate::support::{eventually, nowhere, server, soon};

/// Runs one of the ignored tests below in a process of its own.
fn process(test: &str) -> Child {
    process_with(test, |_| {})
}

/// The same, with more in its environment.
fn process_with(test: &str, more: impl FnOnce(&mut Command)) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]);
    more(&mut command);
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
    let code = App::new("service", 1).run_from(arguments().await, start).await;
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
    let code = App::new("service", 1).run_from(arguments().await, start).await;
    println!("{code:?}");
}

#[tokio::test]
async fn a_second_address_answers_health_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let ready = folder.path().join("ready.json");
    let mut process = process_with("service::serves", |command| {
        command.env("ROUNDSMAN_HEALTH_LISTEN", "127.0.0.1:0").env("ROUNDSMAN_READY_FILE", &ready);
    });
    eventually("it serves", async || ready.exists()).await;
    let addresses: serde_json::Value = serde_json::from_slice(&std::fs::read(&ready).unwrap()).unwrap();
    let status = async |door: &str, path: &str| {
        let address = addresses[door].as_str().unwrap();
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status("http.addr", "/health").await, status("http.addr", "/").await), ("200".into(), "200".into()));
    assert_eq!(
        (status("health.addr", "/health").await, status("health.addr", "/").await),
        ("200".into(), "404".into())
    );
    let pid = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    assert!(soon(process.wait()).await.unwrap().success());
}

#[tokio::test]
async fn what_the_environment_says_is_registered() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let snapshot = folder.path().join("peers.json");
    let process = process_with("service::serves_a_server", |command| {
        command.env("ROUNDSMAN_SERVER", server.rpc_addr().to_string()).env("ROUNDSMAN_NAMESPACE", "shop");
        command.env("ROUNDSMAN_ZONE", "a").env("ROUNDSMAN_TAGS", "x,y").env("ROUNDSMAN_META", "shelf=3");
        command.env("ROUNDSMAN_WEIGHT", "7").env("ROUNDSMAN_SERVICE_VERSION", "9").env("ROUNDSMAN_ID", "service-1");
        command.env("ROUNDSMAN_SNAPSHOT_FILE", &snapshot).env("ROUNDSMAN_NOTICE", "0s").env("ROUNDSMAN_GRACE", "1s");
        command.env("ROUNDSMAN_BREAKER", "failures=2");
    });
    let shop = Discovery::builder().servers(server.rpc_addr()).namespace("shop").connect().await.unwrap();
    let mut found = None;
    eventually("it is registered", async || {
        found = shop.get("service").await.ok();
        found.is_some()
    })
    .await;
    let found = found.unwrap();
    assert_eq!((found.id.as_str(), found.weight, found.zone.as_deref()), ("service-1", 7, Some("a")));
    // The code has said "code" as well, and another version.
    assert_eq!((&*found.tags, found.version.as_deref()), (&["code".into(), "x".into(), "y".into()][..], Some("9")));
    assert_eq!(found.meta.iter().collect::<Vec<_>>(), [("shelf", "3")]);
    eventually("it saves whom it knows", async || {
        std::fs::read_to_string(&snapshot).is_ok_and(|saved| saved.contains("service-1"))
    })
    .await;
    let pid = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().await.unwrap().success());
    let ended = soon(process.wait_with_output()).await.unwrap();
    assert!(ended.status.success());
    assert!(shop.get("service").await.unwrap_err().is_not_found(), "it said goodbye");
    server.stop().await;
}

#[tokio::test]
async fn bad_settings_are_one_line_and_code_2() {
    let ended = process_with("service::serves", |command| {
        command.env("ROUNDSMAN_WEIGHT", "0").env("ROUNDSMAN_BREAKER", "on");
    });
    let output = soon(ended.wait_with_output()).await.unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(out.contains("(2)"), "{out}");
    let lines: Vec<_> = err.lines().filter(|line| line.starts_with("service: ")).collect();
    assert_eq!(lines.len(), 1, "{err}");
    for part in ["ROUNDSMAN_BREAKER=on: must be off", "; ROUNDSMAN_WEIGHT=0: must be between", "see `service --help`"] {
        assert!(lines[0].contains(part), "{part}: {err}");
    }
}

fn app() -> App {
    App::new("service", 1).version("1").instance(|instance| instance.tag("code").zone("from-code"))
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by a_second_address_answers_health_and_nothing_else"]
async fn serves() {
    let start = async |_: Start| Ok::<_, Infallible>(Router::new().route("/", axum::routing::get(async || "here")));
    let code = app().run_from(arguments().await, start).await;
    println!("{code:?}");
}

#[tokio::test]
#[ignore = "runs in a process of its own, started by what_the_environment_says_is_registered"]
async fn serves_a_server() {
    let start = async |start: Start| {
        let me = start.discovery.resolver("service").in_background()?;
        Ok::<_, roundsman::Error>(
            Router::new().route("/", axum::routing::get(async move || me.instances().len().to_string())),
        )
    };
    let code = app().run_from(["service", "--listen", "127.0.0.1:0"], start).await;
    println!("{code:?}");
}
