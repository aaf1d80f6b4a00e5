//! A resolver's list for tower: which instances come and go, one at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures::{Stream, StreamExt};
use roundsman_protocol::{Instance, InstanceId};
use tower::discover::Change;

use crate::{changes::Changes, resolver::Resolver, snapshot::Snapshot};

/// The instances of a [`Resolver`] as a [`tower::discover::Discover`], each made into whatever `make` makes of it; made
/// by [`Resolver::endpoints`].
///
/// It is a stream of [`Change`]s: first an insertion for each instance that is there, then one change after another. An
/// instance whose address has changed is removed and inserted again; a change of other data is none. A reader that
/// is slow is told the difference. It ends when the [`Discovery`](crate::Discovery) is closed.
///
/// What is known of an instance by calls, and by which policy it is picked, is left to tower: all instances are listed that
/// the servers hand out, near and far.
///
/// ```no_run
/// # async fn example(discovery: roundsman::Discovery) -> Result<(), roundsman::Error> {
/// use tower::{balance::p2c::Balance, load::{CompleteOnResponse, PeakEwma}};
/// # use tower::{service_fn, util::BoxService};
/// # fn client(_: &roundsman::Instance) -> BoxService<(), (), std::io::Error> { BoxService::new(service_fn(|()| async { Ok(()) })) }
/// use std::time::Duration;
///
/// let products = discovery.resolver("product").await?;
/// let endpoints = products.endpoints(|instance| {
///     PeakEwma::new(client(instance), Duration::from_millis(10), 10e9, CompleteOnResponse::default())
/// });
/// let balanced = Balance::<_, ()>::new(endpoints);
/// # Ok(())
/// # }
/// ```
#[must_use = "a stream does nothing until it is polled"]
pub struct Endpoints<F> {
    changes: Changes,
    known: Known,
    /// The changes of one snapshot that were not told yet.
    waiting: VecDeque<Change<InstanceId, Arc<Instance>>>,
    make: F,
}

type Known = BTreeMap<InstanceId, Arc<Instance>>;

// === impl Endpoints ===

impl<F> Endpoints<F> {
    pub(crate) fn new(resolver: &Resolver, make: F) -> Self {
        Self { changes: resolver.changes(), known: BTreeMap::new(), waiting: VecDeque::new(), make }
    }

    /// Notes how a snapshot differs from what was told: those that go before those that come.
    fn note(&mut self, snapshot: &Snapshot) {
        let now: Known =
            snapshot.instances().iter().map(|instance| (instance.id.clone(), Arc::clone(instance))).collect();
        let gone = self.known.iter().filter(|(id, before)| !is_at(&now, id, before));
        let gone = gone.map(|(id, _)| Change::Remove(id.clone()));
        let come = now.iter().filter(|(id, now)| !is_at(&self.known, id, now));
        let come = come.map(|(id, instance)| Change::Insert(id.clone(), Arc::clone(instance)));
        self.waiting.extend(gone.chain(come));
        self.known = now;
    }
}

impl<F, S> Stream for Endpoints<F>
where
    F: FnMut(&Arc<Instance>) -> S,
{
    type Item = Result<Change<InstanceId, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(change) = this.waiting.pop_front() {
                return Poll::Ready(Some(Ok(match change {
                    Change::Insert(id, instance) => Change::Insert(id, (this.make)(&instance)),
                    Change::Remove(id) => Change::Remove(id),
                })));
            }
            let Some(snapshot) = ready!(this.changes.poll_next_unpin(cx)) else { return Poll::Ready(None) };
            this.note(&snapshot);
        }
    }
}

/// Whether an instance of this id is there, at the same address.
fn is_at(known: &Known, id: &InstanceId, instance: &Instance) -> bool {
    known.get(id).is_some_and(|known| known.address == instance.address)
}

// Nothing in it is pinned.
impl<F> Unpin for Endpoints<F> {}

impl<F> fmt::Debug for Endpoints<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").field("known", &self.known.keys()).finish_non_exhaustive()
    }
}
