//! Connecting to an instance, at an address that was checked.

use std::{io, net::SocketAddr};

use roundsman_protocol::Host;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{Finding, Visit};
use crate::observation::Class;

/// Opens a connection. Does not look at the deadline where the host is an IP address; the caller does.
pub(super) async fn connect(visit: &Visit<'_>) -> Result<TcpStream, Finding> {
    match (visit.policy.literal(visit.address), visit.address.host()) {
        (Some(addr), _) => open(addr?).await.map_err(|error| Finding::io(&error)),
        // Boxed, because names are the exception, and every visitor has room for the larger way.
        (None, Host::Name(name)) => Box::pin(connect_by_name(visit, name)).await,
        (None, Host::Ip(_)) => Err(Finding::new(Class::Unresolved, "the address is incomplete")),
    }
}

/// Tries the addresses of a name one after the other, each with its share of the time that is left.
async fn connect_by_name(visit: &Visit<'_>, name: &str) -> Result<TcpStream, Finding> {
    let addrs = visit.policy.resolve(name, visit.address.port()).await?;
    let mut worst = Finding::no_answer(visit.timeout);
    for (tried, addr) in (0_u32..).zip(&addrs) {
        let rest = u32::try_from(addrs.len()).unwrap_or(u32::MAX).saturating_sub(tried).max(1);
        let now = Instant::now();
        let share = visit.deadline.saturating_duration_since(now) / rest;
        let finding = match timeout_at(now + share, open(*addr)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => Finding::io(&error),
            Err(_) => Finding::no_answer(visit.timeout),
        };
        // Where one address is refused and another one silent, silence is what we know for sure.
        if tried == 0 || finding.class != Some(Class::Refused) {
            worst = finding;
        }
    }
    Err(worst)
}

async fn open(addr: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    // On one machine, a connection to a port where nobody listens can meet itself.
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
