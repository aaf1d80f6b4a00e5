//! Which instances can be used at all, and which of them before others.

use roundsman_protocol::{Host, Instance};

/// How many ranks there are.
pub(super) const RANKS: usize = 4;

/// What is asked of an instance, beyond that it is in the list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nearness {
    /// Those in this zone first.
    pub(crate) zone: Option<Box<str>>,
    /// Those on this host, and no others.
    pub(crate) host: Option<Host>,
    /// Those of this part of the service before all others.
    pub(crate) part: Option<Part>,
}

/// A part of a service, by version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Those of this version.
    Only(Box<str>),
    /// Those of any version but these.
    Except(Box<[Box<str>]>),
}

// === impl Nearness ===

impl Nearness {
    /// Whether it is picked at all.
    pub(super) fn admits(&self, instance: &Instance) -> bool {
        self.host.as_ref().is_none_or(|host| instance.address.host() == host)
    }

    /// The lower, the sooner it is picked. Two ranks make a group, of the near and the far: a group gives way to the next only
    /// as a whole, while the near share with the far as their health says.
    pub(super) fn rank(&self, instance: &Instance) -> usize {
        let elsewhere = self.part.as_ref().is_some_and(|part| !part.has(instance));
        let far = self.zone.is_some() && self.zone != instance.zone;
        2 * usize::from(elsewhere) + usize::from(far)
    }
}

// === impl Part ===

impl Part {
    fn has(&self, instance: &Instance) -> bool {
        match self {
            Self::Only(version) => instance.version.as_ref() == Some(version),
            Self::Except(versions) => instance.version.as_ref().is_none_or(|version| !versions.contains(version)),
        }
    }
}
