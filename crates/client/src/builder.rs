//! How a client is set up.

mod connecting;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use roundsman_protocol::Codec;

pub(crate) use self::connecting::inside_runtime;
use crate::{breaker::CircuitBreaker, servers::Servers};

/// How a client is set up; made by [`Discovery::builder`](crate::Discovery::builder).
///
/// ```no_run
/// # async fn example() -> Result<(), roundsman::Error> {
/// use std::time::Duration;
///
/// let discovery = roundsman::Discovery::builder()
///     .servers(["10.0.0.1:5555", "10.0.0.2:5555"])
///     .namespace("shop")
///     .service("order")
///     .timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    servers: Servers,
    namespace: Option<String>,
    service: Option<String>,
    timeout: Duration,
    codec: Codec,
    empty_grace: Duration,
    snapshot_file: Option<PathBuf>,
    circuit_breaker: CircuitBreaker,
    notice: Duration,
    #[cfg(feature = "reqwest")]
    http_client: Option<reqwest::Client>,
}

/// How long a call may take unless the caller says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server that is asked when none is named.
pub const DEFAULT_SERVER: &str = "127.0.0.1:5555";

/// How long resolvers keep their instances against the word of a server that has lost its memory, unless told otherwise.
pub const DEFAULT_EMPTY_GRACE: Duration = Duration::from_secs(30);

/// How long callers are given to notice that an instance drains, unless told otherwise. Those who follow the service
/// hear of it within milliseconds; the rest is for calls that were just being made.
pub const DEFAULT_NOTICE: Duration = Duration::from_millis(500);

/// The environment variable that names the servers.
const SERVER_VARIABLE: &str = "ROUNDSMAN_SERVER";

/// The environment variable that names the namespace.
const NAMESPACE_VARIABLE: &str = "ROUNDSMAN_NAMESPACE";

// === impl Builder ===

impl Default for Builder {
    fn default() -> Self {
        Self {
            servers: DEFAULT_SERVER.into(),
            namespace: None,
            service: None,
            timeout: DEFAULT_TIMEOUT,
            codec: Codec::default(),
            empty_grace: DEFAULT_EMPTY_GRACE,
            snapshot_file: None,
            circuit_breaker: CircuitBreaker::default(),
            notice: DEFAULT_NOTICE,
            #[cfg(feature = "reqwest")]
            http_client: None,
        }
    }
}

impl Builder {
    /// What the environment says, the same variables that the command line tool reads: `ROUNDSMAN_SERVER` for the
    /// servers and `ROUNDSMAN_NAMESPACE` for the tenant. One that is not set, or empty, leaves the default. Mistakes in
    /// them are reported when the client connects.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), roundsman::Error> {
    /// let discovery = roundsman::Builder::from_env().service("order").connect_lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[allow(clippy::disallowed_methods, reason = "the one place where the client reads the environment")]
    pub fn from_env() -> Self {
        Self::default().with_variables(|name| std::env::var_os(name))
    }

    fn with_variables(self, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| {
            let text = variable(name)?.to_string_lossy().trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let with_servers = match set(SERVER_VARIABLE) {
            Some(servers) => self.servers(servers.as_str()),
            None => self,
        };
        match set(NAMESPACE_VARIABLE) {
            Some(namespace) => with_servers.namespace(namespace),
            None => with_servers,
        }
    }

    /// The servers: `"a:5555"`, `"a:5555,b:5555"` or a list. By default [`DEFAULT_SERVER`]. They are tried in turn, each next one
    /// as soon as one fails, or beside one that does not answer within 300 ms; the first that lets us in is used. The addresses
    /// of a name are tried in the same way.
    pub fn servers(mut self, servers: impl Into<Servers>) -> Self {
        self.servers = servers.into();
        self
    }

    /// The tenant whom all calls are about. By default `default`.
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// Which service is calling, so that the servers can tell who depends on whom: see
    /// [`Discovery::graph`](crate::Discovery::graph) and `roundsman graph`.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = Some(service.into());
        self
    }

    /// How long a call may take in all, waiting for a connection included. By default [`DEFAULT_TIMEOUT`].
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long an instance that leaves [in good order](crate::Registration::graceful) goes on serving after it asked to be
    /// passed over, so that its callers notice. By default [`DEFAULT_NOTICE`].
    pub fn notice(mut self, notice: Duration) -> Self {
        self.notice = notice;
        self
    }

    /// How messages are written on the wire. By default postcard; JSON is for looking at.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    /// How long [resolvers](crate::Resolver) keep the instances they know when a server that has just started, or
    /// another server, says that there are none. It may have lost its memory, and everybody is about to register
    /// again; the list is marked stale meanwhile. After that the server is asked again, and believed. By default
    /// [`DEFAULT_EMPTY_GRACE`]; zero believes it at once.
    pub fn empty_grace(mut self, grace: Duration) -> Self {
        self.empty_grace = grace;
        self
    }

    /// A file in which [resolvers](crate::Resolver) save what they know, at most once a second, and from which they
    /// take it when no server has told it within 50 ms, be it frozen or away. What was read is marked stale. One file per
    /// program and namespace: the last one to write wins. By default there is none.
    ///
    /// A file that cannot be read or written is logged and otherwise ignored.
    pub fn snapshot_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.snapshot_file = Some(path.into());
        self
    }

    /// When calls pass an instance over because too many of them failed, and for how long. By default
    /// [`CircuitBreaker::default`].
    pub fn circuit_breaker(mut self, rules: CircuitBreaker) -> Self {
        self.circuit_breaker = rules;
        self
    }

    /// Calls by name go through this `reqwest` client: with its default headers, pool and timeouts, which count for each try. By
    /// default through one of their own, that speaks plain HTTP, connects within
    /// [`CONNECT_TIMEOUT`](crate::http::CONNECT_TIMEOUT), and uses no proxy and no redirects; a client of one's own had better do
    /// the same.
    ///
    /// ```no_run
    /// # fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let plain = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(100).user_agent("order/1.2").build()?;
    /// let discovery = roundsman::Discovery::builder().http_client(plain).connect_lazy()?;
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "reqwest")]
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http_client = Some(client);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_one_more_way_to_say_it() {
        let builder = |server: &'static str, namespace: &'static str| {
            Builder::default().with_variables(move |name| {
                let value = if name == SERVER_VARIABLE { server } else { namespace };
                (value != "unset").then(|| value.into())
            })
        };
        let said = builder("a:1, b:2", "shop");
        assert_eq!(said.servers.checked().unwrap().iter().map(|server| &**server).collect::<Vec<_>>(), ["a:1", "b:2"]);
        assert_eq!(said.namespace.as_deref(), Some("shop"));
        for unsaid in [builder("unset", "unset"), builder("", " ")] {
            assert_eq!(&*unsaid.servers.checked().unwrap()[0], DEFAULT_SERVER);
            assert_eq!(unsaid.namespace, None);
        }
        assert!(builder("nowhere", "unset").servers.checked().is_err());
    }
}
