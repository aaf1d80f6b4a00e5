//! The stock of one instance: how many there are of each product, and who bought what.
//!
//! It lives in memory and belongs to the process: three product instances have three stocks, and a restarted one
//! begins with a full shelf. A real shop would keep it in a database; this one shows discovery.
//!
//! A sale may carry a [`SaleKey`]. The same key sold again answers what it answered the first time and takes nothing,
//! so a caller whose answer was lost can safely ask again; and a sale that its caller no longer wants can be undone.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

/// How many sale keys are remembered; the oldest is forgotten first.
pub const REMEMBERED_SALES: usize = 10_000;

/// Longest product id and longest sale key, in bytes.
pub const MAX_ID_LEN: usize = 64;

/// The stock of one instance. All methods are short and never wait for anything but each other.
#[derive(Debug)]
pub struct Stock {
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    products: BTreeMap<ProductId, Product>,
    sales: HashMap<SaleKey, Sale>,
    /// The keys of `sales`, oldest first.
    order: VecDeque<SaleKey>,
}

/// A product and how many are left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Product {
    /// Its id.
    pub id: ProductId,
    /// What it is called.
    pub name: String,
    /// How many are left.
    pub quantity: u32,
}

/// The id of a product: 1 to 64 characters of `A-Z a-z 0-9 _ -`, which need no escaping in a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct ProductId(String);

/// What a caller names one sale by, so that it happens once however often it is asked for. Same characters as an id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SaleKey(String);

/// What became of a sale.
#[derive(Debug)]
enum Sale {
    /// One was sold; this is what was answered.
    Sold(Product),
    /// It was undone, or called off before it arrived.
    Undone,
}

/// Why nothing was sold. Each is a different answer to the caller.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such product.
    #[error("there is no product `{0}`")]
    Unknown(ProductId),
    /// There is none left, in this instance.
    #[error("`{0}` is sold out")]
    SoldOut(ProductId),
    /// The sale was undone by its caller before.
    #[error("this sale was undone; start a new one with another key")]
    Undone,
    /// The key names a sale of something else.
    #[error("this key was used to buy `{0}`; use another")]
    KeyReused(ProductId),
}

/// An id or a key that breaks the rule.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_ID_LEN} characters of A-Z a-z 0-9 _ and -")]
pub struct InvalidId;

// === impl Stock ===

impl Stock {
    /// A stock of these products.
    pub fn new(products: impl IntoIterator<Item = Product>) -> Self {
        let products = products.into_iter().map(|product| (product.id.clone(), product)).collect();
        Self { shelf: Mutex::new(Shelf { products, ..Shelf::default() }) }
    }

    /// What an instance begins with unless told otherwise: ten apples and seven bananas.
    #[must_use]
    pub fn initial() -> Self {
        Self::of(10, 7)
    }

    /// The same products, so many of each.
    #[must_use]
    pub fn of_each(quantity: u32) -> Self {
        Self::of(quantity, quantity)
    }

    fn of(apples: u32, bananas: u32) -> Self {
        let product =
            |id: &str, name: &str, quantity| Product { id: ProductId(id.into()), name: name.into(), quantity };
        Self::new([product("aaa", "apple", apples), product("bbb", "banana", bananas)])
    }

    /// The details of a product.
    #[must_use]
    pub fn get(&self, id: &ProductId) -> Option<Product> {
        self.shelf().products.get(id).cloned()
    }

    /// Sells one, and says what is left. However many ask at once, never more are sold than there are; with a key,
    /// never more than one for that key.
    ///
    /// # Errors
    /// When nothing was sold, and why.
    pub fn sell(&self, id: &ProductId, key: Option<&SaleKey>) -> Result<Product, Refusal> {
        let mut shelf = self.shelf();
        match key.and_then(|key| shelf.sales.get(key)) {
            Some(Sale::Sold(product)) if product.id == *id => return Ok(product.clone()),
            Some(Sale::Sold(product)) => return Err(Refusal::KeyReused(product.id.clone())),
            Some(Sale::Undone) => return Err(Refusal::Undone),
            None => {}
        }
        let product = shelf.products.get_mut(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
        product.quantity = product.quantity.checked_sub(1).ok_or_else(|| Refusal::SoldOut(id.clone()))?;
        let sold = product.clone();
        if let Some(key) = key {
            shelf.remember(key, Sale::Sold(sold.clone()));
        }
        Ok(sold)
    }

    /// Takes a sale back: what was sold is on the shelf again. A sale that has not arrived yet will be refused when
    /// it does. Undoing twice is undoing once.
    ///
    /// # Errors
    /// When there is no such product, or the key names a sale of another one.
    pub fn undo(&self, id: &ProductId, key: &SaleKey) -> Result<Product, Refusal> {
        let mut shelf = self.shelf();
        let sold = match shelf.sales.get(key) {
            Some(Sale::Sold(product)) if product.id != *id => return Err(Refusal::KeyReused(product.id.clone())),
            Some(Sale::Sold(_)) => true,
            Some(Sale::Undone) | None => false,
        };
        let product = shelf.products.get_mut(id).ok_or_else(|| Refusal::Unknown(id.clone()))?;
        product.quantity = product.quantity.saturating_add(u32::from(sold));
        let product = product.clone();
        shelf.remember(key, Sale::Undone);
        Ok(product)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // No method leaves the shelf half changed, so a panic elsewhere is no reason to stop selling.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Shelf ===

impl Shelf {
    fn remember(&mut self, key: &SaleKey, sale: Sale) {
        if self.sales.insert(key.clone(), sale).is_some() {
            return;
        }
        self.order.push_back(key.clone());
        if self.order.len() > REMEMBERED_SALES
            && let Some(oldest) = self.order.pop_front()
        {
            self.sales.remove(&oldest);
        }
    }
}

// === impl ProductId, SaleKey ===

fn checked(text: String) -> Result<String, InvalidId> {
    let fits = (1..=MAX_ID_LEN).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if fits { Ok(text) } else { Err(InvalidId) }
}

impl TryFrom<String> for ProductId {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        checked(text).map(Self)
    }
}

impl TryFrom<String> for SaleKey {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        checked(text).map(Self)
    }
}

impl fmt::Display for SaleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for ProductId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::task::JoinSet;

    use super::*;

    fn id(text: &str) -> ProductId {
        text.to_owned().try_into().unwrap()
    }

    fn key(text: &str) -> SaleKey {
        text.to_owned().try_into().unwrap()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn parallel_purchases_sell_exactly_what_there_is() {
        let stock = Arc::new(Stock::new([Product { id: id("aaa"), name: "apple".into(), quantity: 500 }]));
        let mut buyers = JoinSet::new();
        for _ in 0..40 {
            let stock = Arc::clone(&stock);
            buyers.spawn(async move {
                let mut left = Vec::new();
                for _ in 0..50 {
                    left.extend(stock.sell(&id("aaa"), None).map(|product| product.quantity));
                    tokio::task::yield_now().await;
                }
                left
            });
        }
        let mut left = buyers.join_all().await.concat();
        left.sort_unstable();
        assert_eq!(left, (0..500).collect::<Vec<_>>(), "each of the 500 was sold once, 1,500 buyers went away");
        assert_eq!(stock.sell(&id("aaa"), None), Err(Refusal::SoldOut(id("aaa"))));
        assert_eq!(stock.get(&id("aaa")).unwrap().quantity, 0);
    }

    #[test]
    fn a_key_sells_once() {
        let stock = Stock::initial();
        let first = stock.sell(&id("aaa"), Some(&key("k"))).unwrap();
        stock.sell(&id("aaa"), None).unwrap();
        assert_eq!(stock.sell(&id("aaa"), Some(&key("k"))).unwrap(), first);
        assert_eq!(stock.get(&id("aaa")).unwrap().quantity, 8);
        assert_eq!(stock.sell(&id("bbb"), Some(&key("k"))), Err(Refusal::KeyReused(id("aaa"))));
        assert_eq!(stock.undo(&id("bbb"), &key("k")), Err(Refusal::KeyReused(id("aaa"))));
    }

    #[test]
    fn undone_sales_are_back_on_the_shelf_once() {
        let stock = Stock::initial();
        stock.sell(&id("aaa"), Some(&key("k"))).unwrap();
        assert_eq!(stock.undo(&id("aaa"), &key("k")).unwrap().quantity, 10);
        assert_eq!(stock.undo(&id("aaa"), &key("k")).unwrap().quantity, 10);
        assert_eq!(stock.sell(&id("aaa"), Some(&key("k"))), Err(Refusal::Undone));
    }

    #[test]
    fn a_sale_called_off_before_it_arrives_sells_nothing() {
        let stock = Stock::initial();
        assert_eq!(stock.undo(&id("aaa"), &key("late")).unwrap().quantity, 10);
        assert_eq!(stock.sell(&id("aaa"), Some(&key("late"))), Err(Refusal::Undone));
        assert_eq!(stock.get(&id("aaa")).unwrap().quantity, 10);
    }

    #[test]
    fn a_refused_sale_may_be_asked_for_again() {
        let stock = Stock::new([Product { id: id("aaa"), name: "apple".into(), quantity: 1 }]);
        stock.sell(&id("aaa"), Some(&key("one"))).unwrap();
        assert_eq!(stock.sell(&id("aaa"), Some(&key("two"))), Err(Refusal::SoldOut(id("aaa"))));
        stock.undo(&id("aaa"), &key("one")).unwrap();
        assert_eq!(stock.sell(&id("aaa"), Some(&key("two"))).unwrap().quantity, 0);
        assert_eq!(stock.sell(&id("zzz"), Some(&key("three"))), Err(Refusal::Unknown(id("zzz"))));
    }

    #[test]
    fn the_oldest_keys_are_forgotten() {
        let stock = Stock::initial();
        for n in 0..REMEMBERED_SALES + 5 {
            stock.undo(&id("aaa"), &key(&n.to_string())).unwrap();
        }
        let shelf = stock.shelf();
        assert_eq!((shelf.sales.len(), shelf.order.len()), (REMEMBERED_SALES, REMEMBERED_SALES));
        assert!(shelf.sales.contains_key(&key("5")) && !shelf.sales.contains_key(&key("4")));
    }

    #[test]
    fn ids_need_no_escaping() {
        for bad in ["", ".", "..", "a/b", "a b", "ä", "a%2f", &"x".repeat(MAX_ID_LEN + 1)] {
            assert_eq!(ProductId::try_from(bad.to_owned()), Err(InvalidId), "{bad:?}");
        }
    }
}
