//! Purchases: whom to buy from, and what to do when that fails.

use std::{sync::Arc, time::Duration};

use roundsman::{Address, Discovery, Instance, InstanceId, Query, ServiceName, Trouble};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::TaskTracker;

use crate::till::{Outcome, Product, ProductId, Till};

/// Longest time that a purchase takes, whatever happens.
pub const BUDGET: Duration = Duration::from_secs(5);

/// How many instances that cannot be reached a purchase tries before it gives up.
pub const MAX_UNREACHABLE: usize = 3;

/// How long an instance that went silent in the middle of a sale is asked to undo it.
pub const UNDO_FOR: Duration = Duration::from_secs(60);

/// How many such sales may be open at once.
const MAX_UNDOS: usize = 1_000;

/// Buys from whatever product instance discovery names.
#[derive(Clone, Debug)]
pub struct Shop {
    discovery: Discovery,
    sellers: ServiceName,
    till: Till,
    tasks: TaskTracker,
    undos: Arc<Semaphore>,
}

/// One was bought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    /// The product, and how many the instance that sold it has left.
    #[serde(flatten)]
    pub product: Product,
    /// Who sold it.
    pub sold_by: Seller,
}

/// A product instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Seller {
    /// Its id.
    pub id: InstanceId,
    /// Where it listens.
    pub address: Address,
}

/// Why nothing was bought. Each is a different answer to the buyer.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no such product.
    #[error("there is no product `{0}`")]
    NoSuchProduct(ProductId),
    /// Every instance that is handed out has none left.
    #[error("`{0}` is sold out")]
    SoldOut(ProductId),
    /// Nobody could be asked. Trying again a little later may help.
    #[error("{0}; try again in a second")]
    Unavailable(String),
}

/// What a purchase has learned so far.
#[derive(Debug, Default)]
struct Attempts {
    asked: Vec<InstanceId>,
    unreachable: usize,
    sold_out: bool,
    last_trouble: Option<String>,
}

// === impl Shop ===

impl Shop {
    /// A shop that buys from the instances of `sellers`. Its purchases and undos are among `tasks`, to be waited for.
    #[must_use]
    pub fn new(discovery: Discovery, sellers: ServiceName, till: Till, tasks: TaskTracker) -> Self {
        Self { discovery, sellers, till, tasks, undos: Arc::new(Semaphore::new(MAX_UNDOS)) }
    }

    /// Buys one. A purchase that has begun is carried to its end, also when the caller stops waiting.
    ///
    /// # Errors
    /// When nothing was bought, and why.
    pub async fn purchase(&self, id: ProductId) -> Result<Receipt, Refusal> {
        let shop = self.clone();
        let purchase = self.tasks.spawn(async move { shop.carry_out(id).await });
        purchase.await.unwrap_or_else(|error| Err(Refusal::Unavailable(format!("the purchase broke off: {error}"))))
    }

    async fn carry_out(&self, id: ProductId) -> Result<Receipt, Refusal> {
        let until = Instant::now() + BUDGET;
        let key = format!("{:032x}", fastrand::u128(..));
        let mut attempts = Attempts::default();
        while attempts.unreachable < MAX_UNREACHABLE && Instant::now() < until {
            let Some(seller) = self.next_seller(&mut attempts, until).await else { break };
            match self.buy(&seller, &id, &key, until).await {
                Outcome::Sold(product) => {
                    tracing::info!(product = %id, left = product.quantity, seller = %seller.id, "bought");
                    return Ok(Receipt {
                        product,
                        sold_by: Seller { id: seller.id.clone(), address: seller.address.clone() },
                    });
                }
                Outcome::NoSuchProduct => return Err(Refusal::NoSuchProduct(id)),
                Outcome::SoldOut => attempts.sold_out = true,
                Outcome::NotReached(trouble) => self.report(&mut attempts, &seller, trouble),
                Outcome::Broken => {
                    self.report(&mut attempts, &seller, Trouble::Reset);
                    self.undo(&seller, &id, &key);
                }
                Outcome::Unclear(trouble) => {
                    self.report(&mut attempts, &seller, trouble);
                    self.undo(&seller, &id, &key);
                }
            }
        }
        Err(attempts.verdict(id))
    }

    /// Buys from one instance, and asks it again when the connection broke: the key makes that safe.
    async fn buy(&self, seller: &Instance, id: &ProductId, key: &str, until: Instant) -> Outcome {
        match self.till.buy(&seller.address, id, key, until).await {
            Outcome::Broken => self.till.buy(&seller.address, id, key, until).await,
            outcome => outcome,
        }
    }

    /// The instance that discovery names, or any other when that one was asked already.
    async fn next_seller(&self, attempts: &mut Attempts, until: Instant) -> Option<Arc<Instance>> {
        let found = timeout_at(until, async {
            let named = self.discovery.get(self.sellers.clone()).await?;
            if !attempts.asked.contains(&named.id) {
                return Ok(Some(named));
            }
            let all = self.discovery.list(Query::service(self.sellers.clone())).await?;
            Ok::<_, roundsman::Error>(all.into_iter().find(|other| !attempts.asked.contains(&other.id)))
        });
        match found.await {
            Ok(Ok(seller)) => {
                attempts.asked.extend(seller.as_ref().map(|seller| seller.id.clone()));
                seller
            }
            Ok(Err(error)) => {
                attempts.last_trouble = Some(error.to_string());
                None
            }
            Err(_) => {
                attempts.last_trouble = Some("discovery did not answer in time".into());
                None
            }
        }
    }

    /// Tells discovery, which visits the instance at once. The purchase does not wait for that.
    fn report(&self, attempts: &mut Attempts, seller: &Instance, trouble: Trouble) {
        tracing::warn!(seller = %seller.id, address = %seller.address, %trouble, "could not buy here");
        attempts.unreachable += 1;
        attempts.last_trouble = Some(format!("{} at {}: {trouble}", seller.id, seller.address));
        let (discovery, id) = (self.discovery.clone(), seller.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = discovery.report(&id, trouble).await {
                tracing::debug!(seller = %id, %error, "could not report it");
            }
        });
    }

    /// Has the instance take back what it may have sold, or may yet sell when it wakes up.
    fn undo(&self, seller: &Instance, id: &ProductId, key: &str) {
        let Ok(permit) = Arc::clone(&self.undos).try_acquire_owned() else {
            tracing::error!(seller = %seller.id, product = %id, key, "too many open sales; this one may be lost");
            return;
        };
        let (till, seller, id, key) = (self.till.clone(), seller.clone(), id.clone(), key.to_owned());
        self.tasks.spawn(async move {
            let _permit = permit;
            let until = Instant::now() + UNDO_FOR;
            let mut pause = Duration::from_millis(100);
            while !till.undo(&seller.address, &id, &key).await {
                if Instant::now() + pause > until {
                    tracing::error!(seller = %seller.id, product = %id, key, "never answered; one may be missing there");
                    return;
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            tracing::info!(seller = %seller.id, product = %id, "an unclear sale is settled");
        });
    }
}

// === impl Attempts ===

impl Attempts {
    fn verdict(self, id: ProductId) -> Refusal {
        if self.sold_out && self.last_trouble.is_none() {
            return Refusal::SoldOut(id);
        }
        let trouble = self.last_trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        Refusal::Unavailable(format!("no product instance could be reached{trouble}"))
    }
}
