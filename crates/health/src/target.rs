//! Which addresses may be visited: a server that visits whatever registers must not be led anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use roundsman_protocol::Address;

/// Which addresses may be visited.
///
/// By default everything but link-local (where clouds keep their metadata), multicast, broadcast and unspecified
/// addresses, be they written as IPv4, as IPv6, or as IPv4 within IPv6; and the one metadata address that a cloud
/// keeps elsewhere, `fd00:ec2::254`.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    only: Option<Vec<IpNet>>,
}

/// The most addresses of a host name that one visit tries.
const MOST_ADDRESSES: usize = 4;
/// Amazon's metadata service over IPv6 lives among the unique local addresses.
const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// Why there is no address to visit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Unresolved(String),
}

// === impl TargetPolicy ===

impl TargetPolicy {
    /// Only addresses in these networks, whatever they are.
    #[must_use]
    pub fn only(networks: Vec<IpNet>) -> Self {
        Self { only: Some(networks) }
    }

    /// Whether `ip` may be visited.
    ///
    /// # Errors
    /// Why not, as a clause: `169.254.169.254 is link-local`.
    pub fn permits(&self, ip: IpAddr) -> Result<(), String> {
        let ip = plain(ip);
        if let Some(networks) = &self.only {
            if networks.iter().any(|network| network.contains(&ip)) {
                return Ok(());
            }
            return Err(format!("{ip} is not among the allowed targets"));
        }
        let (link_local, rest) = match ip {
            IpAddr::V4(ip) => (ip.is_link_local(), ip.is_broadcast().then_some("a broadcast address")),
            IpAddr::V6(ip) => {
                (ip.is_unicast_link_local(), (ip == EC2_METADATA).then_some("a cloud's metadata service"))
            }
        };
        let what = match rest {
            _ if link_local => "link-local",
            _ if ip.is_multicast() => "multicast",
            _ if ip.is_unspecified() => "the unspecified address",
            Some(what) => what,
            None => return Ok(()),
        };
        Err(format!("{ip} is {what}, which may not be visited"))
    }

    /// The address to visit, when no name has to be resolved for it.
    pub(crate) fn literal(&self, address: &Address) -> Option<Result<SocketAddr, NoAddress>> {
        let addr = address.socket_addr()?;
        Some(self.permits(addr.ip()).map(|()| addr).map_err(NoAddress::Forbidden))
    }

    /// The addresses of a host name that may be visited, at least one. It is resolved now.
    pub(crate) async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let found = tokio::net::lookup_host((name, port)).await;
        let found = found.map_err(|error| NoAddress::Unresolved(format!("cannot resolve {name}: {error}")))?;
        self.choose(name, found)
    }

    fn choose(&self, name: &str, found: impl Iterator<Item = SocketAddr>) -> Result<Vec<SocketAddr>, NoAddress> {
        let mut refusal = None;
        let mut permitted = Vec::new();
        for addr in found {
            match self.permits(addr.ip()) {
                Ok(()) if permitted.contains(&addr) => {}
                Ok(()) => permitted.push(addr),
                Err(why) => refusal = Some(why),
            }
        }
        permitted.truncate(MOST_ADDRESSES);
        match refusal {
            _ if !permitted.is_empty() => Ok(permitted),
            Some(why) => Err(NoAddress::Forbidden(format!("{name} resolves to an address that is not allowed: {why}"))),
            None => Err(NoAddress::Unresolved(format!("{name} has no address"))),
        }
    }
}

/// The address that is reached in the end: IPv4 that is written as IPv6 (mapped, or translated by NAT64) is IPv4.
fn plain(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip.to_canonical() else { return ip.to_canonical() };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            let (high, low) = (high.to_be_bytes(), low.to_be_bytes());
            IpAddr::V4(Ipv4Addr::new(high[0], high[1], low[0], low[1]))
        }
        _ => IpAddr::V6(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn dangerous_addresses_are_refused_in_every_spelling() {
        for text in [
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "fe80::1",
            "fd00:ec2::254",
            "224.0.0.1",
            "ff02::1",
            "::ffff:224.0.0.1",
            "0.0.0.0",
            "::",
            "::ffff:0.0.0.0",
            "255.255.255.255",
        ] {
            assert!(TargetPolicy::default().permits(ip(text)).is_err(), "{text}");
        }
        for text in ["127.0.0.1", "::1", "10.0.0.7", "8.8.8.8", "fd00::1", "64:ff9b::a00:1", "2001:db8::1"] {
            assert_eq!(TargetPolicy::default().permits(ip(text)), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_list_of_networks_is_the_whole_truth() {
        let only = TargetPolicy::only(vec!["10.0.0.0/8".parse().unwrap(), "169.254.0.0/16".parse().unwrap()]);
        assert_eq!(only.permits(ip("10.1.2.3")), Ok(()));
        assert_eq!(only.permits(ip("::ffff:10.1.2.3")), Ok(()));
        assert_eq!(only.permits(ip("169.254.1.1")), Ok(()), "the operator said so");
        assert_eq!(only.permits(ip("127.0.0.1")).unwrap_err(), "127.0.0.1 is not among the allowed targets");
        assert!(TargetPolicy::only(Vec::new()).permits(ip("10.1.2.3")).is_err());
    }

    #[test]
    fn of_a_name_only_permitted_addresses_are_visited() {
        let policy = TargetPolicy::default();
        let socket = |text: &str| SocketAddr::new(ip(text), 80);
        let mixed = [socket("169.254.169.254"), socket("10.0.0.1"), socket("10.0.0.1")];
        assert_eq!(policy.choose("x", mixed.into_iter()), Ok(vec![socket("10.0.0.1")]));
        let bad = policy.choose("x", [socket("fe80::1")].into_iter()).unwrap_err();
        assert!(matches!(&bad, NoAddress::Forbidden(why) if why.contains("fe80::1 is link-local")), "{bad:?}");
        assert_eq!(policy.choose("x", std::iter::empty()), Err(NoAddress::Unresolved("x has no address".into())));
    }

    #[tokio::test]
    async fn names_are_resolved_and_checked() {
        let found = TargetPolicy::default().resolve("localhost", 80).await.unwrap();
        assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == 80));
        let nowhere = TargetPolicy::only(vec!["10.0.0.0/8".parse().unwrap()]);
        assert!(matches!(nowhere.resolve("localhost", 80).await, Err(NoAddress::Forbidden(_))));
    }
}
