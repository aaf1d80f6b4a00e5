//! A batch in the making: what the registry would be if it were carried out.

mod operating;
mod overlay;

use std::{collections::HashMap, sync::Arc};

use roundsman_protocol::{
    DiscoveryError, InstanceId, Invalid, Namespace, Registered, Registration, Timestamp, instance::Outcome,
};

use self::{
    operating::{blocked_until, refuse_blocked},
    overlay::Overlay,
};
use crate::{
    edit::{Change, Edit, Key},
    ledger::{Ledger, carry_out},
    record::Record,
    registry::Registry,
};

/// How much a registry takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Instances in all namespaces, those on probation included.
    pub max_instances: usize,
    /// Instances in one namespace, those on probation included, so that no tenant takes all.
    pub max_instances_per_namespace: usize,
    /// Namespaces that have an instance.
    pub max_namespaces: usize,
    /// Bytes that all instances may take in memory, about.
    pub max_bytes: usize,
    /// Bytes that those of one namespace may take, so that no tenant takes all.
    pub max_bytes_per_namespace: usize,
}

impl Default for Limits {
    /// None.
    fn default() -> Self {
        let none = usize::MAX;
        Self {
            max_instances: none,
            max_instances_per_namespace: none,
            max_namespaces: none,
            max_bytes: none,
            max_bytes_per_namespace: none,
        }
    }
}

/// Plans a batch of requests: checks each against the registry as the earlier ones of the batch leave it, and collects
/// the edits to carry out and the changes to commit. Changes nothing itself.
#[derive(Debug)]
pub struct Draft<'a> {
    overlay: Overlay<'a>,
    limits: Limits,
    edits: Vec<Edit>,
    /// The versions of removals.
    removed: HashMap<Key, u64>,
    /// What the batch adds so far.
    added: Added,
}

/// What a batch adds.
#[derive(Debug, Default)]
struct Added {
    instances: usize,
    bytes: usize,
    by_namespace: HashMap<Namespace, Share>,
}

/// What a batch adds to a namespace.
#[derive(Clone, Copy, Debug, Default)]
struct Share {
    instances: usize,
    bytes: usize,
}

// === impl Draft ===

impl<'a> Draft<'a> {
    pub(crate) fn new(registry: &'a Registry, limits: Limits) -> Self {
        let overlay = Overlay { registry, records: HashMap::new(), addresses: HashMap::new() };
        Self { overlay, limits, edits: Vec::new(), removed: HashMap::new(), added: Added::default() }
    }

    /// Plans a registration.
    ///
    /// # Errors
    /// When the id belongs to another service of the namespace, or is kept out; when a limit is reached; and when the address,
    /// which an earlier registration is to be confirmed at, is another's by now.
    pub fn register(
        &mut self,
        namespace: &Namespace,
        registration: Arc<Registration>,
        now: Timestamp,
    ) -> Result<Registered, DiscoveryError> {
        let id = registration.id.clone().unwrap_or_else(|| InstanceId::random(&registration.name));
        let key = Key { namespace: namespace.clone(), id };
        let known = self.overlay.find(&key);
        if let Some(other) = known.as_ref().filter(|record| record.instance.name != registration.name) {
            let rule = format!(
                "`{}` belongs to an instance of service `{}`; ids are unique in a namespace",
                key.id, other.instance.name
            );
            return Err(Invalid::new("id", rule).into());
        }
        if let Some(known) = &known {
            refuse_blocked(known, now)?;
        }
        if registration.again {
            let occupant = self.overlay.occupant(namespace, &registration.name, &registration.address);
            if let Some(by) = occupant.filter(|by| *by != key.id && self.is_live(namespace, by)) {
                return Err(DiscoveryError::Replaced { id: key.id, by });
            }
        }
        let outcome = match &known {
            Some(known) if known.says(&registration) => Outcome::Unchanged,
            Some(known) if !known.is_evicted() => Outcome::Updated,
            Some(_) | None => Outcome::Created,
        };
        let id = key.id.clone();
        let mut replaced = Vec::new();
        if outcome != Outcome::Unchanged {
            if known.is_none() {
                self.check_limits(namespace)?;
            }
            self.take_room(namespace, registration.bytes(), known.as_deref())?;
            let version = self.overlay.next_version(known.as_deref(), now);
            replaced = self.plan(Edit::Register { key, registration, version, at: now });
        }
        Ok(Registered { id, outcome, replaced })
    }

    /// Whether an instance is registered, and not on probation.
    #[must_use]
    pub fn is_live(&self, namespace: &Namespace, id: &InstanceId) -> bool {
        let key = Key { namespace: namespace.clone(), id: id.clone() };
        self.overlay.find(&key).is_some_and(|record| !record.is_evicted())
    }

    /// Plans that an instance leaves because another one registered at the place that it names in another way. Whether
    /// it was there.
    pub fn replace(&mut self, key: Key, by: &InstanceId, now: Timestamp) -> bool {
        let known = self.overlay.find(&key).filter(|known| key.id != *by && !known.is_blocked());
        let Some(known) = known else { return false };
        let (reason, version) =
            (format!("replaced by {by} at the same address").into(), self.overlay.next_version(Some(&known), now));
        self.plan(Edit::Remove { key, reason, version });
        true
    }

    /// Plans a deregistration. One that is on probation is forgotten.
    ///
    /// # Errors
    /// When there is no such instance, which is also said of one that an operator keeps out.
    pub fn deregister(&mut self, key: Key, now: Timestamp) -> Result<(), DiscoveryError> {
        let Some(known) = self.overlay.find(&key).filter(|known| blocked_until(known, now).is_none()) else {
            return Err(DiscoveryError::NotRegistered { id: key.id });
        };
        let version = self.overlay.next_version(Some(&known), now);
        self.plan(Edit::Remove { key, reason: "deregistered".into(), version });
        Ok(())
    }

    /// The edits to carry out once the changes are committed.
    #[must_use]
    pub fn finish(mut self, now: Timestamp) -> (Vec<Edit>, Vec<Change>) {
        let records = std::mem::take(&mut self.overlay.records);
        let changes = records.into_values().filter_map(|touched| match (touched.first, touched.now) {
            (first, Some(record)) => {
                Some(Change::Asked { record, expected: first.map_or(0, |first| first.asked.version) })
            }
            (Some(record), None) => {
                // Whom another one drove from its address, nobody asked to be removed.
                let asked = self.removed.get(&record.key()).copied();
                let version = asked.unwrap_or_else(|| self.overlay.next_version(Some(&record), now));
                let expected = record.asked.version;
                Some(Change::Removed { record, version, expected })
            }
            (None, None) => None,
        });
        (self.edits, changes.collect())
    }

    fn check_limits(&self, namespace: &Namespace) -> Result<(), DiscoveryError> {
        let registry = self.overlay.registry;
        if registry.len() + self.added.instances >= self.limits.max_instances {
            return reached("--max-instances", self.limits.max_instances);
        }
        let added = self.added.by_namespace.get(namespace).copied().unwrap_or_default();
        if registry.len_of(namespace) + added.instances >= self.limits.max_instances_per_namespace {
            return reached("--max-instances-per-namespace", self.limits.max_instances_per_namespace);
        }
        // The namespaces that this very batch adds are not counted: a batch is short, and the limit is no fine line.
        if registry.namespaces() >= self.limits.max_namespaces && !registry.has_namespace(namespace) {
            return reached("--max-namespaces", self.limits.max_namespaces);
        }
        Ok(())
    }

    /// Takes the room that a record needs beyond what is there already; so does everything later in the batch.
    fn take_room(&mut self, namespace: &Namespace, bytes: usize, known: Option<&Record>) -> Result<(), DiscoveryError> {
        let more = bytes.saturating_sub(known.map_or(0, |known| known.instance.bytes()));
        if more > 0 {
            self.check_bytes(namespace, more)?;
        }
        let new = usize::from(known.is_none());
        let share = self.added.by_namespace.entry(namespace.clone()).or_default();
        for added in [&mut share.instances, &mut self.added.instances] {
            *added += new;
        }
        for added in [&mut share.bytes, &mut self.added.bytes] {
            *added += more;
        }
        Ok(())
    }

    fn check_bytes(&self, namespace: &Namespace, more: usize) -> Result<(), DiscoveryError> {
        let registry = self.overlay.registry;
        if registry.bytes().saturating_add(self.added.bytes + more) > self.limits.max_bytes {
            return reached("--max-memory", self.limits.max_bytes);
        }
        let added = self.added.by_namespace.get(namespace).copied().unwrap_or_default();
        if registry.bytes_of(namespace).saturating_add(added.bytes + more) > self.limits.max_bytes_per_namespace {
            return reached("--max-memory", self.limits.max_bytes_per_namespace);
        }
        Ok(())
    }

    /// Plans an edit; the others that it takes out.
    fn plan(&mut self, edit: Edit) -> Vec<InstanceId> {
        let key = edit.key();
        if let Edit::Remove { version, .. } = &edit {
            self.removed.insert(key.clone(), *version);
        }
        let effects = carry_out(&mut self.overlay, &edit);
        let gone = effects.iter().filter(|effect| effect.after.is_none() && !effect.is_about(&key));
        let gone = gone.filter_map(|effect| Some(effect.before.as_ref()?.instance.id.clone())).collect();
        let own = effects.into_iter().rfind(|effect| effect.is_about(&key));
        let (before, after) = own.map_or_else(Default::default, |effect| (effect.before, effect.after));
        self.edits.push(Edit::Planned { edit: Box::new(edit), before, after });
        gone
    }
}

fn reached(limit: &str, value: usize) -> Result<(), DiscoveryError> {
    Err(DiscoveryError::LimitReached { limit: limit.to_owned(), value: u64::try_from(value).unwrap_or(u64::MAX) })
}
