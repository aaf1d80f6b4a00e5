//! The `tcp` check: a connection is accepted, and closed again.

use tokio::time::timeout_at;

use super::{Detail, Finding, Visit, connect::connect};
use crate::observation::Class;

/// Connects and no more.
#[derive(Debug)]
pub(crate) struct TcpProbe;

impl TcpProbe {
    pub(crate) async fn visit(&self, visit: &Visit<'_>) -> Finding {
        match timeout_at(visit.deadline, connect(visit)).await {
            Ok(Ok(_)) => Finding { class: Some(Class::Passed), detail: Detail::Connected },
            Ok(Err(finding)) => finding,
            Err(_) => Finding::no_answer(visit.timeout),
        }
    }
}
