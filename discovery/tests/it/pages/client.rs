//! A client of any version, and what it makes of updates.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use roundsman_discovery::Server;
use roundsman_protocol::{
    Bookmark, Codec, Cursor, Dialect, Digest, DiscoveryRequest, DiscoveryResponse, Instance, InstanceId, Known, Page,
    Query, Registration, Update, Version, limits,
    rpc::Wait,
    wire::{read_response, write_message},
};
use serde_json::{Value, json};
use tarpc::{ClientMessage, Request};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::id;
use crate::support::SOON;

/// A client that speaks any version in any codec.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) dialect: Dialect,
    pub(super) next: u64,
}

impl Client {
    pub(super) async fn connect(server: &Server, version: Version, codec: Codec) -> Self {
        let stream = TcpStream::connect(server.rpc_addr()).await.unwrap();
        let mut client = Self { stream, dialect: Dialect { version, codec }, next: 0 };
        client.send(json!({"roundsman": version.number(), "codec": codec}).to_string().as_bytes()).await;
        let welcome: Value = serde_json::from_slice(&client.receive().await).unwrap();
        assert_eq!(welcome["ok"], true, "{welcome}");
        client
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let frame = [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
        self.stream.write_all(&frame).await.unwrap();
    }

    pub(super) async fn receive(&mut self) -> Vec<u8> {
        let frame = async {
            let length = self.stream.read_u32().await.unwrap();
            let mut bytes = vec![0; length as usize];
            self.stream.read_exact(&mut bytes).await.unwrap();
            bytes
        };
        timeout(SOON, frame).await.expect("the server does not answer")
    }

    /// Calls, and returns the answer with the length of its frame.
    pub(super) async fn call(&mut self, message: DiscoveryRequest) -> (DiscoveryResponse, usize) {
        self.next += 1;
        let mut context = tarpc::context::current();
        context.deadline += SOON;
        let request = ClientMessage::Request(Request { context, id: self.next, message });
        self.send(&write_message(self.dialect, &request).unwrap()).await;
        let frame = self.receive().await;
        let response = read_response(self.dialect, &frame).unwrap();
        assert_eq!(response.request_id, self.next);
        (response.message.unwrap(), frame.len() + 4)
    }

    pub(super) async fn register(&mut self, registration: Registration) {
        let (answer, _) = self.call(DiscoveryRequest::Register { registration }).await;
        assert!(matches!(answer, DiscoveryResponse::Register(Ok(_))), "{answer:?}");
    }

    pub(super) async fn deregister(&mut self, n: u16) {
        let (answer, _) = self.call(DiscoveryRequest::Deregister { id: id(n) }).await;
        assert!(matches!(answer, DiscoveryResponse::Deregister(Ok(()))), "{answer:?}");
    }

    pub(super) async fn list(&mut self, query: &Query, after: Option<Bookmark>) -> (Page, usize) {
        match self.call(DiscoveryRequest::List { query: query.clone(), after }).await {
            (DiscoveryResponse::List(Ok(page)), length) => (page, length),
            (other, _) => panic!("{other:?}"),
        }
    }

    pub(super) async fn watch(
        &mut self,
        after: Option<Cursor>,
        wait: Duration,
        known: Option<Known>,
        page: Option<Bookmark>,
    ) -> (Update, usize) {
        let request = DiscoveryRequest::Watch { query: Query::default(), after, wait: Wait(wait), known, page };
        match self.call(request).await {
            (DiscoveryResponse::Watch(Ok(update)), length) => (update, length),
            (other, _) => panic!("{other:?}"),
        }
    }

    /// All pages of a list, and how many there were.
    pub(super) async fn listed(&mut self, query: &Query) -> (Vec<Arc<Instance>>, usize) {
        let (mut all, mut pages, mut after) = (Vec::new(), 0, None);
        loop {
            let (page, length) = self.list(query, after).await;
            assert!(length <= limits::PAGE_BYTES, "{length}");
            all.extend(page.instances);
            pages += 1;
            after = page.next;
            if after.is_none() {
                return (all, pages);
            }
        }
    }

    /// Watches until there is nothing new, as a client does that comes with what it knows.
    pub(super) async fn follow(&mut self, mirror: &mut Mirror) -> Followed {
        let mut followed = Followed::default();
        loop {
            let (mut update, mut length) = self.watch(mirror.cursor, Duration::ZERO, mirror.digest(), None).await;
            loop {
                assert!(length <= limits::PAGE_BYTES || !update.snapshot, "{length}");
                followed.answers += 1;
                followed.bytes += length;
                let Some(next) = update.next.take() else { break };
                let (more, len) = self.watch(None, Duration::ZERO, None, Some(next)).await;
                update.instances.extend(more.instances);
                (update.next, length) = (more.next, len);
            }
            followed.snapshots += usize::from(update.snapshot);
            followed.parts += update.parts.len();
            let quiet = update.is_unchanged();
            mirror.take(update);
            if quiet {
                return followed;
            }
        }
    }
}

/// What it took to know what the server knows.
#[derive(Debug, Default)]
pub(super) struct Followed {
    pub(super) answers: usize,
    pub(super) bytes: usize,
    pub(super) snapshots: usize,
    pub(super) parts: usize,
}

/// What a client knows.
#[derive(Clone, Default)]
pub(super) struct Mirror {
    pub(super) cursor: Option<Cursor>,
    pub(super) known: BTreeMap<InstanceId, Arc<Instance>>,
}

impl Mirror {
    pub(super) fn digest(&self) -> Option<Known> {
        self.cursor.map(|_| Known::Digest(Digest::of(self.known.values().map(|instance| &**instance))))
    }

    pub(super) fn take(&mut self, update: Update) {
        self.cursor = Some(update.cursor);
        self.known.retain(|id, _| !update.snapshot && !update.parts.iter().any(|part| usize::from(*part) == id.part()));
        for gone in update.removed {
            self.known.remove(&gone.id);
        }
        self.known.extend(update.instances.into_iter().map(|instance| (instance.id.clone(), instance)));
    }

    pub(super) fn is(&self, all: &[Arc<Instance>]) -> bool {
        let mut all = all.to_vec();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        self.known.values().eq(&all)
    }
}
