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
use roundsman_protocol::Address;
use tokio::time::timeout_at;

use super::{BODY_LIMIT, Detail, Finding, VISITS_PER_CONNECTION, Visit};
use crate::{
    observation::Class,
    target::{NoAddress, TargetPolicy},
};

/// Idle connections are closed after this; longer than most intervals.
const IDLE: Duration = Duration::from_secs(90);

/// The one client of all `https` checks, made when the first of them is visited.
#[derive(Debug)]
pub(crate) struct Https {
    policy: TargetPolicy,
    user_agent: String,
    client: OnceLock<Result<Client, String>>,
}

/// Asks an instance for its health over TLS.
#[derive(Debug)]
pub(crate) struct HttpsProbe {
    https: Arc<Https>,
    url: Option<Url>,
    /// Visits on the present connection.
    visits: u8,
}

/// Resolves only to addresses that may be visited.
struct Resolver(TargetPolicy);

// === impl Https ===

impl Https {
    pub(crate) fn new(policy: TargetPolicy, user_agent: &str) -> Self {
        let user_agent = user_agent.chars().filter(|c| !c.is_control()).collect();
        Self { policy, user_agent, client: OnceLock::new() }
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
            .dns_resolver(Arc::new(Resolver(self.policy.clone())))
            .build()
    }
}

// === impl HttpsProbe ===

impl HttpsProbe {
    pub(crate) fn new(address: &Address, path: &str, https: Arc<Https>) -> Self {
        Self { https, url: format!("https://{address}{path}").parse().ok(), visits: 0 }
    }

    pub(crate) async fn visit(&mut self, visit: &Visit<'_>) -> Finding {
        if let Some(Err(error)) = visit.policy.literal(visit.address) {
            return error.into();
        }
        self.visits = self.visits % VISITS_PER_CONNECTION + 1;
        let last = self.visits == VISITS_PER_CONNECTION || visit.room.is_none();
        match timeout_at(visit.deadline, self.ask(last)).await {
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
        let mut read = 0;
        while finding.class == Some(Class::Passed) && read < BODY_LIMIT {
            match response.chunk().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => break,
                Err(_) => return Err(Finding::new(Class::Reset, "connection closed amid the answer")),
            }
        }
        Ok(finding)
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
        let policy = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = policy.resolve(name.as_str(), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
