//! One connection: a handshake, then calls and their answers.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman_protocol::{
    Dialect,
    handshake::{self, Hello, Welcome},
    limits,
    wire::{Answer, Head, read_request},
};
use tarpc::ServerError;
use tokio::{net::TcpStream, time::timeout};
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use super::Tenants;
use crate::memory::{Calls, Shared};

/// How long somebody may take to say hello.
const HANDSHAKE: Duration = Duration::from_secs(10);

type Wire = Framed<TcpStream, LengthDelimitedCodec>;

/// Serves one client until it leaves, or says what is no message.
pub(super) async fn serve(stream: TcpStream, tenants: Arc<Tenants>) {
    if let Err(error) = converse(stream, &tenants).await {
        tracing::debug!(%error, "a connection of the server for tests broke");
    }
}

async fn converse(stream: TcpStream, tenants: &Tenants) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = LengthDelimitedCodec::builder().max_frame_length(handshake::MAX_BYTES).new_framed(stream);
    let Ok(Some(frame)) = timeout(HANDSHAKE, wire.next()).await else { return Ok(()) };
    let agreed = Hello::read(&frame?).and_then(|hello| Ok((hello.agree()?, hello)));
    let welcome = match &agreed {
        Ok((version, _)) => Welcome::accept(*version, env!("CARGO_PKG_VERSION"), "roundsman-testing"),
        Err(reason) => Welcome::refuse(reason.clone()),
    };
    wire.send(Bytes::from(serde_json::to_vec(&welcome)?)).await?;
    let Ok((version, hello)) = agreed else { return Ok(()) };
    wire.codec_mut().set_max_frame_length(limits::MAX_ANSWER_BYTES);
    answer_calls(wire, Dialect { version, codec: hello.codec }, tenants.of(&hello.namespace)).await
}

async fn answer_calls(mut wire: Wire, dialect: Dialect, memory: Shared) -> io::Result<()> {
    let mut calls = Calls::default();
    loop {
        tokio::select! {
            frame = wire.next() => match frame {
                Some(frame) => take(&mut calls, dialect, &memory, &frame?)?,
                None => return Ok(()),
            },
            (id, answered) = calls.next() => {
                let answer = Answer::new(dialect.version, id, &answered);
                wire.send(Bytes::from(dialect.codec.write(&answer).map_err(io::Error::other)?)).await?;
            }
        }
    }
}

/// Takes in one message. What has a readable head is answered, whatever the rest is.
fn take(calls: &mut Calls, dialect: Dialect, memory: &Shared, frame: &[u8]) -> io::Result<()> {
    match Head::read(dialect.codec, frame).map_err(io::Error::other)? {
        Head::Request { id, body, .. } => match read_request(dialect.version, &body) {
            Ok(request) => calls.begin(id, memory, request),
            Err(error) => {
                let refusal = ServerError::new(io::ErrorKind::InvalidInput, error.to_string());
                calls.answer(id, Err(refusal));
            }
        },
        Head::Cancel { id } => calls.cancel(id),
    }
    Ok(())
}
