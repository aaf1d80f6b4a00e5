//! A server in a few lines: what version 3 answers to lists and watches by digest, by page and by subset, with a switch for
//! each thing that goes wrong.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use futures::{SinkExt, StreamExt};
use roundsman::{
    Instance, Invalid, Removed,
    protocol::{
        Bookmark, Cursor, Dialect, Digest, DiscoveryError, DiscoveryRequest, DiscoveryResponse, Known, Update, Version,
        handshake::{Hello, Welcome},
        wire::{Answer, Head, read_request},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{
    bytes::Bytes,
    codec::{Framed, LengthDelimitedCodec},
};

/// What it knows, and how it behaves.
pub(crate) struct State {
    pub(crate) version: Version,
    pub(crate) cursor: Cursor,
    pub(crate) instances: Vec<Arc<Instance>>,
    /// Instances on a page.
    pub(crate) page: usize,
    /// Whether the next bookmark is refused.
    pub(crate) refuses_page: bool,
    /// After the first page of an answer: this instance is another one, and no log tells it.
    pub(crate) changes_meanwhile: Option<Arc<Instance>>,
    /// What watches asked.
    pub(crate) asked: Vec<Asked>,
    /// Counts the connections that it broke.
    breaks: u64,
}

/// What a watch asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) after: Option<Cursor>,
    pub(crate) known: Option<Known>,
    pub(crate) page: Option<Bookmark>,
    pub(crate) subset: Option<roundsman::protocol::Subset>,
}

pub(crate) struct Model {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    _tasks: JoinSet<()>,
}

pub(crate) fn instance(id: &str, weight: u32) -> Arc<Instance> {
    at("10.0.0.7:7070", id, weight)
}

pub(crate) fn at(address: &str, id: &str, weight: u32) -> Arc<Instance> {
    let json = serde_json::json!({
        "id": id, "name": "product", "namespace": "default", "address": address, "status": "passing", "reason": "",
        "since": "2026-11-21T01:50:00Z", "registered_at": "2026-11-21T01:50:00Z", "check": {}, "tags": [], "meta": {},
        "zone": null, "version": null, "weight": weight,
    });
    Arc::new(serde_json::from_value(json).unwrap())
}

impl Model {
    pub(crate) async fn start(version: Version, instances: Vec<Arc<Instance>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            version,
            cursor: Cursor { epoch: 1, revision: 1 },
            instances,
            page: usize::MAX,
            refuses_page: false,
            changes_meanwhile: None,
            asked: Vec::new(),
            breaks: 0,
        }));
        let (changed, changes) = watch::channel(0);
        let (mut tasks, shared) = (JoinSet::new(), Arc::clone(&state));
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared), changes.clone()));
            }
        });
        Self { addr, state, changed, _tasks: tasks }
    }

    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        let seen = look(&mut self.state.lock().unwrap());
        self.changed.send_modify(|changes| *changes += 1);
        seen
    }

    /// Breaks all connections, and is another server from then on, as far as its cursors tell.
    pub(crate) fn restart(&self, change: impl FnOnce(&mut State)) {
        self.with(|state| {
            change(state);
            state.cursor = Cursor { epoch: state.cursor.epoch + 1, revision: 1 };
            state.breaks += 1;
            state.asked.clear();
        });
    }

    /// Somebody changed something.
    pub(crate) fn change(&self, instances: Vec<Arc<Instance>>) {
        self.with(|state| {
            state.instances = instances;
            state.cursor.revision += 1;
        });
    }
}

async fn serve(stream: TcpStream, state: Arc<Mutex<State>>, mut changes: watch::Receiver<u64>) {
    let mut framed = Framed::new(stream, LengthDelimitedCodec::new());
    let Some(Ok(greeting)) = framed.next().await else { return };
    let hello: Hello = serde_json::from_slice(&greeting).unwrap();
    let (version, breaks) = {
        let state = state.lock().unwrap();
        (state.version, state.breaks)
    };
    let said = hello.roundsman == version.number();
    let welcome = if version == Version::CURRENT {
        serde_json::to_vec(&Welcome::accept(version, "1", "a model")).unwrap()
    } else if said {
        br#"{"ok":true,"version":"0.1.0","server":"an old one"}"#.to_vec()
    } else {
        let refusal = format!("this server speaks version {version} of the protocol, the client another");
        serde_json::to_vec(&serde_json::json!({"ok": false, "error": refusal})).unwrap()
    };
    framed.send(Bytes::from(welcome)).await.unwrap();
    let dialect = Dialect { version, codec: hello.codec };
    let mut waiting = Vec::new();
    loop {
        tokio::select! {
            frame = framed.next() => {
                let Some(Ok(frame)) = frame else { return };
                let Ok(Head::Request { id, body, .. }) = Head::read(dialect.codec, &frame) else { continue };
                waiting.push((id, read_request(version, &body).unwrap(), true));
            }
            changed = changes.changed() => drop(changed),
        }
        let mut still = Vec::new();
        for (id, request, new) in waiting {
            let answer = {
                let mut state = state.lock().unwrap();
                if state.breaks != breaks {
                    return;
                }
                state.answer(request.clone(), new)
            };
            let Some(answer) = answer else {
                still.push((id, request, false));
                continue;
            };
            let frame = dialect.codec.write(&Answer::new(version, id, &Ok(answer))).unwrap();
            if framed.send(Bytes::from(frame)).await.is_err() {
                return;
            }
        }
        waiting = still;
    }
}

impl State {
    /// `None` as long as there is nothing to tell.
    fn answer(&mut self, request: DiscoveryRequest, new: bool) -> Option<DiscoveryResponse> {
        match request {
            DiscoveryRequest::Watch { query, after, wait, known, page } => {
                if new {
                    let subset = query.subset.clone();
                    self.asked.push(Asked { after, known: known.clone(), page: page.clone(), subset });
                }
                self.watch(after, known, page, wait.0.is_zero()).map(DiscoveryResponse::Watch)
            }
            DiscoveryRequest::Renew { id } => Some(DiscoveryResponse::Renew(Err(DiscoveryError::NotRegistered { id }))),
            _ => Some(DiscoveryResponse::Services(Ok(vec![]))),
        }
    }

    fn watch(
        &mut self,
        after: Option<Cursor>,
        known: Option<Known>,
        page: Option<Bookmark>,
        at_once: bool,
    ) -> Option<Result<Update, DiscoveryError>> {
        if let Some(page) = page {
            if std::mem::take(&mut self.refuses_page) {
                return Some(Err(Invalid::new("page", "nobody remembers it").into()));
            }
            let (mask, from) = page.as_str().split_once('.').unwrap();
            return Some(Ok(self.page(mask.parse().unwrap(), from.parse().unwrap())));
        }
        // There is no log: a cursor is known, and nothing happened since, or else it is not.
        match known {
            _ if after == Some(self.cursor) => at_once.then(|| Ok(Update::unchanged(self.cursor))),
            Some(Known::Digest(known)) => {
                let ours = Digest::of(self.instances.iter().map(|instance| &**instance));
                Some(Ok(match known.parts_that_differ(&ours) {
                    0 => Update::unchanged(self.cursor),
                    mask => Update { snapshot: mask == u64::MAX, ..self.page(mask, 0) },
                }))
            }
            Some(Known::Ids(known)) => {
                let reason = "left to others".into();
                let gone = |id: &roundsman::InstanceId| Removed {
                    id: id.clone(),
                    name: "product".parse().unwrap(),
                    status: None,
                    reason: Arc::clone(&reason),
                };
                let removed = known.iter().filter(|id| !self.has(id)).map(gone).collect();
                Some(Ok(Update { instances: self.instances.clone(), removed, ..Update::unchanged(self.cursor) }))
            }
            None => Some(Ok(Update { snapshot: true, ..self.page(u64::MAX, 0) })),
        }
    }

    fn has(&self, id: &roundsman::InstanceId) -> bool {
        self.instances.iter().any(|instance| instance.id == *id)
    }

    fn page(&mut self, mask: u64, from: usize) -> Update {
        let matching = self.instances.iter().filter(|instance| mask & instance.id.part_mask() != 0);
        let mut rest: Vec<_> = matching.skip(from).cloned().collect();
        let next = (rest.len() > self.page).then(|| Bookmark::try_new(format!("{mask}.{}", from + self.page)).unwrap());
        rest.truncate(self.page);
        let parts = if mask == u64::MAX { vec![] } else { (0..64).filter(|part| mask & 1 << part != 0).collect() };
        let update = Update { instances: rest, parts, next, ..Update::unchanged(self.cursor) };
        if let Some(other) = self.changes_meanwhile.take_if(|_| update.next.is_some()) {
            self.instances
                .iter_mut()
                .filter(|instance| instance.id == other.id)
                .for_each(|old| *old = Arc::clone(&other));
            self.cursor.revision += 1;
        }
        update
    }
}
