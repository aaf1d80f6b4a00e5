//! Which addresses may be visited: a server that visits whatever registers must not be led anywhere.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;
use roundsman_protocol::Address;

/// Which addresses may be visited.
///
/// By default everything but link-local (where most clouds keep their metadata), the metadata addresses that clouds
/// keep elsewhere, multicast, broadcast and unspecified addresses: be they written as IPv4, as IPv6, or as IPv4 within
/// IPv6 in any of its forms.
#[derive(Clone, Debug, Default)]
pub struct TargetPolicy {
    only: Option<Vec<IpNet>>,
}

/// The most addresses of a host name that one visit tries.
const MOST_ADDRESSES: usize = 4;
/// Metadata services that are not link-local: Azure, Alibaba Cloud, Oracle Cloud; over IPv6 Amazon, Google, Scaleway.
const METADATA: [IpAddr; 6] = [
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

/// Why there is no address to visit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoAddress {
    #[error("{0}")]
    Forbidden(String),
    #[error("{0}")]
    Unresolved(String),
    /// It was not asked for, for reasons of our own.
    #[error("{0}")]
    Busy(String),
}

// === impl TargetPolicy ===

impl TargetPolicy {
    /// Only addresses in these networks, whatever they are. IPv4 within IPv6 is judged as IPv4.
    #[must_use]
    pub fn only(networks: Vec<IpNet>) -> Self {
        Self { only: Some(networks) }
    }

    /// Whether `ip` may be visited.
    ///
    /// # Errors
    /// Why not, as a clause: `169.254.169.254 is link-local`.
    pub fn permits(&self, ip: IpAddr) -> Result<(), String> {
        let ip = ip.to_canonical();
        let inner = match ip {
            IpAddr::V4(_) => Vec::new(),
            IpAddr::V6(v6) => within(v6),
        };
        if inner.is_empty() {
            return self.permits_plain(ip);
        }
        inner.into_iter().try_for_each(|inner| self.permits_plain(inner.into()))
    }

    fn permits_plain(&self, ip: IpAddr) -> Result<(), String> {
        if let Some(networks) = &self.only {
            if networks.iter().any(|network| network.contains(&ip)) {
                return Ok(());
            }
            return Err(format!("{ip} is not among the allowed targets"));
        }
        let (link_local, broadcast) = match ip {
            IpAddr::V4(ip) => (ip.is_link_local(), ip.is_broadcast()),
            IpAddr::V6(ip) => (ip.is_unicast_link_local(), false),
        };
        let what = match ip {
            _ if link_local => "link-local",
            _ if METADATA.contains(&ip) => "a cloud's metadata service",
            _ if ip.is_multicast() => "multicast",
            _ if ip.is_unspecified() => "the unspecified address",
            _ if broadcast => "a broadcast address",
            _ => return Ok(()),
        };
        Err(format!("{ip} is {what}, which may not be visited"))
    }

    /// The address to visit, when no name has to be resolved for it.
    pub(crate) fn literal(&self, address: &Address) -> Option<Result<SocketAddr, NoAddress>> {
        let addr = address.socket_addr()?;
        Some(self.permits(addr.ip()).map(|()| addr).map_err(NoAddress::Forbidden))
    }

    /// Of the addresses of a host name those that may be visited, at least one.
    pub(crate) fn choose(&self, name: &str, found: &[IpAddr], port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let mut refusal = None;
        let mut permitted = Vec::new();
        for ip in found {
            let addr = SocketAddr::new(*ip, port);
            match self.permits(*ip) {
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

/// The IPv4 addresses that are reached, or may be, through an IPv6 address; none when it is one of its own.
fn within(ip: Ipv6Addr) -> Vec<Ipv4Addr> {
    let bytes = ip.octets();
    let at = |places: [usize; 4]| Ipv4Addr::from(places.map(|place| bytes.get(place).copied().unwrap_or_default()));
    let last = at([12, 13, 14, 15]);
    match ip.segments() {
        // `::` and `::1` are what they are.
        [0, 0, 0, 0, 0, 0, high, low] if high > 0 || low > 1 => vec![last],
        // NAT64 (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => vec![last],
        // NAT64 of a site's own (RFC 8215): how long the prefix is, only its operator knows.
        [0x64, 0xff9b, 1, ..] => {
            let mut found = vec![at([6, 7, 9, 10]), at([7, 9, 10, 11]), at([9, 10, 11, 12]), last];
            found.retain(|ip| !ip.is_unspecified());
            found
        }
        // 6to4.
        [0x2002, ..] => vec![at([2, 3, 4, 5])],
        // Teredo: the server, and the client in negative.
        [0x2001, 0, ..] => vec![at([4, 5, 6, 7]), Ipv4Addr::from(last.octets().map(|byte| !byte))],
        // ISATAP.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => vec![last],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// One IPv4 address in all forms that reach it through IPv6.
    fn forms(v4: Ipv4Addr) -> Vec<IpAddr> {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let texts = [
            format!("{v4}"),
            format!("::ffff:{v4}"),
            format!("::{v4}"),
            format!("64:ff9b::{v4}"),
            format!("64:ff9b:1::{v4}"),
            format!("64:ff9b:1:7::{v4}"),
            format!("64:ff9b:1:{high:x}:{c:x}:{d:02x}00::"),
            format!("64:ff9b:1:{a:02x}:{b:x}:{low:x}::"),
            format!("64:ff9b:1:0:{a:x}:{b:02x}{c:02x}:{d:02x}00:0"),
            format!("2002:{high:x}:{low:x}::1"),
            format!("2001:0:{high:x}:{low:x}::f5ff:fff8"),
            format!("2001:0:a00:1::{:x}:{:x}", !high, !low),
            format!("2001:db8::5efe:{v4}"),
            format!("2001:db8::200:5efe:{v4}"),
        ];
        texts.iter().map(|text| ip(text)).collect()
    }

    #[test]
    fn dangerous_addresses_are_refused_in_every_form() {
        let policy = TargetPolicy::default();
        for (text, what) in [
            ("169.254.169.254", "link-local"),
            ("168.63.129.16", "a cloud's metadata service"),
            ("100.100.100.200", "a cloud's metadata service"),
            ("192.0.0.192", "a cloud's metadata service"),
            ("224.0.0.1", "multicast"),
            ("255.255.255.255", "a broadcast address"),
        ] {
            for form in forms(text.parse().unwrap()) {
                let why = policy.permits(form).expect_err(&form.to_string());
                assert_eq!(why, format!("{text} is {what}, which may not be visited"), "{form}");
            }
        }
        for text in ["fe80::1", "fd00:ec2::254", "fd20:ce::254", "fd00:42::42", "ff02::1", "0.0.0.0", "::"] {
            assert!(policy.permits(ip(text)).is_err(), "{text}");
        }
        for text in ["::ffff:0.0.0.0", "64:ff9b::0.0.0.0", "2002::1"] {
            assert!(policy.permits(ip(text)).is_err(), "{text}");
        }
    }

    #[test]
    fn ordinary_addresses_are_permitted_in_every_form() {
        for form in forms(Ipv4Addr::new(10, 0, 0, 7)) {
            assert_eq!(TargetPolicy::default().permits(form), Ok(()), "{form}");
        }
        for text in ["127.0.0.1", "::1", "8.8.8.8", "fd00::1", "fd00:ec2::1", "2001:db8::1", "168.63.129.17"] {
            assert_eq!(TargetPolicy::default().permits(ip(text)), Ok(()), "{text}");
        }
    }

    /// What stands for an address in the eyes of old resolvers is none here, and so cannot get past the policy.
    #[test]
    fn numbers_in_disguise_are_no_addresses() {
        for text in
            ["2822735120:80", "0xa83f8110:80", "0250.077.0201.020:80", "168.4161808:80", "0xa8.0x3f.0x81.0x10:80"]
        {
            assert!(text.parse::<Address>().is_err(), "{text}");
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
        let metadata = TargetPolicy::only(vec!["168.63.129.16/32".parse().unwrap(), "fd00::/8".parse().unwrap()]);
        for text in ["168.63.129.16", "::ffff:168.63.129.16", "64:ff9b::168.63.129.16", "fd00:ec2::254"] {
            assert_eq!(metadata.permits(ip(text)), Ok(()), "{text}: the operator said so");
        }
        assert!(metadata.permits(ip("64:ff9b::10.0.0.7")).is_err());
    }

    #[test]
    fn of_a_name_only_permitted_addresses_are_visited() {
        let policy = TargetPolicy::default();
        let mixed = [ip("169.254.169.254"), ip("10.0.0.1"), ip("10.0.0.1")];
        assert_eq!(policy.choose("x", &mixed, 80), Ok(vec![SocketAddr::new(ip("10.0.0.1"), 80)]));
        for bad in ["fe80::1", "64:ff9b::a9fe:a9fe", "168.63.129.16"] {
            let refused = policy.choose("x", &[ip(bad)], 80).unwrap_err();
            assert!(matches!(&refused, NoAddress::Forbidden(why) if why.starts_with("x resolves to ")), "{refused:?}");
        }
        assert_eq!(policy.choose("x", &[], 80), Err(NoAddress::Unresolved("x has no address".into())));
    }
}
