//! What a service says of itself when it registers.

use std::{fmt, time::Duration};

use roundsman_protocol::{Check, InstanceId, Invalid, Meta, Registration, ServiceName};

/// An instance to be registered.
///
/// Unless told otherwise it is visited by `GET /health`, every five seconds if the server was not told otherwise.
///
/// ```
/// use roundsman::{Check, NewInstance};
///
/// let instance = NewInstance::new("product", "10.0.0.7:7070")?
///     .id("product-1")?
///     .check(Check::http("/healthz"))
///     .tag("fruit")
///     .meta("shelf", "3")
///     .zone("a")
///     .version("1.2.0")
///     .weight(2);
/// assert!(NewInstance::new("product", "0.0.0.0:7070").is_err(), "nobody could reach it there");
/// # Ok::<(), roundsman::Invalid>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct NewInstance {
    registration: Registration,
    meta: Vec<(String, String)>,
}

// === impl NewInstance ===

impl NewInstance {
    /// An instance of the service `name` that others reach at `address`: `HOST:PORT`, text or a socket address.
    ///
    /// # Errors
    /// When the name or the address breaks a rule. The unspecified address, and port 0, are no addresses.
    pub fn new(name: impl AsRef<str>, address: impl fmt::Display) -> Result<Self, Invalid> {
        let name = ServiceName::try_new(name.as_ref())?;
        let registration = Registration::new(name, address.to_string().parse()?);
        Ok(Self { registration, meta: Vec::new() })
    }

    /// An instance as it is registered, to be changed.
    pub(crate) fn of(registration: &Registration) -> Self {
        let meta = registration.meta.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { registration: registration.clone(), meta }
    }

    /// Brings an id along, instead of a random one. It must be unique in the namespace.
    ///
    /// # Errors
    /// When the id breaks a rule.
    pub fn id(mut self, id: impl AsRef<str>) -> Result<Self, Invalid> {
        self.registration.id = Some(InstanceId::try_new(id.as_ref())?);
        Ok(self)
    }

    /// Is visited by `GET path`.
    pub fn health_path(self, path: impl AsRef<str>) -> Self {
        self.check(Check::http(path.as_ref()))
    }

    /// Is visited in this way.
    pub fn check(mut self, check: Check) -> Self {
        self.registration.check = check;
        self
    }

    /// Is visited so often. See [`limits::INTERVAL`](roundsman_protocol::limits::INTERVAL).
    pub fn interval(mut self, interval: Duration) -> Self {
        self.registration.check.interval = Some(interval);
        self
    }

    /// Adds a word to filter by, if it is not there already.
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        let tag = tag.into();
        if !self.registration.tags.contains(&tag) {
            self.registration.tags.push(tag);
        }
        self
    }

    /// Takes a tag off again; for [`Registration::update`](crate::Registration::update).
    pub fn without_tag(mut self, tag: impl AsRef<str>) -> Self {
        self.registration.tags.retain(|known| **known != *tag.as_ref());
        self
    }

    /// Adds a metadata entry. Of several values for one key the last one counts.
    pub fn meta(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.meta.push((key.into(), value.into()));
        self
    }

    /// Takes a metadata entry away again; for [`Registration::update`](crate::Registration::update).
    pub fn without_meta(mut self, key: impl AsRef<str>) -> Self {
        self.meta.retain(|(known, _)| known != key.as_ref());
        self
    }

    /// Where it runs.
    pub fn zone(mut self, zone: impl Into<Box<str>>) -> Self {
        self.registration.zone = Some(zone.into());
        self
    }

    /// Which version it is.
    pub fn version(mut self, version: impl Into<Box<str>>) -> Self {
        self.registration.version = Some(version.into());
        self
    }

    /// Its share of lookups, relative to the service's other instances. 1 unless told otherwise.
    pub fn weight(mut self, weight: u32) -> Self {
        self.registration.weight = weight;
        self
    }

    /// The registration as it travels. It has an id, so that sending it again makes no second instance.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn into_registration(self) -> Result<Registration, Invalid> {
        let mut registration = self.registration;
        registration.meta = self.meta.into_iter().collect::<Meta>();
        registration.validate()?;
        registration.id.get_or_insert_with(|| InstanceId::random(&registration.name));
        Ok(registration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_up_once() {
        let instance = NewInstance::new("product", "10.0.0.7:7070").unwrap();
        let registration = instance.into_registration().unwrap();
        assert!(registration.id.unwrap().as_str().starts_with("product-"));
    }

    #[test]
    fn rules_are_checked_before_anything_is_sent() {
        let instance = || NewInstance::new("product", "10.0.0.7:7070").unwrap();
        assert_eq!(instance().health_path("health").into_registration().unwrap_err().field, "check.path");
        assert_eq!(instance().weight(0).into_registration().unwrap_err().field, "weight");
        assert_eq!(instance().interval(Duration::ZERO).into_registration().unwrap_err().field, "check.interval");
        assert_eq!(instance().id("a b").unwrap_err().field, "id");
        assert_eq!(NewInstance::new("a b", "10.0.0.7:7070").unwrap_err().field, "name");
    }

    #[test]
    fn addresses_are_text_or_typed() {
        let address: std::net::SocketAddr = "[::1]:7070".parse().unwrap();
        let registration = NewInstance::new("product", address).unwrap().into_registration().unwrap();
        assert_eq!(registration.address.to_string(), "[::1]:7070");
    }
}
