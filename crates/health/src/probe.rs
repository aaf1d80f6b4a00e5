//! The visits themselves: what is asked of an instance, and what came of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use roundsman_protocol::{Address, Check, CheckKind};
use tokio::time::Instant;

use crate::{names::Names, observation::Class, target::TargetPolicy};

mod connect;
mod finding;
mod http;
mod https;
mod icmp;
mod identity;
mod named;
mod tcp;

pub(crate) use finding::{Detail, Finding};
pub(crate) use http::HttpProbe;
pub(crate) use https::{Https, HttpsProbe};
pub(crate) use tcp::TcpProbe;

/// No more than this is read of the body of an answer.
const BODY_LIMIT: usize = 4 * 1_024;
/// Every so many visits open a new connection: a listener that no longer accepts must not hide behind an old
/// connection that still answers.
const VISITS_PER_CONNECTION: u8 = 6;

/// What a visit needs to know.
#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) address: &'a Address,
    pub(crate) policy: &'a TargetPolicy,
    pub(crate) names: &'a Names,
    pub(crate) timeout: Duration,
    pub(crate) deadline: Instant,
    /// Where to ask for leave to keep the connection; `None`: it is not kept.
    pub(crate) room: Option<&'a Room>,
}

/// A way of visiting.
#[derive(Debug)]
pub(crate) enum Probe {
    Http(HttpProbe),
    Https(Box<HttpsProbe>),
    Tcp(TcpProbe),
}

/// How many connections may be kept, and how many are.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    kept: Arc<AtomicUsize>,
    most: usize,
}

/// Leave to keep one connection; given back when dropped.
#[derive(Debug)]
pub(crate) struct Ticket(Arc<AtomicUsize>);

// === impl Probe ===

impl Probe {
    /// The probe of a check; `None` for checks without visits.
    pub(crate) fn new(check: &Check, address: &Address, user_agent: &str, https: &Arc<Https>) -> Option<Self> {
        let path = check.path().unwrap_or(Check::DEFAULT_PATH);
        let expect = check.expect.clone();
        match check.kind {
            CheckKind::Http => Some(Self::Http(HttpProbe::new(address, path, user_agent, expect))),
            CheckKind::Https => Some(Self::Https(Box::new(HttpsProbe::new(address, path, Arc::clone(https), expect)))),
            CheckKind::Tcp => Some(Self::Tcp(TcpProbe)),
            CheckKind::Ttl | CheckKind::None => None,
        }
    }

    /// Visits. Ends at the deadline at the latest. Cancel safe: a visit that is dropped leaves nothing behind.
    pub(crate) async fn visit(&mut self, visit: &Visit<'_>) -> Finding {
        match self {
            Self::Http(probe) => probe.visit(visit).await,
            Self::Https(probe) => Box::pin(probe.visit(visit)).await,
            Self::Tcp(probe) => probe.visit(visit).await,
        }
    }

    /// Ready when the instance closes the kept connection; never when there is none. A future would take room for itself in
    /// every visitor.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Http(probe) => probe.poll_closed(cx),
            Self::Https(_) | Self::Tcp(_) => Poll::Pending,
        }
    }

    /// Closes the kept connection, if there is one.
    pub(crate) fn let_go(&mut self) {
        match self {
            Self::Http(probe) => probe.let_go(),
            Self::Https(_) | Self::Tcp(_) => {}
        }
    }
}

// === impl Visit ===

impl Visit<'_> {
    /// The address, where no name has to be resolved for it.
    fn literal(&self) -> Result<SocketAddr, Finding> {
        let found = self.policy.literal(self.address);
        found.ok_or_else(|| Finding::new(Class::Unresolved, "the address is incomplete"))?.map_err(Finding::from)
    }
}

// === impl Room ===

impl Room {
    pub(crate) fn new(most: usize) -> Self {
        Self { kept: Arc::default(), most }
    }

    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Relaxed)
    }

    /// Leave to keep one more connection, unless there are enough.
    fn ticket(&self) -> Option<Ticket> {
        let more = |kept| (kept < self.most).then_some(kept + 1);
        self.kept.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Ticket(Arc::clone(&self.kept)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_given_back() {
        let room = Room::new(1);
        let ticket = room.ticket().unwrap();
        assert!(room.ticket().is_none());
        drop(ticket);
        assert!(room.ticket().is_some());
        assert_eq!(room.kept(), 0);
    }
}
