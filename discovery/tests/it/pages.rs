//! Lists and snapshots in pages, as clients of version 3 read them from a socket in both codecs.

mod client;

use std::time::Duration;

use roundsman_discovery::{Config, Server};
use roundsman_protocol::{
    Bookmark, Check, Codec, Cursor, DiscoveryError, DiscoveryRequest, DiscoveryResponse, InstanceId, Query,
    Registration, Scope, Version, rpc::Wait, wire::write_message,
};
use serde_json::{Value, json};
use tarpc::{ClientMessage, Request};

use self::client::{Client, Mirror};
use crate::support::{Raw, config};

fn id(n: u16) -> InstanceId {
    format!("db-{n:05}").parse().unwrap()
}

fn registration(n: u16) -> Registration {
    let name = if n.is_multiple_of(2) { "db" } else { "cache" };
    let address = format!("10.0.{}.{}:1", n / 250, n % 250 + 1).parse().unwrap();
    // So that a few thousand are several pages.
    let meta = [("filling".to_owned(), "x".repeat(200))].into_iter().collect();
    Registration { id: Some(id(n)), meta, check: Check::none(), ..Registration::new(name.parse().unwrap(), address) }
}

async fn fill(server: &Server, count: u16) {
    let mut client = Client::connect(server, Version::V3, Codec::Postcard).await;
    // In one go: each would wait for its commit otherwise.
    for n in 0..count {
        client.next += 1;
        let message = DiscoveryRequest::Register { registration: registration(n) };
        let request = ClientMessage::Request(Request { context: tarpc::context::current(), id: client.next, message });
        client.send(&write_message(client.dialect, &request).unwrap()).await;
        if n % 500 == 499 {
            for _ in 0..500 {
                client.receive().await;
            }
        }
    }
    for _ in 0..count % 500 {
        client.receive().await;
    }
}

fn roomy(store: &str) -> Config {
    Config { max_instances_per_connection: 50_000, ..config(store) }
}

#[tokio::test]
async fn twenty_thousand_instances_are_listed_and_watched_in_pages_in_both_codecs() {
    let server = Server::start(roomy("memory:")).await.unwrap();
    fill(&server, 20_000).await;
    let mut old = Client::connect(&server, Version::V2, Codec::Postcard).await;
    let (whole, _) = old.list(&Query::default(), None).await;
    assert_eq!((whole.instances.len(), whole.next), (20_000, None));
    for (codec, least) in [(Codec::Postcard, 5), (Codec::Json, 15)] {
        let mut client = Client::connect(&server, Version::V3, codec).await;
        let (listed, pages) = client.listed(&Query::default()).await;
        assert!(listed == whole.instances, "the same in the same order");
        assert!(pages >= least, "{pages}");
        let mut mirror = Mirror::default();
        let followed = client.follow(&mut mirror).await;
        assert!(mirror.is(&listed) && followed.snapshots == 1 && followed.answers > least, "{followed:?}");
    }
    for (version, codec) in [(Version::V1, Codec::Json), (Version::V1, Codec::Postcard), (Version::V2, Codec::Json)] {
        let mut old = Client::connect(&server, version, codec).await;
        let (page, _) = old.list(&Query::default(), None).await;
        let (update, _) = old.watch(None, Duration::ZERO, None, None).await;
        assert!(page.instances.len() == 20_000 && page.next.is_none());
        assert!(update.instances.len() == 20_000 && update.snapshot && update.next.is_none());
    }
    server.stop().await;
}

#[tokio::test]
async fn what_changes_while_pages_are_read_is_told_afterwards() {
    let server = Server::start(roomy("memory:")).await.unwrap();
    fill(&server, 3_000).await;
    let mut other = Client::connect(&server, Version::V3, Codec::Postcard).await;
    for codec in [Codec::Postcard, Codec::Json] {
        let mut client = Client::connect(&server, Version::V3, codec).await;
        let (begun, _) = client.listed(&Query::default()).await;
        let (mut update, _) = client.watch(None, Duration::ZERO, None, None).await;
        let mut n = 0;
        while let Some(next) = update.next.take() {
            // One on a page that was read, one that comes, and one that comes and goes.
            other.deregister(n).await;
            other.deregister(2_999 - n).await;
            other.register(registration(4_000 + n)).await;
            other.register(registration(5_000)).await;
            let (more, _) = client.watch(None, Duration::ZERO, None, Some(next)).await;
            assert_eq!(more.cursor, update.cursor);
            other.deregister(5_000).await;
            n += 1;
            update.instances.extend(more.instances);
            update.next = more.next;
        }
        assert!(n >= 1 && update.instances == begun, "all pages are of one moment");
        let mut mirror = Mirror::default();
        mirror.take(update);
        let followed = client.follow(&mut mirror).await;
        assert_eq!((followed.snapshots, followed.parts), (0, 0), "only what changed is told: {followed:?}");
        assert!(mirror.is(&client.listed(&Query::default()).await.0));
        for n in 0..n {
            other.register(registration(n)).await;
            other.register(registration(2_999 - n)).await;
            other.deregister(4_000 + n).await;
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_restart_between_two_pages_leaves_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let server = Server::start(roomy(&store)).await.unwrap();
    fill(&server, 3_000).await;
    let mut client = Client::connect(&server, Version::V3, Codec::Postcard).await;
    let (mut update, _) = client.watch(None, Duration::ZERO, None, None).await;
    let next = update.next.take();
    // One on the page that was read, and two that come: the services are in the order of their names.
    client.deregister(1).await;
    client.deregister(2_998).await;
    client.register(registration(4_000)).await;
    server.stop().await;

    let server = Server::start(roomy(&store)).await.unwrap();
    let mut client = Client::connect(&server, Version::V3, Codec::Postcard).await;
    update.next = next;
    while let Some(next) = update.next.take() {
        let (more, _) = client.watch(None, Duration::ZERO, None, Some(next)).await;
        assert_eq!(more.cursor, update.cursor, "that of the first page, also from another server");
        update.instances.extend(more.instances);
        update.next = more.next;
    }
    let mut mirror = Mirror::default();
    mirror.take(update);
    assert!(mirror.known.contains_key(&id(1)), "it was on the first page");
    assert!(mirror.known.contains_key(&id(4_000)), "the rest is what is there now");
    let followed = client.follow(&mut mirror).await;
    assert!(followed.snapshots == 0 && followed.parts == 1, "only what the digest shows is sent: {followed:?}");
    assert!(mirror.is(&client.listed(&Query::default()).await.0));
    server.stop().await;
}

#[tokio::test]
async fn who_comes_back_after_a_restart_gets_nothing_or_what_differs_or_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", folder.path().join("roundsman.db").display());
    let server = Server::start(roomy(&store)).await.unwrap();
    fill(&server, 3_000).await;
    let mut mirror = Mirror::default();
    let whole = Client::connect(&server, Version::V3, Codec::Json).await.follow(&mut mirror).await;
    server.stop().await;

    let server = Server::start(roomy(&store)).await.unwrap();
    for codec in [Codec::Postcard, Codec::Json] {
        let mut client = Client::connect(&server, Version::V3, codec).await;
        // With a wait as clients have: the answer comes at once all the same.
        let (update, length) = client.watch(mirror.cursor, Duration::from_secs(300), mirror.digest(), None).await;
        assert!(update.is_unchanged() && update.cursor.epoch != mirror.cursor.unwrap().epoch);
        assert!(length < 200, "{length}");
    }
    let mut client = Client::connect(&server, Version::V3, Codec::Json).await;
    for n in [7, 8, 9] {
        client.deregister(n).await;
    }
    client.register(registration(4_000)).await;
    let followed = client.follow(&mut mirror).await;
    assert!(followed.snapshots == 0 && (1..=4).contains(&followed.parts), "{followed:?}");
    assert!(followed.bytes < whole.bytes / 8, "{} of {}", followed.bytes, whole.bytes);
    assert!(mirror.is(&client.listed(&Query::default()).await.0));

    let mut mirror = Mirror { cursor: Some(Cursor { epoch: 1, revision: 1 }), ..mirror };
    mirror.known.retain(|id, _| id.part() >= 40);
    let followed = client.follow(&mut mirror).await;
    assert!(followed.snapshots == 1 && followed.parts == 0, "{followed:?}");
    assert!(mirror.is(&client.listed(&Query::default()).await.0));
    server.stop().await;
}

#[tokio::test]
async fn bookmarks_that_nobody_gave_out_are_refused_or_a_page_of_what_is_there() {
    let server = Server::start(roomy("memory:")).await.unwrap();
    fill(&server, 1_500).await;
    let mut client = Client::connect(&server, Version::V3, Codec::Json).await;
    let query = Query::default().scope(Scope::All);
    for bad in ["x", "1.2.0.db/db-00001", "1.2.ffffffffffffffffff.db/a", "1.2.f.db", "'; drop table --", "\u{1}"] {
        let Ok(bookmark) = bad.parse::<Bookmark>() else { continue };
        let (answer, _) =
            client.call(DiscoveryRequest::List { query: query.clone(), after: Some(bookmark.clone()) }).await;
        let DiscoveryResponse::List(Err(DiscoveryError::Invalid(invalid))) = answer else { panic!("{answer:?}") };
        assert_eq!(invalid.field, "after");
        let (after, known, wait) = (None, None, Wait(Duration::ZERO));
        let request = DiscoveryRequest::Watch { query: query.clone(), after, wait, known, page: Some(bookmark) };
        let DiscoveryResponse::Watch(Err(DiscoveryError::Invalid(invalid))) = client.call(request).await.0 else {
            panic!("{bad}")
        };
        assert!(invalid.field == "page" && invalid.rule.contains("begin anew"), "{invalid}");
    }
    let absurd = format!("{0}.{0}.{0:x}.cache/zzz", u64::MAX).parse().unwrap();
    let (page, _) = client.list(&query, Some(absurd)).await;
    assert!(page.instances.iter().all(|instance| instance.name.as_str() == "db"));
    let last = "1.1.1.zzz/zzz".parse().unwrap();
    let (page, _) = client.list(&query, Some(last)).await;
    assert_eq!((page.instances.len(), page.next), (0, None));

    // That of another tenant shows what this tenant has.
    let (page, _) = client.list(&query, None).await;
    let mut tenant = Raw::silent(&server).await;
    tenant.send(&json!({"roundsman": 3, "codec": "json", "namespace": "shop"})).await;
    assert_eq!(tenant.receive().await.unwrap()["ok"], true);
    let next = page.next.unwrap().to_string();
    let answer = tenant.call(json!({"List": {"query": {}, "after": next}})).await;
    assert_eq!(answer["Ok"]["instances"], json!([]), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn who_stops_half_way_costs_nothing_and_who_goes_on_later_gets_the_rest() {
    let server = Server::start(roomy("memory:")).await.unwrap();
    fill(&server, 3_000).await;
    let (mut raw, status) = (Raw::connect(&server).await, json!({"Status": {}}));
    let used = |status: &Value| status["Ok"]["memory"]["used"].as_u64().unwrap();
    let idle = used(&raw.call(status.clone()).await);
    let mut client = Client::connect(&server, Version::V3, Codec::Json).await;
    let (begun, _) = client.listed(&Query::default()).await;
    let (first, _) = client.list(&Query::default(), None).await;
    client.deregister(2_999).await;
    // Until the server has dropped what it kept for those who read on.
    raw.until(status, |status| used(status) <= idle).await;
    let (mut all, mut after) = (first.instances, first.next);
    while let Some(next) = after {
        let (page, _) = client.list(&Query::default(), Some(next)).await;
        all.extend(page.instances);
        after = page.next;
    }
    assert!(all == begun, "of the moment when it began");
    server.stop().await;
}
