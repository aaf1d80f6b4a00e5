//! Where addresses come from: the hosts file and the name servers, as the system has them set up.

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::pin,
    time::Duration,
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
    lookup::Lookup,
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::{Query, ResponseCode},
        rr::{Name, RecordType},
    },
    system_conf::read_system_conf,
};
use tokio::time::timeout;

use super::{QUESTION, cache::Answer};

const NOBODY: &str = "no name server answers";
/// How long the addresses of one family wait for those of the other one.
const SECOND_HALF: Duration = Duration::from_millis(100);
/// As many search domains as resolv.conf(5) ever allowed.
const MOST_SEARCHED: usize = 6;

/// The hosts file and the name servers, read once.
#[derive(Debug)]
pub(super) struct Source {
    hosts: Hosts,
    /// Why there is none, in words, when there is none.
    resolver: Result<TokioResolver, String>,
    search: Vec<Name>,
    ndots: usize,
}

// === impl Source ===

impl Source {
    /// Asks these name servers; those of the system when there are none.
    pub(super) fn new(servers: Option<&[SocketAddr]>) -> Self {
        let hosts = Hosts::from_system().unwrap_or_else(|error| {
            tracing::warn!(%error, "the hosts file cannot be read: names in it are left to the name servers");
            Hosts::default()
        });
        let config = match servers {
            Some(servers) => Ok((config_of(servers), ResolverOpts::default())),
            None => read_system_conf().map_err(|error| format!("/etc/resolv.conf names no name server: {error}")),
        };
        let searched = config.as_ref().map(|(config, options)| (searched(config), options.ndots));
        let (search, ndots) = searched.unwrap_or_default();
        let resolver = config.and_then(|(config, options)| {
            let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            *builder.options_mut() = tuned(options);
            builder.build().map_err(|error| error.to_string())
        });
        if let Err(error) = &resolver {
            tracing::warn!(%error, "host names outside of the hosts file cannot be resolved");
        }
        Self { hosts, resolver, search, ndots }
    }

    /// The addresses that this machine itself knows for a name.
    pub(super) fn hosts(&self, name: &str) -> Option<Vec<IpAddr>> {
        let parsed = Name::from_ascii(name).ok()?;
        let listed = |kind| self.hosts.lookup_static_host(&Query::query(parsed.clone(), kind));
        let listed = [RecordType::A, RecordType::AAAA].into_iter().filter_map(listed);
        let found: Vec<IpAddr> = listed.flat_map(|lookup| addresses(&lookup).collect::<Vec<_>>()).collect();
        if found.is_empty() && (name == "localhost" || name.ends_with(".localhost")) {
            // No name server is asked for these (RFC 6761, 6.3).
            return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        Some(found).filter(|found| !found.is_empty())
    }

    /// Asks the name servers. Cancel safe.
    pub(super) async fn ask(&self, name: &str) -> Answer {
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return Answer::Silence(why.clone().into()),
        };
        let mut denied = Answer::Denied("it is not a DNS name".into(), None);
        for name in candidates(name, &self.search, self.ndots) {
            let v4 = async { one(resolver.lookup(name.clone(), RecordType::A).await) };
            let v6 = async { one(resolver.lookup(name.clone(), RecordType::AAAA).await) };
            match both(v4, v6).await {
                // The next candidate may be another machine.
                none @ Answer::Denied(..) => denied = none,
                decided => return decided,
            }
        }
        denied
    }
}

fn config_of(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |server: &SocketAddr| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        NameServerConfig::new(server.ip(), true, connections)
    };
    ResolverConfig::from_name_servers(servers.iter().map(server).collect())
}

/// The options of the system, as far as they do not keep us waiting.
fn tuned(options: ResolverOpts) -> ResolverOpts {
    let mut options = options;
    options.timeout = options.timeout.min(QUESTION);
    // Whoever fails is asked again by our own rules.
    options.attempts = 1;
    // resolv.conf(5) knows at most three name servers: one that is dead costs no time.
    options.num_concurrent_reqs = 3;
    options.max_active_requests = 1_024;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options
}

fn searched(config: &ResolverConfig) -> Vec<Name> {
    let own = config.domain().filter(|_| config.search().is_empty());
    config.search().iter().chain(own).filter(|name| !name.is_root()).take(MOST_SEARCHED).cloned().collect()
}

/// The full names that a name may stand for, in the order of resolv.conf(5).
fn candidates(name: &str, search: &[Name], ndots: usize) -> Vec<Name> {
    let Ok(name) = Name::from_ascii(name) else { return Vec::new() };
    let absolute = || {
        let mut name = name.clone();
        name.set_fqdn(true);
        name
    };
    let local = search.iter().filter_map(|domain| name.clone().append_domain(domain).ok());
    let mut candidates: Vec<Name> = local.collect();
    if usize::from(name.num_labels()) > ndots {
        candidates.insert(0, absolute());
    } else {
        candidates.push(absolute());
    }
    candidates
}

/// Puts the halves of an answer together. Some name servers drop every question about IPv6: where one half has addresses, the
/// other one is not waited for much longer.
async fn both(v4: impl Future<Output = Answer>, v6: impl Future<Output = Answer>) -> Answer {
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    let (first, second) = tokio::select! {
        v4 = &mut v4 => { let v6 = second(&v4, v6).await; (v4, v6) }
        v6 = &mut v6 => { let v4 = second(&v6, v4).await; (v6, v4) }
    };
    merged(first, second)
}

async fn second(first: &Answer, second: impl Future<Output = Answer>) -> Answer {
    match first {
        Answer::Addresses(..) => timeout(SECOND_HALF, second).await.unwrap_or_else(|_| nobody()),
        _ => second.await,
    }
}

fn merged(first: Answer, second: Answer) -> Answer {
    match (first, second) {
        (Answer::Addresses(mut both, ttl), Answer::Addresses(more, other)) => {
            both.extend(more);
            Answer::Addresses(both, ttl.min(other))
        }
        (Answer::Addresses(found, ttl), Answer::Silence(_)) | (Answer::Silence(_), Answer::Addresses(found, ttl)) => {
            Answer::Half(found, ttl)
        }
        (found @ Answer::Addresses(..), _) | (_, found @ Answer::Addresses(..)) => found,
        // One half of an answer that there is nothing is none.
        (silence @ Answer::Silence(_), _) | (_, silence) => silence,
    }
}

fn one(found: Result<Lookup, NetError>) -> Answer {
    let nothing = |ttl| Answer::Denied("the name has no address".into(), ttl);
    match found {
        Ok(lookup) => {
            let addrs: Vec<IpAddr> = addresses(&lookup).collect();
            // Aliases on the way count, too: whichever ends first.
            let ttl = lookup.answers().iter().map(|record| record.ttl).min().unwrap_or_default();
            let ttl = Duration::from_secs(ttl.into());
            if addrs.is_empty() { nothing(Some(ttl)) } else { Answer::Addresses(addrs, ttl) }
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => {
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(seconds.into()));
            match none.response_code {
                ResponseCode::NXDomain => Answer::Denied("no such name".into(), ttl),
                ResponseCode::NoError => nothing(ttl),
                code => refused(code),
            }
        }
        Err(NetError::Dns(DnsError::ResponseCode(code))) => refused(code),
        Err(NetError::Proto(_)) => Answer::Silence("the name server's answer makes no sense".into()),
        Err(_) => Answer::Silence(NOBODY.into()),
    }
}

fn refused(code: ResponseCode) -> Answer {
    Answer::Silence(Cow::Owned(format!("the name server answers \"{code}\"")))
}

fn addresses(lookup: &Lookup) -> impl Iterator<Item = IpAddr> + '_ {
    lookup.answers().iter().filter_map(|record| record.data.ip_addr())
}

/// What a question comes to that ran out of time.
pub(super) fn nobody() -> Answer {
    Answer::Silence(NOBODY.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, search: &[&str], ndots: usize) -> Vec<String> {
        let search: Vec<Name> = search.iter().map(|name| Name::from_ascii(name).unwrap()).collect();
        candidates(name, &search, ndots).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn search_domains_and_ndots_are_those_of_the_system() {
        let search = ["shop.svc.cluster.local.", "svc.cluster.local."];
        let product = ["product.shop.svc.cluster.local.", "product.svc.cluster.local.", "product."];
        assert_eq!(names("product", &search, 5), product);
        assert_eq!(names("a.b", &["lan."], 1), ["a.b.", "a.b.lan."]);
        assert_eq!(names("product", &[], 1), ["product."]);
        assert_eq!(names("_product", &[], 1), ["_product."]);
    }

    #[test]
    fn loopback_is_known_without_asking() {
        let source = Source::new(Some(&[]));
        assert!(source.hosts("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(source.hosts("a.localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert_eq!(source.hosts("localhost.example"), None);
    }

    #[tokio::test]
    async fn without_a_name_server_nothing_is_resolved_and_nothing_panics() {
        let source = Source::new(Some(&[]));
        assert!(matches!(source.ask("product").await, Answer::Silence(_)));
        let broken = Source { resolver: Err("no configuration".to_owned()), ..source };
        assert_eq!(broken.ask("product").await, Answer::Silence("no configuration".into()));
    }
}
