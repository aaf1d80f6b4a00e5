//! Visits of an instance that is registered by a host name.
//!
//! It is visited at the addresses that are known, without waiting for a name server. Where that fails, a name server
//! is asked whether they still are the right ones: only then what the visit met says something about the instance.

use std::{net::SocketAddr, sync::Arc};

use tokio::time::Instant;

use super::{Detail, Finding, Visit};
use crate::{
    names::{Certainty, Known},
    observation::Class,
};

/// A visit at addresses that are given.
pub(super) trait Attempt {
    type Done: Send;

    /// Makes the visit. `sure`: the addresses were confirmed just now.
    fn at(&mut self, addrs: &[SocketAddr], sure: bool) -> impl Future<Output = Result<Self::Done, Finding>> + Send;
}

/// Visits `name`, in the same visit once more when it has moved. Cancel safe, as far as the attempt is.
pub(super) async fn visit<A: Attempt>(visit: &Visit<'_>, name: &str, mut attempt: A) -> Result<A::Done, Finding> {
    let start = Instant::now();
    let mut known = visit.names.find(name, visit.deadline).await?;
    loop {
        // At every use: a name may have moved, and the policy is not that of the name servers.
        let addrs = visit.policy.choose(name, &known.addrs, visit.address.port())?;
        if known.certainty == Certainty::Confirmed {
            return attempt.at(&addrs, true).await;
        }
        let failed = tokio::select! {
            biased;
            outcome = attempt.at(&addrs, false) => match outcome {
                Ok(done) => return Ok(done),
                Err(finding) => finding,
            },
            moved = moved(visit, name, start, &known) => {
                known = moved;
                continue;
            }
        };
        if failed.class.is_none() {
            return Err(failed);
        }
        let now = Instant::now();
        let until = now + visit.deadline.saturating_duration_since(now) / 2;
        let newer = visit.names.confirm(name, start, until).await?;
        match &newer.certainty {
            Certainty::Unconfirmed(why) => return Err(unconfirmed(&failed, name, &addrs, why)),
            _ if newer.addrs == known.addrs => return Err(failed),
            _ => known = Known { addrs: Arc::clone(&newer.addrs), certainty: Certainty::Confirmed },
        }
    }
}

/// Ends when a name server says that the name is elsewhere by now, which it is asked once the visit takes long.
async fn moved(visit: &Visit<'_>, name: &str, start: Instant, known: &Known) -> Known {
    tokio::time::sleep(visit.deadline.saturating_duration_since(start) / 4).await;
    match visit.names.confirm(name, start, visit.deadline).await {
        Ok(newer) if newer.certainty == Certainty::Confirmed && newer.addrs != known.addrs => newer,
        _ => std::future::pending().await,
    }
}

/// What was met at an address that may be somebody else's by now proves nothing.
fn unconfirmed(failed: &Finding, name: &str, addrs: &[SocketAddr], why: &str) -> Finding {
    let what = match &failed.detail {
        Detail::Text(text) => text.to_string(),
        Detail::Code(code) => code.to_string(),
        Detail::NoAnswer(timeout) => format!("no answer in {}", roundsman_protocol::time::display(*timeout)),
        Detail::Connected => "connected".to_owned(),
    };
    let places: Vec<String> = addrs.iter().map(|addr| addr.ip().to_string()).collect();
    let address = if places.len() == 1 { "address" } else { "addresses" };
    let places = places.join(" and ");
    Finding::new(Class::Silence, format!("{what} at {places}, the last known {address} of {name}; {why}"))
}
