//! `roundsman graph`, on lookups of callers with and without a name.

use roundsman::Discovery;

use crate::support::{Served, eventually};

#[tokio::test]
async fn the_graph_is_a_tree_a_picture_and_json() {
    let server = Served::start();
    let empty = server.run(&["graph"]).nothing();
    assert!(
        empty.starts_with("roundsman: nobody has asked") && empty.contains("Discovery::builder().service("),
        "{empty}"
    );
    server.register("product", "10.0.0.7:7070");
    // The command line itself has no name.
    server.run(&["get", "product"]).ok();

    let order = Discovery::builder().servers(server.rpc.as_str()).service("order").connect().await.unwrap();
    let product = Discovery::builder().servers(server.rpc.as_str()).service("product").connect().await.unwrap();
    order.get("product").await.unwrap();
    order.get("product").await.unwrap();
    order.get("prodcut").await.unwrap_err();
    product.get("order").await.unwrap_err();
    let _resolver = order.resolver("product").await.unwrap();

    let tree = server.run(&["graph"]).ok();
    let lines: Vec<&str> = tree.lines().collect();
    assert_eq!((lines[0], lines[3], lines.len()), ("order", "product", 5), "{tree}");
    assert!(lines[1].starts_with("├── prodcut    1 lookup, last "), "{tree}");
    assert!(lines[1].ends_with(" ago, nobody has this name"), "{tree}");
    assert!(lines[2].starts_with("└── product    2 lookups, 1 watching, last "), "{tree}");
    assert!(lines[4].starts_with("└── order      1 lookup, "), "{tree}");

    let dot = server.run(&["graph", "-o", "dot"]).ok();
    assert!(dot.starts_with("digraph \"default\" {\n") && dot.ends_with("}\n"), "{dot}");
    assert!(dot.contains("\"order\" -> \"product\" [label=\"2 lookups\\n1 watching\"];"), "{dot}");

    let json = server.run(&["graph", "-o", "json"]).json();
    assert_eq!(json["services"], serde_json::json!(["product"]));
    let edge = &json["edges"][1];
    assert_eq!((edge["caller"].as_str(), edge["callee"].as_str()), (Some("order"), Some("product")));
    assert_eq!((edge["lookups"].as_u64(), edge["watching"].as_u64()), (Some(2), Some(1)));
    assert!(edge["last"].as_str().unwrap().ends_with('Z'));

    order.close().await;
    eventually("a closed client no longer watches", || {
        let tree = server.run(&["graph"]).ok();
        tree.contains("└── product    2 lookups, last ").then_some(())
    });
    assert!(server.run(&["graph", "--namespace", "empty"]).nothing().contains("nobody has asked"));
    product.close().await;
}
