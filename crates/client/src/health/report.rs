//! What came of all checks.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use serde::Serialize;

/// What came of all checks, as `/health` answers it in JSON.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use roundsman::Health;
///
/// let report = Health::new().check("shelf", async || Err("it is empty")).report().await;
/// for (name, check) in &report.checks {
///     println!("{name}: {:?}", check.error);
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HealthReport {
    /// All of it in a word.
    pub status: HealthStatus,
    /// The checks by name.
    pub checks: BTreeMap<Arc<str>, CheckReport>,
}

/// A service's health in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum HealthStatus {
    /// Every check passed.
    Passing,
    /// One failed.
    Failing,
    /// The instance asked to be passed over; checks no longer count.
    Draining,
}

/// What came of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CheckReport {
    /// Passing or failing.
    pub status: HealthStatus,
    /// How long it took.
    #[serde(with = "roundsman_protocol::time::duration")]
    pub took: Duration,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

// === impl HealthReport ===

impl HealthReport {
    pub(super) fn new(checks: BTreeMap<Arc<str>, CheckReport>, draining: bool) -> Self {
        let failing = checks.values().any(|check| check.error.is_some());
        let status = match (draining, failing) {
            (true, _) => HealthStatus::Draining,
            (false, true) => HealthStatus::Failing,
            (false, false) => HealthStatus::Passing,
        };
        Self { status, checks }
    }

    /// The status to answer a visit with: 503 when failing, otherwise 200.
    #[must_use]
    pub fn http_status(&self) -> u16 {
        if self.status == HealthStatus::Failing { 503 } else { 200 }
    }
}

// === impl HealthStatus ===

impl fmt::Display for HealthStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Passing => "passing",
            Self::Failing => "failing",
            Self::Draining => "draining",
        })
    }
}

// === impl CheckReport ===

impl CheckReport {
    pub(super) fn new(result: Result<(), String>, took: Duration) -> Self {
        let error = result.err();
        let status = if error.is_some() { HealthStatus::Failing } else { HealthStatus::Passing };
        Self { status, took, error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draining_stays_200_so_that_nobody_is_evicted_while_leaving() {
        let failed = CheckReport::new(Err("full".to_owned()), Duration::from_millis(1));
        let checks = BTreeMap::from([(Arc::from("disk"), failed)]);
        let report = HealthReport::new(checks.clone(), true);
        assert_eq!((report.status, report.http_status()), (HealthStatus::Draining, 200));
        assert_eq!(HealthReport::new(checks, false).http_status(), 503);
    }
}
