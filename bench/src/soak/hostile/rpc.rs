//! What can be done to the RPC door.

use std::{net::SocketAddr, time::Duration};

use fastrand::Rng;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    error::{Context, Result},
    wire::{Wire, framed},
};

/// Where they are at home; what they do is not to be seen in the watchers' lists.
const NAMESPACE: &str = "hostile";
/// How long they hold what they have.
const HOLD: Duration = Duration::from_secs(15);

/// Something that is no handshake, of a kind that others might send.
pub(super) async fn garbage(server: SocketAddr, rng: &mut Rng) -> Result<()> {
    let mut stream = TcpStream::connect(server).await.context("connecting")?;
    let length = rng.usize(1..3_000);
    let noise: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
    let bytes = match rng.u8(0..6) {
        0 => noise,
        1 => b"GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        2 => framed(&json!({"roundsman": 1}))?,
        3 => framed(&json!({"roundsman": 99, "codec": "json"}))?,
        4 => framed(&json!({"roundsman": -1, "codec": "json", "codec ": "json"}))?,
        _ => [&[0, 0, 0, 16], noise.as_slice()].concat(),
    };
    stream.write_all(&bytes).await.context("writing")?;
    let mut answer = vec![0; 1_024];
    // Some wait for what the server says, some do not.
    drop(timeout(Duration::from_millis(rng.u64(1..500)), stream.read(&mut answer)).await);
    Ok(())
}

/// Everything, twenty times, and nobody who reads it.
pub(super) async fn unread_lists(server: SocketAddr) -> Result<()> {
    let mut wire = Wire::open(server, "default").await?;
    for _ in 0..20 {
        wire.send("List", json!({"query": {"scope": "all", "history": true}}), HOLD).await?;
    }
    sleep(HOLD).await;
    Ok(())
}

/// A length that nobody can mean.
pub(super) async fn oversized(server: SocketAddr) -> Result<()> {
    let mut wire = Wire::open(server, NAMESPACE).await?;
    wire.write(&[0x40, 0, 0, 0]).await?;
    wire.write(&[b'x'; 8_192]).await?;
    let mut answer = vec![0; 1_024];
    drop(timeout(Duration::from_secs(1), wire.stream.read(&mut answer)).await);
    Ok(())
}

/// A call that takes as long to send as the server lets it.
pub(super) async fn slow_frame(server: SocketAddr) -> Result<()> {
    let mut wire = Wire::open(server, NAMESPACE).await?;
    for byte in framed(&json!({"Request": {"id": 1, "message": {"Get": {"service": "nobody"}}}}))? {
        wire.write(&[byte]).await?;
        sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Watches that name as many services as they may, and wait.
pub(super) async fn wide_watches(server: SocketAddr) -> Result<()> {
    let mut wire = Wire::open(server, NAMESPACE).await?;
    let first = wire.call("Watch", json!({"query": {}, "after": null, "wait": "0s"})).await?;
    let cursor = first.get("cursor").cloned().unwrap_or_default();
    let names: Vec<String> = (0..1_024).map(|number| format!("a-name-that-is-rather-long-{number:04}")).collect();
    let arguments = json!({"query": {"services": names}, "after": cursor, "wait": "60s"});
    for _ in 0..10 {
        wire.send("Watch", arguments.clone(), HOLD * 4).await?;
    }
    sleep(HOLD).await;
    Ok(())
}
