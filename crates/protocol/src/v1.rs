//! Version 1 of the protocol, where its messages are not those of version 2.
//!
//! Its checks expect nothing of an answer, and its status tells less.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    check::{self, CheckKind},
    error::Invalid,
    status::{self, BrakeStatus, DoorsStatus, LagStatus, MemoryStatus, NamesStatus, NamespaceStatus, RecentFlip},
    time::{self, Timestamp},
    v2,
};

/// What a client asks for.
pub type Request = v2::Request<Registration>;

/// What the server answers.
pub type Response = v2::Response<Instance, Status>;

/// How an instance is visited: [`crate::Check`] without what an answer must carry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Check {
    pub kind: CheckKind,
    pub path: Option<Arc<str>>,
    #[serde(with = "time::duration::option")]
    pub interval: Option<Duration>,
    #[serde(with = "time::duration::option")]
    pub timeout: Option<Duration>,
    #[serde(with = "time::duration::option")]
    pub ttl: Option<Duration>,
}

/// What a service says of itself, with a check of this version.
pub type Registration = v2::Registration<Check>;

/// One running copy of a service, with a check of this version.
pub type Instance = v2::Instance<Check>;

/// The whole server at one moment: [`crate::Status`] without memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Status {
    pub server: String,
    pub version: String,
    pub started_at: Timestamp,
    pub now: Timestamp,
    pub ready: bool,
    pub store: StoreStatus,
    pub rounds: RoundsStatus,
    pub brake: BrakeStatus,
    pub doors: DoorsStatus,
    pub namespaces: Vec<NamespaceStatus>,
    pub recent: Vec<RecentFlip>,
    pub replicas: Vec<String>,
}

/// The store, without damaged and repaired records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct StoreStatus {
    pub kind: String,
    pub location: String,
    pub available: bool,
    pub since: Timestamp,
    pub last_error: Option<String>,
    pub commits: u64,
    pub unwritten: u64,
    pub refills: u64,
}

/// The rounds, without those that wait for their turn, lag and names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct RoundsStatus {
    #[serde(with = "time::duration")]
    pub interval: Duration,
    #[serde(with = "time::duration")]
    pub timeout: Duration,
    pub failures: u32,
    #[serde(with = "time::duration")]
    pub probation: Duration,
    pub targets: u64,
    pub kept: u64,
    pub in_flight: u64,
    pub visits: u64,
    pub failed: u64,
    pub evictions: u64,
    pub reinstatements: u64,
    pub unvisited: u64,
}

// === impl Check ===

impl TryFrom<check::Check> for Check {
    type Error = Invalid;

    /// Without what its answers must carry, another program at its address would pass for the instance: that is an
    /// error, and not left out.
    fn try_from(check: check::Check) -> Result<Self, Invalid> {
        if check.expect.is_some() {
            let rule = "the server speaks version 1 of the protocol, in which a check expects nothing of an answer; \
                        use a server that speaks version 2 or later, or leave it out";
            return Err(Invalid::new("check.expect", rule));
        }
        Ok((&check).into())
    }
}

impl From<&check::Check> for Check {
    fn from(check: &check::Check) -> Self {
        let check::Check { kind, path, interval, timeout, ttl, expect: _ } = check;
        Self { kind: *kind, path: path.clone(), interval: *interval, timeout: *timeout, ttl: *ttl }
    }
}

impl From<Check> for check::Check {
    fn from(check: Check) -> Self {
        let Check { kind, path, interval, timeout, ttl } = check;
        Self { kind, path, interval, timeout, ttl, expect: None }
    }
}

impl v2::Shown for Check {
    fn of(check: &Arc<check::Check>) -> Self {
        (&**check).into()
    }

    fn shown(self) -> Arc<check::Check> {
        Arc::new(self.into())
    }
}

// === impl Status ===

impl From<status::Status> for Status {
    fn from(status: status::Status) -> Self {
        Self {
            server: status.server,
            version: status.version,
            started_at: status.started_at,
            now: status.now,
            ready: status.ready,
            store: status.store.into(),
            rounds: status.rounds.into(),
            brake: status.brake,
            doors: status.doors,
            namespaces: status.namespaces,
            recent: status.recent,
            replicas: status.replicas,
        }
    }
}

impl From<Status> for status::Status {
    /// What the server does not tell is nothing.
    fn from(status: Status) -> Self {
        Self {
            server: status.server,
            version: status.version,
            started_at: status.started_at,
            now: status.now,
            ready: status.ready,
            store: status.store.into(),
            rounds: status.rounds.into(),
            brake: status.brake,
            doors: status.doors,
            memory: MemoryStatus::default(),
            namespaces: status.namespaces,
            recent: status.recent,
            replicas: status.replicas,
        }
    }
}

impl From<status::StoreStatus> for StoreStatus {
    fn from(store: status::StoreStatus) -> Self {
        let status::StoreStatus { kind, location, available, since, last_error, commits, unwritten, refills, .. } =
            store;
        Self { kind, location, available, since, last_error, commits, unwritten, refills }
    }
}

impl From<StoreStatus> for status::StoreStatus {
    fn from(store: StoreStatus) -> Self {
        let StoreStatus { kind, location, available, since, last_error, commits, unwritten, refills } = store;
        let (damaged, repaired) = (0, 0);
        Self { kind, location, available, since, last_error, commits, unwritten, refills, damaged, repaired }
    }
}

impl From<status::RoundsStatus> for RoundsStatus {
    fn from(rounds: status::RoundsStatus) -> Self {
        Self {
            interval: rounds.interval,
            timeout: rounds.timeout,
            failures: rounds.failures,
            probation: rounds.probation,
            targets: rounds.targets,
            kept: rounds.kept,
            in_flight: rounds.in_flight,
            visits: rounds.visits,
            failed: rounds.failed,
            evictions: rounds.evictions,
            reinstatements: rounds.reinstatements,
            unvisited: rounds.unvisited,
        }
    }
}

impl From<RoundsStatus> for status::RoundsStatus {
    fn from(rounds: RoundsStatus) -> Self {
        Self {
            interval: rounds.interval,
            timeout: rounds.timeout,
            failures: rounds.failures,
            probation: rounds.probation,
            targets: rounds.targets,
            kept: rounds.kept,
            in_flight: rounds.in_flight,
            visits: rounds.visits,
            failed: rounds.failed,
            evictions: rounds.evictions,
            reinstatements: rounds.reinstatements,
            unvisited: rounds.unvisited,
            queued: 0,
            lag: LagStatus::default(),
            names: NamesStatus::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Version,
        check::Expect,
        codec::Codec,
        instance::{self, InstanceStatus},
        meta::Meta,
        name::Namespace,
        rpc::{DiscoveryRequest, DiscoveryResponse},
        wire::{Head, read_request},
    };

    fn instance() -> instance::Instance {
        instance::Instance {
            id: "a".parse().unwrap(),
            name: "b".parse().unwrap(),
            namespace: Namespace::default(),
            address: "c:1".parse().unwrap(),
            status: InstanceStatus::Passing,
            reason: "d".into(),
            since: Timestamp::from_millis(1),
            registered_at: Timestamp::from_millis(2),
            check: Arc::new(check::Check { expect: Some(Arc::new(Expect::body("e"))), ..check::Check::http("/f") }),
            tags: Box::default(),
            meta: Meta::default(),
            zone: None,
            version: None,
            weight: 3,
            history: Box::default(),
            forget_after: None,
        }
    }

    /// The fields in this order, each as long as it is here: whoever changes one breaks every client of this version.
    #[test]
    fn the_fields_are_fixed() {
        let shown = Instance::from(Arc::new(instance()));
        let expected =
            b"\x01a\x01b\x07default\x03c:1\x01\x01d\x01\x02\x00\x01\x02/f\x00\x00\x00\x00\x00\x00\x00\x03\x00";
        assert_eq!(postcard::to_allocvec(&shown).unwrap(), expected);
        let back = Arc::<instance::Instance>::from(shown);
        assert_eq!(*back, instance::Instance { check: Arc::new(check::Check::http("/f")), ..instance() });
        let response = Response::from(DiscoveryResponse::Get(Ok(back)));
        assert_eq!(postcard::to_allocvec(&response).unwrap()[..2], [4, 0]);
    }

    #[test]
    fn a_registration_that_expects_something_is_an_error_that_names_the_version() {
        let plain = instance::Registration::new("a".parse().unwrap(), "c:1".parse().unwrap());
        let check = check::Check { expect: Some(Arc::new(Expect::body("e"))), ..check::Check::default() };
        let expecting = instance::Registration { check, ..plain.clone() };
        let refused = Request::of(DiscoveryRequest::Register { registration: expecting }).unwrap_err();
        assert_eq!(refused.field, "check.expect");
        assert!(refused.rule.contains("version 1"), "{refused}");
        let sent = Request::of(DiscoveryRequest::Register { registration: plain.clone() }).unwrap();
        let DiscoveryRequest::Register { registration } = sent.into() else { panic!() };
        assert_eq!(registration, plain);
    }

    /// As the release of version 2 has read it.
    #[test]
    fn in_json_a_client_that_says_1_may_say_what_came_later() {
        let frame = br#"{"Request":{"id":1,"message":{"Register":{"registration":{"name":"a","address":"c:1","check":{"expect":{"body":"e"}}}}}}}"#;
        let Head::Request { body, .. } = Head::read(Codec::Json, frame).unwrap() else { panic!() };
        let DiscoveryRequest::Register { registration } = read_request(Version::V1, &body).unwrap() else { panic!() };
        assert_eq!(registration.check.expect.as_deref(), Some(&Expect::body("e")));
    }
}
