//! Scripts as docs/cli.md has them.

use std::{fs, process::Stdio};

use crate::support::{Served, eventually};

/// The block of the page that contains this.
fn script(part: &str) -> String {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md")).unwrap();
    let blocks = page.split("```sh\n").skip(1).filter_map(|block| block.split_once("```"));
    let found = blocks.map(|(block, _)| block).find(|block| block.contains(part));
    found.unwrap_or_else(|| panic!("no block with {part}")).to_owned()
}

#[test]
fn a_script_that_renews_outlasts_a_restart_of_its_server() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("store.db").display());
    let server = Served::start_with("127.0.0.1:0", &store);
    let rpc = server.rpc.clone();
    let script = script("roundsman renew").replace("roundsman ", concat!(env!("CARGO_BIN_EXE_roundsman"), " "));
    // It works until a file is there, and says what its renewals came to.
    let script = format!(
        "work() {{ [ ! -e end ]; }}\nsleep() {{ echo round >> rounds; command sleep 0.1; }}\n{}",
        script.replace("sleep 30", "sleep")
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &script]).current_dir(folder.path()).env("ROUNDSMAN_SERVER", &rpc);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let rounds = || fs::read_to_string(folder.path().join("rounds")).unwrap_or_default().lines().count();
    eventually("it renews", || (rounds() > 1).then_some(()));
    drop(server);
    let so_far = rounds();
    eventually("it goes on without a server", || (rounds() > so_far + 2).then_some(()));
    let server = Served::start_with(&rpc, &store);
    let so_far = rounds();
    eventually("it goes on with one", || (rounds() > so_far + 2).then_some(()));
    assert_eq!(server.run(&["get", "backup"]).ok(), "10.0.0.9:1\n");
    fs::write(folder.path().join("end"), "").unwrap();
    assert!(eventually("it ends", || running.try_wait().unwrap()).success());
    server.run(&["list", "backup"]).complaint(3);
}
