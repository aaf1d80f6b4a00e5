//! Who has which: the pairs of clients and instances, kept from both sides.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    num::NonZeroU32,
    sync::Arc,
};

use roundsman_protocol::InstanceId;
use tokio::time::Instant;

use super::{
    loads::{Loads, Rank},
    numbered::Numbered,
};

/// What a client, an instance and a pair take in memory, about: measured, with what maps leave
/// empty.
const CLIENT_BYTES: usize = 240;
const INSTANCE_BYTES: usize = 260;
const PAIR_BYTES: usize = 24;

/// Clients, instances, and who has which. What changes here is remembered until it is asked for
/// by [`Pairs::moved`].
#[derive(Debug)]
pub(super) struct Pairs {
    size: u32,
    seed: u64,
    pub(super) clients: Numbered<Arc<str>, Client>,
    pub(super) instances: Numbered<InstanceId, Member>,
    pub(super) loads: Loads,
    pub(super) count: u64,
    /// What those whose sets changed had before.
    pub(super) before: BTreeMap<u32, Vec<u32>>,
    /// Instances that are gone, whose ids are still to be told.
    pub(super) retired: Vec<u32>,
}

/// A client and what it has.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) name: Arc<str>,
    pub(super) point: u32,
    pub(super) lease: Lease,
    /// Numbers of instances, sorted.
    pub(super) set: Vec<u32>,
}

/// Whether a client is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lease {
    /// So many times.
    Held(u32),
    /// No longer, but it may come back until then.
    Gone(Instant),
}

/// An instance and who has it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: InstanceId,
    pub(super) point: u32,
    /// Points and numbers of clients.
    pub(super) clients: BTreeSet<(u32, u32)>,
}

// === impl Pairs ===

impl Pairs {
    pub(super) fn new(size: NonZeroU32, seed: u64) -> Self {
        Self {
            size: size.get(),
            seed,
            clients: Numbered::new(),
            instances: Numbered::new(),
            loads: Loads::default(),
            count: 0,
            before: BTreeMap::new(),
            retired: Vec::new(),
        }
    }

    /// How many instances each client is to have.
    pub(super) fn wanted(&self) -> usize {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        size.min(self.instances.len())
    }

    pub(super) fn clients(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn lease(&mut self, client: &str) -> Option<(u32, &mut Lease)> {
        let number = self.clients.number(client)?;
        Some((number, &mut self.clients.get_mut(number)?.lease))
    }

    pub(super) fn of(&self, client: &str) -> Option<impl Iterator<Item = &InstanceId>> {
        let client = self.clients.get(self.clients.number(client)?)?;
        let members = client.set.iter().filter_map(|number| self.instances.get(*number));
        Some(members.map(|member| &member.id))
    }

    pub(super) fn holders(&self, instance: &InstanceId) -> impl Iterator<Item = &Arc<str>> {
        let member = self.instances.number(instance).and_then(|number| self.instances.get(number));
        let marks = member.into_iter().flat_map(|member| &member.clients);
        let clients = marks.filter_map(|(_, client)| self.clients.get(*client));
        clients.filter(|client| matches!(client.lease, Lease::Held(_))).map(|client| &client.name)
    }

    /// Adds a client that is not there yet, with nothing. `None` when no number is left for it.
    pub(super) fn add_client(&mut self, name: &str) -> Option<u32> {
        let (name, point) = (Arc::<str>::from(name), self.point(name));
        let set = Vec::with_capacity(self.wanted());
        let client = Client { name: Arc::clone(&name), point, lease: Lease::Held(1), set };
        self.clients.insert(name, client)
    }

    pub(super) fn remove_client(&mut self, number: u32) {
        let Some(client) = self.clients.get(number) else { return };
        let (name, set) = (Arc::clone(&client.name), client.set.clone());
        for instance in set {
            self.unlink(number, instance);
        }
        self.clients.unname(&name);
        self.clients.release(number);
        self.before.remove(&number);
    }

    /// Adds an instance unless it is there.
    pub(super) fn add_instance(&mut self, id: &InstanceId) {
        if self.instances.number(id).is_some() {
            return;
        }
        let point = self.point(id.as_str());
        let member = Member { id: id.clone(), point, clients: BTreeSet::new() };
        if let Some(number) = self.instances.insert(id.clone(), member) {
            self.loads.insert(Rank { load: 0, point, number });
        }
    }

    /// Takes an instance away from all who have it, and adds these to `short`.
    pub(super) fn remove_instance(&mut self, id: &InstanceId, short: &mut BTreeSet<(u32, u32)>) {
        let Some(number) = self.instances.unname(id) else { return };
        let Some(member) = self.instances.get(number) else { return };
        let clients: Vec<_> = member.clients.iter().copied().collect();
        for &(_, client) in &clients {
            self.unlink(client, number);
        }
        short.extend(clients);
        if let Some(member) = self.instances.get(number) {
            self.loads.remove(member.rank(number));
        }
        self.retired.push(number);
    }

    /// All clients, in an order that does not depend on who came first.
    pub(super) fn by_point(&self) -> BTreeSet<(u32, u32)> {
        self.clients.iter().map(|(number, client)| (client.point, number)).collect()
    }

    pub(super) fn has(&self, client: u32, instance: u32) -> bool {
        self.clients.get(client).is_some_and(|client| client.set.binary_search(&instance).is_ok())
    }

    pub(super) fn link(&mut self, client: u32, instance: u32) {
        let Some(holder) = self.clients.get_mut(client) else { return };
        let Err(at) = holder.set.binary_search(&instance) else { return };
        self.before.entry(client).or_insert_with(|| holder.set.clone());
        holder.set.insert(at, instance);
        let mark = (holder.point, client);
        self.change(instance, |clients| clients.insert(mark));
        self.count += 1;
    }

    pub(super) fn unlink(&mut self, client: u32, instance: u32) {
        let Some(holder) = self.clients.get_mut(client) else { return };
        let Ok(at) = holder.set.binary_search(&instance) else { return };
        self.before.entry(client).or_insert_with(|| holder.set.clone());
        holder.set.remove(at);
        let mark = (holder.point, client);
        self.change(instance, |clients| clients.remove(&mark));
        self.count -= 1;
    }

    pub(super) fn spread(&self) -> Option<(u32, u32)> {
        Some((self.loads.least()?.load, self.loads.most()?.load))
    }

    pub(super) fn bytes(&self) -> usize {
        let pairs = usize::try_from(self.count).unwrap_or(usize::MAX);
        let (clients, instances) = (self.clients.len(), self.instances.len());
        let names = clients * CLIENT_BYTES + instances * INSTANCE_BYTES;
        names.saturating_add(pairs.saturating_mul(PAIR_BYTES))
    }

    pub(super) fn bytes_of_a_client(&self) -> usize {
        CLIENT_BYTES + self.wanted() * PAIR_BYTES
    }

    /// A number that depends on all of these and on the seed, and is the same in every process of a
    /// release.
    pub(super) fn point(&self, of: impl Hash) -> u32 {
        let mut hasher = DefaultHasher::new();
        (self.seed, of).hash(&mut hasher);
        let hash = hasher.finish();
        u32::try_from(hash >> 32).unwrap_or_default()
    }

    fn change(&mut self, instance: u32, change: impl FnOnce(&mut BTreeSet<(u32, u32)>) -> bool) {
        let Some(member) = self.instances.get_mut(instance) else { return };
        self.loads.remove(member.rank(instance));
        change(&mut member.clients);
        self.loads.insert(member.rank(instance));
    }
}

// === impl Member ===

impl Member {
    fn rank(&self, number: u32) -> Rank {
        let load = u32::try_from(self.clients.len()).unwrap_or(u32::MAX);
        Rank { load, point: self.point, number }
    }
}
