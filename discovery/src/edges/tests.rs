use super::*;

/// A clock that is turned by hand.
#[derive(Clone, Debug, Default)]
struct Hands(Arc<AtomicU64>);

impl Hands {
    fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || Timestamp::from_millis(1_000_000 + hands.0.load(Ordering::Relaxed)))
    }

    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

fn edges(limit: usize) -> (Arc<Edges>, Hands) {
    let hands = Hands::default();
    (Edges::new(limit, hands.clock(), &mut Metrics::new()), hands)
}

fn name(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn namespace(name: &str) -> Namespace {
    name.parse().unwrap()
}

/// The edges of a namespace: caller, callee, lookups, watching.
fn seen(edges: &Edges, of: &str) -> Vec<(String, String, u64, u64)> {
    let graph = edges.graph(&namespace(of), Vec::new(), Timestamp::default());
    let edge = |edge: Edge| (edge.caller.to_string(), edge.callee.to_string(), edge.lookups, edge.watching);
    graph.edges.into_iter().map(edge).collect()
}

fn row(caller: &str, callee: &str, lookups: u64, watching: u64) -> (String, String, u64, u64) {
    (caller.to_owned(), callee.to_owned(), lookups, watching)
}

#[test]
fn lookups_of_all_connections_of_a_caller_add_up() {
    let (edges, hands) = edges(100);
    let mut first = edges.track(namespace("shop"), name("order"));
    let mut second = edges.track(namespace("shop"), name("order"));
    let mut other = edges.track(namespace("mine"), name("order"));
    first.looked_up(&name("product"));
    first.looked_up(&name("product"));
    second.listed(&[name("product"), name("inventory")]);
    second.listed(&[]);
    other.looked_up(&name("product"));
    let shop = [row("order", "*", 1, 0), row("order", "inventory", 1, 0), row("order", "product", 3, 0)];
    assert_eq!(seen(&edges, "shop"), shop);
    assert_eq!(seen(&edges, "mine"), [row("order", "product", 1, 0)]);
    assert_eq!(seen(&edges, "empty"), []);
    drop((first, second));
    hands.pass(Duration::from_secs(7));
    assert_eq!(seen(&edges, "shop"), shop, "what was counted stays when connections end");
    let graph = edges.graph(&namespace("shop"), vec![name("product")], Timestamp::from_millis(5));
    assert_eq!(graph.now.since(graph.edges[2].last), Duration::from_secs(7));
    assert_eq!((graph.since.as_millis(), graph.services), (5, vec![name("product")]));
}

#[test]
fn a_connection_counts_once_however_often_its_watch_repeats() {
    let (edges, hands) = edges(100);
    let mut tracker = edges.track(namespace("shop"), name("order"));
    for _ in 0..3 {
        let watching = tracker.watches(&[name("product")]);
        let twice = tracker.watches(&[name("product")]);
        assert_eq!(seen(&edges, "shop"), [row("order", "product", 0, 1)]);
        drop((watching, twice));
        assert_eq!(seen(&edges, "shop"), [row("order", "product", 0, 1)], "answered, and about to ask again");
        hands.pass(Duration::from_secs(1));
    }
    let mut second = edges.track(namespace("shop"), name("order"));
    let watching = second.watches(&[name("product")]);
    assert_eq!(seen(&edges, "shop"), [row("order", "product", 0, 2)]);
    drop((second, watching));
    assert_eq!(seen(&edges, "shop"), [row("order", "product", 0, 1)], "the end of a connection counts at once");
    drop(tracker);
    assert_eq!(seen(&edges, "shop"), [row("order", "product", 0, 0)]);
}

#[test]
fn a_watch_that_names_others_or_does_not_come_again_is_no_longer_counted() {
    let (edges, hands) = edges(100);
    let mut tracker = edges.track(namespace("shop"), name("order"));
    drop(tracker.watches(&[name("product")]));
    let watching = tracker.watches(&[name("inventory")]);
    hands.pass(tracker::LINGER);
    assert_eq!(seen(&edges, "shop"), [row("order", "inventory", 0, 1), row("order", "product", 0, 0)]);
    drop(watching);
    hands.pass(tracker::LINGER);
    assert_eq!(seen(&edges, "shop")[0], row("order", "inventory", 0, 0));
    let everything = tracker.watches(&[]);
    hands.pass(Duration::from_secs(300));
    assert_eq!(seen(&edges, "shop")[0], row("order", "*", 0, 1), "however long it waits");
    drop(everything);
}

#[test]
fn made_up_names_use_no_more_than_the_limit_and_make_room_in_time() {
    let (edges, hands) = edges(10);
    let mut rogue = edges.track(namespace("shop"), name("rogue"));
    for n in 0..1_000 {
        rogue.looked_up(&name(&format!("made-up-{n}")));
    }
    assert_eq!((edges.len(), edges.unrecorded.get()), (10, 990));
    rogue.looked_up(&name("made-up-3"));
    assert_eq!(seen(&edges, "shop")[3].2, 2, "what is known is counted on");
    let mut order = edges.track(namespace("mine"), name("order"));
    order.looked_up(&name("product"));
    assert_eq!(seen(&edges, "mine"), []);
    assert_eq!(edges.graph(&namespace("mine"), Vec::new(), Timestamp::default()).unrecorded, 991);
    // The connection that points to them is gone, and they were not used for long.
    drop(rogue);
    hands.pass(FORGET_AFTER);
    order.looked_up(&name("product"));
    assert_eq!(seen(&edges, "mine"), [row("order", "product", 1, 0)]);
    assert_eq!((edges.len(), seen(&edges, "shop").len()), (1, 0));
}

#[test]
fn a_connection_keeps_no_more_than_it_may_of_what_it_asked_for() {
    let (edges, _) = edges(100_000);
    let mut rogue = edges.track(namespace("shop"), name("rogue"));
    let names: Vec<ServiceName> = (0..3_000).map(|n| name(&format!("made-up-{n}"))).collect();
    let watching: Vec<Watching> = names.chunks(1_000).map(|names| rogue.watches(names)).collect();
    let followed = seen(&edges, "shop").iter().filter(|edge| edge.3 == 1).count();
    assert_eq!((followed, edges.len()), (roundsman_protocol::limits::MAX_QUERY_SERVICES, 3_000));
    drop(watching);
    for name in &names {
        rogue.looked_up(name);
    }
    assert!(seen(&edges, "shop").iter().all(|edge| edge.2 == 1), "and loses no count by it");
}
