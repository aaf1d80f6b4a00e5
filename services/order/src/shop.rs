//! Purchases: whom to buy from, and what to do when that fails.

use std::{sync::Arc, time::Duration};

use roundsman::{Address, Discovery, Instance, InstanceId, ServiceName, TraceContext, Trouble, http};
use serde::Serialize;
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use crate::till::{Outcome, Product, ProductId, Sale, Till};

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
    pub fn new(discovery: Discovery, sellers: ServiceName, tasks: TaskTracker) -> Self {
        let till = Till::new(&discovery, sellers);
        Self { discovery, till, tasks, undos: Arc::new(Semaphore::new(MAX_UNDOS)) }
    }

    /// Buys one. A purchase that has begun is carried to its end, also when the caller stops waiting.
    ///
    /// # Errors
    /// When nothing was bought, and why.
    pub async fn purchase(&self, id: ProductId) -> Result<Receipt, Refusal> {
        let (shop, trace) = (self.clone(), TraceContext::current());
        let purchase = self.tasks.spawn(async move {
            let purchase = shop.carry_out(id);
            // The request's trace goes along into this task, and from here to the products.
            match trace {
                Some(trace) => trace.scope(purchase).await,
                None => purchase.await,
            }
        });
        purchase.await.unwrap_or_else(|error| Err(Refusal::Unavailable(format!("the purchase broke off: {error}"))))
    }

    async fn carry_out(&self, id: ProductId) -> Result<Receipt, Refusal> {
        let until = Instant::now() + BUDGET;
        let sale = Sale { id, key: format!("{:032x}", fastrand::u128(..)) };
        let mut attempts = Attempts::default();
        while attempts.unreachable < MAX_UNREACHABLE && Instant::now() < until {
            match self.buy(&sale, &attempts.asked, until).await {
                Outcome::Sold(product, seller) => return Ok(receipt(product, &seller)),
                Outcome::NoSuchProduct => return Err(Refusal::NoSuchProduct(sale.id)),
                Outcome::SoldOut(seller) => {
                    attempts.sold_out = true;
                    attempts.asked.push(seller.id.clone());
                }
                Outcome::NotReached(tries) => tries.iter().for_each(|tried| attempts.failed(&tried.instance, tried)),
                Outcome::Nobody(error) => {
                    attempts.nobody(&error);
                    break;
                }
                Outcome::Broken(seller) => self.undo_later(&mut attempts, &sale, &seller, Trouble::Reset),
                Outcome::Unclear(seller, trouble) => self.undo_later(&mut attempts, &sale, &seller, trouble),
            }
        }
        Err(attempts.verdict(sale.id))
    }

    /// Buys from one instance, and asks it again when the connection broke: the key makes that safe.
    async fn buy(&self, sale: &Sale, asked: &[InstanceId], until: Instant) -> Outcome {
        match self.till.buy(sale, asked, until).await {
            Outcome::Broken(seller) => match self.till.buy_again(sale, &seller, until).await {
                // No time was left for it: what was sold is as open as before.
                Outcome::Nobody(_) => Outcome::Broken(seller),
                outcome => outcome,
            },
            outcome => outcome,
        }
    }

    /// Passes an instance over that may have sold one, or may yet: tells discovery, which visits it at once, and has it
    /// take the sale back. The purchase waits for neither.
    fn undo_later(&self, attempts: &mut Attempts, sale: &Sale, seller: &Arc<Instance>, trouble: Trouble) {
        tracing::warn!(seller = %seller.id, address = %seller.address, %trouble, "could not buy here");
        attempts.failed(seller, format!("{} at {}: {trouble}", seller.id, seller.address));
        let (discovery, id) = (self.discovery.clone(), seller.id.clone());
        self.tasks.spawn(async move {
            if let Err(error) = discovery.report(&id, trouble).await {
                tracing::debug!(seller = %id, %error, "could not report it");
            }
        });
        self.undo(sale, seller);
    }

    /// Has the instance take back what it may have sold, or may yet sell when it wakes up.
    fn undo(&self, sale: &Sale, seller: &Arc<Instance>) {
        let Ok(permit) = Arc::clone(&self.undos).try_acquire_owned() else {
            tracing::error!(seller = %seller.id, product = %sale.id, sale.key, "too many open sales; this one may be lost");
            return;
        };
        let (till, sale, seller) = (self.till.clone(), sale.clone(), Arc::clone(seller));
        self.tasks.spawn(async move {
            let _permit = permit;
            let until = Instant::now() + UNDO_FOR;
            let mut pause = Duration::from_millis(100);
            while !till.undo(&sale, &seller).await {
                if Instant::now() + pause > until {
                    tracing::error!(
                        seller = %seller.id, product = %sale.id, sale.key, "never answered; one may be missing there"
                    );
                    return;
                }
                sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
            tracing::info!(seller = %seller.id, product = %sale.id, "an unclear sale is settled");
        });
    }
}

fn receipt(product: Product, seller: &Instance) -> Receipt {
    tracing::info!(product = %product.id, left = product.quantity, seller = %seller.id, "bought");
    Receipt { product, sold_by: Seller { id: seller.id.clone(), address: seller.address.clone() } }
}

// === impl Attempts ===

impl Attempts {
    /// Nothing came of asking this instance.
    fn failed(&mut self, seller: &Instance, trouble: impl ToString) {
        self.unreachable += 1;
        self.asked.push(seller.id.clone());
        self.last_trouble = Some(trouble.to_string());
    }

    /// There is nobody else to ask, which is no trouble when somebody was asked.
    fn nobody(&mut self, error: &http::Error) {
        if self.asked.is_empty() || !error.is_not_found() {
            self.last_trouble = Some(error.to_string());
        }
    }

    fn verdict(self, id: ProductId) -> Refusal {
        if self.sold_out && self.last_trouble.is_none() {
            return Refusal::SoldOut(id);
        }
        let trouble = self.last_trouble.map(|trouble| format!(" ({trouble})")).unwrap_or_default();
        Refusal::Unavailable(format!("no product instance could be reached{trouble}"))
    }
}
