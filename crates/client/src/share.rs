//! How much of a service this process uses, and under which name it asks for that.

use std::sync::OnceLock;

use roundsman_protocol::{InstanceId, Subset, limits::MAX_SUBSET_CLIENT_LEN};

use crate::{discovery::Inner, error::Error};

/// Most of a host's name that is part of a name.
const MOST_OF_HOST: usize = 40;

/// A subset to be asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Share {
    /// As whom, where the caller said so.
    client: Option<Box<str>>,
    size: u32,
}

/// The name of this process, as servers tell the clients of a subset apart. Once it was said it stays.
#[derive(Debug, Default)]
pub(crate) struct ClientName(OnceLock<Box<str>>);

// === impl Share ===

impl Share {
    pub(crate) fn new(client: Option<Box<str>>, size: u32) -> Self {
        Self { client, size }
    }

    /// As a query has it.
    ///
    /// # Errors
    /// For a name or a size that breaks its rule.
    pub(crate) fn subset(&self, inner: &Inner) -> Result<Subset, Error> {
        let client = self.client.clone().unwrap_or_else(|| {
            let registered = inner.registrations().into_iter().next();
            inner.name.get(registered.as_ref().map(|registration| registration.id()))
        });
        let subset = Subset { client, size: self.size };
        subset.validate()?;
        Ok(subset)
    }
}

// === impl ClientName ===

impl ClientName {
    /// That of the instance that runs here, if there is one: it may survive restarts. Otherwise one that nobody else has.
    fn get(&self, instance: Option<&InstanceId>) -> Box<str> {
        self.0.get_or_init(|| instance.map_or_else(|| random(host().as_deref()), of_instance)).clone()
    }
}

/// Ids may be longer than names. Where one is, its end tells instances apart.
fn of_instance(id: &InstanceId) -> Box<str> {
    let id = id.as_str();
    id.get(id.len().saturating_sub(MAX_SUBSET_CLIENT_LEN)..).unwrap_or(id).into()
}

fn random(host: Option<&str>) -> Box<str> {
    let host: String = host.unwrap_or_default().chars().filter(char::is_ascii_graphic).take(MOST_OF_HOST).collect();
    let host = if host.is_empty() { "client" } else { &host };
    format!("{host}-{:016x}", fastrand::u64(..)).into()
}

/// The machine's name, where the system tells it in a file.
fn host() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/hostname").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_that_of_the_instance_or_one_that_nobody_else_has() {
        let (here, other) = (ClientName::default(), ClientName::default());
        let id: InstanceId = "order-1".parse().unwrap();
        assert_eq!((&*here.get(Some(&id)), &*here.get(None)), ("order-1", "order-1"), "it stays");
        assert_eq!(*other.get(None), *other.get(Some(&id)), "it stays");
        assert_ne!(other.get(None), ClientName::default().get(None));
    }

    #[test]
    fn names_keep_their_rule_whatever_the_host_is_called() {
        let long = format!("{}{}", "x".repeat(100), "the-end");
        let of_long = of_instance(&long.parse().unwrap());
        assert!(of_long.len() == MAX_SUBSET_CLIENT_LEN && of_long.ends_with("the-end"));
        for host in [None, Some(""), Some("a b\u{e9}\n"), Some(&*long)] {
            let subset = Subset { client: random(host), size: 1 };
            subset.validate().unwrap_or_else(|error| panic!("{host:?}: {error}"));
        }
        assert!(random(Some("shop-7\n")).starts_with("shop-7-"));
    }
}
