//! The cache's knowledge, answer by answer, with the clock held still.

use super::*;
use roundsman_protocol::{InstanceStatus, Removed, Update};

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
    assert_eq!((ids(&table, &Query::default()).unwrap(), product(&table)), (vec!["a".into(), "o".into()], fresh(&[])));
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

/// A server that does not know the cursor was told the digest: it tells the parts that differ, of these everything.
#[tokio::test(start_paused = true)]
async fn of_parts_that_differ_the_rest_is_gone_and_others_stay() {
    let (mut table, asked) = (table(), [name("product")]);
    let before = table.view(&Query::service(name("product"))).unwrap();
    assert_eq!(table.digest(&asked), Some(Digest::of(before.instances().iter().map(|instance| &**instance))));
    assert_eq!((table.digest(&[name("order")]), table.digest(&[])), (None, table.digest(&asked)));
    let part = |id: &str| u8::try_from(id.parse::<InstanceId>().unwrap().part()).unwrap();
    assert_ne!(part("a"), part("b"));
    let update = Update { parts: vec![part("a"), part("c")], ..changed(cursor(2, 1), &[("product", "c")]) };
    table.apply(&asked, update, Instant::now());
    assert_eq!(product(&table), fresh(&["b", "c"]));
    let after = table.view(&Query::service(name("product"))).unwrap();
    assert!(Arc::ptr_eq(&before.instances()[1], &after.instances()[0]));
    // "The same" is an answer, too, and as good as a list.
    table.lost(Instant::now());
    table.apply(&asked, Update::unchanged(cursor(3, 1)), Instant::now());
    assert_eq!((product(&table), table.cursor()), (fresh(&["b", "c"]), Some(cursor(3, 1))));
    assert!(table.view(&Query::service(name("product"))).unwrap().is_same(&after));
}

#[tokio::test(start_paused = true)]
async fn parts_of_a_server_that_knows_none_are_no_more_believed_than_a_list() {
    let (mut table, asked) = (table(), [name("product")]);
    table.lost(Instant::now());
    let nothing = |epoch| Update { parts: (0..64).collect(), ..Update::unchanged(cursor(epoch, 0)) };
    table.apply(&asked, nothing(2), Instant::now());
    assert_eq!(product(&table), stale(&["a", "b"]));
    // Nor are removals one by one, as those who follow a subset are told.
    let gone = removed(cursor(3, 0), "product", "a").removed.remove(0);
    let both = vec![gone.clone(), Removed { id: "b".parse().unwrap(), ..gone }];
    table.apply(&asked, Update { removed: both, ..Update::unchanged(cursor(3, 0)) }, Instant::now());
    assert_eq!(product(&table), stale(&["a", "b"]));
    // One is back: the rest is gone.
    table.apply(
        &asked,
        Update { parts: (0..64).collect(), ..changed(cursor(3, 1), &[("product", "b")]) },
        Instant::now(),
    );
    assert_eq!((product(&table), table.next_due()), (fresh(&["b"]), None));
}

#[tokio::test(start_paused = true)]
async fn what_was_saved_is_confirmed_by_its_digest() {
    let (mut table, asked) = (Table::new(GRACE, Instant::now()), [name("product")]);
    let old = Stale::aged(Instant::now(), Duration::from_secs(3_600));
    table.restore(&asked[0], &[Arc::new(instance("product", "a"))], old);
    assert!(table.digest(&asked).is_some() && table.ids(&asked).len() == 1);
    table.apply(&asked, Update::unchanged(cursor(1, 7)), Instant::now());
    assert_eq!((product(&table), table.missing(&asked)), (fresh(&["a"]), None));
    // Also when it joins a watch that goes on.
    table.restore(&name("order"), &[Arc::new(instance("order", "o"))], old);
    table.add(&[name("order")], Update::unchanged(cursor(1, 7)), Instant::now());
    assert_eq!(table.missing(&[name("order"), name("product")]), None);
    assert_eq!(
        (table.cursor(), ids(&table, &Query::service(name("order"))).unwrap()),
        (Some(cursor(1, 7)), vec!["o".into()])
    );
}

/// Sees also those that are missing.
fn kept(table: &Table) -> (Vec<String>, bool) {
    let view = table.seen(&Query::service(name("product")), true).unwrap();
    (view.instances().iter().map(|instance| instance.id.to_string()).collect(), view.stale().is_some())
}

/// Instances of `product`, each with a port.
fn at(cursor: Cursor, instances: &[(&str, u16)]) -> Update {
    let instances = instances.iter().map(|(id, port)| {
        let address = format!("10.0.0.7:{port}").parse().unwrap();
        Arc::new(Instance { address, ..instance("product", id) })
    });
    Update { instances: instances.collect(), ..Update::unchanged(cursor) }
}

fn keeping() -> Table {
    let mut table = Table::new(GRACE, Instant::now());
    table.keep_missing(true);
    let all = Update { snapshot: true, ..at(cursor(1, 6), &[("a", 1), ("b", 2), ("c", 3)]) };
    table.apply(&[name("product")], all, Instant::now());
    table
}

#[tokio::test(start_paused = true)]
async fn who_is_missing_is_kept_until_the_grace_is_over_for_those_who_ask_for_it() {
    let (mut table, asked) = (keeping(), [name("product")]);
    table.lost(Instant::now());
    table.apply(&asked, snapshot(cursor(2, 0), &[]), Instant::now());
    let (due, all) = (Instant::now() + GRACE, stale(&["a", "b", "c"]));
    assert_eq!((kept(&table), table.next_due()), (all.clone(), Some(due)));
    tokio::time::advance(Duration::from_secs(1)).await;
    table.apply(&asked, at(cursor(2, 1), &[("b", 2)]), Instant::now());
    assert_eq!((product(&table), kept(&table), table.next_due()), (fresh(&["b"]), all.clone(), Some(due)));
    // Also when the rest of the answer comes as a list.
    table.apply(&asked, Update { snapshot: true, ..at(cursor(2, 2), &[("b", 2)]) }, Instant::now());
    assert_eq!(kept(&table), all);
    tokio::time::advance(GRACE).await;
    table.begin_anew();
    table.apply(&asked, Update { snapshot: true, ..at(cursor(2, 3), &[("b", 2)]) }, Instant::now());
    assert_eq!((kept(&table), table.next_due()), (fresh(&["b"]), None));
}

#[tokio::test(start_paused = true)]
async fn what_a_new_server_says_of_somebody_who_is_missing_counts_at_once() {
    let (mut table, asked) = (keeping(), [name("product")]);
    table.apply(&asked, Update { snapshot: true, ..at(cursor(2, 0), &[("b", 2)]) }, Instant::now());
    assert_eq!(kept(&table), stale(&["a", "b", "c"]));
    let mut starting = removed(cursor(2, 1), "product", "a");
    starting.removed[0].status = Some(InstanceStatus::Starting);
    table.apply(&asked, starting, Instant::now());
    assert_eq!(kept(&table), stale(&["a", "b", "c"]), "it is back, and not visited yet");
    let touched = table.apply(&asked, removed(cursor(2, 2), "product", "a"), Instant::now());
    assert_eq!((touched, kept(&table)), (Touched::Some(asked.clone().into()), stale(&["b", "c"])));
    // Whoever is missing gives way to another one at its address.
    table.apply(&asked, at(cursor(2, 3), &[("d", 3)]), Instant::now());
    assert_eq!((kept(&table), table.next_due()), (fresh(&["b", "d"]), None));
    // Of the same server everything is believed.
    table.apply(&asked, Update { snapshot: true, ..at(cursor(2, 4), &[("d", 3)]) }, Instant::now());
    assert_eq!(kept(&table), fresh(&["d"]));
}
