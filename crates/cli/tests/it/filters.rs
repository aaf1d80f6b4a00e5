//! `--tag`, `--zone`, `--version`, `--meta` and `--status` on what lists instances.

use crate::support::{Served, Watching};

/// Three instances of a service, one of which drains, and one of another.
fn shop() -> Served {
    let server = Served::start();
    let add = |id: &str, port: &str, more: &[&str]| {
        let address = format!("10.0.0.7:{port}");
        let name = id.split('-').next().unwrap();
        let args = ["register", "--name", name, "--id", id, "--address", &address, "--check", "none"];
        server.run(&[&args, more].concat()).ok();
    };
    add("product-1", "1", &["--zone", "a", "--version", "1", "--tag", "blue", "--meta", "team=fruit"]);
    add("product-2", "2", &["--zone", "b", "--version", "2", "--tag", "blue", "--tag", "canary"]);
    add("product-3", "3", &["--zone", "b", "--version", "1"]);
    add("order-1", "4", &["--zone", "b"]);
    server.run(&["drain", "product-3"]).ok();
    server
}

#[test]
fn a_list_has_only_what_is_asked_for() {
    let server = shop();
    let ids = |args: &[&str]| {
        let text = server.run(&[&["list", "product", "-o", "name"], args].concat()).ok();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[]), ["product-1", "product-2", "product-3"]);
    assert_eq!(ids(&["--zone", "b"]), ["product-2", "product-3"]);
    assert_eq!(ids(&["--zone", "b", "--version", "1"]), ["product-3"]);
    assert_eq!(ids(&["--tag", "blue"]), ["product-1", "product-2"]);
    assert_eq!(ids(&["--tag", "blue", "--tag", "canary"]), ["product-2"]);
    assert_eq!(ids(&["--meta", "team=fruit"]), ["product-1"]);
    assert_eq!(ids(&["--status", "draining"]), ["product-3"]);
    assert_eq!(ids(&["--status", "draining,passing", "--zone", "b"]), ["product-2", "product-3"]);
    let none = server.run(&["list", "product", "--zone", "c"]).complaint(3);
    assert!(none.contains("no instance of `product` is what you ask for (3 known)"), "{none}");
    assert!(server.run(&["list", "prodcut", "--zone", "c"]).complaint(3).contains("no service named `prodcut`"));

    let services = server.run(&["list", "--zone", "b", "-o", "json"]).json();
    let counts = |nth: usize| {
        (services[nth]["name"].clone(), services[nth]["passing"].clone(), services[nth]["draining"].clone())
    };
    assert_eq!((counts(0), counts(1)), (("order".into(), 1.into(), 0.into()), ("product".into(), 1.into(), 1.into())));
    assert_eq!(
        server.run(&["list", "--zone", "c"]).nothing(),
        "roundsman: no service has such instances in namespace `default`\n"
    );
    server.run(&["list", "--tag", ""]).complaint(2);
}

#[test]
fn get_hands_out_only_what_is_asked_for() {
    let server = shop();
    for _ in 0..8 {
        assert_eq!(server.run(&["get", "product", "--zone", "b"]).ok(), "10.0.0.7:2\n", "the other one there drains");
    }
    assert_eq!(server.run(&["get", "product", "--status", "draining"]).ok(), "10.0.0.7:3\n");
    assert_eq!(server.run(&["get", "product", "--tag", "canary", "-o", "json"]).json()["id"], "product-2");
    assert_eq!(server.run(&["get", "product", "--tag", "canary", "--columns", "host,port"]).ok(), "10.0.0.7  2\n");
    assert!(server.run(&["get", "product", "--zone", "c"]).complaint(3).contains("is what you ask for"));
}

#[test]
fn a_watch_tells_only_of_what_is_asked_for() {
    let server = shop();
    let mut zone = Watching::start(&server, &["watch", "product", "--zone", "b", "-o", "name"]);
    assert_eq!([zone.line(), zone.line()], ["product-2", "product-3"]);
    let mut draining = Watching::start(&server, &["watch", "--status", "draining", "-o", "json"]);
    assert_eq!(draining.json()["instance"]["id"], "product-3");
    server.run(&["drain", "order-1"]).ok();
    assert_eq!(draining.json()["instance"]["id"], "order-1");
    server.run(&["drain", "order-1", "--undo"]).ok();
    let left = draining.json();
    assert_eq!((&left["instance"]["id"], &left["instance"]["status"]), (&"order-1".into(), &"passing".into()));
    server.run(&["deregister", "product-1"]).ok();
    server.run(&["deregister", "product-2"]).ok();
    assert_eq!(zone.line(), "product-2", "the other zone's is not told of");
}
