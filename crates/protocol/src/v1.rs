//! Version 1 of the protocol, where its messages are not those of version 2.
//!
//! Its checks expect nothing of an answer, and its status tells less.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    address::Address,
    check::{self, CheckKind},
    error::Invalid,
    instance::{self, Flip, InstanceStatus},
    meta::Meta,
    name::{InstanceId, Namespace, ServiceName},
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

/// What a service says of itself: [`crate::Registration`] with a check of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Registration {
    pub name: ServiceName,
    pub address: Address,
    #[serde(default)]
    pub id: Option<InstanceId>,
    #[serde(default)]
    pub check: Check,
    #[serde(default)]
    pub tags: Vec<Box<str>>,
    #[serde(default)]
    pub meta: Meta,
    #[serde(default)]
    pub zone: Option<Box<str>>,
    #[serde(default)]
    pub version: Option<Box<str>>,
    #[serde(default = "instance::default_weight")]
    pub weight: u32,
}

/// One running copy of a service: [`crate::Instance`] with a check of this version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in the current version")]
pub struct Instance {
    pub id: InstanceId,
    pub name: ServiceName,
    pub namespace: Namespace,
    pub address: Address,
    pub status: InstanceStatus,
    pub reason: Arc<str>,
    pub since: Timestamp,
    pub registered_at: Timestamp,
    pub check: Check,
    pub tags: Box<[Box<str>]>,
    pub meta: Meta,
    pub zone: Option<Box<str>>,
    pub version: Option<Box<str>>,
    pub weight: u32,
    #[serde(default)]
    pub history: Box<[Flip]>,
}

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

// === impl Registration ===

impl TryFrom<instance::Registration> for Registration {
    type Error = Invalid;

    /// Without what its answers must carry, another program at its address would pass for the instance: that is an
    /// error, and not left out.
    fn try_from(registration: instance::Registration) -> Result<Self, Invalid> {
        let instance::Registration { name, address, id, check, tags, meta, zone, version, weight } = registration;
        if check.expect.is_some() {
            let rule = "the server speaks version 1 of the protocol, in which a check expects nothing of an answer; \
                        use a server that speaks version 2 or later, or leave it out";
            return Err(Invalid::new("check.expect", rule));
        }
        Ok(Self { name, address, id, check: (&check).into(), tags, meta, zone, version, weight })
    }
}

impl From<Registration> for instance::Registration {
    fn from(registration: Registration) -> Self {
        let Registration { name, address, id, check, tags, meta, zone, version, weight } = registration;
        Self { name, address, id, check: check.into(), tags, meta, zone, version, weight }
    }
}

// === impl Instance ===

impl From<Arc<instance::Instance>> for Instance {
    fn from(instance: Arc<instance::Instance>) -> Self {
        let instance::Instance {
            id,
            name,
            namespace,
            address,
            status,
            reason,
            since,
            registered_at,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            history,
        } = Arc::unwrap_or_clone(instance);
        let check = (&*check).into();
        Self {
            id,
            name,
            namespace,
            address,
            status,
            reason,
            since,
            registered_at,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            history,
        }
    }
}

impl From<Instance> for Arc<instance::Instance> {
    fn from(instance: Instance) -> Self {
        let Instance {
            id,
            name,
            namespace,
            address,
            status,
            reason,
            since,
            registered_at,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            history,
        } = instance;
        let check = Arc::new(check.into());
        Self::new(instance::Instance {
            id,
            name,
            namespace,
            address,
            status,
            reason,
            since,
            registered_at,
            check,
            tags,
            meta,
            zone,
            version,
            weight,
            history,
        })
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
