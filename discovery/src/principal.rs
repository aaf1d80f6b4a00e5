//! Who asks.

use std::{fmt, net::SocketAddr};

use roundsman_protocol::{ServiceName, Who};

/// Who asks for something: made when a door lets somebody in, and carried along with every change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    session: u64,
    door: Door,
    peer: Option<SocketAddr>,
    service: Option<ServiceName>,
}

/// Where somebody came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Door {
    /// The RPC door.
    Rpc,
    /// The HTTP door.
    Http,
}

// === impl Principal ===

impl Principal {
    /// Somebody at `door`, under a session number that nobody else has: on all servers, as good as surely. `service` is
    /// what the caller says of itself, and proves nothing.
    pub(crate) fn new(door: Door, peer: Option<SocketAddr>, service: Option<ServiceName>) -> Self {
        Self { session: fastrand::u64(..), door, peer, service }
    }

    /// The number of its session.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Where it came in.
    pub(crate) fn door(&self) -> Door {
        self.door
    }

    /// Which service it says it is.
    pub(crate) fn service(&self) -> Option<&ServiceName> {
        self.service.as_ref()
    }
}

impl Principal {
    /// In as few words as tell an operator whom to ask: `order at 10.0.0.7:51234`.
    pub(crate) fn name(&self) -> String {
        let place = self.peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
        self.service.as_ref().map_or(place.clone(), |service| format!("{service} at {place}"))
    }

    /// As the history keeps it.
    pub(crate) fn who(&self) -> Who {
        Who {
            session: Some(format!("{} {:016x}", self.door, self.session).into()),
            address: self.peer.map(|peer| peer.to_string().into()),
            service: self.service.as_ref().map(|service| service.as_str().into()),
        }
    }
}

impl fmt::Display for Principal {
    /// As logs and the history show it: `order at 10.0.0.7:51234, rpc session 00000000075bcd15`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(service) = &self.service {
            write!(f, "{service} at ")?;
        }
        match self.peer {
            Some(peer) => write!(f, "{peer}")?,
            None => f.write_str("an unknown address")?,
        }
        write!(f, ", {} session {:016x}", self.door, self.session)
    }
}

// === impl Door ===

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rpc => "rpc",
            Self::Http => "http",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sessions_of_one_peer_are_told_apart() {
        let peer: Option<SocketAddr> = "10.0.0.7:51234".parse().ok();
        let order = || Principal::new(Door::Rpc, peer, "order".parse().ok());
        let (one, other) = (order(), order());
        assert_ne!(one, other);
        assert_eq!(one.name(), "order at 10.0.0.7:51234");
        assert!(one.to_string().starts_with("order at 10.0.0.7:51234, rpc session "), "{one}");
        assert!(Principal::new(Door::Http, None, None).to_string().starts_with("an unknown address, http session "));
    }
}
