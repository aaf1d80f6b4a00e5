//! One call to one product instance, and what is certain after it.

use std::{error::Error, fmt, io, time::Duration};

use reqwest::{Method, StatusCode, redirect::Policy};
use roundsman::{Address, Trouble};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time to connect to an instance.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Time for a whole call, the connection included.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The header by which a product instance knows a sale again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Longest product id, in bytes.
const MAX_ID_LEN: usize = 64;

/// Pays at product instances. Keeps connections to them open between calls.
#[derive(Clone, Debug)]
pub struct Till {
    http: reqwest::Client,
}

/// A product as its instance describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// What it is called.
    pub name: String,
    /// How many are left in that instance.
    pub quantity: u32,
}

/// The id of a product: 1 to 64 characters of `A-Z a-z 0-9 _ -`, so that it stands in a URL as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProductId(String);

/// What is certain after a call.
#[derive(Debug)]
pub enum Outcome {
    /// One was sold.
    Sold(Product),
    /// Nothing was sold: there is no such product.
    NoSuchProduct,
    /// Nothing was sold: there is none left.
    SoldOut,
    /// Nothing was sold: no connection came about.
    NotReached(Trouble),
    /// The connection broke before the answer was read. One may have been sold.
    Broken,
    /// No answer in time, or one that makes no sense. One may have been sold, or may yet be.
    Unclear(Trouble),
}

/// An id that breaks the rule.
#[derive(Debug, thiserror::Error)]
#[error("the product id must be 1 to {MAX_ID_LEN} characters of A-Z a-z 0-9 _ and -")]
pub struct InvalidId;

// === impl Till ===

impl Till {
    /// A till with no connection yet.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new() -> Result<Self, reqwest::Error> {
        // reqwest asks for a TLS provider even where it only speaks plain HTTP. An error means that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Peers are called at the address that discovery named: no proxy, and nobody else's word on where to go.
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(Policy::none())
            .no_proxy()
            // Only plain HTTP is spoken: the machine's root certificates, which an empty image lacks, are not needed.
            .tls_certs_only([])
            .build()?;
        Ok(Self { http })
    }

    /// Buys one from the instance at `seller`. However often this is called with one `key`, that instance sells one.
    pub async fn buy(&self, seller: &Address, id: &ProductId, key: &str, until: Instant) -> Outcome {
        match self.call(Method::PUT, seller, id, key, until).await {
            Ok((StatusCode::OK, body)) => match serde_json::from_slice(&body) {
                Ok(product) => Outcome::Sold(product),
                Err(_) => Outcome::Unclear(Trouble::Status(StatusCode::OK.as_u16())),
            },
            Ok((StatusCode::NOT_FOUND, _)) => Outcome::NoSuchProduct,
            Ok((StatusCode::CONFLICT, _)) => Outcome::SoldOut,
            Ok((status, _)) => Outcome::Unclear(Trouble::Status(status.as_u16())),
            Err(error) if error.is_connect() && refused(&error) => Outcome::NotReached(Trouble::Refused),
            Err(error) if error.is_connect() => Outcome::NotReached(Trouble::Timeout),
            Err(error) if error.is_timeout() => Outcome::Unclear(Trouble::Timeout),
            Err(_) => Outcome::Broken,
        }
    }

    /// Takes back the sale `key`, and says whether that is settled: undone, or the instance is gone with its stock.
    pub async fn undo(&self, seller: &Address, id: &ProductId, key: &str) -> bool {
        match self.call(Method::DELETE, seller, id, key, Instant::now() + CALL_TIMEOUT).await {
            Ok((status, _)) => !status.is_server_error(),
            Err(error) => error.is_connect() && refused(&error),
        }
    }

    async fn call(
        &self,
        method: Method,
        seller: &Address,
        id: &ProductId,
        key: &str,
        until: Instant,
    ) -> Result<(StatusCode, Vec<u8>), reqwest::Error> {
        let left = until.saturating_duration_since(Instant::now());
        let request = self.http.request(method, format!("http://{seller}/product/{id}"));
        let mut response = request.header(IDEMPOTENCY_KEY, key).timeout(left.min(CALL_TIMEOUT)).send().await?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > MAX_ANSWER {
                break;
            }
        }
        Ok((response.status(), body))
    }
}

/// Whether nobody listens there, which is proof that the process is gone.
fn refused(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

// === impl ProductId ===

impl TryFrom<String> for ProductId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        let fits = (1..=MAX_ID_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if fits { Ok(Self(text)) } else { Err(InvalidId) }
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
