//! The `https` check against a server with a certificate of its own making.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use roundsman_health::{Class, Settings};
use roundsman_protocol::Check;
use roundsman_registry::Health;
use rustls::{ServerConfig, ServerConnection, StreamOwned, crypto::ring, pki_types::PrivatePkcs8KeyDer};

use crate::support::{OK, Seen, Server, UNAVAILABLE, Watched, nowhere, record, settings, until};

/// A TLS server for as long as the test runs, one connection at a time.
pub(crate) fn serve(answer: &'static [u8]) -> (SocketAddr, Arc<Seen>) {
    let made = rcgen::generate_simple_self_signed(["product.example".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let (config, seen) = (Arc::new(config), Arc::new(Seen::default()));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let noted = Arc::clone(&seen);
    thread::spawn(move || {
        for stream in listener.incoming() {
            noted.connections.fetch_add(1, Ordering::SeqCst);
            let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = StreamOwned::new(connection, stream.unwrap());
            let mut bytes = [0; 1_024];
            while let Ok(1..) = tls.read(&mut bytes) {
                noted.requests.fetch_add(1, Ordering::SeqCst);
                tls.write_all(answer).unwrap();
            }
        }
    });
    (addr, seen)
}

async fn verdict(addr: SocketAddr, timeout: Duration) -> (Class, String) {
    let mut watched = Watched::start(Settings { failures: 1, timeout, ..settings() });
    watched.rounds.track(&record("product-1", &addr.to_string(), Check::https("/health"), Health::Suspect));
    let (_, class, reason) = watched.flip().await;
    watched.stop().await;
    (class, reason)
}

#[tokio::test]
async fn an_own_certificate_is_good_enough() {
    let (class, reason) = verdict(serve(OK).0, crate::support::PATIENCE).await;
    assert!(class == Class::Passed && reason.starts_with("GET /health: 200 in "), "{class:?} {reason}");
    let (class, reason) = verdict(serve(UNAVAILABLE).0, crate::support::PATIENCE).await;
    assert!(class == Class::Status && reason.starts_with("GET /health: 503 in "), "{class:?} {reason}");
}

#[tokio::test]
async fn troubles_are_told_apart_behind_tls_too() {
    let refused = verdict(nowhere().await, crate::support::PATIENCE).await;
    assert_eq!(refused, (Class::Refused, "GET /health: connection refused".into()));
    let silent = Server::start(|_, stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let nothing = verdict(silent.addr, Duration::from_millis(300)).await;
    assert_eq!(nothing, (Class::Silence, "GET /health: no answer in 300ms".into()));
    let plain = Server::start(|_, mut stream, _| async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let _ = stream.read(&mut [0; 1_024]).await;
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
    })
    .await;
    let (class, reason) = verdict(plain.addr, crate::support::PATIENCE).await;
    assert!(class == Class::Garbage && reason.starts_with("GET /health: TLS: "), "{class:?} {reason}");
    let closing = Server::start(|_, stream, _| async move { drop(stream) }).await;
    assert_eq!(verdict(closing.addr, crate::support::PATIENCE).await.0, Class::Reset);
}

#[tokio::test]
async fn six_visits_share_a_connection_behind_tls_too() {
    let (addr, seen) = serve(OK);
    let watched = Watched::start(Settings { interval: Duration::from_millis(20), ..settings() });
    watched.rounds.track(&record("product-1", &addr.to_string(), Check::https("/health"), Health::Passing));
    until("seven visits", || seen.requests() >= 7).await;
    assert!(seen.connections() >= 2 && seen.connections() <= 1 + seen.requests() / 6, "{seen:?}");
    assert_eq!(watched.stop().await, []);
}
