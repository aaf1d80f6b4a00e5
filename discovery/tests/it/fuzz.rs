//! The doors, fed with damaged sessions: no panic, no silence for others, and a sentence before
//! every close. The same sessions at each run; for others there is `fuzz/`.

mod http;
mod sessions;

use std::{
    net::SocketAddr,
    panic,
    sync::{
        Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use roundsman_discovery::{Config, Server};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Raw, SOON, config, page};

static PANICS: AtomicUsize = AtomicUsize::new(0);
static WATCHED: Once = Once::new();

/// A server that visits nobody elsewhere, whatever is registered.
async fn server() -> Server {
    WATCHED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            // Those of a test are failures of the test.
            if what.location().is_none_or(|location| !location.file().contains("tests/it")) {
                PANICS.fetch_add(1, Ordering::Relaxed);
            }
            before(what);
        }));
    });
    let allow_targets = vec!["127.0.0.1/32".parse().unwrap()];
    Server::start(Config { allow_targets, ..config("memory:") }).await.unwrap()
}

/// Nobody else has noticed anything.
async fn assert_stands(server: &Server, bystander: &mut Raw) {
    assert!(bystander.call(json!({"Services": {}})).await["Ok"].is_array());
    assert_eq!(page(server, "/health").await.0, 200);
    assert_eq!(PANICS.load(Ordering::Relaxed), 0, "the server panicked");
}

/// Says everything, and returns everything that was answered until the server hung up. `done`:
/// whether enough was answered.
async fn converse(addr: SocketAddr, said: &[u8], hang_up: bool, done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut reading, mut writing) = TcpStream::connect(addr).await.unwrap().into_split();
    let say = async {
        // The server may hang up in the middle: what it said by then is what counts.
        if writing.write_all(said).await.is_ok() && hang_up {
            drop(writing.shutdown().await);
        }
    };
    let listen = async {
        let (mut heard, mut chunk) = (Vec::new(), vec![0; 64 * 1_024]);
        loop {
            match reading.read(&mut chunk).await {
                Ok(0) | Err(_) => return heard,
                Ok(read) => heard.extend(&chunk[..read]),
            }
            if done(&heard) {
                return heard;
            }
        }
    };
    let ((), heard) = timeout(SOON, futures::future::join(say, listen))
        .await
        .unwrap_or_else(|_| panic!("neither answered nor hung up after {:?}", String::from_utf8_lossy(said)));
    heard
}
