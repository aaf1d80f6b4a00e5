//! Lists that strangers send, read no further than any valid one goes.
//!
//! What is a little too long is read, so that validation can say what is wrong with it.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

use crate::{limits, name::InstanceId, name::ServiceName};

/// The services of a query.
pub(crate) fn services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServiceName>, D::Error> {
    few(deserializer, 2 * limits::MAX_QUERY_SERVICES, too_many_asked)
}

/// The tags of a query.
pub(crate) fn tags<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Box<str>>, D::Error> {
    few(deserializer, 2 * limits::MAX_QUERY_SERVICES, too_many_asked)
}

/// The ids that a watcher knows.
pub(crate) fn ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<InstanceId>, D::Error> {
    few(deserializer, 2 * limits::MAX_KNOWN_IDS, || format!("at most {} ids can be known", limits::MAX_KNOWN_IDS))
}

fn too_many_asked() -> String {
    let (services, tags) = (limits::MAX_QUERY_SERVICES, limits::MAX_TAGS);
    format!("a query has at most {services} services and at most {tags} tags")
}

/// Reads a list of at most so many elements.
pub(crate) fn few<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
    most: usize,
    rule: fn() -> String,
) -> Result<Vec<T>, D::Error> {
    struct Few<T>(usize, fn() -> String, PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
            let mut read = Vec::new();
            while let Some(element) = list.next_element()? {
                if read.len() == self.0 {
                    return Err(Error::custom((self.1)()));
                }
                read.push(element);
            }
            Ok(read)
        }
    }
    deserializer.deserialize_seq(Few(most, rule, PhantomData))
}
