//! What happened, as the store remembers it.

use roundsman_protocol::{DiscoveryError, HistoryPage, HistoryQuery};
use roundsman_store::{RETRY_AFTER, StoreError};

use super::caller::Caller;
use crate::method::Method;

// === impl Caller ===

impl Caller {
    /// Answers a question about the past. In a turn of the caller's, so that one who asks for much does not keep the
    /// store from everybody else's changes.
    pub(super) async fn history(&self, query: HistoryQuery) -> Result<HistoryPage, DiscoveryError> {
        let timing = self.begin(Method::History);
        timing.done(self.remembered(query).await)
    }

    async fn remembered(&self, query: HistoryQuery) -> Result<HistoryPage, DiscoveryError> {
        query.validate()?;
        let _turn = self.turn().await;
        let page = self.context.store.history(&self.namespace, &query).await;
        page.map_err(|error| unavailable(&error))
    }
}

/// The store does not tell. Nothing is known of the past but what it keeps, so there is no half of an answer.
fn unavailable(error: &StoreError) -> DiscoveryError {
    let reason = format!("the history cannot be read: {error}");
    DiscoveryError::StoreUnavailable { reason, retry_after: RETRY_AFTER }
}
