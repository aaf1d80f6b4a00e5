//! What a server can be asked: one list for all doors and for what is counted.

macro_rules! methods {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// A method. The order is that of the RPC trait, and with it the wire format: append only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Method {
            $($variant),+
        }

        impl Method {
            /// All of them.
            pub(crate) const ALL: [Self; [$($name),+].len()] = [$(Self::$variant),+];

            /// As metrics name it.
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// As a message in JSON names it.
            pub(crate) const fn variant(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant)),+
                }
            }
        }
    };
}

methods! {
    Register = "register",
    Deregister = "deregister",
    Renew = "renew",
    Drain = "drain",
    Get = "get",
    List = "list",
    Services = "services",
    Watch = "watch",
    Report = "report",
    Status = "status",
    Graph = "graph",
    History = "history",
    Dismiss = "dismiss",
    Update = "update",
}

impl Method {
    /// As a message in postcard numbers it.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use roundsman_protocol::{
        DiscoveryError, DiscoveryRequest as Request, DiscoveryResponse as Response, HistoryQuery, Patch, Query,
        Registration, Trouble, rpc::Wait,
    };

    use super::*;

    fn requests() -> [Request; Method::ALL.len()] {
        let id = || "a".parse().unwrap();
        let registration = Registration::new("a".parse().unwrap(), "10.0.0.7:1".parse().unwrap());
        [
            Request::Register { registration },
            Request::Deregister { id: id() },
            Request::Renew { id: id() },
            Request::Drain { id: id(), on: true },
            Request::Get { service: "a".parse().unwrap() },
            Request::List { query: Query::default(), after: None },
            Request::Services {},
            Request::Watch {
                query: Query::default(),
                after: None,
                wait: Wait(Duration::ZERO),
                known: None,
                page: None,
            },
            Request::Report { id: id(), trouble: Trouble::Timeout },
            Request::Status {},
            Request::Graph {},
            Request::History { query: HistoryQuery::default() },
            Request::Dismiss { id: id(), block: None },
            Request::Update { id: id(), patch: Patch::default() },
        ]
    }

    fn responses() -> [Response; Method::ALL.len()] {
        let no = || DiscoveryError::ShuttingDown;
        [
            Response::Register(Err(no())),
            Response::Deregister(Err(no())),
            Response::Renew(Err(no())),
            Response::Drain(Err(no())),
            Response::Get(Err(no())),
            Response::List(Err(no())),
            Response::Services(Err(no())),
            Response::Watch(Err(no())),
            Response::Report(Err(no())),
            Response::Status(Err(no())),
            Response::Graph(Err(no())),
            Response::History(Err(no())),
            Response::Dismiss(Err(no())),
            Response::Update(Err(no())),
        ]
    }

    fn check<T: serde::Serialize + std::fmt::Debug>(method: Method, message: &T) {
        let written = postcard::to_allocvec(message).unwrap();
        assert_eq!(written.first(), Some(&method.number()), "{message:?}");
        let serde_json::Value::Object(fields) = serde_json::to_value(message).unwrap() else {
            panic!("{message:?} is no object");
        };
        assert_eq!(fields.keys().next().unwrap(), method.variant());
        assert_eq!(method.variant().to_lowercase(), method.name());
    }

    #[test]
    fn methods_have_the_numbers_and_names_of_the_wire() {
        for ((method, request), response) in Method::ALL.into_iter().zip(requests()).zip(responses()) {
            check(method, &request);
            check(method, &response);
        }
    }
}
