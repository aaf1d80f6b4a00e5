//! Many clients that follow their subsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use roundsman_discovery::Server;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::timeout};

use super::query;
use crate::support::{Raw, SOON};

/// What a client knows, and what it was told lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Client {
    /// Markers of instances by id.
    pub(super) has: BTreeMap<String, String>,
    pub(super) gained: Vec<String>,
    pub(super) lost: Vec<(String, Value)>,
}

pub(super) type Clients = BTreeMap<String, Client>;

/// Clients that watch until they are stopped.
pub(super) struct Fleet {
    clients: Arc<Mutex<Clients>>,
    tasks: JoinSet<()>,
}

/// Connects and agrees on the version that knows subsets.
pub(super) async fn connect(server: &Server) -> Raw {
    connect_at(server.rpc_addr()).await
}

async fn connect_at(server: SocketAddr) -> Raw {
    let mut raw = Raw::silent_at(server).await;
    raw.send(&json!({"roundsman": 3, "codec": "json"})).await;
    let welcome = raw.receive().await.unwrap();
    assert_eq!((&welcome["ok"], &welcome["roundsman"]), (&json!(true), &json!(3)), "{welcome}");
    raw
}

/// A watch, from the beginning or from where its last answer left it.
pub(super) fn watch(query: &Value, known: Option<(&Value, &BTreeSet<String>)>) -> Value {
    let (after, ids) = known.unzip();
    let known = ids.map(|ids| json!({"ids": ids}));
    json!({"Watch": {"query": query, "after": after, "wait": "60s", "known": known}})
}

/// A call that may take long.
pub(super) fn patient(message: Value) -> Value {
    json!({"Request": {"context": {"deadline": {"secs": 120, "nanos": 0}}, "id": 7, "message": message}})
}

pub(super) fn ids(instances: &Value) -> BTreeSet<String> {
    instances.as_array().unwrap().iter().map(|instance| instance["id"].as_str().unwrap().to_owned()).collect()
}

// === impl Fleet ===

impl Fleet {
    pub(super) fn start(server: &Server, clients: usize, size: usize) -> Self {
        let names: Vec<String> = (0..clients).map(|n| format!("c-{n}")).collect();
        let state = names.iter().map(|name| (name.clone(), Client::default())).collect();
        let (state, mut tasks) = (Arc::new(Mutex::new(state)), JoinSet::new());
        for name in names {
            tasks.spawn(follow(server.rpc_addr(), name, size, Arc::clone(&state)));
        }
        Self { clients: state, tasks }
    }

    /// Waits until something is true of all clients.
    pub(super) async fn until(&self, right: impl Fn(&Clients) -> bool) {
        let waited = async {
            while !right(&self.clients.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let done = timeout(2 * SOON, waited).await;
        assert!(done.is_ok(), "never came true: loads {:?}", loads(&self.clients.lock().unwrap()));
    }

    /// What everybody knows, and was told since the last call.
    pub(super) fn take_news(&self) -> Clients {
        let mut clients = self.clients.lock().unwrap();
        let taken = clients.clone();
        for client in clients.values_mut() {
            client.gained.clear();
            client.lost.clear();
        }
        taken
    }

    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

async fn follow(server: SocketAddr, name: String, size: usize, clients: Arc<Mutex<Clients>>) {
    let mut raw = connect_at(server).await;
    let (query, mut cursor) = (query(&name, size), Value::Null);
    loop {
        let known: BTreeSet<String> = clients.lock().unwrap()[&name].has.keys().cloned().collect();
        raw.send(&patient(watch(&query, (!cursor.is_null()).then_some((&cursor, &known))))).await;
        let answer = raw.receive_late().await.unwrap();
        let update = answer["message"]["Ok"]["Watch"]["Ok"].clone();
        assert!(update.is_object(), "{answer}");
        cursor = update["cursor"].clone();
        let mut clients = clients.lock().unwrap();
        let client = clients.get_mut(&name).unwrap();
        assert_eq!(update["snapshot"].as_bool(), Some(known.is_empty()), "{name}: {answer}");
        for removed in update["removed"].as_array().unwrap() {
            let id = removed["id"].as_str().unwrap().to_owned();
            assert!(client.has.remove(&id).is_some(), "{name} never had {id}");
            client.lost.push((id, removed.clone()));
        }
        for instance in update["instances"].as_array().unwrap() {
            let id = instance["id"].as_str().unwrap().to_owned();
            let marker = instance["meta"]["marker"].as_str().unwrap().to_owned();
            if client.has.insert(id.clone(), marker).is_none() {
                client.gained.push(id);
            }
        }
        assert!(client.has.len() <= size, "{name} has too many: {client:?}");
    }
}

/// How many clients have each instance that anybody has.
pub(super) fn loads(clients: &Clients) -> Vec<usize> {
    let mut loads = BTreeMap::<&str, usize>::new();
    clients.values().flat_map(|client| client.has.keys()).for_each(|id| *loads.entry(id).or_default() += 1);
    loads.into_values().collect()
}

/// The clients that have an instance.
pub(super) fn holders(clients: &Clients, id: &str) -> BTreeSet<String> {
    clients.iter().filter(|(_, client)| client.has.contains_key(id)).map(|(name, _)| name.clone()).collect()
}

pub(super) fn full(clients: &Clients, size: usize) -> bool {
    clients.values().all(|client| client.has.len() == size)
}

/// How many instances clients got.
pub(super) fn moves(clients: &Clients) -> usize {
    clients.values().map(|client| client.gained.len()).sum()
}

pub(super) fn spread(clients: &Clients) -> (usize, usize) {
    let loads = loads(clients);
    (loads.iter().min().copied().unwrap_or(0), loads.iter().max().copied().unwrap_or(0))
}

/// Whether all instances have loads within 5 % of the mean, or next to it.
pub(super) fn is_even(clients: &Clients, instances: usize) -> bool {
    let (loads, (least, most)) = (loads(clients), spread(clients));
    let mean = loads.iter().sum::<usize>() as f64 / instances as f64;
    let (low, high) = ((mean * 0.95).floor(), (mean * 1.05).ceil());
    loads.len() == instances && least as f64 >= low && most as f64 <= high
}

pub(super) fn check_even(clients: &Clients, instances: usize) {
    assert!(is_even(clients, instances), "{:?}", loads(clients));
}
