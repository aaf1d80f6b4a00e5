//! Completion in a shell: the script, and what the server knows at the moment.

use crate::support::{Served, roundsman};

/// What bash is offered for the last of these words.
fn offered(server: &Served, words: &[&str]) -> Vec<String> {
    let mut command = roundsman();
    command.env("ROUNDSMAN_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9").env("_CLAP_COMPLETE_SPACE", "false");
    let output = command.args(["--"]).args(words).env("ROUNDSMAN_SERVER", &server.rpc).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn services_and_ids_are_offered_as_the_server_knows_them() {
    let server = Served::start();
    for (name, id) in [("product", "product-1"), ("product", "product-2"), ("order", "order-1")] {
        let address = format!("10.0.0.7:{}", 1 + id.len() + name.len() * usize::from(id.ends_with('2')));
        server.run(&["register", "--name", name, "--id", id, "--address", &address, "--check", "none"]).ok();
    }
    assert_eq!(offered(&server, &["roundsman", "get", "pro"]), ["product"]);
    assert_eq!(offered(&server, &["roundsman", "drain", "product-"]), ["product-1", "product-2"]);
    assert_eq!(offered(&server, &["roundsman", "exec", "--service", "o"]), ["order"]);
    let elsewhere = offered(&server, &["roundsman", "--namespace", "shop", "get", "pro"]);
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(offered(&server, &["roundsman", "na"]).contains(&"namespaces".to_owned()));
}

#[test]
fn without_a_server_nothing_is_offered_and_nothing_said() {
    let server = Served::start();
    let gone = offered(&server, &["roundsman", "get", "--server", "127.0.0.1:1", "pro"]);
    assert!(gone.is_empty(), "{gone:?}");
}

#[test]
fn scripts_ask_the_binary_itself() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = String::from_utf8(roundsman().args(["completions", shell]).output().unwrap().stdout).unwrap();
        assert!(script.contains("ROUNDSMAN_COMPLETE") && script.contains("roundsman"), "{shell}: {script}");
        let fixed =
            String::from_utf8(roundsman().args(["completions", shell, "--static"]).output().unwrap().stdout).unwrap();
        assert!(fixed.contains("deregister") && fixed.contains("graph"), "{shell}");
    }
}
