//! The RPC door by hand: JSON behind a handshake of version 1, which every release of the server understands.

use std::{net::SocketAddr, time::Duration};

use roundsman_protocol::limits;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::error::{Context, Failure, Result};

/// How long any answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the server may work on a call, watches aside.
const DEADLINE: Duration = Duration::from_secs(50);

/// A connection without buffers of its own: there may be ten thousand of them.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) stream: TcpStream,
    calls: u64,
}

/// A call's frame, length included.
pub(crate) fn frame(id: u64, message: &Value, deadline: Duration) -> Result<Vec<u8>> {
    let context = json!({"deadline": {"secs": deadline.as_secs(), "nanos": 0}});
    framed(&json!({"Request": {"context": context, "id": id, "message": message}}))
}

/// Any message's frame.
pub(crate) fn framed(message: &Value) -> Result<Vec<u8>> {
    let body = serde_json::to_vec(message).context("writing a frame")?;
    let length = u32::try_from(body.len()).context("a frame's length")?;
    Ok([&length.to_be_bytes(), body.as_slice()].concat())
}

// === impl Wire ===

impl Wire {
    pub(crate) async fn open(server: SocketAddr, namespace: &str) -> Result<Self> {
        Self::open_in(1, server, namespace).await
    }

    /// The same in a later version, whose answers tell more. Lists and watches are as in version 1 up to the second.
    pub(crate) async fn open_in(version: u32, server: SocketAddr, namespace: &str) -> Result<Self> {
        let stream = TcpStream::connect(server).await.context(format!("connecting to {server}"))?;
        stream.set_nodelay(true).context("setting nodelay")?;
        let mut wire = Self { stream, calls: 0 };
        wire.write(&framed(&json!({"roundsman": version, "codec": "json", "namespace": namespace}))?).await?;
        let welcome: Value = serde_json::from_slice(&wire.receive().await?).context("reading the handshake")?;
        match welcome.get("ok") {
            Some(Value::Bool(true)) => Ok(wire),
            _ => Err(Failure::new("the handshake", welcome.to_string())),
        }
    }

    /// Calls a method by its name and returns what it answered; a refusal is an error.
    pub(crate) async fn call(&mut self, method: &str, arguments: Value) -> Result<Value> {
        self.send(method, arguments, DEADLINE).await?;
        read_answer(&self.receive().await?)
    }

    /// Makes all of these calls, `together` at a time: as one write, whose answers are read before the next.
    pub(crate) async fn call_all(
        &mut self,
        method: &str,
        arguments: impl IntoIterator<Item = Result<Value>>,
        together: usize,
    ) -> Result<()> {
        let mut arguments = arguments.into_iter();
        loop {
            let (mut batch, mut calls) = (Vec::new(), 0);
            for arguments in arguments.by_ref().take(together.max(1)) {
                self.calls += 1;
                calls += 1;
                batch.extend(frame(self.calls, &json!({method: arguments?}), DEADLINE)?);
            }
            if calls == 0 {
                return Ok(());
            }
            self.write(&batch).await?;
            for _ in 0..calls {
                read_answer(&self.receive().await?)?;
            }
        }
    }

    /// Sends a call and does not wait for its answer.
    pub(crate) async fn send(&mut self, method: &str, arguments: Value, deadline: Duration) -> Result<()> {
        self.calls += 1;
        let mut message = serde_json::Map::new();
        message.insert(method.to_owned(), arguments);
        let bytes = frame(self.calls, &Value::Object(message), deadline)?;
        self.write(&bytes).await
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = timeout(PATIENCE, self.stream.write_all(bytes)).await;
        written.map_err(|_| late("a write"))?.context("writing to the server")
    }

    /// The next frame.
    pub(crate) async fn receive(&mut self) -> Result<Vec<u8>> {
        let read = async {
            let length = self.length().await?;
            let mut body = vec![0; length];
            self.stream.read_exact(&mut body).await.context("reading from the server")?;
            Ok(body)
        };
        timeout(PATIENCE, read).await.map_err(|_| late("an answer"))?
    }

    /// Reads the next frame and forgets it; returns how long it was.
    pub(crate) async fn skip(&mut self, scratch: &mut [u8]) -> Result<usize> {
        let read = async {
            let length = self.length().await?;
            let mut rest = length;
            while rest > 0 {
                let most = rest.min(scratch.len());
                let into = scratch.get_mut(..most).unwrap_or_default();
                match self.stream.read(into).await.context("reading from the server")? {
                    0 => return Err(Failure::new("reading from the server", "it hung up")),
                    count => rest -= count,
                }
            }
            Ok(length)
        };
        timeout(PATIENCE, read).await.map_err(|_| late("an answer"))?
    }

    async fn length(&mut self) -> Result<usize> {
        let length = self.stream.read_u32().await.context("reading from the server")?;
        let length = usize::try_from(length).context("a frame's length")?;
        if length > limits::MAX_ANSWER_BYTES {
            return Err(Failure::new("reading from the server", format!("a frame of {length} bytes")));
        }
        Ok(length)
    }
}

/// What a call answered: its value, or its refusal as an error.
fn read_answer(frame: &[u8]) -> Result<Value> {
    let mut answer: Value = serde_json::from_slice(frame).context("reading an answer")?;
    let refused = |answer: &Value| Failure::new("a call", answer.to_string());
    let outer = answer.get_mut("message").and_then(|message| message.get_mut("Ok")).map(Value::take);
    let Some(Value::Object(methods)) = outer else { return Err(refused(&answer)) };
    let inner = methods.into_iter().next().map(|(_, value)| value).unwrap_or_default();
    match inner {
        Value::Object(mut fields) if fields.contains_key("Ok") => Ok(fields.remove("Ok").unwrap_or_default()),
        // Methods that do not fail answer without an envelope.
        Value::Object(fields) if fields.len() == 1 && fields.contains_key("Err") => {
            Err(refused(&Value::Object(fields)))
        }
        other => Ok(other),
    }
}

fn late(what: &str) -> Failure {
    Failure::Late { what: what.to_owned(), limit: PATIENCE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_unwrapped_and_refusals_are_errors() {
        let answer = |text: &str| read_answer(text.as_bytes());
        let got = answer(r#"{"request_id":1,"message":{"Ok":{"Get":{"Ok":{"id":"a"}}}}}"#).unwrap();
        assert_eq!(got, json!({"id": "a"}));
        assert_eq!(answer(r#"{"request_id":1,"message":{"Ok":{"Renew":{"Ok":null}}}}"#).unwrap(), Value::Null);
        let refused = answer(r#"{"request_id":1,"message":{"Ok":{"Get":{"Err":{"NonePassing":{}}}}}}"#);
        assert!(refused.unwrap_err().to_string().contains("NonePassing"));
        let unreadable = answer(r#"{"request_id":1,"message":{"Err":{"kind":11,"detail":"name"}}}"#);
        assert!(unreadable.unwrap_err().to_string().contains("detail"));
    }

    #[test]
    fn a_frame_begins_with_its_length() {
        let frame = framed(&json!({"a": 1})).unwrap();
        assert_eq!(frame, b"\0\0\0\x07{\"a\":1}");
    }
}
