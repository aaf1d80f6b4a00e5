//! What came of all checks.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use roundsman_protocol::InstanceId;
use serde::Serialize;

/// Longest value of the header that names the instances: a visit reads no head of more than 8 KiB.
const HEADER_LIMIT: usize = 4 * 1_024;

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
    /// Who answers, the latest first.
    #[serde(skip)]
    instances: Vec<InstanceId>,
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
    pub(super) fn new(checks: BTreeMap<Arc<str>, CheckReport>, draining: bool, instances: Vec<InstanceId>) -> Self {
        let failing = checks.values().any(|check| check.error.is_some());
        let status = match (draining, failing) {
            (true, _) => HealthStatus::Draining,
            (false, true) => HealthStatus::Failing,
            (false, false) => HealthStatus::Passing,
        };
        Self { status, checks, instances }
    }

    /// The value of the header [`INSTANCE_HEADER`](crate::INSTANCE_HEADER), for those who answer without axum: the ids of
    /// the registrations that are [followed](crate::Health::follow), the latest first, separated by commas; of very many
    /// those that have room in 4 KiB. `None` when none is followed: the header is left out then.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use roundsman::{Health, INSTANCE_HEADER};
    ///
    /// let report = Health::new().report().await;
    /// let mut head = format!("HTTP/1.1 {} Health\r\n", report.http_status());
    /// if let Some(ids) = report.instance_header() {
    ///     head += &format!("{INSTANCE_HEADER}: {ids}\r\n");
    /// }
    /// # assert_eq!(head, "HTTP/1.1 200 Health\r\n");
    /// # }
    /// ```
    #[must_use]
    pub fn instance_header(&self) -> Option<String> {
        let (first, others) = self.instances.split_first()?;
        let mut value = first.as_str().to_owned();
        for id in others {
            if value.len() + ", ".len() + id.as_str().len() > HEADER_LIMIT {
                break;
            }
            value.push_str(", ");
            value.push_str(id.as_str());
        }
        Some(value)
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

    fn ids(ids: impl IntoIterator<Item = String>) -> Vec<InstanceId> {
        ids.into_iter().map(|id| id.parse().unwrap()).collect()
    }

    #[test]
    fn the_header_names_all_who_answer_as_far_as_there_is_room() {
        let value = |instances| HealthReport::new(BTreeMap::new(), false, instances).instance_header();
        assert_eq!(value(Vec::new()), None);
        assert_eq!(value(ids(["a-1".to_owned()])).unwrap(), "a-1");
        assert_eq!(value(ids(["b-2".to_owned(), "a-1".to_owned()])).unwrap(), "b-2, a-1");
        let many = value(ids((0..1_000).map(|n| format!("{n:0>128}")))).unwrap();
        assert!(many.len() <= HEADER_LIMIT && many.len() > HEADER_LIMIT - 130, "{}", many.len());
        assert!(many.starts_with(&format!("{:0>128}, {:0>128}, ", 0, 1)) && many.split(", ").all(|id| id.len() == 128));
    }

    #[test]
    fn draining_stays_200_so_that_nobody_is_evicted_while_leaving() {
        let failed = CheckReport::new(Err("full".to_owned()), Duration::from_millis(1));
        let checks = BTreeMap::from([(Arc::from("disk"), failed)]);
        let report = HealthReport::new(checks.clone(), true, Vec::new());
        assert_eq!((report.status, report.http_status()), (HealthStatus::Draining, 200));
        assert_eq!(HealthReport::new(checks, false, Vec::new()).http_status(), 503);
    }
}
