//! One sale at one product instance, and what is certain after it.

use std::{fmt, sync::Arc, time::Duration};

use roundsman::{
    Discovery, Instance, InstanceId, Policy, ServiceName, Trouble,
    http::{Error, Request, Response, Service, StatusCode, Try},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Time that one instance has to answer.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// The header by which a product instance knows a sale again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// Longest product id, in bytes.
const MAX_ID_LEN: usize = 64;

/// Pays at product instances.
#[derive(Clone, Debug)]
pub struct Till {
    products: Service,
}

/// What is sold, and the key by which an instance sells it once.
#[derive(Clone, Debug)]
pub struct Sale {
    /// The product.
    pub id: ProductId,
    /// The key, of this purchase alone.
    pub key: String,
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
    /// One was sold by this instance.
    Sold(Product, Arc<Instance>),
    /// Nothing was sold: there is no such product.
    NoSuchProduct,
    /// Nothing was sold: this instance has none left.
    SoldOut(Arc<Instance>),
    /// Nothing was sold: no connection came about to any of these.
    NotReached(Vec<Try>),
    /// Nothing was sold: there is nobody to ask, or nobody else.
    Nobody(Error),
    /// The connection broke before the answer was read. One may have been sold.
    Broken(Arc<Instance>),
    /// No answer in time, or one that makes no sense. One may have been sold, or may yet be.
    Unclear(Arc<Instance>, Trouble),
}

/// An id that breaks the rule.
#[derive(Debug, thiserror::Error)]
#[error("the product id must be 1 to {MAX_ID_LEN} characters of A-Z a-z 0-9 _ and -")]
pub struct InvalidId;

// === impl Till ===

impl Till {
    /// A till for the instances of `products`, which are asked in turn.
    #[must_use]
    pub fn new(discovery: &Discovery, products: ServiceName) -> Self {
        let products = discovery.http(products).policy(Policy::Weighted).body_limit(MAX_ANSWER);
        Self { products }
    }

    /// Buys one from the instance whose turn it is, if it is none of `asked`. Goes on to another only where it is certain
    /// that nothing was sold.
    pub async fn buy(&self, sale: &Sale, asked: &[InstanceId], until: Instant) -> Outcome {
        self.settle(self.sell(sale, until).avoiding(asked)).await
    }

    /// Buys from this instance again. However often that is done with one key, it sells one.
    pub async fn buy_again(&self, sale: &Sale, seller: &Arc<Instance>, until: Instant) -> Outcome {
        self.settle(self.sell(sale, until).to(seller).tries(1)).await
    }

    /// Takes back a sale, and says whether that is settled: undone, or the instance is gone with its stock.
    pub async fn undo(&self, sale: &Sale, seller: &Arc<Instance>) -> bool {
        let undo = self.products.delete(sale.path()).header(IDEMPOTENCY_KEY, &sale.key);
        match undo.to(seller).tries(1).timeout(CALL_TIMEOUT).send().await {
            Ok(answer) => !answer.status().is_server_error(),
            Err(error) => {
                error.tries().last().is_some_and(|tried| !tried.maybe_sent && tried.trouble == Trouble::Refused)
            }
        }
    }

    fn sell(&self, sale: &Sale, until: Instant) -> Request {
        let left = until.saturating_duration_since(Instant::now());
        let sell = self.products.put(sale.path()).header(IDEMPOTENCY_KEY, &sale.key);
        // Once at one instance, but not at two: where it may have arrived, nobody else is asked without our knowing.
        sell.idempotent(false).timeout(left).try_timeout(CALL_TIMEOUT)
    }

    async fn settle(&self, request: Request) -> Outcome {
        match request.send().await {
            Ok(answer) => answered(answer),
            Err(error) => failed(error),
        }
    }
}

/// What makes no sense counts as a failure of the instance, like an answer that never came.
fn answered(answer: Response) -> Outcome {
    let seller = Arc::clone(answer.instance());
    match answer.status() {
        StatusCode::OK => match answer.json() {
            Ok(product) => Outcome::Sold(product, seller),
            Err(error) => {
                tracing::warn!(error = %answer.reject(error), "an answer makes no sense");
                Outcome::Unclear(seller, Trouble::Status(StatusCode::OK.as_u16()))
            }
        },
        StatusCode::NOT_FOUND => Outcome::NoSuchProduct,
        StatusCode::CONFLICT => Outcome::SoldOut(seller),
        status => {
            drop(answer.reject(format_args!("neither sold nor refused: {status}")));
            Outcome::Unclear(seller, Trouble::Status(status.as_u16()))
        }
    }
}

fn failed(error: Error) -> Outcome {
    let Some(seller) = error.instance().cloned() else { return Outcome::Nobody(error) };
    match error.tries().last() {
        Some(last) if !last.maybe_sent => Outcome::NotReached(error.tries().to_vec()),
        Some(Try { trouble: Trouble::Reset, .. }) => Outcome::Broken(seller),
        Some(last) => Outcome::Unclear(seller, last.trouble.clone()),
        // An answer far too long.
        None => Outcome::Unclear(seller, Trouble::Reset),
    }
}

// === impl Sale ===

impl Sale {
    fn path(&self) -> String {
        format!("/product/{}", self.id)
    }
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
