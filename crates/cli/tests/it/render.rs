//! `roundsman render`: a file made from live lists, whole or not at all.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use crate::support::{Ended, Served, Watching, eventually, roundsman};

/// A folder with a template in it.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn with(template: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        fs::write(folder.path("t.j2"), template).unwrap();
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.path("out")).unwrap_or_default()
    }

    /// Names of all files, those that are hidden, too.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    pub(crate) fn becomes(&self, expected: &str) {
        eventually(&format!("{expected:?} is written"), || (self.out() == expected).then_some(()));
    }
}

pub(crate) const ADDRESSES: &str = "{% for i in service('product') %}\n{{ i.address }}\n{% endfor %}\n";

#[test]
fn once_writes_what_is_there_and_runs_the_command_only_when_it_changed() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, out, ran) = (folder.text("t.j2"), folder.text("out"), folder.text("ran"));
    let exec = format!("cat {{}} >> '{ran}'");
    let args = ["render", &template, &out, "--once", "--exec", &exec];
    assert_eq!(server.run(&args).ok(), format!("{out} is written\n"));
    assert_eq!((folder.out().as_str(), fs::read_to_string(&ran).unwrap().as_str()), ("10.0.0.7:1\n", "10.0.0.7:1\n"));
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o077, 0o044, "everybody may read it");
    fs::set_permissions(&out, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(server.run(&args).ok(), format!("{out} is as it was\n"));
    assert_eq!(fs::read_to_string(&ran).unwrap(), "10.0.0.7:1\n", "nothing changed, nothing was run");
    server.register("product", "10.0.0.7:2");
    server.run(&args).ok();
    assert_eq!(fs::read_to_string(&ran).unwrap().lines().count(), 3);
    assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o777, 0o600, "its mode stays");
    assert_eq!(folder.names(), ["out", "ran", "t.j2"], "nothing is left behind");
}

#[test]
fn a_file_that_the_check_refuses_replaces_nothing() {
    let server = Served::start();
    let folder = Folder::with(ADDRESSES);
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    fs::write(&out, "old\n").unwrap();
    // A name that somebody has, and nobody who is handed out.
    let other = server.register("product", "10.0.0.8:1");
    server.run(&["drain", &other]).ok();
    let check = ["--check", "echo no >&2; grep -q 10.0.0.7 {}"];
    let refused = server.run(&[&["render", &template, &out, "--once"][..], &check].concat()).complaint(1);
    assert!(
        refused.contains("out stays as it is: `echo no >&2; grep -q 10.0.0.7 {}` failed") && refused.ends_with(": no"),
        "{refused}"
    );
    assert_eq!((folder.out().as_str(), folder.names()), ("old\n", vec!["out".to_owned(), "t.j2".to_owned()]));

    let mut live = Watching::start(&server, &[&["render", &template, &out][..], &check].concat());
    assert!(live.note().contains("stays as it is"));
    server.register("product", "10.0.0.7:1");
    folder.becomes("10.0.0.7:1\n");
    assert!(live.note().ends_with("out is written"));
    server.run(&["render", &template, &out, "--check", "true"]).complaint(2);
}

#[test]
fn commands_are_given_the_whole_path_from_the_first_time_on_and_what_they_say_is_told() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    fs::create_dir(folder.path("sub")).unwrap();
    let whole = fs::canonicalize(folder.path("sub")).unwrap();
    let render = |command: &[&str]| {
        let mut render = server.command(&["render", "t.j2", "sub/out", "--once"]);
        Ended::from(render.args(command).current_dir(folder.path(".")).output().unwrap())
    };
    let check = "echo bad {}; exit 3";
    let refused = render(&["--check", check]).complaint(1);
    assert!(refused.contains(&format!("{}/out stays as it is: `{check}` failed", whole.display())), "{refused}");
    assert!(refused.contains(&format!(": bad {}/.out.roundsman-", whole.display())), "{refused}");
    // What is on stdout is none of an answer's.
    assert_eq!(render(&["--check", "echo fine; test -f {}"]).ok(), "sub/out is written\n");
}

#[test]
fn the_file_follows_the_lists_and_outlives_the_server() {
    let server = Served::start();
    let folder = Folder::with(
        "{% for name in services() %}\n{{ name }}{% for i in service(name) %} {{ i.port }}{% endfor %}\n\n{% endfor %}\n",
    );
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let first = server.register("product", "10.0.0.7:1");
    let mut live = Watching::start(&server, &["render", &template, &out]);
    folder.becomes("product 1\n");
    server.register("order", "10.0.0.8:2");
    folder.becomes("order 2\nproduct 1\n");
    server.run(&["deregister", &first]).ok();
    folder.becomes("order 2\n");
    // An edited template counts from the next change on, or at once with SIGHUP.
    fs::write(folder.path("t.j2"), "edited {{ services() | length }}\n").unwrap();
    let pid = live.child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-s", "HUP", &pid]).status().unwrap().success());
    folder.becomes("edited 1\n");
    // A server that is gone is no change.
    drop(server);
    assert!(live.child.try_wait().unwrap().is_none());
    assert_eq!(folder.out(), "edited 1\n");
    assert!(std::process::Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    assert_eq!(eventually("it ends", || live.child.try_wait().unwrap()).code(), Some(0));
}

#[test]
fn it_begins_before_its_server_and_one_that_comes_back_empty_empties_nothing() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    drop(held);
    let folder = Folder::with(ADDRESSES);
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let mut live = Watching::begin(roundsman().args(["render", &template, &out, "--server", &address]));
    assert!(live.note().contains("no discovery server could be reached"));
    let server = Served::start_on(&address);
    assert!(live.note().contains("nobody has the name `product`"));
    assert!(live.note().ends_with("out is written"), "an empty list is one, too");
    server.register("product", "10.0.0.7:1");
    folder.becomes("10.0.0.7:1\n");
    assert!(live.note().ends_with("out is written"));
    drop(server);
    let server = Served::start_on(&address);
    server.register("other", "10.0.0.8:1");
    // Something that comes after it has heard from the new server: another instance, and nothing before that.
    server.register("product", "10.0.0.7:2");
    assert!(live.note().ends_with("out is written"));
    let lines = || folder.out().lines().map(str::to_owned).collect::<std::collections::BTreeSet<_>>();
    assert!(lines().iter().eq(["10.0.0.7:1", "10.0.0.7:2"]), "who is missing stays for now: {}", folder.out());
    // What the new server itself says counts at once.
    let third = server.register("product", "10.0.0.7:3");
    eventually("the third is there", || (lines().len() == 3).then_some(()));
    server.run(&["deregister", &third]).ok();
    eventually("and gone, and the first is not", || lines().iter().eq(["10.0.0.7:1", "10.0.0.7:2"]).then_some(()));
    // Whoever is back at an address takes the place of who was there.
    server.register("product", "10.0.0.7:1");
    server.register("product", "10.0.0.7:4");
    eventually("all are there once", || lines().contains("10.0.0.7:4").then_some(()));
    assert_eq!((lines().len(), folder.out().lines().count()), (3, 3), "{}", folder.out());
}

#[test]
fn what_the_reload_missed_is_made_up_for() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, out, gate) = (folder.text("t.j2"), folder.text("out"), folder.text("gate"));
    let exec = format!("cp {{}} '{gate}/seen'");
    let mut live = Watching::start(&server, &["render", &template, &out, "--exec", &exec]);
    assert!(live.note().contains("is written, but `cp {} "));
    fs::create_dir(&gate).unwrap();
    eventually("it is told after all", || fs::read_to_string(folder.path("gate/seen")).ok());
    assert!(live.note().ends_with("out is right again"));
}

#[test]
fn many_changes_become_few_reloads() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, out, ran) = (folder.text("t.j2"), folder.text("out"), folder.text("ran"));
    let exec = format!("echo x >> '{ran}'");
    let _live = Watching::start(&server, &["render", &template, &out, "--exec", &exec, "--debounce", "1h"]);
    folder.becomes("10.0.0.7:1\n");
    let quick = folder.text("quick");
    let _quick = Watching::start(&server, &["render", &template, &quick, "--debounce", "1ms"]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let discovery = roundsman::Discovery::connect(server.rpc.as_str()).await.unwrap();
        for port in 2..300 {
            let instance = roundsman::NewInstance::new("product", format!("10.0.0.7:{port}")).unwrap();
            discovery
                .register_once(&instance.check(roundsman::Check::none()).into_registration().unwrap())
                .await
                .unwrap();
        }
        discovery.close().await;
    });
    eventually("the quick one has all", || {
        (fs::read_to_string(&quick).unwrap_or_default().lines().count() == 299).then_some(())
    });
    assert_eq!(folder.out(), "10.0.0.7:1\n", "the patient one still gathers");
    assert_eq!(fs::read_to_string(&ran).unwrap(), "x\n");
}

#[test]
fn mistakes_are_told_and_touch_nothing() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with("{{ servce('product') }}\n");
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let says = server.run(&["render", &template, &out, "--once"]).complaint(1);
    assert!(says.contains("cannot be rendered: ") && says.contains("t.j2:1"), "{says}");
    assert!(says.contains("`{{ servce('product') }}`"), "the line itself: {says}");
    let missing = server.run(&["render", &folder.text("none"), &out, "--once"]).complaint(1);
    assert!(missing.contains("cannot read the template"), "{missing}");
    fs::write(folder.path("t.j2"), ADDRESSES).unwrap();
    assert!(server.run(&["render", &template, "/dev/null", "--once"]).complaint(2).contains("no regular file"));
    assert!(server.run(&["render", &template, &folder.text("no/out"), "--once"]).complaint(1).contains("cannot write"));
    let away = roundsman().args(["render", &template, &out, "--once", "--server", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(away.status.code(), Some(4));
    assert_eq!(folder.names(), ["t.j2"]);
    // A link stays a link: what it points to is replaced.
    fs::write(folder.path("real"), "old").unwrap();
    std::os::unix::fs::symlink(folder.path("real"), folder.path("out")).unwrap();
    server.run(&["render", &template, &out, "--once"]).ok();
    assert!(fs::symlink_metadata(&out).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(folder.path("real")).unwrap(), "10.0.0.7:1\n");
}
