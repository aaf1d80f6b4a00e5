//! The `tcp` check: a connection is accepted, and closed again.

use std::net::SocketAddr;

use roundsman_protocol::Host;
use tokio::time::timeout_at;

use super::{Detail, Finding, Visit, connect, named};
use crate::observation::Class;

/// Connects and no more.
#[derive(Debug)]
pub(crate) struct TcpProbe;

struct Connecting<'a>(&'a Visit<'a>);

impl TcpProbe {
    pub(crate) async fn visit(&self, visit: &Visit<'_>) -> Finding {
        match timeout_at(visit.deadline, connected(visit)).await {
            Ok(Ok(())) => Finding { class: Some(Class::Passed), detail: Detail::Connected },
            Ok(Err(finding)) => finding,
            Err(_) => Finding::no_answer(visit.timeout),
        }
    }
}

async fn connected(visit: &Visit<'_>) -> Result<(), Finding> {
    match visit.address.host() {
        Host::Ip(_) => connect::open(visit.literal()?).await.map(drop),
        // Boxed, because names are the exception, and every visitor has room for the larger way.
        Host::Name(name) => Box::pin(named::visit(visit, name, Connecting(visit))).await,
    }
}

impl named::Attempt for Connecting<'_> {
    type Done = ();

    async fn at(&mut self, addrs: &[SocketAddr], _: bool) -> Result<(), Finding> {
        connect::connect(self.0, addrs).await.map(drop)
    }
}
