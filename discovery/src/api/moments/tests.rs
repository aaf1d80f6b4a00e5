use roundsman_protocol::{Check, Registration, Timestamp};
use roundsman_registry::Limits;

use super::*;

struct Kit {
    registry: Arc<Registry>,
    budget: Arc<Budget>,
    moments: Moments,
}

impl Kit {
    fn new(budget: usize) -> Self {
        let (registry, budget) = (Arc::new(Registry::new(7)), Budget::new(budget));
        let moments = Moments::new(Arc::clone(&registry), Arc::clone(&budget));
        Self { registry, budget, moments }
    }

    /// Registers one more of a service, or changes the one at this port.
    fn change(&self, service: &str, port: u16, zone: usize) {
        let mut draft = self.registry.draft(Limits::default());
        let address = format!("10.0.0.1:{port}").parse().unwrap();
        let registration = Registration {
            check: Check::none(),
            zone: Some(format!("zone-{zone}").into()),
            id: Some(format!("{service}-{port}").parse().unwrap()),
            ..Registration::new(service.parse().unwrap(), address)
        };
        draft.register(&Namespace::default(), Arc::new(registration), Timestamp::default()).unwrap();
        let (edits, _) = draft.finish(Timestamp::default());
        self.registry.apply(&edits);
    }

    fn begin(&self, query: &Query, watched: bool) -> Arc<Moment> {
        let snapshot = self.registry.snapshot(&Namespace::default(), query);
        self.moments.begin(&Namespace::default(), query.clone(), snapshot, watched)
    }

    fn go_on(&self, query: &Query, first: Cursor) -> Arc<Moment> {
        self.moments.go_on(&Namespace::default(), query.clone(), first)
    }

    fn used(&self) -> u64 {
        self.budget.status(0, 0).used
    }

    fn count(&self) -> usize {
        self.moments.lock().values().map(Vec::len).sum()
    }
}

fn db() -> Query {
    Query::service("db".parse().unwrap())
}

fn listed(moment: &Moment) -> Vec<Arc<roundsman_protocol::Instance>> {
    moment.snapshot().matching(moment.query()).collect()
}

#[test]
fn who_begins_shares_the_moment_until_something_of_the_query_changes() {
    let kit = Kit::new(1 << 20);
    kit.change("db", 1, 0);
    let first = kit.begin(&db(), false);
    kit.change("other", 1, 0);
    assert!(Arc::ptr_eq(&first, &kit.begin(&db(), false)), "what happens to others is of no concern");
    assert!(!Arc::ptr_eq(&first, &kit.begin(&Query::default(), false)), "another query is another moment");
    kit.change("db", 2, 0);
    let second = kit.begin(&db(), true);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&first, &kit.go_on(&db(), first.cursor())), "who reads it goes on");
    assert_eq!((listed(&first).len(), listed(&second).len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn thousands_who_begin_to_watch_while_everything_changes_share_a_few_moments() {
    let kit = Kit::new(1 << 20);
    let mut different: Vec<Arc<Moment>> = Vec::new();
    for n in 0..500 {
        kit.change("db", 1, n);
        let moment = kit.begin(&db(), true);
        if !different.iter().any(|known| Arc::ptr_eq(known, &moment)) {
            different.push(moment);
        }
    }
    assert_eq!(different.len(), OF_QUERY);
    // A list goes on from nowhere, and shows what is there now.
    assert_eq!(*listed(&kit.begin(&db(), false))[0].zone.as_deref().unwrap(), *"zone-499");
    kit.change("db", 1, 501);
    tokio::time::advance(YOUNG).await;
    let later = kit.begin(&db(), true);
    assert_eq!(*listed(&later)[0].zone.as_deref().unwrap(), *"zone-501", "none of them is young any more");
}

#[test]
fn a_moment_that_was_dropped_is_made_again_while_the_log_reaches_back() {
    let kit = Kit::new(4 << 20);
    for port in 1..=50 {
        kit.change("db", port, 0);
    }
    let begun = kit.begin(&db(), true);
    let expected = listed(&begun);
    for n in 1..=400 {
        kit.change("db", n % 100 + 1, usize::from(n));
    }
    kit.moments.clear();
    let again = kit.go_on(&db(), begun.cursor());
    assert_eq!((listed(&again), again.cursor()), (expected, begun.cursor()));
    assert!(Arc::ptr_eq(&again, &kit.go_on(&db(), begun.cursor())));
    assert!(kit.used() > 400 * 2_048, "what it keeps alive is accounted for at once");
    assert_eq!(again.snapshot().digest(&db()), begun.snapshot().digest(&db()));
    for n in 0..5_000 {
        kit.change("db", 1, n + 1_000);
    }
    kit.moments.clear();
    assert_eq!(listed(&kit.go_on(&db(), begun.cursor())).len(), 100, "what is there now");
    let foreign = Cursor { epoch: 8, ..begun.cursor() };
    assert_eq!(listed(&kit.go_on(&db(), foreign)).len(), 100);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_reads_or_can_go_on_from_is_dropped_and_costs_nothing() {
    let kit = Kit::new(1 << 20);
    kit.change("db", 1, 0);
    drop(kit.begin(&db(), true));
    let few = kit.used();
    assert!(few > 0);
    for n in 0..100 {
        kit.change("db", 1, n + 1);
    }
    kit.moments.tidy();
    assert!(kit.used() > few, "what changed since is kept alive");
    tokio::time::advance(KEPT_FOR / 2).await;
    kit.moments.tidy();
    assert_eq!(kit.count(), 1);
    tokio::time::advance(KEPT_FOR / 2).await;
    kit.moments.tidy();
    assert_eq!((kit.count(), kit.used()), (0, 0));

    drop(kit.begin(&db(), true));
    for n in 0..5_000 {
        kit.change("db", 1, n + 200);
    }
    kit.moments.tidy();
    assert_eq!((kit.count(), kit.used()), (0, 0), "the log no longer reaches back to it");
}

#[test]
fn moments_are_few_whoever_asks_and_without_room_none_is_kept() {
    let kit = Kit::new(1 << 20);
    kit.change("db", 1, 0);
    let asked = |n: usize| Query { zone: Some(format!("zone-{n}").into()), ..Query::default() };
    for n in 0..3 * OF_NAMESPACE {
        drop(kit.begin(&asked(n), true));
    }
    assert_eq!(kit.count(), OF_NAMESPACE);
    for n in 0..2 * OF_ALL {
        let (namespace, query) = (format!("tenant-{n}").parse().unwrap(), db());
        let snapshot = kit.registry.snapshot(&namespace, &query);
        drop(kit.moments.begin(&namespace, query, snapshot, true));
    }
    assert_eq!(kit.count(), OF_ALL);
    assert!(kit.moments.lock()[&Namespace::default()].len() <= 1, "whoever has most gives way");

    let poor = Kit::new(100);
    poor.change("db", 1, 0);
    let moment = poor.begin(&db(), true);
    assert_eq!((listed(&moment).len(), poor.count()), (1, 0));
    assert_eq!(listed(&poor.go_on(&db(), moment.cursor())).len(), 1);
    assert_eq!(poor.budget.status(0, 0).refused, 0, "nobody is refused anything");
}
