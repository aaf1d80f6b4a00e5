//! What happened, as the store remembers it.

use roundsman_protocol::{DiscoveryError, HistoryPage, HistoryQuery};
use roundsman_store::{RETRY_AFTER, StoreError};

use super::caller::Caller;
use crate::method::Method;

/// What an event takes in memory, about.
const EVENT: usize = 512;

// === impl Caller ===

impl Caller {
    /// Answers a question about the past, and does with the answer what the door does, where nobody else waits for it. Both in
    /// one turn of the caller's: answers must not pile up that nobody has written yet.
    pub(super) async fn history<T: Send + 'static>(
        &self,
        query: HistoryQuery,
        then: impl FnOnce(HistoryPage) -> T + Send + 'static,
    ) -> Result<T, DiscoveryError> {
        let timing = self.begin(Method::History);
        timing.done(self.remembered(query, then).await)
    }

    async fn remembered<T: Send + 'static>(
        &self,
        query: HistoryQuery,
        then: impl FnOnce(HistoryPage) -> T + Send + 'static,
    ) -> Result<T, DiscoveryError> {
        query.validate()?;
        let _turn = self.turn().await;
        let _reservation = self.reserve(query.most() * EVENT)?;
        let page = self.context.store.history(&self.namespace, &query).await;
        let page = page.map_err(|error| unavailable(&error))?;
        self.context.offload.run(move || then(page)).await
    }
}

/// The store does not tell. Nothing is known of the past but what it keeps, so there is no half of an answer.
fn unavailable(error: &StoreError) -> DiscoveryError {
    let reason = format!("the history cannot be read: {error}");
    DiscoveryError::StoreUnavailable { reason, retry_after: RETRY_AFTER }
}
