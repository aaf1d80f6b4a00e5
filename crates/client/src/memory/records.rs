//! Who is registered: a pure state that tells what changed after a moment.

mod looking;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use roundsman_protocol::{
    Cursor, DiscoveryError, Instance, InstanceId, InstanceStatus, Namespace, Query, Registered, Registration, Removed,
    ServiceName, ServiceSummary, Timestamp, Trouble, instance::Outcome,
};

pub(crate) use self::looking::Look;
use self::looking::choose;

/// So many removals are remembered. Who asks for what was before is told everything.
const MOST_GONE: usize = 1_000;
/// So many reports are kept; later ones push out earlier ones.
const MOST_REPORTS: usize = 1_000;
/// How instances are said to be visited that say nothing of it themselves. Nobody visits them.
const VISITS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(1));

/// All that is known.
#[derive(Debug)]
pub(crate) struct Records {
    namespace: Namespace,
    cursor: Cursor,
    instances: BTreeMap<InstanceId, Entry>,
    /// Who left, with the revision in which that happened.
    gone: VecDeque<(u64, Removed)>,
    /// Removals up to this revision are no longer remembered.
    forgotten: u64,
    /// Whose turn it is, of each service.
    turns: HashMap<ServiceName, u64>,
    reports: VecDeque<(InstanceId, Trouble)>,
}

#[derive(Debug)]
struct Entry {
    instance: Arc<Instance>,
    /// The revision in which it became what it is.
    changed: u64,
}

// === impl Records ===

impl Records {
    pub(crate) fn new(namespace: Namespace, epoch: u64) -> Self {
        Self {
            namespace,
            cursor: Cursor { epoch, revision: 0 },
            instances: BTreeMap::new(),
            gone: VecDeque::new(),
            forgotten: 0,
            turns: HashMap::new(),
            reports: VecDeque::new(),
        }
    }

    pub(crate) fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(crate) fn revision(&self) -> u64 {
        self.cursor.revision
    }

    /// Registers, or changes what an instance says of itself. Whoever was at the same address before is gone.
    pub(crate) fn register(&mut self, said: Registration, now: Timestamp) -> Result<Registered, DiscoveryError> {
        said.validate().map_err(DiscoveryError::Invalid)?;
        let check = said.check.or_defaults(VISITS.0, VISITS.1).map_err(DiscoveryError::Invalid)?;
        let id = said.id.unwrap_or_else(|| InstanceId::random(&said.name));
        let before = self.instances.get(&id).map(|entry| Arc::clone(&entry.instance));
        let draining = before.as_ref().is_some_and(|before| before.status == InstanceStatus::Draining);
        let status = if draining { InstanceStatus::Draining } else { InstanceStatus::Passing };
        let kept = before.as_ref().filter(|before| before.status == status);
        let instance = Instance {
            id: id.clone(),
            name: said.name,
            namespace: self.namespace.clone(),
            address: said.address,
            status,
            reason: kept.map_or_else(|| Arc::from("registered"), |kept| Arc::clone(&kept.reason)),
            since: kept.map_or(now, |kept| kept.since),
            registered_at: before.as_ref().map_or(now, |before| before.registered_at),
            check: Arc::new(check),
            tags: said.tags.into(),
            meta: said.meta,
            zone: said.zone,
            version: said.version,
            weight: said.weight,
            forget_after: said.forget_after,
            history: Box::default(),
        };
        let outcome = match &before {
            Some(before) if **before == instance => {
                return Ok(Registered { id, outcome: Outcome::Unchanged, replaced: Vec::new() });
            }
            Some(_) => Outcome::Updated,
            None => Outcome::Created,
        };
        let same_place = |other: &&Instance| {
            other.id != instance.id && other.name == instance.name && other.address == instance.address
        };
        let replaced =
            self.instances.values().map(|entry| &*entry.instance).find(same_place).map(|other| other.id.clone());
        if let Some(replaced) = &replaced {
            if said.again {
                // It says once more what it said before, and another one has its place by now.
                return Err(DiscoveryError::Replaced { id, by: replaced.clone() });
            }
            self.remove(replaced, &format!("replaced by {id}"))?;
        }
        if let Some(before) = before.filter(|before| before.name != instance.name) {
            self.remove(&before.id, "registered under another name")?;
        }
        self.put(instance);
        Ok(Registered { id, outcome, replaced: replaced.into_iter().collect() })
    }

    /// Takes an instance out.
    pub(crate) fn remove(&mut self, id: &InstanceId, reason: &str) -> Result<(), DiscoveryError> {
        let Some(Entry { instance, .. }) = self.instances.remove(id) else { return Err(unknown(id)) };
        self.cursor.revision += 1;
        if self.gone.len() == MOST_GONE
            && let Some((revision, _)) = self.gone.pop_front()
        {
            self.forgotten = revision;
        }
        let removed = Removed { id: id.clone(), name: instance.name.clone(), status: None, reason: reason.into() };
        self.gone.push_back((self.cursor.revision, removed));
        Ok(())
    }

    /// Stops or resumes handing an instance out.
    pub(crate) fn drain(&mut self, id: &InstanceId, on: bool, now: Timestamp) -> Result<(), DiscoveryError> {
        let instance = self.live(id)?;
        let draining = instance.status == InstanceStatus::Draining;
        match on {
            true if !draining => self.set_status(id, InstanceStatus::Draining, "drained by request", now),
            false if draining => self.set_status(id, InstanceStatus::Passing, "no longer draining", now),
            _ => Ok(()),
        }
    }

    /// Shows an instance in this status from now on.
    pub(crate) fn set_status(
        &mut self,
        id: &InstanceId,
        status: InstanceStatus,
        reason: &str,
        now: Timestamp,
    ) -> Result<(), DiscoveryError> {
        let Some(entry) = self.instances.get(id) else { return Err(unknown(id)) };
        let instance = Instance { status, reason: reason.into(), since: now, ..Instance::clone(&entry.instance) };
        self.put(instance);
        Ok(())
    }

    fn put(&mut self, instance: Instance) {
        self.cursor.revision += 1;
        let entry = Entry { changed: self.cursor.revision, instance: Arc::new(instance) };
        self.instances.insert(entry.instance.id.clone(), entry);
    }

    /// An instance that was not evicted.
    pub(crate) fn live(&self, id: &InstanceId) -> Result<&Arc<Instance>, DiscoveryError> {
        let found = self.instances.get(id).map(|entry| &entry.instance);
        found.filter(|instance| instance.status != InstanceStatus::Evicted).ok_or_else(|| unknown(id))
    }

    /// Keeps a caller's report.
    pub(crate) fn report(&mut self, id: &InstanceId, trouble: Trouble) -> Result<(), DiscoveryError> {
        self.live(id)?;
        if self.reports.len() == MOST_REPORTS {
            self.reports.pop_front();
        }
        self.reports.push_back((id.clone(), trouble));
        Ok(())
    }

    /// What callers have reported, the earliest first.
    #[cfg(feature = "testing")]
    pub(crate) fn reports(&self) -> Vec<(InstanceId, Trouble)> {
        self.reports.iter().cloned().collect()
    }

    /// Everybody, sorted by service and id.
    #[cfg(feature = "testing")]
    pub(crate) fn all(&self) -> Vec<Arc<Instance>> {
        self.matching(&Query::default().scope(roundsman_protocol::Scope::All))
    }

    /// Whether somebody is registered under this name, in whatever status.
    pub(crate) fn knows(&self, service: &ServiceName) -> bool {
        self.instances.values().any(|entry| entry.instance.name == *service)
    }

    /// An instance that is handed out, in turn and by weight.
    pub(crate) fn next(&mut self, service: &ServiceName) -> Result<Arc<Instance>, DiscoveryError> {
        let of_service = || self.instances.values().map(|entry| &entry.instance).filter(|one| one.name == *service);
        let available: Vec<_> = of_service().filter(|one| one.status.is_available()).cloned().collect();
        let weight: u64 = available.iter().map(|one| u64::from(one.weight)).sum();
        let service = service.clone();
        if weight == 0 {
            let registered = of_service_count(of_service().filter(|one| one.status != InstanceStatus::Evicted));
            let known = of_service().next().is_some();
            let none = DiscoveryError::NonePassing { service: service.clone(), registered };
            return Err(if known { none } else { DiscoveryError::NoSuchService { service } });
        }
        let turn = self.turns.entry(service.clone()).or_default();
        let mut left = *turn % weight;
        *turn = turn.wrapping_add(1);
        for instance in available {
            match left.checked_sub(u64::from(instance.weight)) {
                Some(rest) => left = rest,
                None => return Ok(instance),
            }
        }
        Err(DiscoveryError::NoSuchService { service })
    }

    /// Those that a query matches, sorted by service and id.
    pub(crate) fn matching(&self, query: &Query) -> Vec<Arc<Instance>> {
        let matching = self.instances.values().map(|entry| &entry.instance).filter(|one| query.matches(one));
        let mut matching: Vec<_> = matching.cloned().collect();
        if let Some(subset) = &query.subset {
            choose(&mut matching, subset);
        }
        matching.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        matching
    }

    /// How many instances each service has, in which status.
    pub(crate) fn services(&self) -> Vec<ServiceSummary> {
        let mut services: BTreeMap<&ServiceName, ServiceSummary> = BTreeMap::new();
        for Entry { instance, .. } in self.instances.values() {
            let name = instance.name.clone();
            let summary = services.entry(&instance.name).or_insert_with(|| ServiceSummary {
                name,
                instances: 0,
                passing: 0,
                suspect: 0,
                starting: 0,
                draining: 0,
                evicted: 0,
            });
            summary.instances += u32::from(instance.status != InstanceStatus::Evicted);
            *match instance.status {
                InstanceStatus::Starting => &mut summary.starting,
                InstanceStatus::Passing => &mut summary.passing,
                InstanceStatus::Suspect => &mut summary.suspect,
                InstanceStatus::Evicted => &mut summary.evicted,
                InstanceStatus::Draining => &mut summary.draining,
            } += 1;
        }
        services.into_values().collect()
    }
}

fn of_service_count<'a>(instances: impl Iterator<Item = &'a Arc<Instance>>) -> u32 {
    u32::try_from(instances.count()).unwrap_or(u32::MAX)
}

fn unknown(id: &InstanceId) -> DiscoveryError {
    DiscoveryError::NotRegistered { id: id.clone() }
}
