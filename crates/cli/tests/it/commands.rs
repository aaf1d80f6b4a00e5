//! Every command, for people and for programs.

use crate::support::{Served, eventually, roundsman};

#[test]
fn registers_lists_gets_drains_and_deregisters() {
    let server = Served::start();
    assert_eq!(server.run(&["list"]).nothing(), "roundsman: no services are registered in namespace `default`\n");
    assert_eq!(server.run(&["list", "-o", "json"]).json(), serde_json::json!([]));
    let args = ["register", "--name", "Product", "--address", "10.0.0.7:7070", "--check", "none", "--id", "product-1"];
    assert_eq!(server.run(&args).ok(), "product-1\n");
    let id = server.register("product", "10.0.0.8:7070");
    assert!(id.starts_with("product-") && id.len() == "product-".len() + 10, "{id}");

    let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(
        lines(server.run(&["list"]).ok()),
        ["SERVICE  PASSING  SUSPECT  STARTING  DRAINING  EVICTED", "product  2        0        0         0         0"]
    );
    let table = server.run(&["list", "product"]).ok();
    assert!(table.starts_with("ID "), "{table}");
    let first = table.lines().find(|line| line.starts_with("product-1 ")).unwrap();
    assert!(first.contains("10.0.0.7:7070") && first.contains("passing") && first.contains(" ago"), "{table}");
    assert!(table.lines().all(|line| line.len() <= 80) && !table.contains('\u{1b}'), "{table}");

    assert_eq!(server.run(&["drain", "product-1"]).ok(), "product-1 is no longer handed out; --undo reverses this\n");
    assert_eq!(server.run(&["get", "product"]).ok(), "10.0.0.8:7070\n");
    let undone = server.run(&["drain", "product-1", "--undo", "-o", "json"]).json();
    assert_eq!(undone, serde_json::json!({"id": "product-1", "draining": false}));
    assert_eq!(server.run(&["deregister", &id]).ok(), format!("{id} is deregistered\n"));
    assert_eq!(server.run(&["get", "product"]).ok(), "10.0.0.7:7070\n");
    let gone = server.run(&["deregister", "product-1", "-o", "json"]).json();
    assert_eq!(gone, serde_json::json!({"id": "product-1", "deregistered": true}));
    assert_eq!(server.run(&["list"]).nothing(), "roundsman: no services are registered in namespace `default`\n");
}

#[test]
fn an_instance_in_json_has_its_whole_shape() {
    let server = Served::start();
    // The server's own HTTP door answers /health, so it is its own first target.
    let args = [
        "register",
        "--name",
        "web",
        "--address",
        &server.http,
        "--health",
        "/ready",
        "--interval",
        "200ms",
        "--timeout",
        "150ms",
        "--id",
        "web-1",
        "--tag",
        "a",
        "--tag",
        "b",
        "--meta",
        "k=v=w",
        "--zone",
        "z",
        "--weight",
        "3",
        "--version",
        "1.2",
        "-o",
        "json",
    ];
    let registered = server.run(&args).json();
    assert_eq!(registered["id"], "web-1");
    let instance = eventually("it passes", || {
        let ended = server.run(&["get", "web", "-o", "json"]);
        (ended.code == 0).then(|| ended.json())
    });
    let text = |field: &str| instance[field].as_str().unwrap().to_owned();
    assert_eq!((text("name"), text("namespace")), ("web".to_owned(), "default".to_owned()));
    assert_eq!((text("address"), text("status")), (server.http.clone(), "passing".to_owned()));
    assert_eq!((text("zone"), text("version")), ("z".to_owned(), "1.2".to_owned()));
    assert_eq!(instance["tags"], serde_json::json!(["a", "b"]));
    assert_eq!((&instance["meta"], &instance["weight"]), (&serde_json::json!({"k": "v=w"}), &serde_json::json!(3)));
    let check = &instance["check"];
    assert_eq!((check["kind"].as_str(), check["path"].as_str()), (Some("http"), Some("/ready")));
    assert_eq!((check["interval"].as_str(), check["timeout"].as_str()), (Some("200ms"), Some("150ms")));
    assert!(
        text("since").ends_with('Z') && text("registered_at").contains('T') && text("reason").contains("GET /ready")
    );
    // The list tells the history, too.
    let listed = server.run(&["list", "web", "-o", "json"]).json();
    let statuses: Vec<_> = listed[0]["history"].as_array().unwrap().iter().map(|flip| flip["status"].clone()).collect();
    assert_eq!(statuses, ["starting", "passing"]);
}

#[test]
fn status_shows_the_whole_server() {
    let server = Served::start();
    server.register("product", "10.0.0.7:7070");
    let text = server.run(&["status"]).ok();
    for part in [
        "server    ready, ",
        "doors     rpc ",
        "store     memory",
        "rounds    every 5s",
        "brake     off",
        "replicas  none",
    ] {
        assert!(text.lines().any(|line| line.starts_with(part)), "{part} in {text}");
    }
    assert!(text.lines().any(|line| line == "names     none registered by name"), "{text}");
    assert!(text.contains("product  1 ") && text.contains("10.0.0.7:7070"), "{text}");
    let json = server.run(&["status", "-o", "json"]).json();
    assert_eq!((&json["ready"], json["store"]["kind"].as_str()), (&serde_json::json!(true), Some("memory")));
    assert_eq!(json["namespaces"][0]["services"][0]["name"], "product");
}

#[test]
fn namespaces_are_apart() {
    let server = Served::start();
    server.run(&["register", "--namespace", "shop", "--name", "a", "--address", "h:1", "--check", "none"]).ok();
    assert_eq!(server.run(&["get", "a"]).code, 3);
    assert_eq!(server.run(&["get", "a", "--namespace", "shop"]).ok(), "h:1\n");
    let by_environment = server.command(&["get", "a"]).env("ROUNDSMAN_NAMESPACE", "shop").output().unwrap();
    assert_eq!(by_environment.stdout, b"h:1\n");
    let says = |args: &[&str]| server.run(&[args, &["--namespace", "empty"]].concat()).complaint(3);
    assert_eq!(
        says(&["get", "a"]),
        "roundsman: no service named `a` is registered in namespace `empty`; see `roundsman list --namespace empty` for those \
         that are"
    );
    assert!(
        says(&["drain", "a-1"]).contains("`a-1` is not registered in namespace `empty`; `roundsman list NAME --names")
    );
    assert!(says(&["wait", "a", "--timeout", "0s"]).contains("see `roundsman list --namespace empty` for the names"));
    assert!(says(&["why", "a-1"]).ends_with("see `roundsman events --namespace empty` for what is"));
}

#[test]
fn help_tells_what_to_type() {
    let output = roundsman().arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("roundsman register --name product") && help.contains("Exit codes"), "{help}");
    assert!(help.contains("[alias: history]") || help.contains("[aliases: history]"), "{help}");
    assert!(roundsman().arg("--version").output().unwrap().stdout.starts_with(b"roundsman "));
}
