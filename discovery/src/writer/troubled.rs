//! Namespaces that the store refuses while it takes others: what is wrong with one must hurt no other.

use std::{collections::HashMap, time::Duration};

use roundsman_protocol::{DiscoveryError, Namespace};
use roundsman_store::{RETRY_AFTER, StoreError};
use tokio::time::Instant;

use super::{Request, unwritten::Unwritten};

/// The namespaces that failed lately.
#[derive(Debug, Default)]
pub(crate) struct Troubled(HashMap<Namespace, Trouble>);

#[derive(Debug)]
struct Trouble {
    /// Until when the store is not asked.
    until: Instant,
    reason: String,
}

/// How long one is remembered that is neither refused again nor taken: nobody may ask for it any more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

// === impl Troubled ===

impl Troubled {
    /// The store refused a namespace. Logged when it begins, not each time.
    pub(crate) fn failed(&mut self, namespace: &Namespace, error: &StoreError, now: Instant) {
        self.0.retain(|_, trouble| now < trouble.until + FORGOTTEN_AFTER);
        let trouble = Trouble { until: now + RETRY_AFTER, reason: error.to_string() };
        if self.0.insert(namespace.clone(), trouble).is_none() {
            tracing::error!(%namespace, %error, "the store refuses a namespace; its lookups and visits go on, its changes are refused until that is mended");
        }
    }

    /// The store took a namespace.
    pub(crate) fn written(&mut self, namespace: &Namespace) {
        if !self.0.is_empty() && self.0.remove(namespace).is_some() {
            tracing::info!(%namespace, "the store takes the namespace again");
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the store is better not asked about a namespace now.
    pub(crate) fn rests(&self, namespace: &Namespace, now: Instant) -> bool {
        self.0.get(namespace).is_some_and(|trouble| now < trouble.until)
    }

    /// Refuses the requests about namespaces that just failed.
    pub(crate) fn refuse(&self, requests: &mut Vec<Request>, now: Instant) {
        if self.0.is_empty() {
            return;
        }
        for request in requests.extract_if(.., |request| self.rests(request.namespace(), now)) {
            let reason = self.0.get(request.namespace()).map(|trouble| trouble.reason.clone()).unwrap_or_default();
            request.refuse(DiscoveryError::StoreUnavailable { reason, retry_after: RETRY_AFTER });
        }
    }

    /// Takes what is to be written out of `unwritten`, but for namespaces that just failed.
    pub(crate) fn writable(&self, unwritten: &mut Unwritten, now: Instant) -> Unwritten {
        if self.0.is_empty() {
            return std::mem::take(unwritten);
        }
        unwritten.take(|key| !self.rests(&key.namespace, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_that_nobody_asks_for_any_more_are_forgotten() {
        let (mut troubled, now) = (Troubled::default(), Instant::now());
        let namespace = |n: u32| format!("shop-{n}").parse::<Namespace>().unwrap();
        let error = StoreError::Unusable("WRONGTYPE".to_owned());
        (0..100).for_each(|n| troubled.failed(&namespace(n), &error, now));
        let later = now + RETRY_AFTER + FORGOTTEN_AFTER;
        troubled.failed(&namespace(100), &error, later);
        assert_eq!(troubled.0.len(), 1);
        assert!(troubled.rests(&namespace(100), later) && !troubled.rests(&namespace(0), later));
        troubled.written(&namespace(100));
        assert!(troubled.is_empty());
    }
}
