//! One place under two names: `localhost:7070` and `127.0.0.1:7070` are one address, and a service has one instance there.
//!
//! The registry compares addresses as they are written. Where host names are among them, they are compared here by
//! what they stand for at the moment, as far as that is known without waiting long.

use std::net::SocketAddr;

use roundsman_protocol::{Host, InstanceId, Namespace, Query, Registration, Scope};

use crate::context::Context;

/// So many instances that are named are compared: a registration must not take long, however many there are.
const MOST: usize = 64;

/// Who is registered in the same service at the place where `registration` is, under another name for it.
pub(super) async fn of(context: &Context, namespace: &Namespace, registration: &Registration) -> Vec<InstanceId> {
    let is_named = matches!(registration.address.host(), Host::Name(_));
    if !is_named && context.registry.named() == 0 {
        return Vec::new();
    }
    let Some(place) = place(context, registration.address.host(), registration.address.port()).await else {
        return Vec::new();
    };
    let query = Query::service(registration.name.clone()).scope(Scope::All);
    let here: Vec<_> = context.registry.snapshot(namespace, &query).matching(&query).collect();
    let mut twins = Vec::new();
    let others = here.iter().filter(|other| {
        let address = &other.address;
        address.port() == registration.address.port() && *address != registration.address
    });
    let mut compared = 0;
    for other in others {
        let same = match other.address.host() {
            Host::Ip(ip) => place.contains(&SocketAddr::new(*ip, other.address.port())),
            Host::Name(_) if compared < MOST => {
                compared += 1;
                let found = self::place(context, other.address.host(), other.address.port()).await;
                found.is_some_and(|found| found.iter().any(|addr| place.contains(addr)))
            }
            Host::Name(_) => false,
        };
        if same {
            twins.push(other.id.clone());
        }
    }
    twins
}

/// The one place that a host stands for. A name of several places, such as one that spreads load, stands for none; one
/// of the loopback addresses of both kinds stands for this machine.
async fn place(context: &Context, host: &Host, port: u16) -> Option<Vec<SocketAddr>> {
    match host {
        Host::Ip(ip) => Some(vec![SocketAddr::new(*ip, port)]),
        Host::Name(name) => {
            let found = context.rounds.resolve(name, port).await.ok()?;
            (found.len() == 1 || found.iter().all(|addr| addr.ip().is_loopback())).then_some(found)
        }
    }
}
