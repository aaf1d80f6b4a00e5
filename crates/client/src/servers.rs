//! Where the servers are.

use std::{net::SocketAddr, sync::Arc};

use roundsman_protocol::Invalid;

/// The addresses of one or more discovery servers, each `HOST:PORT`.
///
/// Made from `"a:5555"`, `"a:5555,b:5555"`, a socket address, or a list of any of these.
///
/// ```
/// use roundsman::{Discovery, Servers};
///
/// let one = Servers::from("10.0.0.1:5555");
/// assert_ne!(one, Servers::from("10.0.0.1:5555,10.0.0.2:5555"));
/// let builder = Discovery::builder().servers(["10.0.0.1:5555", "discovery.shop.example:5555"]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Servers(Vec<String>);

// === impl Servers ===

impl Servers {
    /// Checks the addresses. They are tried in this order.
    pub(crate) fn checked(&self) -> Result<Vec<Arc<str>>, Invalid> {
        let mut servers = Vec::new();
        for server in self.0.iter().flat_map(|text| text.split(',')).map(str::trim).filter(|text| !text.is_empty()) {
            let sound = server.rsplit_once(':').is_some_and(|(host, port)| {
                let bare = host.contains(':') && !host.starts_with('[');
                !host.is_empty() && !bare && port.parse::<u16>().is_ok_and(|port| port != 0)
            });
            if !sound {
                return Err(Invalid::new(
                    "server",
                    format!("must be HOST:PORT such as 127.0.0.1:5555, got {server:?}"),
                ));
            }
            servers.push(Arc::from(server));
        }
        if servers.is_empty() {
            return Err(Invalid::new("server", "name at least one server, such as 127.0.0.1:5555"));
        }
        Ok(servers)
    }
}

impl From<&str> for Servers {
    fn from(servers: &str) -> Self {
        Self(vec![servers.to_owned()])
    }
}

impl From<&String> for Servers {
    fn from(servers: &String) -> Self {
        Self(vec![servers.clone()])
    }
}

impl From<String> for Servers {
    fn from(servers: String) -> Self {
        Self(vec![servers])
    }
}

impl From<SocketAddr> for Servers {
    fn from(server: SocketAddr) -> Self {
        Self(vec![server.to_string()])
    }
}

impl<T: ToString> From<&[T]> for Servers {
    fn from(servers: &[T]) -> Self {
        servers.iter().map(ToString::to_string).collect()
    }
}

impl<T: ToString> From<Vec<T>> for Servers {
    fn from(servers: Vec<T>) -> Self {
        servers.into_iter().collect()
    }
}

impl<T: ToString, const N: usize> From<[T; N]> for Servers {
    fn from(servers: [T; N]) -> Self {
        servers.into_iter().collect()
    }
}

impl<T: ToString> FromIterator<T> for Servers {
    fn from_iter<I: IntoIterator<Item = T>>(servers: I) -> Self {
        Self(servers.into_iter().map(|server| server.to_string()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_written_either_way() {
        let both = ["a:1", "b:2"].map(Arc::from);
        assert_eq!(Servers::from("a:1, b:2,").checked().unwrap(), both);
        assert_eq!(Servers::from(["a:1", "b:2"]).checked().unwrap(), both);
        assert_eq!(Servers::from(vec!["a:1,b:2".to_owned()]).checked().unwrap(), both);
        let v6: SocketAddr = "[::1]:5555".parse().unwrap();
        assert_eq!(Servers::from(v6).checked().unwrap(), [Arc::from("[::1]:5555")]);
    }

    #[test]
    fn an_address_that_cannot_be_one_is_refused_at_once() {
        for bad in ["", " , ", "localhost", "a:", ":5555", "a:0", "a:65536", "::1:5555", "http://a:5555/"] {
            assert_eq!(Servers::from(bad).checked().unwrap_err().field, "server", "{bad:?}");
        }
    }
}
