//! Which service calls which, for `roundsman graph` and `GET /api/v1/graph`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{
    error::Invalid,
    name::{Namespace, ServiceName},
    time::Timestamp,
};

/// Which service calls which in one namespace, as one server has seen it.
///
/// Only callers that said in the handshake which service they are appear in it.
///
/// ```
/// use roundsman_protocol::Graph;
///
/// fn nobody_answers_to(graph: &Graph) -> Vec<String> {
///     let missing = graph.edges.iter().filter(|edge| !graph.knows(&edge.callee));
///     missing.map(|edge| format!("{} looks for {}", edge.caller, edge.callee)).collect()
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Graph {
    /// The namespace.
    pub namespace: Namespace,
    /// Since when this server counts: its start.
    pub since: Timestamp,
    /// When this was written.
    pub now: Timestamp,
    /// The services that have an instance, be it on probation; sorted.
    pub services: Vec<ServiceName>,
    /// Who asked for whom, sorted by caller and callee.
    pub edges: Vec<Edge>,
    /// Lookups and watches of all namespaces that are missing here, because the server knew too many edges already.
    pub unrecorded: u64,
}

/// One service asked for another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// Who asked.
    pub caller: ServiceName,
    /// For whom. A lookup proves no registration: it may be a name that nobody has.
    pub callee: Callee,
    /// How often it was looked up, by `get` or `list`. Lookups in a client's memory are not seen by any server.
    pub lookups: u64,
    /// Connections of the caller that follow it at this moment.
    pub watching: u64,
    /// The last lookup, or the last time that a watch asked for more.
    pub last: Timestamp,
}

/// For whom a caller asks: a service, or everything in the namespace. In text `*` stands for everything.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Callee {
    /// All services.
    Everything,
    /// One service.
    Service(ServiceName),
}

// === impl Graph ===

impl Graph {
    /// Whether somebody is registered under this name. Everything is always known.
    #[must_use]
    pub fn knows(&self, callee: &Callee) -> bool {
        match callee {
            Callee::Everything => true,
            Callee::Service(name) => self.services.binary_search(name).is_ok(),
        }
    }
}

// === impl Callee ===

/// How everything is written. No service can have this name.
const EVERYTHING: &str = "*";

impl fmt::Display for Callee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => f.pad(EVERYTHING),
            Self::Service(name) => name.fmt(f),
        }
    }
}

impl std::str::FromStr for Callee {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        if text == EVERYTHING { Ok(Self::Everything) } else { text.parse().map(Self::Service) }
    }
}

impl From<ServiceName> for Callee {
    fn from(name: ServiceName) -> Self {
        Self::Service(name)
    }
}

impl Serialize for Callee {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Callee {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph() -> Graph {
        let edge = |callee: &str| Edge {
            caller: "order".parse().unwrap(),
            callee: callee.parse().unwrap(),
            lookups: 3,
            watching: 1,
            last: Timestamp::from_millis(2_000),
        };
        Graph {
            namespace: Namespace::default(),
            since: Timestamp::from_millis(1_000),
            now: Timestamp::from_millis(3_000),
            services: vec!["order".parse().unwrap(), "product".parse().unwrap()],
            edges: vec![edge("*"), edge("prodcut"), edge("product")],
            unrecorded: 0,
        }
    }

    #[test]
    fn a_graph_survives_both_codecs() {
        let graph = graph();
        let json = serde_json::to_value(&graph).unwrap();
        assert_eq!((&json["edges"][0]["callee"], &json["edges"][2]["callee"]), (&"*".into(), &"product".into()));
        assert_eq!(serde_json::from_value::<Graph>(json).unwrap(), graph);
        let bytes = postcard::to_allocvec(&graph).unwrap();
        assert_eq!(postcard::from_bytes::<Graph>(&bytes).unwrap(), graph);
    }

    #[test]
    fn a_name_that_nobody_has_is_not_known() {
        let graph = graph();
        let known: Vec<bool> = graph.edges.iter().map(|edge| graph.knows(&edge.callee)).collect();
        assert_eq!(known, [true, false, true]);
        assert!("a b".parse::<Callee>().is_err());
    }
}
