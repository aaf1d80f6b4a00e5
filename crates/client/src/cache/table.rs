//! What the cache knows: a pure function of the servers' answers, without IO.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{Cursor, Instance, InstanceId, Query, ServiceName, Update};
use tokio::time::Instant;

use crate::snapshot::{Snapshot, Stale};

/// The instances of all services that somebody resolves.
///
/// Wherever services are listed, the empty list means all of the namespace, as in a [`Query`].
#[derive(Debug)]
pub(crate) struct Table {
    services: BTreeMap<ServiceName, Service>,
    /// Whether `services` is the whole namespace.
    complete: bool,
    /// Whether that is so by a server's word.
    synced: bool,
    cursor: Option<Cursor>,
    /// Of the server that answered last; outlives the cursor.
    epoch: Option<u64>,
    /// Since when there is no connection on which changes would come.
    stale: Option<Stale>,
    grace: Duration,
}

#[derive(Debug, Default)]
struct Service {
    instances: BTreeMap<InstanceId, Arc<Instance>>,
    /// Since when this very list is doubted: it comes from a file, or the server does not know it.
    stale: Option<Stale>,
    /// The server that is new to us knows none of them; they stay until this moment.
    held_until: Option<Instant>,
    /// Whether a server told it, so that changes can be applied to it.
    synced: bool,
}

/// Which services are concerned by a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Touched {
    /// All of them.
    All,
    /// These.
    Some(BTreeSet<ServiceName>),
}

// === impl Table ===

impl Table {
    pub(crate) fn new(grace: Duration, now: Instant) -> Self {
        Self {
            services: BTreeMap::new(),
            complete: false,
            synced: false,
            cursor: None,
            epoch: None,
            stale: Some(Stale::since(now)),
            grace,
        }
    }

    /// Where the watch goes on from.
    pub(crate) fn cursor(&self) -> Option<Cursor> {
        self.cursor
    }

    /// The connection is gone: from now on everything may be out of date.
    pub(crate) fn lost(&mut self, now: Instant) {
        self.stale.get_or_insert(Stale::since(now));
    }

    /// What of `wanted` no server has told yet; `None` when it is complete.
    pub(crate) fn missing(&self, wanted: &[ServiceName]) -> Option<Vec<ServiceName>> {
        if wanted.is_empty() {
            return (!self.synced).then(Vec::new);
        }
        let synced = |name: &ServiceName| self.synced || self.services.get(name).is_some_and(|service| service.synced);
        let missing: Vec<_> = wanted.iter().filter(|name| !synced(name)).cloned().collect();
        (!missing.is_empty()).then_some(missing)
    }

    /// The services to which changes can be applied.
    pub(crate) fn followed(&self) -> Vec<ServiceName> {
        self.services.iter().filter(|(_, service)| service.synced).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets everything but who answered last: nobody wants anything.
    pub(crate) fn clear(&mut self, now: Instant) {
        *self = Self { epoch: self.epoch, ..Self::new(self.grace, now) };
    }

    /// Forgets what nobody wants any more.
    pub(crate) fn retain(&mut self, wanted: &[ServiceName]) {
        if wanted.is_empty() {
            return;
        }
        if self.complete {
            // Whoever is not there has no instances, as far as the whole namespace is known.
            for name in wanted {
                let absent = || Service { synced: self.synced, ..Service::default() };
                self.services.entry(name.clone()).or_insert_with(absent);
            }
        }
        self.services.retain(|name, _| wanted.binary_search(name).is_ok());
        (self.complete, self.synced) = (false, false);
    }

    /// The answer to the watch of everything that is wanted.
    pub(crate) fn apply(&mut self, asked: &[ServiceName], update: Update, now: Instant) -> Touched {
        let new_server = self.epoch != Some(update.cursor.epoch);
        self.cursor = Some(update.cursor);
        self.epoch = Some(update.cursor.epoch);
        let touched =
            if update.snapshot { self.replace(asked, update.instances, new_server, now) } else { self.change(update) };
        // Only now: what is held from here on has been stale since the connection was lost.
        if self.stale.take().is_some() { Touched::All } else { Touched::Some(touched) }
    }

    /// The answer about services that join those that are watched.
    ///
    /// A server tells what differs between the cursor and now, not what happened in between. So one watch can go on
    /// for both only if they stand at the same moment; otherwise it begins anew with a snapshot of all.
    pub(crate) fn add(&mut self, asked: &[ServiceName], update: Update, now: Instant) -> Touched {
        if self.cursor != Some(update.cursor) {
            self.cursor = None;
        }
        Touched::Some(self.replace(asked, update.instances, false, now))
    }

    /// Lets the watch begin anew, with a snapshot.
    pub(crate) fn begin_anew(&mut self) {
        self.cursor = None;
    }

    /// When to begin anew, because the grace of an empty answer is over and the server is to be asked again.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.cursor?;
        self.services.values().filter_map(|service| service.held_until).min()
    }

    /// Takes over a list that was saved earlier, where no server has told one. Whether it was of use.
    pub(crate) fn restore(&mut self, name: &ServiceName, instances: &[Arc<Instance>], stale: Stale) -> bool {
        if instances.is_empty() || self.services.contains_key(name) {
            return false;
        }
        let instances = instances.iter().map(|instance| (instance.id.clone(), Arc::clone(instance))).collect();
        let service = Service { instances, stale: Some(stale), held_until: None, synced: false };
        self.services.insert(name.clone(), service);
        true
    }

    /// What was restored is all there is, until a server says otherwise.
    pub(crate) fn assume_complete(&mut self) {
        self.complete = true;
    }

    /// What a query matches, or `None` while that is not known.
    pub(crate) fn view(&self, query: &Query) -> Option<Snapshot> {
        let nothing = Service::default();
        let mut services = Vec::new();
        if query.services.is_empty() {
            if !self.complete {
                return None;
            }
            services.extend(self.services.values());
        }
        for name in &query.services {
            let absent = self.complete.then_some(&nothing);
            services.push(self.services.get(name).or(absent)?);
        }
        let doubts = services.iter().filter_map(|service| service.stale);
        let stale = doubts.chain(self.stale).reduce(Stale::older);
        let instances = services.iter().flat_map(|service| service.instances.values());
        Some(Snapshot::known(instances.filter(|instance| query.matches(instance)).cloned().collect(), stale))
    }

    /// The lists that are certain, for the snapshot file.
    pub(crate) fn certain(&self) -> impl Iterator<Item = (&ServiceName, impl Iterator<Item = &Arc<Instance>>)> {
        let certain = self.services.iter().filter(|(_, service)| service.stale.is_none());
        certain.map(|(name, service)| (name, service.instances.values()))
    }

    fn replace(
        &mut self,
        asked: &[ServiceName],
        instances: Vec<Arc<Instance>>,
        new_server: bool,
        now: Instant,
    ) -> BTreeSet<ServiceName> {
        let mut told: BTreeMap<ServiceName, BTreeMap<InstanceId, Arc<Instance>>> = BTreeMap::new();
        for instance in instances {
            told.entry(instance.name.clone()).or_default().insert(instance.id.clone(), instance);
        }
        let mut touched: BTreeSet<_> = told.keys().cloned().collect();
        if asked.is_empty() {
            (self.complete, self.synced) = (true, true);
            touched.extend(self.services.keys().cloned());
        }
        touched.extend(asked.iter().cloned());
        for name in &touched {
            let service = self.services.entry(name.clone()).or_default();
            let doubtful = new_server || !service.synced;
            service.synced = true;
            match told.remove(name) {
                Some(instances) => service.replace(instances),
                None if service.held_until.is_some_and(|until| until > now) && !new_server => {}
                None if doubtful && !service.instances.is_empty() => {
                    // A server that has lost its memory knows nobody until everybody has registered again.
                    service.stale.get_or_insert(self.stale.unwrap_or(Stale::since(now)));
                    service.held_until = Some(now + self.grace);
                }
                None => service.replace(BTreeMap::new()),
            }
        }
        touched
    }

    fn change(&mut self, update: Update) -> BTreeSet<ServiceName> {
        let mut touched = BTreeSet::new();
        for removed in update.removed {
            if let Some(service) = self.services.get_mut(&removed.name)
                && service.instances.remove(&removed.id).is_some()
            {
                if service.instances.is_empty() {
                    service.replace(BTreeMap::new());
                }
                touched.insert(removed.name);
            }
        }
        for instance in update.instances {
            let service = self.services.entry(instance.name.clone()).or_default();
            if service.held_until.is_some() {
                // They are coming back: from here on the server knows better.
                service.replace(BTreeMap::new());
            }
            service.synced = true;
            touched.insert(instance.name.clone());
            // An id is unique: one that registered under another name has left the old one.
            for (name, other) in self.services.iter_mut().filter(|(name, _)| **name != instance.name) {
                if other.instances.remove(&instance.id).is_some() {
                    touched.insert(name.clone());
                }
            }
            let service = self.services.entry(instance.name.clone()).or_default();
            service.instances.insert(instance.id.clone(), instance);
        }
        touched
    }
}

// === impl Service ===

impl Service {
    fn replace(&mut self, mut instances: BTreeMap<InstanceId, Arc<Instance>>) {
        // What is the same stays the same allocation, so that nobody is told of a change that is none.
        for (id, instance) in &mut instances {
            if let Some(old) = self.instances.get(id).filter(|old| *old == instance) {
                *instance = Arc::clone(old);
            }
        }
        self.instances = instances;
        (self.stale, self.held_until) = (None, None);
    }
}

// === impl Touched ===

impl Touched {
    /// Whether the answer to a query may be another one now.
    pub(crate) fn concerns(&self, query: &Query) -> bool {
        match self {
            Self::All => true,
            Self::Some(names) if query.services.is_empty() => !names.is_empty(),
            Self::Some(names) => query.services.iter().any(|name| names.contains(name)),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use roundsman_protocol::{InstanceStatus, Removed};

    const GRACE: Duration = Duration::from_secs(30);

    pub(crate) fn instance(service: &str, id: &str) -> Instance {
        let json = serde_json::json!({
            "id": id, "name": service, "namespace": "default", "address": "10.0.0.7:7070", "status": "passing", "reason": "",
            "since": "2026-11-21T01:50:00Z", "registered_at": "2026-11-21T01:50:00Z", "check": {}, "tags": [], "meta": {},
            "zone": null, "version": null, "weight": 1,
        });
        serde_json::from_value(json).unwrap()
    }

    fn name(service: &str) -> ServiceName {
        service.parse().unwrap()
    }

    fn cursor(epoch: u64, revision: u64) -> Cursor {
        Cursor { epoch, revision }
    }

    fn snapshot(cursor: Cursor, instances: &[(&str, &str)]) -> Update {
        Update { snapshot: true, ..changed(cursor, instances) }
    }

    fn changed(cursor: Cursor, instances: &[(&str, &str)]) -> Update {
        let instances = instances.iter().map(|(service, id)| Arc::new(instance(service, id))).collect();
        Update { instances, ..Update::unchanged(cursor) }
    }

    fn removed(cursor: Cursor, service: &str, id: &str) -> Update {
        let (id, name, status) = (id.parse().unwrap(), name(service), Some(InstanceStatus::Evicted));
        Update { removed: vec![Removed { id, name, status, reason: "".into() }], ..Update::unchanged(cursor) }
    }

    /// A table that follows `product`, of whose two instances the server of epoch 1 has told.
    fn table() -> Table {
        let mut table = Table::new(GRACE, Instant::now());
        table.apply(&[name("product")], snapshot(cursor(1, 5), &[("product", "a"), ("product", "b")]), Instant::now());
        table
    }

    fn ids(table: &Table, query: &Query) -> Option<Vec<String>> {
        table.view(query).map(|view| view.instances().iter().map(|instance| instance.id.to_string()).collect())
    }

    fn product(table: &Table) -> (Vec<String>, bool) {
        let query = Query::service(name("product"));
        (ids(table, &query).unwrap(), table.view(&query).unwrap().stale().is_some())
    }

    fn fresh(ids: &[&str]) -> (Vec<String>, bool) {
        (ids.iter().map(ToString::to_string).collect(), false)
    }

    fn stale(ids: &[&str]) -> (Vec<String>, bool) {
        (fresh(ids).0, true)
    }

    #[tokio::test(start_paused = true)]
    async fn follows_changes() {
        let mut table = table();
        assert_eq!(ids(&table, &Query::service(name("order"))), None, "nobody asked for it");
        let asked = [name("product")];
        let touched = table.apply(&asked, changed(cursor(1, 6), &[("product", "c")]), Instant::now());
        assert_eq!(touched, Touched::Some(asked.clone().into()));
        table.apply(&asked, removed(cursor(1, 7), "product", "a"), Instant::now());
        assert_eq!(product(&table), fresh(&["b", "c"]));
        assert_eq!(table.cursor(), Some(cursor(1, 7)));
        // The last one goes: of the same server, so that it is believed.
        table.apply(&asked, snapshot(cursor(1, 8), &[]), Instant::now());
        assert_eq!(product(&table), fresh(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_the_same_is_not_shown_as_a_change() {
        let mut table = table();
        let query = Query::service(name("product"));
        let before = table.view(&query).unwrap();
        table.apply(&query.services, snapshot(cursor(1, 9), &[("product", "a"), ("product", "b")]), Instant::now());
        assert!(table.view(&query).unwrap().is_same(&before));
        table.lost(Instant::now());
        assert!(!table.view(&query).unwrap().is_same(&before), "stale is another thing");
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_answer_of_a_new_server_is_not_believed_until_it_is_asked_again() {
        let mut table = table();
        let asked = [name("product")];
        table.lost(Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(table.apply(&asked, snapshot(cursor(2, 0), &[]), Instant::now()), Touched::All);
        assert_eq!(product(&table), stale(&["a", "b"]));
        assert_eq!(table.view(&Query::service(name("product"))).unwrap().stale(), Some(Duration::from_secs(2)));
        let due = table.next_due().unwrap();
        assert_eq!(due, Instant::now() + GRACE);
        // The same answer for another reason before that changes nothing.
        table.apply(&asked, snapshot(cursor(2, 1), &[]), Instant::now());
        assert_eq!((product(&table), table.next_due()), (stale(&["a", "b"]), Some(due)));
        tokio::time::advance(GRACE).await;
        table.begin_anew();
        assert_eq!((table.next_due(), table.cursor()), (None, None), "asked once, not in a loop");
        table.apply(&asked, snapshot(cursor(2, 1), &[]), Instant::now());
        assert_eq!((product(&table), table.next_due()), (fresh(&[]), None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_third_server_that_is_empty_too_gets_its_own_grace() {
        let mut table = table();
        let asked = [name("product")];
        table.apply(&asked, snapshot(cursor(2, 0), &[]), Instant::now());
        tokio::time::advance(GRACE).await;
        table.begin_anew();
        table.apply(&asked, snapshot(cursor(3, 0), &[]), Instant::now());
        assert_eq!(product(&table), stale(&["a", "b"]));
        assert_eq!(table.next_due(), Some(Instant::now() + GRACE));
    }

    #[tokio::test(start_paused = true)]
    async fn instances_that_come_back_end_the_grace() {
        let mut table = table();
        let asked = [name("product")];
        table.apply(&asked, snapshot(cursor(2, 0), &[]), Instant::now());
        table.apply(&asked, changed(cursor(2, 1), &[("product", "b")]), Instant::now());
        assert_eq!((product(&table), table.next_due()), (fresh(&["b"]), None));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_left_for_certain_leaves_a_held_list_too() {
        let mut table = table();
        let asked = [name("product")];
        table.apply(&asked, snapshot(cursor(2, 0), &[]), Instant::now());
        table.apply(&asked, removed(cursor(2, 1), "product", "a"), Instant::now());
        assert_eq!(product(&table), stale(&["b"]));
        table.apply(&asked, removed(cursor(2, 2), "product", "b"), Instant::now());
        assert_eq!((product(&table), table.next_due()), (fresh(&[]), None));
    }

    #[tokio::test(start_paused = true)]
    async fn services_join_the_watch_only_at_the_same_moment() {
        let wanted = [name("order"), name("product")];
        for (revision, goes_on) in [(5, true), (6, false)] {
            let mut table = table();
            let missing = table.missing(&wanted).unwrap();
            assert_eq!((&missing, table.followed()), (&vec![name("order")], vec![name("product")]));
            table.add(&missing, snapshot(cursor(1, revision), &[("order", "o")]), Instant::now());
            assert_eq!(ids(&table, &Query::service(name("order"))).unwrap(), ["o"]);
            assert_eq!(table.missing(&wanted), None);
            assert_eq!(table.cursor().is_some(), goes_on);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_whole_namespace_is_a_question_too() {
        let mut table = table();
        assert_eq!((ids(&table, &Query::default()), table.missing(&[])), (None, Some(Vec::new())));
        table.add(&[], snapshot(cursor(1, 5), &[("order", "o"), ("product", "a")]), Instant::now());
        assert_eq!(ids(&table, &Query::default()).unwrap(), ["o", "a"], "sorted by service, then id");
        assert_eq!(ids(&table, &Query::service(name("nobody"))).unwrap(), [""; 0]);
        // An id that moves to another service leaves the first.
        let touched = table.apply(&[], changed(cursor(1, 6), &[("order", "a")]), Instant::now());
        assert_eq!(touched, Touched::Some([name("order"), name("product")].into()));
        assert_eq!(
            (ids(&table, &Query::default()).unwrap(), product(&table)),
            (vec!["a".into(), "o".into()], fresh(&[]))
        );
        // Back to less: what is left is what was known.
        table.retain(&[name("nobody"), name("order")]);
        assert_eq!(table.missing(&[name("nobody"), name("order")]), None);
        assert_eq!(ids(&table, &Query::service(name("product"))), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_serves_until_a_server_answers() {
        let mut table = Table::new(GRACE, Instant::now());
        let old = Stale::aged(Instant::now(), Duration::from_secs(3_600));
        assert!(!table.restore(&name("product"), &[], old), "an empty list is of no use");
        assert!(table.restore(&name("product"), &[Arc::new(instance("product", "a"))], old));
        assert_eq!(product(&table), stale(&["a"]));
        assert_eq!(table.missing(&[name("product")]), Some(vec![name("product")]), "changes cannot be applied to it");
        assert_eq!(table.certain().count(), 0);
        // An empty server does not replace it, one that knows better does.
        table.apply(&[name("product")], snapshot(cursor(1, 0), &[]), Instant::now());
        assert_eq!(product(&table), stale(&["a"]));
        table.apply(&[name("product")], snapshot(cursor(1, 1), &[("product", "z")]), Instant::now());
        assert_eq!(product(&table), fresh(&["z"]));
        assert!(!table.restore(&name("product"), &[Arc::new(instance("product", "a"))], old));
    }

    #[tokio::test(start_paused = true)]
    async fn filters_apply_to_what_is_known() {
        let mut table = table();
        let near = Instance { zone: Some("near".into()), ..instance("product", "n") };
        let update = Update { instances: vec![Arc::new(near)], ..Update::unchanged(cursor(1, 6)) };
        table.apply(&[name("product")], update, Instant::now());
        let query = Query { zone: Some("near".into()), ..Query::service(name("product")) };
        assert_eq!(ids(&table, &query).unwrap(), ["n"]);
    }
}
