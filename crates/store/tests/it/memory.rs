//! The store that forgets.

use std::sync::Arc;

use futures::{FutureExt, StreamExt};
use roundsman_store::{Position, Store, StoreUrl};

use crate::records::{open, put, record};

struct Memory(StoreUrl);

impl Memory {
    fn store(&self) -> Arc<dyn Store> {
        open(&self.0)
    }
}

crate::contract::contract!(Memory("memory:".parse().unwrap()));

#[tokio::test]
async fn nobody_else_changes_it() {
    let store = open(&"memory:".parse().unwrap());
    let mut changes = store.changes(Position::default());
    store.commit(&[put(&record("product", 1))], &[]).await.unwrap();
    assert!(changes.next().now_or_never().is_none());
    assert_eq!(store.describe().kind, "memory");
}
