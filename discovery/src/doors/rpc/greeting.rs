//! The handshake: one frame each way, always JSON.

use std::{sync::Arc, time::Duration};

use roundsman_protocol::{
    Dialect, Namespace, ServiceName, Version,
    handshake::{Hello, MAX_BYTES, Welcome},
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    End,
    frame::Outgoing,
    wire::{Event, Wire},
};
use crate::context::Context;

/// How long a connection may take to greet. Whoever connects and says nothing holds a permit for no longer.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection after the handshake.
#[derive(Debug)]
pub(super) struct Greeted {
    pub(super) wire: Wire,
    pub(super) namespace: Namespace,
    /// Which service is calling, if it said so.
    pub(super) service: Option<ServiceName>,
}

/// Shakes hands.
///
/// # Errors
/// Why the connection is closed, as metrics name it. The client was told, if it could be.
pub(super) async fn greet(stream: TcpStream, context: &Arc<Context>) -> Result<Greeted, &'static str> {
    let mut wire = Wire::new(stream, MAX_BYTES);
    let read = timeout(GREETING_TIMEOUT, read_hello(&mut wire)).await;
    let hello = match read {
        Err(_) => {
            let time = roundsman_protocol::time::display(GREETING_TIMEOUT);
            refuse(&mut wire, format!("no handshake came within {time}")).await;
            return Err("handshake-timeout");
        }
        Ok(Err(End::Farewell(..))) => {
            let rule = format!(
                "the first frame must be a handshake of at most {MAX_BYTES} bytes: a length (4 bytes, big-endian) and JSON"
            );
            refuse(&mut wire, rule).await;
            return Err("handshake-garbage");
        }
        Ok(Err(_)) => return Err("handshake-eof"),
        Ok(Ok(Err(reason))) => {
            refuse(&mut wire, reason).await;
            return Err("handshake-refused");
        }
        Ok(Ok(Ok(hello))) => hello,
    };
    let (hello, version) = hello;
    let welcome = Welcome::accept(version, env!("CARGO_PKG_VERSION"), context.server.as_str());
    let written = async {
        wire.put(&Outgoing::Welcome(Box::new(welcome)))?;
        wire.flush().await
    };
    if !matches!(timeout(GREETING_TIMEOUT, written).await, Ok(Ok(()))) {
        return Err("handshake-unread");
    }
    let Hello { codec, namespace, service, .. } = hello;
    let dialect = Dialect { version, codec };
    wire.switch(context.config.max_frame, dialect, Arc::clone(&context.budget), namespace.clone());
    Ok(Greeted { wire, namespace, service })
}

/// The greeting and the version that both sides speak, or what is wrong with it.
async fn read_hello(wire: &mut Wire) -> Result<Result<(Hello, Version), String>, End> {
    loop {
        if let Some(frame) = wire.next_frame()? {
            let hello = Hello::read(wire.bytes(frame.clone()));
            wire.frame_done(frame.end);
            return Ok(hello.and_then(|hello| hello.agree().map(|version| (hello, version))));
        }
        if wire.event(true).await? == Event::Ended {
            return Err(End::HungUp);
        }
    }
}

/// Tells a client that there are too many already.
pub(super) async fn turn_away(stream: TcpStream, limit: usize) {
    let mut wire = Wire::new(stream, MAX_BYTES);
    refuse(&mut wire, format!("the server's limit --max-connections ({limit}) is reached")).await;
}

async fn refuse(wire: &mut Wire, reason: String) {
    wire.farewell(&Outgoing::Welcome(Box::new(Welcome::refuse(reason)))).await;
}
