//! Names: namespaces, services and instance ids.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{error::Invalid, limits};

/// A tenant. Names in two namespaces never meet.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Namespace(Arc<str>);

/// The name of a service: a DNS label, folded to lower case.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName(Arc<str>);

/// The id of one instance, unique in its namespace.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceId(Arc<str>);

// === impl Namespace ===

impl Namespace {
    /// Checks and folds a namespace.
    ///
    /// # Errors
    /// When it is not a DNS label.
    pub fn try_new(name: &str) -> Result<Self, Invalid> {
        label("namespace", name).map(Self)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Arc::from("default"))
    }
}

// === impl ServiceName ===

impl ServiceName {
    /// Checks and folds a service name.
    ///
    /// # Errors
    /// When it is not a DNS label.
    pub fn try_new(name: &str) -> Result<Self, Invalid> {
        label("name", name).map(Self)
    }
}

// === impl InstanceId ===

impl InstanceId {
    /// Checks an id that a caller brings along.
    ///
    /// # Errors
    /// When it is empty, longer than [`limits::MAX_ID_LEN`] or has characters beyond `[A-Za-z0-9._:-]`.
    pub fn try_new(id: &str) -> Result<Self, Invalid> {
        let fits = !id.is_empty()
            && id.len() <= limits::MAX_ID_LEN
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b))
            && id.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        if fits {
            return Ok(Self(Arc::from(id)));
        }
        Err(Invalid::new(
            "id",
            format!(
                "must be 1 to {} characters of A-Z a-z 0-9 . _ : - and begin with a letter or digit, got {}",
                limits::MAX_ID_LEN,
                quoted(id)
            ),
        ))
    }

    /// A new id: the service's name and ten random base32 characters.
    #[must_use]
    pub fn random(service: &ServiceName) -> Self {
        const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut id = String::with_capacity(service.as_str().len() + 11);
        id.push_str(service.as_str());
        id.push('-');
        id.extend((0..10).filter_map(|_| fastrand::choice(BASE32)).map(|&b| char::from(b)));
        Self(Arc::from(id))
    }
}

fn label(field: &str, name: &str) -> Result<Arc<str>, Invalid> {
    let bytes = name.as_bytes();
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let fits = bytes.len() <= limits::MAX_NAME_LEN
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
    if !fits {
        return Err(Invalid::new(
            field,
            format!(
                "must be 1 to {} characters of a-z 0-9 and -, beginning and ending with a letter or digit, got {}",
                limits::MAX_NAME_LEN,
                quoted(name)
            ),
        ));
    }
    if bytes.iter().any(u8::is_ascii_uppercase) {
        return Ok(Arc::from(name.to_ascii_lowercase()));
    }
    Ok(Arc::from(name))
}

/// What a caller sent, safe to print and of bounded length.
pub(crate) fn quoted(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut short: String = text.chars().take(SHOWN).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

macro_rules! text_newtype {
    ($name:ident) => {
        impl $name {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = Invalid;
            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::try_new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Invalid;
            fn try_from(text: &str) -> Result<Self, Invalid> {
                Self::try_new(text)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl serde::de::Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a string")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::try_new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

text_newtype!(Namespace);
text_newtype!(ServiceName);
text_newtype!(InstanceId);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_folded_and_checked() {
        assert_eq!(ServiceName::try_new("Order-2").unwrap().as_str(), "order-2");
        let longest = "a".repeat(63);
        assert!(ServiceName::try_new(&longest).is_ok());
        for bad in ["", "-a", "a-", "a_b", "a.b", "ä", "a b", &"a".repeat(64)] {
            let refusal = ServiceName::try_new(bad).unwrap_err();
            assert_eq!(refusal.field, "name", "{bad:?}");
        }
    }

    #[test]
    fn ids_are_random_and_carry_the_name() {
        let service = ServiceName::try_new("order").unwrap();
        let (a, b) = (InstanceId::random(&service), InstanceId::random(&service));
        assert_ne!(a, b);
        assert!(a.as_str().starts_with("order-") && a.as_str().len() == "order-".len() + 10);
        assert_eq!(InstanceId::try_new(a.as_str()).unwrap(), a);
    }

    #[test]
    fn long_garbage_is_quoted_in_short() {
        let refusal = InstanceId::try_new(&"\u{1b}".repeat(10_000)).unwrap_err();
        assert!(refusal.rule.len() < 1_000);
        assert!(!refusal.rule.contains('\u{1b}'));
    }
}
