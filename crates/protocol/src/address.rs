//! Where an instance listens: a host and a port.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{error::Invalid, limits, name::quoted};

/// The address of an instance, written `10.0.0.7:7070`, `[::1]:7070` or `product:7070`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    host: Host,
    port: u16,
}

/// An IP address, or a name that is resolved when it is needed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Host {
    /// An IP address.
    Ip(IpAddr),
    /// A host name, in lower case.
    Name(Arc<str>),
}

// === impl Address ===

impl Address {
    /// Puts an address together.
    ///
    /// # Errors
    /// When the port is 0 or the IP address is the unspecified one: nobody can be reached there.
    pub fn try_new(host: Host, port: u16) -> Result<Self, Invalid> {
        if port == 0 {
            return Err(Invalid::new("address", "the port must not be 0"));
        }
        // `::ffff:10.0.0.7` and `10.0.0.7` are one place, and must be one address.
        let host = match host {
            Host::Ip(ip) => Host::Ip(ip.to_canonical()),
            name @ Host::Name(_) => name,
        };
        if matches!(&host, Host::Ip(ip) if ip.is_unspecified()) {
            return Err(Invalid::new(
                "address",
                format!(
                    "{} is the unspecified address, which nobody can reach; name the address that others use",
                    quoted(&host.to_string())
                ),
            ));
        }
        Ok(Self { host, port })
    }

    /// The host.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The port, never 0.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The socket address, when the host is an IP address.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl std::str::FromStr for Address {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let shape = || {
            Invalid::new(
                "address",
                format!("must be HOST:PORT such as 10.0.0.7:7070 or [::1]:7070, got {}", quoted(text)),
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(shape)?;
        let port = port.parse().map_err(|_| shape())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => Host::Ip(ip.parse::<Ipv6Addr>().map_err(|_| shape())?.into()),
            None if host.contains(':') => return Err(shape()),
            None => host.parse()?,
        };
        Self::try_new(host, port)
    }
}

impl TryFrom<SocketAddr> for Address {
    type Error = Invalid;
    fn try_from(addr: SocketAddr) -> Result<Self, Invalid> {
        Self::try_new(Host::Ip(addr.ip()), addr.port())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            // What is written most often, without the detour that the standard library makes for the sake of padding.
            Host::Ip(IpAddr::V4(ip)) if f.width().is_none() && f.precision().is_none() => {
                let mut digits = itoa::Buffer::new();
                for (n, octet) in ip.octets().into_iter().enumerate() {
                    f.write_str(if n == 0 { "" } else { "." })?;
                    f.write_str(digits.format(octet))?;
                }
                f.write_str(":")?;
                f.write_str(digits.format(self.port))
            }
            Host::Ip(ip) => fmt::Display::fmt(&SocketAddr::new(*ip, self.port), f),
            Host::Name(name) => f.pad(&format!("{name}:{}", self.port)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

// === impl Host ===

impl std::str::FromStr for Host {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let label = |label: &str| {
            let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
            label.len() <= limits::MAX_NAME_LEN
                && edge(label.as_bytes().first())
                && edge(label.as_bytes().last())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // A last label that is a number, decimal, octal or hexadecimal, is an IP address in disguise or mistyped:
        // resolvers read it in surprising ways.
        let numeric = text.rsplit('.').next().is_some_and(is_number);
        if text.len() > limits::MAX_HOST_LEN || numeric || !text.split('.').all(label) {
            return Err(Invalid::new(
                "address",
                format!("the host must be an IP address or a host name, got {}", quoted(text)),
            ));
        }
        Ok(Self::Name(Arc::from(text.to_ascii_lowercase())))
    }
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => label.bytes().all(|b| b.is_ascii_digit()),
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => fmt::Display::fmt(ip, f),
            Self::Name(name) => f.pad(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_print_as_they_read() {
        for text in ["10.0.0.7:7070", "[::1]:80", "product:7070", "a.b-c.example:1"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!("[::ffff:127.0.0.1]:80".parse::<Address>().unwrap().to_string(), "127.0.0.1:80");
        assert_eq!("PRODUCT:1".parse::<Address>().unwrap().to_string(), "product:1");
    }

    #[test]
    fn useless_addresses_are_refused() {
        for text in [
            "",
            ":",
            "10.0.0.7",
            "10.0.0.7:0",
            "10.0.0.7:65536",
            "0.0.0.0:1",
            "[::]:1",
            "[::ffff:0.0.0.0]:1",
            "::1:80",
            "1.2.3:80",
            "a..b:1",
            "-a:1",
            "a b:1",
            "[::1:80",
            "127.1:80",
            "2852039166:80",
            "0251.0376.0251.0376:80",
            "0xa9fea9fe:80",
            "0xa9.0xfe.0xa9.0xfe:80",
        ] {
            assert_eq!(text.parse::<Address>().unwrap_err().field, "address", "{text:?}");
        }
    }
}
