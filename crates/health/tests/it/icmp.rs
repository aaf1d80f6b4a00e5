//! Who refuses a connection: a firewall's ICMP message is silence, an instance's reset is proof.
//!
//! A firewall is set up in a network namespace of its own, in which this test program runs once more.

use std::{
    env,
    net::Ipv6Addr,
    process::{Command, Stdio},
    time::Duration,
};

use roundsman_health::{Class, Settings};
use roundsman_protocol::Check;
use roundsman_registry::Health;

use crate::{
    nameserver::{NameServer, Say},
    support::{Watched, record, settings},
};

/// Tells this program that it runs in a namespace that was made for it.
const INSIDE: &str = "ROUNDSMAN_TEST_INSIDE_A_NAMESPACE";
const REJECTED: u16 = 81;
const CLOSED: u16 = 82;

/// Needs the right to make a network namespace, and iptables.
#[test]
fn a_firewall_that_rejects_is_silence() {
    if env::var_os(INSIDE).is_some() {
        return;
    }
    let namespace = |command: &mut Command| {
        command.stdin(Stdio::null());
        command.output().is_ok_and(|output| output.status.success())
    };
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net"]);
        command
    };
    let firewall = ["iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", "1", "-j", "REJECT"];
    if !namespace(unshare().args(firewall)) {
        println!("no right to make a network namespace, or no iptables in it: this test did nothing");
        return;
    }
    let inside = unshare()
        .arg(env::current_exe().unwrap())
        .args(["--exact", "icmp::inside_the_namespace", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout) + String::from_utf8_lossy(&inside.stderr);
    assert!(inside.status.success() && said.contains("all kinds of refusal were told apart"), "{said}");
}

fn run(line: &str) -> bool {
    let mut words = line.split(' ');
    Command::new(words.next().unwrap()).args(words).status().is_ok_and(|status| status.success())
}

/// Does nothing unless it was started by the test above.
#[tokio::test]
async fn inside_the_namespace() {
    if env::var_os(INSIDE).is_none() {
        return;
    }
    assert!(run("ip link set lo up"));
    assert!(run(&format!("iptables -w -A INPUT -p tcp --dport {REJECTED} -j REJECT")));
    assert!(run("ip route add unreachable 10.1.0.0/16") && run("ip route add prohibit 10.2.0.0/16"));
    let rejected = ": ICMP port unreachable from 127.0.0.1: a firewall or router refused it, not the instance";
    let names = NameServer::start().await;
    names.say("product", Say::Address([127, 0, 0, 1].into(), 60));
    for check in [Check::default(), Check::tcp(), Check::https("/health")] {
        for host in ["127.0.0.1", "product"] {
            let found = verdict(&names, &format!("{host}:{REJECTED}"), &check).await;
            assert!(found.0 == Class::Silence && found.1.ends_with(rejected), "{found:?}");
            let found = verdict(&names, &format!("{host}:{CLOSED}"), &check).await;
            assert!(found.0 == Class::Refused && found.1.ends_with(": connection refused"), "{found:?}");
        }
        for nowhere in ["10.1.0.1:80", "10.2.0.1:80", "10.3.0.1:80"] {
            let found = verdict(&names, nowhere, &check).await;
            assert_eq!(found.0, Class::Silence, "{found:?}");
        }
    }
    if run(&format!("ip6tables -w -A INPUT -p tcp --dport {REJECTED} -j REJECT")) {
        let found = verdict(&names, &format!("[{}]:{REJECTED}", Ipv6Addr::LOCALHOST), &Check::tcp()).await;
        assert!(found.0 == Class::Silence && found.1.contains("ICMP port unreachable from ::1: "), "{found:?}");
        let found = verdict(&names, &format!("[{}]:{CLOSED}", Ipv6Addr::LOCALHOST), &Check::tcp()).await;
        assert_eq!(found.0, Class::Refused, "{found:?}");
    }
    // Packets that our own host must not send, and a firewall that resets like the instance itself.
    assert!(run(&format!("iptables -w -A OUTPUT -p tcp --dport {CLOSED} -j DROP")));
    let found = verdict(&names, &format!("127.0.0.1:{CLOSED}"), &Check::tcp()).await;
    assert_eq!(found.0, Class::Silence, "{found:?}");
    println!("all kinds of refusal were told apart");
}

async fn verdict(names: &NameServer, address: &str, check: &Check) -> (Class, String) {
    let timeout = Duration::from_secs(3);
    let name_servers = Some(vec![names.addr]);
    let mut watched = Watched::start(Settings { failures: 1, timeout, name_servers, ..settings() });
    watched.rounds.track(&record("product-1", address, check.clone(), Health::Suspect));
    let (_, class, reason) = watched.flip().await;
    watched.stop().await;
    (class, reason)
}
