//! The one frame each way before tarpc starts. Always JSON, so that a mismatch is a sentence and not a hang.

use serde::{Deserialize, Serialize};

use crate::{
    codec::Codec,
    name::{Namespace, ServiceName},
    version::Version,
};

/// The largest handshake frame; anything longer is no handshake.
pub const MAX_BYTES: usize = 4 * 1_024;

/// What a client says first.
///
/// The versions that it speaks are a range, of which the server picks the newest that it speaks, too. Releases before
/// version 3 know of no range: they read `roundsman`, and let in only who says the very version that they speak.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// A version that the client speaks: the newest, unless it says otherwise.
    pub roundsman: u32,
    /// The oldest version that it speaks; only `roundsman` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u32>,
    /// The newest version that it speaks; `roundsman` when absent. For clients that say an older one first, because
    /// the server knew no other when they met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest: Option<u32>,
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
    /// The version that both sides speak from now on; in a refusal, the newest that the server speaks. Absent from
    /// servers that speak version 1 or 2 only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roundsman: Option<u32>,
    /// In a refusal, the oldest version that the server speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u32>,
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
    /// A greeting of somebody who speaks all versions that there are.
    #[must_use]
    pub fn new(codec: Codec, namespace: Namespace, service: Option<ServiceName>) -> Self {
        let (roundsman, oldest) = (Version::CURRENT.number(), Some(Version::OLDEST.number()));
        Self { roundsman, oldest, newest: None, codec, service, namespace, token: None }
    }

    /// The same for a server that may let in only who says this version, and may have learned others meanwhile.
    #[must_use]
    pub fn saying(&self, version: Version) -> Self {
        let newest = Version::CURRENT.number();
        let newest = (newest > version.number()).then_some(newest);
        Self { roundsman: version.number(), newest, ..self.clone() }
    }

    /// Reads a greeting.
    ///
    /// # Errors
    /// A sentence for the client: what was wrong with it.
    pub fn read(frame: &[u8]) -> Result<Self, String> {
        let current = Version::CURRENT;
        let hello: Self = serde_json::from_slice(frame).map_err(|error| {
            format!(
                "the first frame must be a handshake such as {{\"roundsman\":{current},\"codec\":\"json\"}}: {error}"
            )
        })?;
        hello.agree().map(|_| hello)
    }

    /// The newest version that both sides speak.
    ///
    /// # Errors
    /// A sentence for the client, when there is none.
    pub fn agree(&self) -> Result<Version, String> {
        let oldest = self.oldest.map_or(self.roundsman, |oldest| oldest.min(self.roundsman));
        let newest = self.newest.map_or(self.roundsman, |newest| newest.max(self.roundsman));
        Version::newest_of(oldest, newest).ok_or_else(|| {
            let client = if oldest == newest { format!("version {newest}") } else { format!("{oldest} to {newest}") };
            format!(
                "this server speaks versions {} to {} of the protocol, the client {client}: use a release that speaks one of them",
                Version::OLDEST,
                Version::CURRENT
            )
        })
    }
}

// === impl Welcome ===

impl Welcome {
    /// "Come in, and speak so."
    #[must_use]
    pub fn accept(spoken: Version, version: impl Into<String>, server: impl Into<String>) -> Self {
        let (roundsman, version, server) = (Some(spoken.number()), Some(version.into()), Some(server.into()));
        Self { ok: true, roundsman, oldest: None, version, server, error: None }
    }

    /// "Stay out, because."
    #[must_use]
    pub fn refuse(error: impl Into<String>) -> Self {
        let (newest, oldest) = (Some(Version::CURRENT.number()), Some(Version::OLDEST.number()));
        Self { ok: false, roundsman: newest, oldest, version: None, server: None, error: Some(error.into()) }
    }

    /// Whether it is a refusal of the version that was said, by a server that knows of no range.
    #[must_use]
    pub fn wants_another_version(&self) -> bool {
        let of_version = |error: &String| error.starts_with("this server speaks version ");
        !self.ok && self.roundsman.is_none() && self.error.as_ref().is_some_and(of_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(hello: &str) -> Option<Version> {
        Hello::read(hello.as_bytes()).and_then(|hello| hello.agree()).ok()
    }

    #[test]
    fn the_shortest_greeting_is_enough() {
        let hello = Hello::read(br#"{"roundsman":3,"codec":"postcard"}"#).unwrap();
        assert_eq!(hello, Hello { oldest: None, ..Hello::new(Codec::Postcard, Namespace::default(), None) });
        let hello = Hello::read(br#"{"roundsman":1,"codec":"json","service":"order","namespace":"shop","token":null}"#)
            .unwrap();
        assert_eq!((hello.codec, hello.namespace.as_str()), (Codec::Json, "shop"));
    }

    #[test]
    fn who_says_one_version_gets_it_and_who_says_a_range_the_newest_of_it() {
        for version in Version::ALL {
            for codec in ["json", "postcard"] {
                let only = format!(r#"{{"roundsman":{version},"codec":"{codec}"}}"#);
                assert_eq!(agreed(&only), Some(version));
                let again = Hello::new(Codec::Json, Namespace::default(), None).saying(version);
                assert_eq!((again.roundsman, again.agree()), (version.number(), Ok(Version::CURRENT)));
            }
        }
        assert_eq!(agreed(r#"{"roundsman":9,"oldest":1,"codec":"json"}"#), Some(Version::V3));
        assert_eq!(agreed(r#"{"roundsman":2,"oldest":1,"codec":"json"}"#), Some(Version::V2));
        assert_eq!(agreed(r#"{"roundsman":1,"newest":2,"codec":"json"}"#), Some(Version::V2));
        assert_eq!(agreed(r#"{"roundsman":1,"oldest":9,"newest":0,"codec":"json"}"#), Some(Version::V1));
        assert_eq!(agreed(r#"{"roundsman":9,"oldest":4,"codec":"json"}"#), None);
    }

    #[test]
    fn a_mismatch_is_a_sentence() {
        assert!(Hello::read(b"GET / HTTP/1.1").unwrap_err().contains("must be a handshake"));
        assert!(Hello::read(br#"{"roundsman":2}"#).unwrap_err().contains("missing field `codec`"));
        for other in [r#"{"roundsman":4,"codec":"json"}"#, r#"{"roundsman":0,"codec":"postcard"}"#] {
            assert!(Hello::read(other.as_bytes()).unwrap_err().contains("versions 1 to 3"), "{other}");
        }
        assert!(Hello::read(br#"{"roundsman":1,"codec":"xml"}"#).unwrap_err().contains("xml"));
        assert!(Hello::read(br#"{"roundsman":1,"namespace":"a b"}"#).unwrap_err().contains("namespace"));
        let refusal = serde_json::to_string(&Welcome::refuse("no")).unwrap();
        assert_eq!(refusal, r#"{"ok":false,"roundsman":3,"oldest":1,"error":"no"}"#);
    }

    /// As the releases before version 3 say it.
    #[test]
    fn a_server_that_knows_of_no_range_is_told_by_its_refusal() {
        let wants = |text: &str| serde_json::from_str::<Welcome>(text).unwrap().wants_another_version();
        assert!(wants(r#"{"ok":false,"error":"this server speaks version 1 of the protocol, the client version 3"}"#));
        assert!(wants(
            r#"{"ok":false,"error":"this server speaks version 2 of the protocol, the client version 3: use the same release on both sides"}"#
        ));
        assert!(!wants(r#"{"ok":false,"error":"the server's limit --max-connections (1) is reached"}"#));
        assert!(!wants(r#"{"ok":true,"version":"0.1.0","server":"roundsman-1f0a9c3e"}"#));
        let newer = Welcome::refuse("this server speaks version 7 of the protocol, the client versions 1 to 3");
        assert!(!newer.wants_another_version());
    }
}
