//! The versions of the protocol, and what a connection speaks.

use std::fmt;

use crate::codec::Codec;

/// A version of the protocol behind the handshake, each as one release or more have spoken it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// The first.
    V1,
    /// A check may expect something of an answer; the status tells of memory, lag and names.
    V2,
    /// Pages, digests and subsets.
    #[default]
    V3,
}

/// What a connection speaks: which messages, and how they are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Dialect {
    /// Whose messages.
    pub version: Version,
    /// In which codec.
    pub codec: Codec,
}

// === impl Version ===

impl Version {
    /// The oldest that is still spoken.
    pub const OLDEST: Self = Self::V1;
    /// The one whose messages are the types of this crate.
    pub const CURRENT: Self = Self::V3;
    /// All that are spoken, the newest first.
    pub const ALL: [Self; 3] = [Self::V3, Self::V2, Self::V1];

    /// Its number in the handshake.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }

    /// The version with this number, when it is spoken.
    #[must_use]
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| version.number() == number)
    }

    /// The newest that is spoken out of a range.
    #[must_use]
    pub fn newest_of(oldest: u32, newest: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|version| (oldest..=newest).contains(&version.number()))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

// === impl Dialect ===

impl From<Codec> for Dialect {
    /// The current version in this codec.
    fn from(codec: Codec) -> Self {
        Self { version: Version::CURRENT, codec }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_that_both_speak_is_chosen() {
        for version in Version::ALL {
            assert_eq!(Version::of(version.number()), Some(version));
            assert_eq!(Version::newest_of(version.number(), version.number()), Some(version));
        }
        assert_eq!(Version::newest_of(1, 9), Some(Version::V3));
        assert_eq!(Version::newest_of(0, 2), Some(Version::V2));
        assert_eq!((Version::newest_of(4, 9), Version::newest_of(0, 0), Version::of(4)), (None, None, None));
    }
}
