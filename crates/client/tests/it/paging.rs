//! Answers that come in pages, from a server that cuts them after each instance.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman::{
    Discovery, Event, Instance, Query,
    protocol::{
        Bookmark, Codec, Cursor, DiscoveryRequest, DiscoveryResponse, Page, Update, Version, handshake::Welcome,
        instance::InstanceStatus,
    },
};
use tarpc::{ClientMessage, Response};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{failing::impostor, support::soon};

const CURSOR: Cursor = Cursor { epoch: 7, revision: 9 };

/// `product-1` to `product-4`: one on each page, and `product-1` on the last one again, as another one by then.
fn page(number: usize) -> Vec<Arc<Instance>> {
    let instance = |id: usize, weight: u32| {
        let new = roundsman::protocol::Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
        Arc::new(Instance {
            id: format!("product-{id}").parse().unwrap(),
            name: new.name,
            namespace: "default".parse().unwrap(),
            address: new.address,
            status: InstanceStatus::Passing,
            reason: "".into(),
            since: Default::default(),
            registered_at: Default::default(),
            check: Arc::new(new.check),
            tags: Default::default(),
            meta: new.meta,
            zone: None,
            version: None,
            weight,
            history: Default::default(),
            forget_after: None,
        })
    };
    if number == 4 { vec![instance(4, 1), instance(1, 5)] } else { vec![instance(number, 1)] }
}

/// Answers with a page for each question; the first connection breaks after the second page.
async fn serve(mut framed: Framed<TcpStream, LengthDelimitedCodec>, connections: Arc<AtomicUsize>) {
    let breaks = connections.fetch_add(1, Ordering::Relaxed) == 0;
    framed.next().await.unwrap().unwrap();
    let welcome = Welcome::accept(Version::CURRENT, "0.1.0", "paging");
    framed.send(Bytes::from(serde_json::to_vec(&welcome).unwrap())).await.unwrap();
    let mut pages = 0;
    while let Some(Ok(frame)) = framed.next().await {
        let Ok(ClientMessage::Request(call)) = Codec::Postcard.read::<ClientMessage<DiscoveryRequest>>(&frame) else {
            continue;
        };
        let number = |bookmark: Option<Bookmark>| bookmark.map_or(1, |at| at.as_str().parse().unwrap());
        let next = |number: usize| (number < 4).then(|| Bookmark::try_new((number + 1).to_string()).unwrap());
        let answer = match call.message {
            DiscoveryRequest::List { after, .. } => {
                let number = number(after);
                DiscoveryResponse::List(Ok(Page { cursor: CURSOR, instances: page(number), next: next(number) }))
            }
            DiscoveryRequest::Watch { after: Some(after), page: None, .. } => {
                assert_eq!(after, CURSOR, "what changed since the first page is told");
                continue;
            }
            DiscoveryRequest::Watch { page: at, .. } => {
                let number = number(at);
                // Only the first page's cursor counts.
                let cursor = Cursor { revision: CURSOR.revision + number as u64 - 1, ..CURSOR };
                let update = Update { snapshot: true, instances: page(number), ..Update::unchanged(cursor) };
                DiscoveryResponse::Watch(Ok(Update { next: next(number), ..update }))
            }
            _ => continue,
        };
        let answer = Response { request_id: call.id, message: Ok(answer) };
        framed.send(Bytes::from(Codec::Postcard.write(&answer).unwrap())).await.unwrap();
        pages += 1;
        if breaks && pages == 2 {
            return;
        }
    }
}

fn shown(instances: &[Arc<Instance>]) -> Vec<(String, u32)> {
    let mut shown: Vec<_> = instances.iter().map(|instance| (instance.id.to_string(), instance.weight)).collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn pages_are_collected_on_one_connection_and_each_instance_is_there_once() {
    let expected = [("product-1", 5), ("product-2", 1), ("product-3", 1), ("product-4", 1)];
    let expected = expected.map(|(id, weight)| (id.to_owned(), weight));
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    let (addr, _tasks) = impostor(move |framed| serve(framed, Arc::clone(&counter))).await;
    let discovery = soon(Discovery::connect(addr)).await.unwrap();
    assert_eq!(shown(&soon(discovery.list(Query::default())).await.unwrap()), expected);
    assert_eq!(connections.load(Ordering::Relaxed), 2, "after the break it began anew");

    connections.store(0, Ordering::Relaxed);
    let discovery = soon(Discovery::connect(addr)).await.unwrap();
    let mut watch = discovery.watch(Query::default()).unwrap();
    let Some(Event::Snapshot(instances)) = soon(watch.next()).await else { panic!("no snapshot") };
    assert_eq!(shown(&instances), expected, "a snapshot is shown when it is whole");

    connections.store(0, Ordering::Relaxed);
    let discovery = soon(Discovery::connect(addr)).await.unwrap();
    let resolver = soon(async { discovery.resolver("product").await }).await.unwrap();
    assert_eq!(shown(resolver.snapshot().instances()), expected);
}
