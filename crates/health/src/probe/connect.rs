//! Connecting to an instance, at addresses that were checked.

use std::{io, net::SocketAddr};

use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{Finding, Visit, icmp};
use crate::observation::Class;

/// Tries addresses one after the other, each with its share of the time that is left. Cancel safe.
pub(super) async fn connect(visit: &Visit<'_>, addrs: &[SocketAddr]) -> Result<TcpStream, Finding> {
    let mut worst: Option<Finding> = None;
    for (tried, addr) in (0_u32..).zip(addrs) {
        let rest = u32::try_from(addrs.len()).unwrap_or(u32::MAX).saturating_sub(tried).max(1);
        let now = Instant::now();
        let share = visit.deadline.saturating_duration_since(now) / rest;
        let finding = match timeout_at(now + share, open(*addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(finding)) => finding,
            Err(_) => Finding::no_answer(visit.timeout),
        };
        if worst.as_ref().is_none_or(|worst| weight(&finding) > weight(worst)) {
            worst = Some(finding);
        }
    }
    Err(worst.unwrap_or_else(|| Finding::new(Class::Unresolved, "there is no address")))
}

/// Where one address is refused and another one silent, silence is what we know for sure; and where one could not be
/// tried at all, what the others said counts.
fn weight(finding: &Finding) -> u8 {
    match finding.class {
        None => 0,
        Some(Class::Refused) => 1,
        Some(_) => 2,
    }
}

/// Opens a connection. Does not look at the time; the caller does.
pub(super) async fn open(addr: SocketAddr) -> Result<TcpStream, Finding> {
    let stream = icmp::dial(addr).await?;
    // On one machine, a connection to a port where nobody listens can meet itself.
    let ends = stream.local_addr().and_then(|local| Ok((local, stream.peer_addr()?)));
    match ends {
        Ok((local, peer)) if local == peer => Err(Finding::io(&io::ErrorKind::ConnectionRefused.into())),
        Ok(_) => match stream.set_nodelay(true) {
            Ok(()) => Ok(stream),
            Err(error) => Err(Finding::io(&error)),
        },
        Err(error) => Err(Finding::io(&error)),
    }
}
