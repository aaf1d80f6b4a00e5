//! How lists are printed: columns, wide tables, YAML, names, and live.

use crate::support::{Served, Watching};

fn registered() -> Served {
    let server = Served::start();
    let args = ["register", "--name", "product", "--id", "product-1", "--address", "10.0.0.7:7070", "--check", "none"];
    let more = ["--zone", "a", "--version", "1.10", "--tag", "blue", "--meta", "team=fruit", "--weight", "7"];
    server.run(&[&args[..], &more].concat()).ok();
    server
}

#[test]
fn columns_are_those_that_are_named() {
    let server = registered();
    assert_eq!(
        server.run(&["list", "product", "--columns", "id,port,meta.team,meta.nobody,weight"]).ok(),
        "ID         PORT  META.team  META.nobody  WEIGHT\nproduct-1  7070  fruit      -            7\n"
    );
    let bare = server.run(&["list", "product", "--columns", "id,status", "--no-headers"]).ok();
    assert_eq!(bare, "product-1  passing\n");
    assert_eq!(server.run(&["list", "--columns", "name,passing", "--no-headers"]).ok(), "product  1\n");
    assert!(server.run(&["list", "--columns", "id"]).complaint(2).contains("services have no column `id`"));
    let wide = server.run(&["list", "product", "-o", "wide"]).ok();
    let row = wide.lines().nth(1).unwrap();
    for part in ["product-1", "passing", "none", "7", "1.10", "a", "blue", "team=fruit"] {
        assert!(row.split_whitespace().any(|word| word == part), "{part}: {wide}");
    }
    assert!(server.run(&["list", "-o", "wide"]).ok().starts_with("SERVICE  INSTANCES  PASSING"));
}

#[test]
fn names_alone_are_for_scripts_and_yaml_says_what_json_says() {
    let server = registered();
    assert_eq!(server.run(&["list", "-o", "name"]).ok(), "product\n");
    assert_eq!(server.run(&["get", "product", "-o", "name"]).ok(), "product-1\n");
    let yaml = server.run(&["get", "product", "-o", "yaml"]).ok();
    for line in ["id: product-1", "status: passing", "weight: 7", "  team: fruit", "address: 10.0.0.7:7070"] {
        assert!(yaml.lines().any(|found| found == line || found.replace(['"', '\''], "") == line), "{line}: {yaml}");
    }
    // A version must not become a number, which would lose its zero.
    assert!(yaml.contains("version: \"1.10\"") || yaml.contains("version: '1.10'"), "{yaml}");
    let mut watching = Watching::start(&server, &["watch", "-o", "yaml"]);
    assert_eq!([watching.line(), watching.line()], ["---", "event: present"], "a document a change");
    for command in [&["status"][..], &["list"], &["list", "product"], &["events"], &["graph"]] {
        let yaml = server.run(&[command, &["-o", "yaml"]].concat()).ok();
        assert!(!yaml.is_empty() && !yaml.starts_with('{'), "{command:?}: {yaml}");
    }
}

#[test]
fn a_live_list_is_printed_again_when_it_changes() {
    let server = registered();
    let mut live = Watching::start(&server, &["list", "product", "--watch", "--columns", "id,status"]);
    assert_eq!([live.line(), live.line()], ["ID         STATUS", "product-1  passing"]);
    server.run(&["drain", "product-1"]).ok();
    assert_eq!([live.line(), live.line(), live.line()], ["", "ID         STATUS", "product-1  draining"]);
    let mut services = Watching::start(&server, &["list", "-w", "-o", "json"]);
    assert_eq!(services.json()[0]["draining"], 1);
    server.run(&["deregister", "product-1"]).ok();
    assert_eq!(services.json(), serde_json::json!([]));
    assert_eq!(live.line(), "");
    assert!(
        live.note().contains("nobody has the name `product` yet; waiting"),
        "no line that a script takes for a row"
    );
}

/// Starts its arguments on a terminal of 80 columns, makes that one of 30 once a table is there, and waits for one that fits.
const DRAGGED: &str = r#"
import fcntl, os, pty, signal, struct, sys, termios
def columns(fd, count):
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, count, 0, 0))
signal.alarm(120)
pid, fd = pty.fork()
if pid == 0:
    columns(0, 80)
    os.execv(sys.argv[1], sys.argv[1:])
said, dragged = b"", False
while True:
    said += os.read(fd, 4096)
    pictures = said.split(b"[H[2J[3J")[1:-1]
    if not dragged and any(b"REASON" in picture for picture in pictures):
        columns(fd, 30)
        said, dragged = b"", True
    elif dragged and any(max(map(len, picture.splitlines())) <= 30 for picture in pictures):
        print("it fits", flush=True)
        os.kill(pid, signal.SIGKILL)
        sys.exit()
"#;

#[test]
fn a_live_list_fits_a_terminal_whose_size_has_changed() {
    let server = registered();
    let mut python = std::process::Command::new("python3");
    python.args([
        "-c",
        DRAGGED,
        env!("CARGO_BIN_EXE_roundsman"),
        "list",
        "product",
        "--watch",
        "--server",
        &server.rpc,
    ]);
    assert_eq!(Watching::begin(python.env("NO_COLOR", "1")).line(), "it fits");
}

#[test]
fn whoever_watches_a_name_that_nobody_has_is_told() {
    let server = registered();
    let mut typo = Watching::start(&server, &["watch", "prodcut"]);
    assert!(typo.note().contains("nobody has the name `prodcut` yet; waiting"));
    server.register("prodcut", "10.0.0.9:1");
    assert!(typo.line().contains("10.0.0.9:1"));
    let mut filtered = Watching::start(&server, &["watch", "product", "--zone", "c"]);
    assert!(filtered.note().contains("that is what you ask for"));
}
