//! The one frame each way before tarpc starts. Always JSON, so that a mismatch is a sentence and not a hang.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Codec,
    name::{Namespace, ServiceName},
};

/// The version of the protocol behind the handshake. JSON of version 1 is still understood: a field that is absent there
/// has a default, where postcard would read the next one in its place.
pub const VERSION: u32 = 2;

/// The largest handshake frame; anything longer is no handshake.
pub const MAX_BYTES: usize = 4 * 1_024;

/// What a client says first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The protocol's version, [`VERSION`].
    pub roundsman: u32,
    /// How the frames that follow are written. Never left out: who writes JSON by hand must not get postcard.
    pub codec: Codec,
    /// Which service is calling, if any.
    #[serde(default)]
    pub service: Option<ServiceName>,
    /// The tenant whom all calls on this connection are about.
    #[serde(default)]
    pub namespace: Namespace,
    /// Who the caller can prove to be. Not used yet.
    #[serde(default)]
    pub token: Option<String>,
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Whether calls may follow. If not, the connection is closed.
    pub ok: bool,
    /// The server's version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The server's name, new at each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

// === impl Hello ===

impl Hello {
    /// A greeting in this version of the protocol.
    #[must_use]
    pub fn new(codec: Codec, namespace: Namespace, service: Option<ServiceName>) -> Self {
        Self { roundsman: VERSION, codec, service, namespace, token: None }
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// A sentence for the client: what was wrong with it.
    pub fn read(frame: &[u8]) -> Result<Self, String> {
        let hello: Self = serde_json::from_slice(frame).map_err(|error| {
            format!(
                "the first frame must be a handshake such as {{\"roundsman\":{VERSION},\"codec\":\"json\"}}: {error}"
            )
        })?;
        match (hello.roundsman, hello.codec) {
            (VERSION, _) | (1, Codec::Json) => Ok(hello),
            (other, _) => Err(format!(
                "this server speaks version {VERSION} of the protocol, the client version {other}: use the same release on both sides"
            )),
        }
    }
}

// === impl Welcome ===

impl Welcome {
    /// "Come in."
    #[must_use]
    pub fn accept(version: impl Into<String>, server: impl Into<String>) -> Self {
        Self { ok: true, version: Some(version.into()), server: Some(server.into()), error: None }
    }

    /// "Stay out, because."
    #[must_use]
    pub fn refuse(error: impl Into<String>) -> Self {
        Self { ok: false, version: None, server: None, error: Some(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_greeting_is_enough() {
        let hello = Hello::read(br#"{"roundsman":2,"codec":"postcard"}"#).unwrap();
        assert_eq!(hello, Hello::new(Codec::Postcard, Namespace::default(), None));
        let hello = Hello::read(br#"{"roundsman":1,"codec":"json","service":"order","namespace":"shop","token":null}"#)
            .unwrap();
        assert_eq!((hello.codec, hello.namespace.as_str()), (Codec::Json, "shop"));
    }

    #[test]
    fn a_mismatch_is_a_sentence() {
        assert!(Hello::read(b"GET / HTTP/1.1").unwrap_err().contains("must be a handshake"));
        assert!(Hello::read(br#"{"roundsman":2}"#).unwrap_err().contains("missing field `codec`"));
        for other in [r#"{"roundsman":3,"codec":"json"}"#, r#"{"roundsman":1,"codec":"postcard"}"#] {
            assert!(Hello::read(other.as_bytes()).unwrap_err().contains("version 2"), "{other}");
        }
        assert!(Hello::read(br#"{"roundsman":1,"codec":"xml"}"#).unwrap_err().contains("xml"));
        assert!(Hello::read(br#"{"roundsman":1,"namespace":"a b"}"#).unwrap_err().contains("namespace"));
        let refusal = serde_json::to_string(&Welcome::refuse("no")).unwrap();
        assert_eq!(refusal, r#"{"ok":false,"error":"no"}"#);
    }
}
