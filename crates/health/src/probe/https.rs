//! The `https` check, over reqwest and rustls.
//!
//! Certificates are not verified, as in the probes of Kubernetes. Instances register by IP address and bring
//! certificates of their own making; what we want to know is whether they answer, we send nothing that is secret,
//! and we believe nothing but a status. Who calls the instance verifies it.

use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::{Arc, Once, OnceLock},
    time::Duration,
};

use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    header::CONNECTION,
    redirect::Policy,
};
use roundsman_protocol::{Address, Host, check::Expect};
use tokio::time::{Instant, timeout_at};

use super::{BODY_LIMIT, Detail, Finding, VISITS_PER_CONNECTION, Visit, connect, identity, named};
use crate::{
    names::Names,
    observation::Class,
    target::{NoAddress, TargetPolicy},
};

/// Idle connections are closed after this; longer than most intervals.
const IDLE: Duration = Duration::from_secs(90);

/// The one client of all `https` checks, made when the first of them is visited.
#[derive(Debug)]
pub(crate) struct Https {
    policy: TargetPolicy,
    names: Names,
    user_agent: String,
    client: OnceLock<Result<Client, String>>,
}

/// Asks an instance for its health over TLS.
#[derive(Debug)]
pub(crate) struct HttpsProbe {
    https: Arc<Https>,
    url: Option<Url>,
    expect: Option<Arc<Expect>>,
    /// Visits on the present connection.
    visits: u8,
}

/// Resolves only to addresses that may be visited.
struct Resolver {
    policy: TargetPolicy,
    names: Names,
}

/// One visit, wherever the instance is.
struct Asking<'a> {
    probe: &'a HttpsProbe,
    visit: &'a Visit<'a>,
    /// It is the last one on its connection.
    last: bool,
}

/// The longest that the resolver waits for an unknown name; the visit has waited for it before.
const RESOLVING: Duration = Duration::from_secs(1);

// === impl Https ===

impl Https {
    pub(crate) fn new(policy: TargetPolicy, names: Names, user_agent: &str) -> Self {
        let user_agent = user_agent.chars().filter(|c| !c.is_control()).collect();
        Self { policy, names, user_agent, client: OnceLock::new() }
    }

    fn client(&self) -> Result<&Client, Finding> {
        let client = self.client.get_or_init(|| self.build().map_err(|error| error.to_string()));
        client.as_ref().map_err(|error| Finding { class: None, detail: Detail::Text(error.clone().into()) })
    }

    fn build(&self) -> reqwest::Result<Client> {
        static PROVIDER: Once = Once::new();
        // When the process already has a provider, that one is as good.
        PROVIDER.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
        Client::builder()
            .user_agent(&self.user_agent)
            .no_proxy()
            .redirect(Policy::none())
            .tls_danger_accept_invalid_certs(true)
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(IDLE)
            .dns_resolver(Arc::new(Resolver { policy: self.policy.clone(), names: self.names.clone() }))
            .build()
    }
}

// === impl HttpsProbe ===

impl HttpsProbe {
    pub(crate) fn new(address: &Address, path: &str, https: Arc<Https>, expect: Option<Arc<Expect>>) -> Self {
        Self { https, url: format!("https://{address}{path}").parse().ok(), expect, visits: 0 }
    }

    pub(crate) async fn visit(&mut self, visit: &Visit<'_>) -> Finding {
        self.visits = self.visits % VISITS_PER_CONNECTION + 1;
        let last = self.visits == VISITS_PER_CONNECTION || visit.room.is_none();
        let asking = Asking { probe: self, visit, last };
        match timeout_at(visit.deadline, asking.ask()).await {
            Ok(Ok(finding) | Err(finding)) => finding,
            Err(_) => Finding::no_answer(visit.timeout),
        }
    }

    /// Asks; when it is the `last` visit on its connection, says so.
    async fn ask(&self, last: bool) -> Result<Finding, Finding> {
        let client = self.https.client()?;
        let Some(url) = self.url.clone() else {
            return Err(Finding::new(Class::Unresolved, "the address makes no URL"));
        };
        let mut request = client.get(url);
        if last {
            request = request.header(CONNECTION, "close");
        }
        let mut response = request.send().await.map_err(|error| explain(&error))?;
        let finding = Finding::code(response.status().as_u16());
        if finding.class != Some(Class::Passed) {
            return Ok(finding);
        }
        let expect = self.expect.as_deref();
        if let Some(expect) = expect
            && let Some((name, value)) = expect.as_header()
            && !identity::in_fields(value, response.headers().get_all(name).iter().map(|field| field.as_bytes()))
        {
            return Ok(Finding::stranger(expect));
        }
        let wanted = match expect {
            Some(expect @ Expect::Body(text)) => Some((expect, text.as_bytes())),
            _ => None,
        };
        let mut body = Vec::new();
        while body.len() < BODY_LIMIT {
            match response.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(chunk.get(..BODY_LIMIT - body.len()).unwrap_or(&chunk)),
                Ok(None) => break,
                Err(_) => return Err(Finding::new(Class::Reset, "connection closed amid the answer")),
            }
            if wanted.is_some_and(|(_, text)| identity::in_body(text, &body)) {
                break;
            }
        }
        match wanted {
            Some((expect, text)) if !identity::in_body(text, &body) => Ok(Finding::stranger(expect)),
            _ => Ok(finding),
        }
    }
}

// === impl Asking ===

impl Asking<'_> {
    async fn ask(mut self) -> Result<Finding, Finding> {
        match self.visit.address.host() {
            Host::Ip(_) => {
                let addr = self.visit.literal()?;
                named::Attempt::at(&mut self, &[addr], true).await
            }
            Host::Name(name) => named::visit(self.visit, name, self).await,
        }
    }
}

impl named::Attempt for Asking<'_> {
    type Done = Finding;

    async fn at(&mut self, addrs: &[SocketAddr], sure: bool) -> Result<Finding, Finding> {
        match self.probe.ask(self.last).await {
            // The library keeps no word of who refused.
            Err(Finding { class: Some(Class::Refused), .. }) => match connect::connect(self.visit, addrs).await {
                Ok(_) => Err(Finding::new(Class::Reset, "connection refused, and accepted a moment later")),
                Err(finding) => Err(finding),
            },
            Ok(finding) if sure || finding.class == Some(Class::Passed) => Ok(finding),
            Ok(finding) | Err(finding) => Err(finding),
        }
    }
}

/// Finds out what is behind an error of reqwest, which wraps what happened several times.
fn explain(error: &reqwest::Error) -> Finding {
    let mut cause: &(dyn Error + 'static) = error;
    loop {
        if let Some(error) = cause.downcast_ref::<NoAddress>() {
            return error.clone().into();
        }
        if let Some(error) = cause.downcast_ref::<io::Error>() {
            match error.get_ref() {
                // An error of rustls, in the clothes of one of the system's.
                Some(inner) if inner.is::<rustls::Error>() => {
                    return Finding::new(Class::Garbage, format!("TLS: {inner}"));
                }
                Some(inner) => {
                    cause = inner;
                    continue;
                }
                None => return Finding::io(error),
            }
        }
        match cause.source() {
            Some(source) => cause = source,
            None if error.is_connect() => return Finding::new(Class::Silence, cause.to_string()),
            None => return Finding::new(Class::Reset, cause.to_string()),
        }
    }
}

// === impl Resolver ===

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self { policy, names } = self;
        let (policy, names) = (policy.clone(), names.clone());
        Box::pin(async move {
            let known = names.find(name.as_str(), Instant::now() + RESOLVING).await?;
            let found: Vec<SocketAddr> = policy.choose(name.as_str(), &known.addrs, 0)?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
