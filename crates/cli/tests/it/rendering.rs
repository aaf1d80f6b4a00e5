//! `roundsman render`, when it is told to stop, when its command fails, and when it is given what it should not be given.

use std::{
    fs,
    process::{Command, Stdio},
};

use crate::{
    render::{ADDRESSES, Folder},
    support::{Ended, Served, Watching, eventually},
};

/// Runs until a file named `go` is there, and then leaves one named `done`; `started` has the number of a child of its own.
const SLOW: &str = "sleep 600 & echo $! > DIR/started.new; mv DIR/started.new DIR/started; \
                    while [ ! -e DIR/go ]; do sleep 0.02; done; kill $(cat DIR/started); touch DIR/done";

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args(["-s", name, &pid.to_string()]).status().unwrap().success());
}

/// Whether a process runs: one that nobody has waited for does not.
fn runs(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{}/stat", pid.trim())).is_ok_and(|stat| !stat.contains(") Z "))
}

fn ended(live: &mut Watching) -> Option<i32> {
    eventually("it ends", || live.child.try_wait().unwrap()).code()
}

#[test]
fn told_to_stop_it_lets_the_command_come_to_its_end() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let exec = SLOW.replace("DIR", &folder.text(""));
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let mut live = Watching::start(&server, &["render", &template, &out, "--exec", &exec]);
    eventually("the command runs", || fs::read_to_string(folder.path("started")).ok());
    signal("TERM", live.child.id());
    assert!(live.note().contains("told to stop: waiting for `sleep 600"));
    assert!(live.child.try_wait().unwrap().is_none());
    fs::write(folder.path("go"), "").unwrap();
    assert_eq!(ended(&mut live), Some(0));
    assert!(folder.path("done").exists());
    assert_eq!(folder.names(), ["done", "go", "out", "started", "t.j2"], "nothing is owed");
}

#[test]
fn told_twice_it_kills_the_command_and_the_next_start_makes_up_for_it() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let exec = SLOW.replace("DIR", &folder.text(""));
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    for once in [&["--once"][..], &[]] {
        let mut live = Watching::start(&server, &[&["render", &template, &out, "--exec", &exec], once].concat());
        let child = eventually("the command runs", || fs::read_to_string(folder.path("started")).ok());
        signal("INT", live.child.id());
        assert!(live.note().contains("told to stop"));
        signal("TERM", live.child.id());
        let said = live.note();
        assert!(said.contains("out is written, but `sleep 600") && said.contains("the next start runs it"), "{said}");
        assert_eq!(ended(&mut live), Some(1));
        eventually("whatever it has started is gone, too", || (!runs(&child)).then_some(()));
        fs::remove_file(folder.path("started")).unwrap();
        // The second time the file says what it should from the beginning.
    }
    assert!(folder.path(".out.roundsman-pending").exists());
    let made = format!("touch '{}'", folder.text("made"));
    let says = server.run(&["render", &template, &out, "--once", "--exec", &made]).ok();
    assert_eq!(says, format!("{out} is as it was, and the command that an earlier run owed was run\n"));
    assert_eq!(folder.names(), ["made", "out", "t.j2"]);
}

#[test]
fn a_check_is_killed_at_once_and_the_old_file_stays() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let check = format!("{} # {{}}", SLOW.replace("DIR", &folder.text("")));
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let mut live = Watching::start(&server, &["render", &template, &out, "--check", &check]);
    let child = eventually("the check runs", || fs::read_to_string(folder.path("started")).ok());
    signal("TERM", live.child.id());
    assert_eq!(ended(&mut live), Some(0));
    eventually("whatever it has started is gone, too", || (!runs(&child)).then_some(()));
    assert_eq!(folder.names(), ["started", "t.j2"]);
}

#[test]
fn a_command_that_failed_is_run_again_until_it_succeeds() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let once = |exec: &str| server.run(&["render", &template, &out, "--once", "--exec", exec]);
    assert!(once("false").complaint(1).contains("out is written, but `false` failed"));
    assert!(once("false").complaint(1).contains("out is written, but `false` failed"));
    // Without a command nobody is told, and it stays owed.
    assert!(server.run(&["render", &template, &out, "--once"]).ok().ends_with("is as it was\n"));
    assert!(once("true").ok().ends_with("that an earlier run owed was run\n"));
    assert!(once("false").ok().ends_with("is as it was\n"));
    let json = server.run(&["render", &template, &out, "--once", "-o", "json"]).json();
    assert_eq!((&json["written"], &json["command_run"]), (&false.into(), &false.into()));
    assert!(server.run(&["render", &template, &out, "-o", "json"]).complaint(2).contains("-o is for --once"));
}

#[test]
fn a_template_is_a_file_that_can_be_read_again() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    fs::write(&out, "old").unwrap();
    let fifo = folder.text("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for other in [&*fifo, "/dev/zero", "/dev/stdin"] {
        let mut command = server.command(&["render", other, &out, "--once"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), ADDRESSES.as_bytes()).ok();
        let refused = Ended::from(child.wait_with_output().unwrap()).complaint(2);
        assert!(refused.contains("is no regular file"), "{refused}");
    }
    assert_eq!(folder.out(), "old");
    let same = server.run(&["render", &template, &template, "--once"]).complaint(2);
    assert!(same.contains("the template would be lost"), "{same}");
    std::os::unix::fs::symlink(&template, folder.path("link")).unwrap();
    server.run(&["render", &template, &folder.text("link"), "--once"]).complaint(2);
    assert_eq!(fs::read_to_string(&template).unwrap(), ADDRESSES);
}

#[test]
fn links_are_followed_to_where_the_file_will_be() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with(ADDRESSES);
    let (template, link) = (folder.text("t.j2"), folder.text("link"));
    std::os::unix::fs::symlink("there", &link).unwrap();
    server.run(&["render", &template, &link, "--once"]).ok();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(folder.path("there")).unwrap(), "10.0.0.7:1\n");
    std::os::unix::fs::symlink(folder.path("b"), folder.path("a")).unwrap();
    std::os::unix::fs::symlink(folder.path("a"), folder.path("b")).unwrap();
    assert!(server.run(&["render", &template, &folder.text("a"), "--once"]).complaint(2).contains("leads in a circle"));
    assert!(fs::symlink_metadata(folder.path("a")).unwrap().is_symlink());
}

#[test]
fn a_template_without_end_does_not_keep_it_from_stopping() {
    let server = Served::start();
    let loops = "{% for a in range(100000) %}{% for b in range(100000) %}{{ a * b }}{% endfor %}{% endfor %}";
    let folder = Folder::with(loops);
    let (template, out) = (folder.text("t.j2"), folder.text("out"));
    let mut live = Watching::start(&server, &["render", &template, &out]);
    let tasks = format!("/proc/{}/task", live.child.id());
    eventually("it renders", || {
        let names =
            fs::read_dir(&tasks).ok()?.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.into_iter().any(|name| name.trim() == "render").then_some(())
    });
    signal("TERM", live.child.id());
    assert_eq!(ended(&mut live), Some(0));
    let given_up = server.run(&["render", &template, &out, "--once"]).complaint(1);
    assert!(given_up.contains("steps; do its loops have an end?"), "{given_up}");
    assert_eq!(folder.names(), ["t.j2"]);
}

#[test]
fn a_name_that_nobody_has_is_told() {
    let server = Served::start();
    server.register("product", "10.0.0.7:1");
    let folder = Folder::with("{{ service('prodcut') | length }} {{ service('prodcut') | length }}");
    let said = server.run(&["render", &folder.text("t.j2"), &folder.text("out"), "--once"]);
    assert_eq!((said.code, said.stderr.lines().count()), (0, 1), "{}", said.stderr);
    assert!(said.stderr.contains("nobody has the name `prodcut`, for which the template asks"), "{}", said.stderr);
    assert_eq!(folder.out(), "0 0");
}
