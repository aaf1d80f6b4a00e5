//! How commands are called: where flags may stand, what `--help` and `--version` say, how mistakes are told.

use crate::support::{Ended, Served, roundsman};

fn alone(args: &[&str]) -> Ended {
    Ended::from(roundsman().args(args).output().unwrap())
}

#[test]
fn flags_stand_before_the_command_or_after_it_and_those_after_it_win() {
    let server = Served::start();
    server.register("product", "10.0.0.7:7070");
    let get = |args: &[&str]| alone(args);
    assert_eq!(get(&["--server", &server.rpc, "get", "product"]).ok(), "10.0.0.7:7070\n");
    assert_eq!(get(&["get", "product", "--server", &server.rpc]).ok(), "10.0.0.7:7070\n");
    assert_eq!(get(&["--server", "nowhere", "get", "product", "--server", &server.rpc]).ok(), "10.0.0.7:7070\n");
    let json = server.run(&["-o", "json", "list", "product"]).json();
    assert_eq!(json[0]["address"], "10.0.0.7:7070");
    assert_eq!(server.run(&["-o", "json", "list", "product", "-o", "name"]).ok().lines().count(), 1);
    server.run(&["--namespace", "shop", "get", "product"]).complaint(3);
    let shop = server.command(&["get", "product"]).env("ROUNDSMAN_NAMESPACE", "shop").output().unwrap();
    assert_eq!(shop.status.code(), Some(3));
    let flag_wins = server.command(&["--namespace", "default", "get", "product"]);
    let mut flag_wins = flag_wins;
    assert_eq!(flag_wins.env("ROUNDSMAN_NAMESPACE", "shop").output().unwrap().stdout, b"10.0.0.7:7070\n");
    let dot = server.run(&["-o", "dot", "graph"]).ok();
    assert!(dot.starts_with("digraph"), "{dot}");
}

#[test]
fn a_format_that_the_command_does_not_know_is_refused_wherever_it_stands() {
    let says = alone(&["-o", "dot", "list"]).complaint(2);
    assert_eq!(says, "roundsman: this command knows -o table, -o wide, -o json, -o yaml, -o name, not `dot`");
    alone(&["--namespace", "a b", "list"]).complaint(2);
    alone(&["list", "-o", "wide", "--columns", "colour"]).complaint(2);
    alone(&["list", "a", "-o", "json", "--columns", "id"]).complaint(2);
    // Whoever starts a server is not in a namespace.
    let odd = roundsman().args(["completions", "bash"]).env("ROUNDSMAN_NAMESPACE", "a b").output().unwrap();
    assert!(odd.status.success());
}

#[test]
fn help_lists_the_values_that_a_flag_takes() {
    for (command, values) in [
        ("graph", ["tree", "dot", "json", "yaml"].as_slice()),
        ("list", &["table", "wide", "json", "yaml", "name"]),
        ("watch", &["table", "wide", "json", "yaml", "name"]),
    ] {
        let help = alone(&[command, "--help"]).ok();
        for value in values {
            assert!(help.lines().any(|line| line.trim_start().starts_with(&format!("- {value}"))), "{value}: {help}");
        }
        let short = alone(&[command, "-h"]).ok();
        let short = short.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(short.contains(&format!("[possible values: {}]", values.join(", "))), "{short}");
    }
}

#[test]
fn the_version_names_the_commit() {
    let version = alone(&["--version"]).ok();
    let head = std::process::Command::new("git")
        .args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short=12", "HEAD"])
        .output();
    let package = env!("CARGO_PKG_VERSION");
    match head.ok().filter(|head| head.status.success()) {
        Some(head) => {
            let head = String::from_utf8(head.stdout).unwrap();
            assert_eq!(version, format!("roundsman {package} (commit {})\n", head.trim()));
        }
        // The sources alone, without their repository.
        None => assert!(version.starts_with(&format!("roundsman {package}")), "{version}"),
    }
}

#[test]
fn without_a_command_the_help_is_shown() {
    let ended = alone(&[]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.stderr.contains("Commands:") && ended.stderr.contains("roundsman: name a command"),
        "{}",
        ended.stderr
    );
}
