//! What a service says of itself when it registers.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use roundsman_protocol::{Check, Expect, InstanceId, Invalid, Meta, Registration, ServiceName};

use crate::health::INSTANCE_HEADER;

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
    /// Whether its visits look for its own id. `None`: nobody said.
    identified: Option<bool>,
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
        Ok(Self { registration, meta: Vec::new(), identified: None })
    }

    /// An instance as it is registered, to be changed.
    pub(crate) fn of(registration: &Registration) -> Self {
        let meta = registration.meta.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { registration: registration.clone(), meta, identified: None }
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

    /// Is remembered so long once it is evicted, visited now and then, and reinstated when it answers. For instances that
    /// nothing keeps registered; one that registers itself needs no such time. See
    /// [`limits::FORGET_AFTER`](roundsman_protocol::limits::FORGET_AFTER).
    pub fn forget_after(mut self, after: Duration) -> Self {
        self.registration.forget_after = Some(after);
        self
    }

    /// What a visit's answer must carry besides its 2xx, or `None` for nothing. An answer without it comes from another
    /// program that took over the address, and counts as a failed visit. For http and https checks.
    ///
    /// ```
    /// use roundsman::{Expect, NewInstance};
    ///
    /// let instance = NewInstance::new("product", "10.0.0.7:7070")?.expect(Expect::body("\"shop\":\"north\""));
    /// # Ok::<(), roundsman::Invalid>(())
    /// ```
    pub fn expect(mut self, expect: impl Into<Option<Expect>>) -> Self {
        self.registration.check.expect = expect.into().map(Arc::new);
        self.identified = Some(false);
        self
    }

    /// Expects the instance's own id in the header [`INSTANCE_HEADER`]: whoever takes over its address, be it another
    /// instance of the same service, is not mistaken for it. For services that answer their visits from a
    /// [`Health`](crate::Health) that [follows](crate::Health::follow) the registration, or set the header themselves.
    ///
    /// ```
    /// use roundsman::{Health, NewInstance};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), roundsman::Error> {
    /// # let discovery = roundsman::Discovery::builder().servers("127.0.0.1:5555").connect_lazy()?;
    /// let health = Health::new();
    /// let me = discovery.register_in_background(NewInstance::new("product", "10.0.0.7:7070")?.identified())?;
    /// health.follow(&me);
    /// assert_eq!(health.report().await.instance_header().as_deref(), Some(me.id().as_str()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn identified(mut self) -> Self {
        self.identified = Some(true);
        self
    }

    /// The same, unless what it is to be visited for was said already, or its visits go elsewhere than to [`Health`].
    ///
    /// [`Health`]: crate::Health
    #[cfg(feature = "service")]
    pub(crate) fn identified_by_default(mut self) -> Self {
        let check = &self.registration.check;
        let ours = check.kind == roundsman_protocol::CheckKind::Http
            && check.path() == Some(Check::DEFAULT_PATH)
            && check.expect.is_none();
        self.identified = self.identified.or(Some(ours));
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

    /// The registration as it travels: data ([`protocol::Registration`](roundsman_protocol::Registration)), and not the handle
    /// of the same name ([`crate::Registration`]). It has an id, so that sending it again makes no second instance.
    ///
    /// # Errors
    /// The first field that breaks its rule.
    pub fn into_registration(self) -> Result<Registration, Invalid> {
        let mut registration = self.registration;
        registration.meta = self.meta.into_iter().collect::<Meta>();
        let id = registration.id.get_or_insert_with(|| InstanceId::random(&registration.name));
        if self.identified == Some(true) {
            registration.check.expect = Some(Arc::new(Expect::header(INSTANCE_HEADER, id.as_str())));
        }
        registration.validate()?;
        Ok(registration)
    }
}

/// A name with an address: all that an instance must have.
impl<N: AsRef<str>, A: fmt::Display> TryFrom<(N, A)> for NewInstance {
    type Error = Invalid;

    fn try_from((name, address): (N, A)) -> Result<Self, Invalid> {
        Self::new(name, address)
    }
}
