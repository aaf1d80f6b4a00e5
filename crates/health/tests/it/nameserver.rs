//! A name server of a few bytes on loopback, which says what it is told to say.

use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{net::UdpSocket, task::JoinSet};

/// What is said about a name.
#[derive(Clone, Debug)]
pub(crate) enum Say {
    /// It has this address, for so many seconds.
    Address(Ipv4Addr, u32),
    /// The same, and nothing to who asks for an address of IPv6.
    HalfAddress(Ipv4Addr, u32),
    /// There is no such name.
    NoName,
    /// It has no address.
    NoAddress,
    /// The name server failed.
    Failure,
    /// The answer ends within its records.
    Garbage,
    /// Nothing.
    Nothing,
}

/// A name server; dropped, it is dead.
#[derive(Debug)]
pub(crate) struct NameServer {
    pub(crate) addr: SocketAddr,
    says: Arc<Mutex<HashMap<String, Say>>>,
    questions: Arc<AtomicUsize>,
    _task: JoinSet<()>,
}

// === impl NameServer ===

impl NameServer {
    /// A name server that says nothing about anything.
    pub(crate) async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let addr = socket.local_addr().unwrap();
        let says: Arc<Mutex<HashMap<String, Say>>> = Arc::default();
        let questions = Arc::new(AtomicUsize::new(0));
        let (known, count) = (Arc::clone(&says), Arc::clone(&questions));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut bytes = [0; 512];
            loop {
                let Ok((length, from)) = socket.recv_from(&mut bytes).await else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let question = &bytes[..length];
                let say = known.lock().unwrap().get(&asked(question)).cloned();
                if let Some(answer) = say.and_then(|say| answer(question, &say)) {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        Self { addr, says, questions, _task: task }
    }

    /// From now on it says this about a name.
    pub(crate) fn say(&self, name: &str, say: Say) {
        self.says.lock().unwrap().insert(name.to_owned(), say);
    }

    /// Packets that it got.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(Ordering::SeqCst)
    }
}

/// The name in a question, in lower case.
fn asked(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut at = 12;
    while question[at] > 0 {
        let end = at + 1 + usize::from(question[at]);
        labels.push(String::from_utf8_lossy(&question[at + 1..end]).to_lowercase());
        at = end;
    }
    labels.join(".")
}

/// The answer to a question, of which header and name are kept.
fn answer(question: &[u8], say: &Say) -> Option<Vec<u8>> {
    let end = 12 + question[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let is_a = question[end - 3] == 1;
    let (code, address) = match say {
        Say::Address(ip, ttl) => (0, is_a.then_some((*ip, *ttl))),
        Say::HalfAddress(ip, ttl) if is_a => (0, Some((*ip, *ttl))),
        Say::HalfAddress(..) => return None,
        Say::NoAddress => (0, None),
        Say::Failure => (2, None),
        Say::NoName => (3, None),
        Say::Garbage => (0, Some((Ipv4Addr::LOCALHOST, 1))),
        Say::Nothing => return None,
    };
    let mut bytes = question[..end].to_vec();
    bytes[2..12].copy_from_slice(&[0x81, 0x80 | code, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some((ip, ttl)) = address {
        bytes.extend([0xc0, 12, 0, 1, 0, 1]);
        bytes.extend(ttl.to_be_bytes());
        bytes.extend([0, 4]);
        bytes.extend(ip.octets());
    }
    if matches!(say, Say::Garbage) {
        bytes.truncate(bytes.len() - 7);
    }
    Some(bytes)
}
