//! What is asked for and what is observed have different owners: on servers that share a store, whatever the order in which
//! their writes arrive there, nobody overwrites what is not theirs, and nothing that was removed comes back.

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;
use roundsman_protocol::{Namespace, Registration, Timestamp};
use roundsman_registry::{Change, Edit, Health, Key, Known, Limits, Record, Registry, Ruling};

const SERVERS: usize = 2;

#[derive(Clone, Debug)]
enum Step {
    /// Asks a server for something, and has it written later.
    Ask { server: usize, wish: Wish },
    /// A server's rounds see something, which is written later.
    See { server: usize, health: Health },
    /// The first of a server's writes that are on their way arrives.
    Arrive { server: usize },
    /// A server hears how things stand in the store.
    Hear { server: usize },
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Register { port: u16, tagged: bool },
    Drain(bool),
    Deregister,
}

/// The store as the rules describe it, and what it acknowledged last.
#[derive(Default)]
struct Shared {
    record: Option<Arc<Record>>,
    gone: u64,
    acknowledged: u64,
}

struct Server {
    registry: Registry,
    on_their_way: Vec<(Vec<Edit>, Change)>,
    removed: u64,
}

fn key() -> Key {
    Key { namespace: Namespace::default(), id: "a".parse().unwrap() }
}

fn steps() -> impl Strategy<Value = Step> {
    let server = 0..SERVERS;
    let wish = prop_oneof![
        (1_u16..3, any::<bool>()).prop_map(|(port, tagged)| Wish::Register { port, tagged }),
        any::<bool>().prop_map(Wish::Drain),
        Just(Wish::Deregister),
    ];
    let health = prop_oneof![Just(Health::Passing), Just(Health::Suspect), Just(Health::Evicted)];
    prop_oneof![
        3 => (server.clone(), wish).prop_map(|(server, wish)| Step::Ask { server, wish }),
        2 => (server.clone(), health).prop_map(|(server, health)| Step::See { server, health }),
        4 => server.clone().prop_map(|server| Step::Arrive { server }),
        2 => server.prop_map(|server| Step::Hear { server }),
    ]
}

impl Server {
    fn new() -> Self {
        Self { registry: Registry::new(1), on_their_way: Vec::new(), removed: 0 }
    }

    fn ask(&mut self, wish: Wish, now: Timestamp) {
        let mut draft = self.registry.draft(Limits::default());
        // What is refused is refused: there is nothing to be drained or deregistered.
        let planned = match wish {
            Wish::Register { port, tagged } => {
                let mut registration =
                    Registration::new("s".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap());
                registration.id = Some(key().id);
                registration.tags = if tagged { vec!["t".into()] } else { Vec::new() };
                draft.register(&key().namespace, Arc::new(registration), now).map(drop)
            }
            Wish::Drain(on) => draft.drain(key(), on, now),
            Wish::Deregister => draft.deregister(key(), now),
        };
        let (edits, mut changes) = draft.finish(now);
        // One at a time, as the one writer of a server does it.
        if let (Ok(()), Some(change), true) = (planned, changes.pop(), self.on_their_way.is_empty()) {
            self.on_their_way.push((edits, change));
        }
    }

    fn see(&mut self, health: Health, now: Timestamp) {
        let Some(record) = self.registry.find(&key()) else { return };
        let (incarnation, reason) = (record.asked.incarnation, format!("{health:?}").into());
        self.registry.apply(&[Edit::Observe { key: key(), incarnation, health, reason, by: "here".into(), at: now }]);
        let seen = self.registry.find(&key()).unwrap();
        self.on_their_way.push((Vec::new(), Change::Observed(seen)));
    }

    fn hear(&mut self, shared: &Shared) {
        self.removed = self.removed.max(shared.gone);
        let seen_later = self.on_their_way.iter().any(|(_, change)| matches!(change, Change::Observed(_)));
        let edit = match &shared.record {
            Some(record) => Edit::Adopt { record: Arc::clone(record), seen_later },
            None => Edit::Bury(roundsman_registry::Tombstone { key: key(), version: shared.gone }),
        };
        self.registry.apply(&[edit]);
    }
}

impl Shared {
    fn take(&mut self, server: &mut Server) -> Result<(), TestCaseError> {
        if server.on_their_way.is_empty() {
            return Ok(());
        }
        let (edits, change) = server.on_their_way.remove(0);
        let before = self.record.clone();
        let same = || before.as_ref().is_some_and(|before| before.asks_the_same(change.record()));
        match change.ruling(before.as_deref().map(Known::from), self.gone, same) {
            Ruling::Put(part) => {
                let record = part.merged(change.record(), before.as_ref());
                prop_assert!(record.asked.version > self.gone, "what was removed is back");
                match &change {
                    Change::Asked { record: asked, .. } => {
                        prop_assert!(asked.asked.version >= self.acknowledged, "an earlier request undid a later one");
                        if let Some(before) = before.filter(|before| before.is_same_life(asked)) {
                            prop_assert_eq!(&record.observed, &before.observed);
                        }
                    }
                    _ => prop_assert_eq!(before.map(|before| before.asked), Some(record.asked)),
                }
                self.acknowledged = self.acknowledged.max(record.asked.version);
                self.record = Some(record);
            }
            Ruling::Bury(version) => {
                prop_assert!(version >= self.acknowledged, "a removal undid a later request");
                (self.record, self.gone, self.acknowledged) = (None, version, version);
            }
            Ruling::Leave => prop_assert!(!change.is_asked()),
            Ruling::Conflict => {
                prop_assert!(change.is_asked());
                server.hear(self);
                return Ok(());
            }
        }
        server.registry.apply(&edits);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nobody_overwrites_what_is_not_theirs(steps in proptest::collection::vec(steps(), 1..60)) {
        let (mut shared, mut servers) = (Shared::default(), BTreeMap::new());
        for (n, step) in steps.iter().enumerate() {
            // Clocks stand still and go back now and then; versions do not.
            let now = Timestamp::from_millis(u64::try_from(n / 3 * 5 % 17).unwrap());
            let server = match step {
                Step::Ask { server, .. } | Step::See { server, .. } | Step::Arrive { server } | Step::Hear { server } => server,
            };
            let server = servers.entry(*server).or_insert_with(Server::new);
            match step {
                Step::Ask { wish, .. } => server.ask(*wish, now),
                Step::See { health, .. } => server.see(*health, now),
                Step::Arrive { .. } => shared.take(server)?,
                Step::Hear { .. } => server.hear(&shared),
            }
        }
        for server in servers.values_mut() {
            while !server.on_their_way.is_empty() {
                shared.take(server)?;
            }
        }
        let mut seen = Vec::new();
        for server in servers.values_mut() {
            server.hear(&shared);
            seen.push(server.registry.find(&key()));
        }
        for record in seen {
            let here = record.as_ref().map(|record| (record.asked, record.instance.tags.clone(), record.observed.health));
            let there = shared.record.as_ref().map(|record| (record.asked, record.instance.tags.clone(), record.observed.health));
            prop_assert_eq!(here, there);
        }
    }
}
