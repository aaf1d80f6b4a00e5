//! The layer that all doors use, without any door.

mod aside;
mod log;

use std::time::Duration;

use roundsman_protocol::{Check, Scope, instance::Outcome};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::Config,
    offload::Offload,
    principal::Door,
    server::assemble::{Assembled, assemble, task},
};

/// A server without doors.
pub(crate) struct Inside {
    pub(crate) context: Arc<Context>,
    writer: JoinSet<()>,
    stop: CancellationToken,
    /// As long as it lives, there may be other servers.
    _foreign: tokio::sync::mpsc::Sender<crate::follower::Heard>,
}

impl Inside {
    pub(crate) fn new(config: Config) -> Self {
        let store = "memory:".parse::<roundsman_store::StoreUrl>().unwrap().open(config.probation, "test");
        let Assembled { context, writer: meters, inputs, foreign, .. } =
            assemble(config, "test".to_owned(), &store, Offload::start().unwrap());
        let (mut writer, stop) = (JoinSet::new(), CancellationToken::new());
        writer.spawn(task(&context, store, meters, Vec::new(), Vec::new()).run(inputs, stop.clone()));
        Self { context, writer, stop, _foreign: foreign }
    }

    pub(crate) fn api(&self, service: Option<&str>) -> Api {
        let principal = Principal::new(Door::Rpc, "10.0.0.9:4711".parse().ok(), service.map(name));
        Api::new(Arc::clone(&self.context), Namespace::default(), principal)
    }

    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while self.writer.join_next().await.is_some() {}
        self.context.rounds.clone().stop().await;
    }
}

fn name(name: &str) -> ServiceName {
    name.parse().unwrap()
}

fn registration(port: u16) -> Registration {
    let address = format!("10.0.0.7:{port}").parse().unwrap();
    let id = Some(format!("db-{port}").parse().unwrap());
    Registration { id, check: Check::none(), ..Registration::new(name("db"), address) }
}

fn everything() -> Query {
    Query::service(name("db")).scope(Scope::All)
}

#[tokio::test]
async fn everything_can_be_asked_without_a_socket() {
    let inside = Inside::new(Config::default());
    let mut api = inside.api(None);
    let registered = api.register(registration(1)).await.unwrap();
    assert_eq!(registered.outcome, Outcome::Created);
    assert_eq!(api.get(&name("db")).unwrap().instance.id, registered.id);
    api.renew(&registered.id).unwrap();
    api.report(&registered.id, Trouble::Timeout).unwrap();
    api.drain(registered.id.clone(), true).await.unwrap();
    assert!(matches!(api.get(&name("db")), Err(DiscoveryError::NonePassing { registered: 1, .. })));
    let listed = api.list(everything(), None).unwrap();
    assert!(listed.is_small());
    assert_eq!(listed.page().unwrap().instances.len(), 1);
    assert_eq!(api.few_services().unwrap().len(), 1);
    assert_eq!(api.services(|services| services.len()).await, Ok(1));
    let status = api.status(Sight::Server, |status| status).await.unwrap();
    assert_eq!((status.namespaces.len(), status.doors.calls), (1, 9));
    api.deregister(registered.id).await.unwrap();
    assert!(matches!(api.get(&name("db")), Err(DiscoveryError::NoSuchService { .. })));
    inside.stop().await;
}

#[tokio::test]
async fn the_rules_hold_whoever_asks_and_refusals_are_counted() {
    let shares = Config { max_instances_per_connection: 1, max_watches: 0, ..Config::default() };
    let inside = Inside::new(shares);
    let (mut api, other) = (inside.api(None), inside.api(None));
    let metadata = Registration { address: "169.254.169.254:80".parse().unwrap(), ..registration(1) };
    let refusal = api.register(metadata).await.unwrap_err();
    assert!(matches!(&refusal, DiscoveryError::Invalid(invalid) if invalid.to_string().contains("address")));
    let wide = Query { services: (0..2_000).map(|n| name(&format!("s{n}"))).collect(), ..Query::default() };
    assert!(matches!(api.list(wide.clone(), None), Err(DiscoveryError::Invalid(_))));
    assert!(matches!(api.watch(wide, None, Wait(Duration::ZERO), None, None), Err(DiscoveryError::Invalid(_))));
    assert!(matches!(api.list(everything(), None), Err(DiscoveryError::NoSuchService { .. })));

    api.register(registration(1)).await.unwrap();
    assert_eq!(api.register(registration(1)).await.unwrap().outcome, Outcome::Unchanged, "its own");
    let limit = |refusal| match refusal {
        DiscoveryError::LimitReached { limit, .. } => limit,
        other => panic!("{other}"),
    };
    let refusal = api.register(registration(2)).await.unwrap_err();
    assert_eq!(limit(refusal), "--max-instances-per-connection");
    // It is gone, whoever took it out, and counts no longer.
    other.deregister("db-1".parse().unwrap()).await.unwrap();
    api.register(registration(2)).await.unwrap();

    let Ok(Watch::Now(News::Snapshot(listing))) = api.watch(everything(), None, Wait(Duration::ZERO), None, None)
    else {
        panic!("without a cursor there is something to tell");
    };
    let cursor = listing.update().unwrap().cursor;
    let refusal = api.watch(everything(), Some(cursor), Wait(Duration::from_secs(60)), None, None).unwrap_err();
    assert_eq!(limit(refusal), "--max-watches");
    let page = api.metrics().unwrap();
    for (reason, count) in [("invalid", 3), ("no-such-service", 1), ("limit-reached", 2)] {
        let line = format!("roundsman_refusals_total{{reason=\"{reason}\"}} {count}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    for (method, count) in [("register", 5), ("list", 2), ("watch", 3), ("deregister", 1)] {
        let line = format!("roundsman_rpc_calls_total{{method=\"{method}\"}} {count}\n");
        assert!(page.contains(&line), "{line}{page}");
    }
    inside.stop().await;
}

#[tokio::test]
async fn a_watch_waits_and_is_told_and_ends_when_the_server_stops() {
    let inside = Inside::new(Config::default());
    let (mut api, mut other) = (inside.api(None), inside.api(None));
    let Ok(Watch::Now(News::Snapshot(listing))) = api.watch(everything(), None, Wait(Duration::ZERO), None, None)
    else {
        panic!("without a cursor there is something to tell");
    };
    let cursor = listing.update().unwrap().cursor;
    let minute = Wait(Duration::from_secs(60));
    let Ok(Watch::Later(waiting)) = api.watch(everything(), Some(cursor), minute, None, None) else {
        panic!("nothing happened")
    };
    let (told, registered) = tokio::join!(waiting.run(CancellationToken::new()), other.register(registration(1)));
    let Ok(News::Update(update)) = told else { panic!("it was told of nothing") };
    assert_eq!(update.instances[0].id, registered.unwrap().id);

    let stop = CancellationToken::new();
    let Ok(Watch::Later(waiting)) = other.watch(everything(), Some(update.cursor), minute, None, None) else {
        panic!("nothing happened since");
    };
    stop.cancel();
    let Ok(News::Update(last)) = waiting.run(stop).await else { panic!("it has a cursor to go on from") };
    assert!(last.is_unchanged());
    inside.stop().await;
}

#[tokio::test]
async fn what_named_callers_ask_for_is_in_the_graph() {
    let inside = Inside::new(Config::default());
    let (mut order, mut nobody) = (inside.api(Some("order")), inside.api(None));
    drop((order.get(&name("db")), order.list(everything(), None), nobody.get(&name("db"))));
    let graph = nobody.graph(|graph| graph).await.unwrap();
    let edges: Vec<_> = graph.edges.iter().map(|edge| (edge.caller.as_str(), edge.lookups)).collect();
    assert_eq!(edges, [("order", 2)]);
    inside.stop().await;
}

#[tokio::test]
async fn each_metric_is_on_the_page_once() {
    let inside = Inside::new(Config::default());
    let page = inside.api(None).metrics().unwrap();
    let mut names: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE roundsman_")).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "{page}");
    for of in ["rpc_connections", "http_connections", "store_up", "commits", "watches", "lag_seconds", "graph_edges"] {
        assert!(names.iter().any(|name| name.split(' ').next() == Some(of)), "{of}: {page}");
    }
    inside.stop().await;
}
