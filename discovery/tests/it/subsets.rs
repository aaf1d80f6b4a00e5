//! Subsets over the socket: who gets which instances of a service, and who hears of which change.

mod fleet;

use std::collections::BTreeSet;

use roundsman_discovery::Server;
use serde_json::{Value, json};

use self::fleet::{Fleet, connect, ids, watch};
use crate::support::{Healthy, Raw, config, metric, metric_reaches, server};

const INSTANCES: usize = 50;
const CLIENTS: usize = 200;
const SIZE: usize = 5;

async fn register(raw: &mut Raw, n: usize, marker: usize) {
    let address = format!("10.0.0.7:{}", n + 1);
    let registered = raw.register(json!({"name": "db", "id": format!("db-{n}"), "address": address,
        "meta": {"marker": marker.to_string()}, "tags": [if n.is_multiple_of(2) { "even" } else { "odd" }], "check": {"kind": "none"}}));
    assert!(registered.await["Ok"].is_object());
}

async fn serve(instances: usize) -> (Server, Raw) {
    let server = server().await;
    let mut raw = Raw::connect(&server).await;
    for n in 0..instances {
        register(&mut raw, n, 0).await;
    }
    (server, raw)
}

fn query(client: &str, size: usize) -> Value {
    json!({"services": ["db"], "subset": {"client": client, "size": size}})
}

/// Changes every instance a little, so that everybody hears something once they are up to date.
async fn mark(raw: &mut Raw, fleet: &Fleet, instances: impl IntoIterator<Item = usize>, marker: usize) {
    for n in instances {
        register(raw, n, marker).await;
    }
    let marker = marker.to_string();
    fleet.until(|clients| clients.values().all(|client| client.has.values().all(|is| *is == marker))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_shared_evenly_and_a_change_moves_only_those_whom_it_concerns() {
    let (server, mut raw) = serve(INSTANCES - 1).await;
    let mortal = Healthy::start().await;
    raw.register(json!({"name": "db", "id": "mortal", "address": mortal.addr.to_string(), "meta": {"marker": "0"}}))
        .await;
    raw.until(Raw::list("db"), |answer| {
        let all = answer["Ok"].as_array().unwrap();
        all.iter().all(|instance| instance["status"] == "passing") && all.len() == INSTANCES
    })
    .await;
    let fleet = Fleet::start(&server, CLIENTS, SIZE);
    fleet.until(|clients| clients.values().all(|client| client.has.len() == SIZE)).await;
    fleet.until(|clients| fleet::loads(clients) == vec![20; INSTANCES]).await;
    metric_reaches(&server, "roundsman_subset_clients", CLIENTS as f64).await;
    assert_eq!(metric(&server, "roundsman_subset_groups").await, 1.0);

    // Killed: its holders get another one each, and hear why.
    let before = fleet.take_news();
    mortal.kill().await;
    let concerned = fleet::holders(&before, "mortal");
    fleet.until(|clients| fleet::holders(clients, "mortal").is_empty() && fleet::full(clients, SIZE)).await;
    mark(&mut raw, &fleet, 0..INSTANCES - 1, 1).await;
    let after = fleet.take_news();
    for (name, client) in &after {
        let expected = usize::from(concerned.contains(name));
        assert_eq!((client.gained.len(), client.lost.len()), (expected, expected), "{name}: {client:?}");
        for (id, removed) in &client.lost {
            assert_eq!((id.as_str(), &removed["status"]), ("mortal", &json!("evicted")), "{removed}");
            assert!(removed["reason"].as_str().unwrap().contains("refused"), "{removed}");
        }
    }
    fleet::check_even(&after, INSTANCES - 1);
    println!("killed: {} of {CLIENTS} clients concerned, {} told", concerned.len(), fleet::moves(&after));

    // Deregistered: the same.
    let concerned = fleet::holders(&after, "db-7");
    raw.call(json!({"Deregister": {"id": "db-7"}})).await;
    fleet.until(|clients| fleet::holders(clients, "db-7").is_empty() && fleet::full(clients, SIZE)).await;
    mark(&mut raw, &fleet, (0..INSTANCES - 1).filter(|n| *n != 7), 2).await;
    let after = fleet.take_news();
    assert_eq!(after.iter().filter(|(_, client)| !client.gained.is_empty()).count(), concerned.len());
    assert_eq!(fleet::moves(&after), concerned.len(), "and nothing else moved");
    assert!(
        after.values().flat_map(|client| &client.lost).all(|(id, why)| id == "db-7" && why["reason"] == "deregistered")
    );
    fleet::check_even(&after, INSTANCES - 2);
    println!("deregistered: {} of {CLIENTS} clients concerned, {} moved", concerned.len(), fleet::moves(&after));

    // Two more: they take their share, and no more moves than that.
    register(&mut raw, 100, 2).await;
    register(&mut raw, 101, 2).await;
    fleet.until(|clients| fleet::is_even(clients, INSTANCES)).await;
    mark(&mut raw, &fleet, (0..INSTANCES - 1).filter(|n| *n != 7).chain([100, 101]), 3).await;
    let after = fleet.take_news();
    fleet::check_even(&after, INSTANCES);
    let moves = fleet::moves(&after);
    assert!(after.values().flat_map(|client| &client.gained).all(|id| id == "db-100" || id == "db-101"));
    assert!(after.values().flat_map(|client| &client.lost).all(|(_, why)| why["reason"] == "moved to other clients"));
    assert!((38..=42).contains(&moves), "{moves} moved for two shares of 19 to 21");
    println!("two new ones: {moves} moved; loads {:?}", fleet::spread(&after));
    fleet.stop().await;
    server.stop().await;
}

#[tokio::test]
async fn one_who_comes_back_has_the_same_and_two_of_one_name_share_it() {
    let (server, _raw) = serve(20).await;
    let mut first = connect(&server).await;
    let listed = ids(&first.call(json!({"List": {"query": query("a", 5)}})).await["Ok"]["instances"]);
    let begun = first.call(watch(&query("a", 5), None)).await["Ok"].clone();
    assert_eq!((begun["snapshot"].as_bool(), ids(&begun["instances"])), (Some(true), listed.clone()), "as listed");
    let mut others = Vec::new();
    for n in 0..7 {
        let mut other = connect(&server).await;
        let begun = other.call(watch(&query(&format!("o-{n}"), 5), None)).await["Ok"].clone();
        others.push(ids(&begun["instances"]));
    }
    drop(first);
    let (mut again, mut twin) = (connect(&server).await, connect(&server).await);
    for raw in [&mut again, &mut twin] {
        let known = (&begun["cursor"], &listed);
        let mut asked = watch(&query("a", 5), Some(known));
        asked["Watch"]["wait"] = json!("0s");
        let quiet = raw.call(asked).await["Ok"].clone();
        assert_eq!(
            (&quiet["snapshot"], &quiet["instances"], &quiet["removed"]),
            (&json!(false), &json!([]), &json!([]))
        );
    }
    for (n, had) in others.iter().enumerate() {
        let listed = again.call(json!({"List": {"query": query(&format!("o-{n}"), 5)}})).await;
        assert_eq!(ids(&listed["Ok"]["instances"]), *had, "nobody lost anything by that");
    }
    server.stop().await;
}

/// What happened between two calls is told by the second one, whatever it was.
#[tokio::test]
async fn what_happens_between_two_watches_is_not_missed() {
    let (server, mut raw) = serve(10).await;
    let mut client = connect(&server).await;
    let begun = client.call(watch(&query("a", 5), None)).await["Ok"].clone();
    let had: Vec<String> = ids(&begun["instances"]).into_iter().collect();
    let number = |id: &String| id.strip_prefix("db-").unwrap().parse::<usize>().unwrap();
    raw.call(json!({"Deregister": {"id": had[0]}})).await;
    raw.call(json!({"Drain": {"id": had[1], "on": true}})).await;
    register(&mut raw, number(&had[2]), 9).await;
    // Says that it has one that it was never given, and does not say that it has the fourth.
    let stranger = (0..10).map(|n| format!("db-{n}")).find(|id| !had.contains(id)).unwrap();
    let known: BTreeSet<String> = had.iter().filter(|id| **id != had[3]).cloned().chain([stranger.clone()]).collect();
    let told = client.call(watch(&query("a", 5), Some((&begun["cursor"], &known)))).await["Ok"].clone();
    assert_eq!(told["snapshot"], false);
    let (told_of, removed) = (ids(&told["instances"]), told["removed"].as_array().unwrap().clone());
    let why = |id: &str| removed.iter().find(|removed| removed["id"] == id).cloned();
    assert_eq!(why(&had[0]).unwrap()["reason"], "deregistered");
    assert_eq!(why(&had[1]).unwrap()["status"], "draining");
    assert!(told_of.contains(&had[2]) && told_of.contains(&had[3]) && !told_of.contains(&had[4]), "{told}");
    // It may have got the stranger in place of one that left; then it is not told of it, for it is the same.
    let kept: BTreeSet<String> = known.into_iter().filter(|id| why(id).is_none()).collect();
    assert_eq!(kept.union(&told_of).count(), 5, "{told}");
    assert!(why(&stranger).is_none_or(|why| why["reason"] == "moved to other clients"));
    server.stop().await;
}

#[tokio::test]
async fn after_a_restart_everybody_keeps_what_it_had() {
    let folder = tempfile::tempdir().unwrap();
    let sqlite = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    for store in [sqlite.as_str(), "memory:"] {
        let server = Server::start(config(store)).await.unwrap();
        let mut raw = Raw::connect(&server).await;
        for n in 0..30 {
            register(&mut raw, n, 0).await;
        }
        let mut had = Vec::new();
        let mut connections = Vec::new();
        for n in 0..24 {
            let mut client = connect(&server).await;
            let begun = client.call(watch(&query(&format!("c-{n}"), 5), None)).await["Ok"].clone();
            had.push((ids(&begun["instances"]), begun["cursor"].clone()));
            connections.push(client);
        }
        drop(connections);
        server.stop().await;
        let server = Server::start(config(store)).await.unwrap();
        if store == "memory:" {
            // A store in memory knows only who registered again before the clients came back.
            let mut raw = Raw::connect(&server).await;
            for n in 0..30 {
                register(&mut raw, n, 0).await;
            }
        }
        // In another order, so that it is not by chance.
        for (n, (ids_before, cursor)) in had.iter().enumerate().rev() {
            let mut client = connect(&server).await;
            let known = Some((cursor, ids_before));
            let begun = client.call(watch(&query(&format!("c-{n}"), 5), known)).await["Ok"].clone();
            assert_eq!(
                (&begun["snapshot"], ids(&begun["instances"])),
                (&json!(true), ids_before.clone()),
                "{store} c-{n}"
            );
        }
        let list = |n| json!({"List": {"query": query(&format!("c-{n}"), 5)}});
        let mut raw = connect(&server).await;
        for (n, (ids_before, _)) in had.iter().enumerate() {
            assert_eq!(ids(&raw.call(list(n)).await["Ok"]["instances"]), *ids_before, "{store} c-{n}");
        }
        assert_eq!(metric(&server, "roundsman_subset_moves_total").await, 0.0);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_subset_is_of_what_the_query_matches() {
    let (server, mut raw) = serve(20).await;
    let mut client = connect(&server).await;
    let mut tagged = query("a", 4);
    tagged["tags"] = json!(["even"]);
    let begun = client.call(watch(&tagged, None)).await["Ok"].clone();
    let had: Vec<String> = ids(&begun["instances"]).into_iter().collect();
    let is_even = |id: &String| id.strip_prefix("db-").unwrap().parse::<u32>().unwrap().is_multiple_of(2);
    assert!(had.len() == 4 && had.iter().all(is_even), "{had:?}");
    let whole = client.call(json!({"List": {"query": query("a", 1_000)}})).await;
    assert_eq!(ids(&whole["Ok"]["instances"]).len(), 20, "all of them, when there are fewer");

    // One is drained, another one says something else of itself.
    let (mut known, mut cursor) = (had.iter().cloned().collect::<BTreeSet<_>>(), begun["cursor"].clone());
    raw.call(json!({"Drain": {"id": had[0], "on": true}})).await;
    let address = format!("10.0.0.7:{}", had[1].strip_prefix("db-").unwrap().parse::<u32>().unwrap() + 1);
    raw.register(json!({"name": "db", "id": had[1], "address": address, "check": {"kind": "none"}})).await;
    while known.contains(&had[0]) || known.contains(&had[1]) {
        let told = client.call(watch(&tagged, Some((&cursor, &known)))).await["Ok"].clone();
        for removed in told["removed"].as_array().unwrap() {
            let status = if removed["id"] == *had[0] { "draining" } else { "passing" };
            assert_eq!(removed["status"], status, "{removed}");
            known.remove(removed["id"].as_str().unwrap());
        }
        known.extend(ids(&told["instances"]));
        cursor = told["cursor"].clone();
    }
    assert!(known.len() == 4 && known.iter().all(is_even), "{known:?}");
    let all = client.call(json!({"List": {"query": {"services": ["db"], "tags": ["even"]}}})).await;
    assert_eq!(ids(&all["Ok"]["instances"]).len(), 8, "without a subset, everything");
    server.stop().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_the_reason() {
    let (server, _raw) = serve(3).await;
    let mut client = connect(&server).await;
    let refused = |answer: &Value| answer["Err"]["Invalid"].clone();
    let list = |query: &Value| json!({"List": {"query": query}});
    let mut two = query("a", 5);
    two["services"] = json!(["db", "other"]);
    let mut none = query("a", 5);
    none["services"] = json!([]);
    for wrong in [&two, &none] {
        assert_eq!(refused(&client.call(list(wrong)).await)["field"], "services");
        assert_eq!(refused(&client.call(watch(wrong, None)).await)["field"], "services");
    }
    assert_eq!(refused(&client.call(list(&query("", 5))).await)["field"], "subset.client");
    assert_eq!(refused(&client.call(watch(&query("a", 0), None)).await)["field"], "subset.size");
    let mut missing = query("a", 5);
    missing["services"] = json!(["nobody"]);
    assert_eq!(client.call(list(&missing)).await["Err"]["NoSuchService"]["service"], "nobody");

    let begun = client.call(watch(&query("a", 5), None)).await["Ok"].clone();
    let mut forgetful = watch(&query("a", 5), Some((&begun["cursor"], &BTreeSet::new())));
    forgetful["Watch"]["known"] = json!(null);
    let refusal = refused(&client.call(forgetful.clone()).await);
    assert!(refusal["field"] == "known" && refusal["rule"].as_str().unwrap().contains("says the ids"), "{refusal}");
    forgetful["Watch"]["known"] = json!({"digest": {"count": 0, "sum": "0", "parts": vec!["0"; 64]}});
    let refusal = client.call(forgetful.clone()).await;
    assert!(refusal.to_string().contains("digest"), "{refusal}");
    forgetful["Watch"]["known"] = json!({"ids": (0..1_025).map(|n| format!("db-{n}")).collect::<Vec<_>>()});
    assert!(client.call(forgetful).await.to_string().contains("1024"));
    let mut paged = watch(&query("a", 5), None);
    paged["Watch"]["page"] = json!("1.2:db/db-1");
    assert_eq!(refused(&client.call(paged).await)["field"], "page");
    let paged = json!({"List": {"query": query("a", 5), "after": "1.2:db/db-1"}});
    assert_eq!(refused(&client.call(paged).await)["field"], "after");
    server.stop().await;
}

#[tokio::test]
async fn a_watch_that_waits_is_counted_and_ends_with_its_wait_its_connection_or_the_server() {
    let limits = roundsman_discovery::Config { max_watches: 1, ..config("memory:") };
    let server = Server::start(limits).await.unwrap();
    let mut raw = Raw::connect(&server).await;
    for n in 0..5 {
        register(&mut raw, n, 0).await;
    }
    let mut client = connect(&server).await;
    let begun = client.call(watch(&query("a", 3), None)).await["Ok"].clone();
    let known = ids(&begun["instances"]);
    let mut short = watch(&query("a", 3), Some((&begun["cursor"], &known)));
    short["Watch"]["wait"] = json!("20ms");
    let other = (0..5).find(|n| !known.contains(&format!("db-{n}"))).unwrap();
    register(&mut raw, other, 7).await;
    let quiet = client.call(short).await["Ok"].clone();
    assert_eq!((&quiet["instances"], &quiet["removed"]), (&json!([]), &json!([])));
    assert!(quiet["cursor"]["revision"].as_u64() > begun["cursor"]["revision"].as_u64(), "the cursor moves on");

    let waits = fleet::patient(watch(&query("a", 3), Some((&quiet["cursor"], &known))));
    client.send(&waits).await;
    metric_reaches(&server, "roundsman_watches", 1.0).await;
    let mut second = connect(&server).await;
    let refusal = second.call(watch(&query("b", 3), Some((&quiet["cursor"], &known)))).await;
    assert_eq!(refusal["Err"]["LimitReached"]["limit"], "--max-watches");
    drop(client);
    second.until(watch(&query("b", 3), None), |answer| answer["Ok"]["snapshot"] == true).await;
    second.send(&waits).await;
    metric_reaches(&server, "roundsman_watches", 1.0).await;
    let (stopped, told) = tokio::join!(server.stop(), second.receive());
    let () = stopped;
    let update = &told.unwrap()["message"]["Ok"]["Watch"]["Ok"];
    assert_eq!((&update["cursor"], &update["instances"]), (&quiet["cursor"], &json!([])), "{update}");
}
