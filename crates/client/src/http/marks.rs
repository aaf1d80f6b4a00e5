//! What can be said of a single request that somebody else has built, as extensions of it.

/// An extension of a request: whether carrying it out twice is the same as once. By default its method says so, and a gRPC
/// call is not; see [`Request::idempotent`](super::Request::idempotent).
///
/// ```
/// let mut request = http::Request::post("http://product.roundsman/sale/8e03978e").body(()).unwrap();
/// request.extensions_mut().insert(roundsman::http::Idempotent(true));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotent(
    /// Whether it is.
    pub bool,
);

/// An extension of a request: it goes to the instance for this key; see [`Request::key`](super::Request::key).
///
/// ```
/// let mut request = http::Request::get("http://profile.roundsman/user/7").body(()).unwrap();
/// request.extensions_mut().insert(roundsman::http::Key::new("user-7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(pub(crate) Box<[u8]>);

// === impl Key ===

impl Key {
    /// Any bytes.
    #[must_use]
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Self(key.as_ref().into())
    }
}
