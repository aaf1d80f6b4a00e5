//! Lists and watches of a subset: of a client's share of a service.
//!
//! A watcher says which instances it has (`known`), and is told the difference to its share: what is new in it, what
//! changed in it, and what is no longer in it and why. So it misses nothing, whatever happened between two calls, and a
//! server that knows nothing of it yet can let it keep what it has.

mod sight;

use std::{collections::HashSet, sync::Arc, time::Duration};

use roundsman_protocol::{
    Bookmark, Cursor, DiscoveryError, Instance, InstanceId, Invalid, Known, Page, Query, Removed, Update, limits,
    rpc::Wait,
};
use roundsman_registry::watch::News;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use self::sight::Sight;
use super::{Api, caller::Caller, valid};
use crate::{
    edges::Watching,
    memory::Reservation,
    method::Method,
    subsets::{Key, Membership},
};

/// What a watch that waits takes in memory, besides its query.
const WAITING: usize = 2_048;
/// What each instance that it knows takes besides.
const KNOWN: usize = 128;

/// A watch of a subset.
#[derive(Debug)]
pub(crate) struct Following {
    caller: Caller,
    key: Key,
    client: Arc<str>,
    /// Where the watcher stands, and what it has. Without both it is told everything.
    after: Option<Cursor>,
    known: Vec<InstanceId>,
    wait: Duration,
    /// Follows until it is dropped, and a little longer: an answered watch comes again.
    _watching: Option<Watching>,
    _reservation: Reservation,
}

// === impl Api ===

impl Api {
    /// The client's share at this moment. It keeps that for a while, so that a watch begins with the same.
    pub(crate) fn list_subset(
        &mut self,
        query: Query,
        after: Option<Bookmark>,
    ) -> Result<impl Future<Output = Result<Page, DiscoveryError>> + Send + use<>, DiscoveryError> {
        let timing = self.caller.begin(Method::List);
        let asked =
            no_page("after", after).and_then(|()| self.caller.share_of(query)).and_then(|(query, key, client)| {
                if let Some(tracker) = &mut self.tracker {
                    tracker.listed(&query.services);
                }
                // A mistyped name is told from one of whose instances none is handed out.
                self.caller.snapshot(&query)?;
                Ok((query, key, client))
            });
        let (query, key, client) = match asked {
            Ok(asked) => asked,
            Err(error) => return timing.done(Err(error)),
        };
        let caller = self.caller.clone();
        Ok(async move {
            let listed = caller.join(&key, &client, Vec::new()).await.map(|mut member| {
                let Sight { cursor, instances, .. } = Sight::of(&caller, &query, &mut member);
                Page { cursor, instances: instances.into_values().collect(), next: None }
            });
            timing.done(listed)
        })
    }

    /// A watch of the client's share. A refusal is counted.
    pub(crate) fn watch_subset(
        &mut self,
        query: Query,
        after: Option<Cursor>,
        Wait(wait): Wait,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> Result<Following, DiscoveryError> {
        let asked = no_page("page", page).and_then(|()| {
            let known = ids(after, known)?;
            let (query, key, client) = self.caller.share_of(query)?;
            let tracker = self.tracker.as_mut();
            let watching = tracker.map(|tracker| tracker.watches(&query.services));
            self.caller.may_watch()?;
            let size = known.len().max(usize::try_from(key.size.get()).unwrap_or(usize::MAX));
            let reservation = self.caller.reserve(WAITING + query.bytes() + size * KNOWN)?;
            let (caller, wait) = (self.caller.clone(), wait.min(limits::MAX_WATCH_WAIT));
            Ok(Following { caller, key, client, after, known, wait, _watching: watching, _reservation: reservation })
        });
        asked.or_else(|error| self.caller.timed(Method::Watch, None).done(Err(error)))
    }
}

// === impl Caller ===

impl Caller {
    /// The query in its canonical form, and whose share of what it asks for.
    fn share_of(&self, query: Query) -> Result<(Query, Key, Arc<str>), DiscoveryError> {
        let query = valid(query)?;
        let (key, client) = Key::of(&self.namespace, &query)?
            .ok_or_else(|| Invalid::new("subset", "must say which client asks, and for how many instances"))?;
        Ok((query, key, client))
    }

    async fn join(&self, key: &Key, client: &Arc<str>, wanted: Vec<InstanceId>) -> Result<Membership, DiscoveryError> {
        let groups = &self.context.groups;
        if groups.is_quick(key) {
            return groups.join(key, client, &wanted);
        }
        let (groups, key, client) = (Arc::clone(groups), key.clone(), Arc::clone(client));
        self.aside(move || groups.join(&key, &client, &wanted)).await?
    }
}

// === impl Following ===

impl Following {
    /// Waits until there is something to tell, the time is over, or `stop`.
    ///
    /// # Errors
    /// When a limit is reached; at `stop`, when there is no cursor to go on from.
    pub(crate) async fn run(self, stop: CancellationToken) -> Result<Update, DiscoveryError> {
        let timing = self.caller.timed(Method::Watch, None);
        let answer = match (stop.run_until_cancelled(self.answer()).await, self.after) {
            (Some(answer), _) => answer,
            (None, Some(after)) => Ok(Update::unchanged(after)),
            (None, None) => Err(DiscoveryError::ShuttingDown),
        };
        timing.done(answer)
    }

    async fn answer(&self) -> Result<Update, DiscoveryError> {
        let deadline = Instant::now() + self.wait;
        let mut member = self.caller.join(&self.key, &self.client, self.known.clone()).await?;
        let mut seen = self.look(&mut member);
        let update = self.since_last_call(&seen).await;
        if !update.is_unchanged() {
            return Ok(update);
        }
        let _counted = self.caller.context.registry.count_watch();
        loop {
            let time_is_over = timeout_at(deadline, member.changed()).await.is_err();
            let sight = self.look(&mut member);
            let update = self.since(&seen, &sight).await;
            if time_is_over || !update.is_unchanged() {
                return Ok(update);
            }
            seen = sight;
        }
    }

    fn look(&self, member: &mut Membership) -> Sight {
        Sight::of(&self.caller, &self.key.query, member)
    }

    /// What a watcher has to learn that comes with what it had.
    async fn since_last_call(&self, sight: &Sight) -> Update {
        let Some(after) = self.after else { return sight.everything() };
        // After the look at the share, so that nothing is in there that is not in here.
        match self.changes(after).await {
            News::Snapshot(_) => sight.everything(),
            News::Update(changes) => {
                let changed: HashSet<_> = changes.instances.iter().map(|instance| &instance.id).collect();
                sight.update(self.known.iter(), |instance| !changed.contains(&instance.id), &changes.removed)
            }
        }
    }

    /// What a watcher has to learn that waited meanwhile.
    async fn since(&self, seen: &Sight, sight: &Sight) -> Update {
        let gone = seen.instances.keys().any(|id| sight.is_gone(id));
        let removed = match gone {
            true => self.removed(seen.cursor).await,
            false => Vec::new(),
        };
        let is_same = |instance: &Arc<Instance>| seen.instances.get(&instance.id) == Some(instance);
        sight.update(seen.instances.keys(), is_same, &removed)
    }

    /// Who is gone meanwhile and why, as far as the change log still tells.
    async fn removed(&self, after: Cursor) -> Vec<Removed> {
        match self.changes(after).await {
            News::Update(changes) => changes.removed,
            News::Snapshot(_) => Vec::new(),
        }
    }

    /// What happened to the service meanwhile, to whomever it concerns.
    async fn changes(&self, after: Cursor) -> News {
        let Key { namespace, query, .. } = &self.key;
        self.caller.context.registry.watch(namespace, query, Some(after), Duration::ZERO).await
    }
}

/// What a watcher has, as it says.
fn ids(after: Option<Cursor>, known: Option<Known>) -> Result<Vec<InstanceId>, Invalid> {
    known.as_ref().map_or(Ok(()), Known::validate)?;
    match known {
        Some(Known::Ids(ids)) => Ok(ids),
        Some(Known::Digest(_)) => {
            Err(Invalid::new("known", "a watch of a subset says the ids that it has; a digest is for everything"))
        }
        None if after.is_none() => Ok(Vec::new()),
        None => {
            let rule = "a watch of a subset that goes on from a cursor says the ids that it has: what is in a subset \
                        changes also when no instance does";
            Err(Invalid::new("known", rule))
        }
    }
}

/// A share is one page: a bookmark is that of another query.
fn no_page(field: &str, bookmark: Option<Bookmark>) -> Result<(), DiscoveryError> {
    let rule = "a subset comes on one page; begin anew without a bookmark";
    bookmark.map_or(Ok(()), |_| Err(Invalid::new(field, rule).into()))
}
