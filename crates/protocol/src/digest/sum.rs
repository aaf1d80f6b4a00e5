//! Serde for sums: 16 hexadecimal digits in JSON, whose numbers are not exact beyond 2^53, and numbers in postcard.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

#[derive(Serialize, Deserialize)]
struct Sum(#[serde(with = "super::sum")] u64);

pub(super) fn serialize<S: Serializer>(sum: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        serializer.collect_str(&format_args!("{sum:016x}"))
    } else {
        sum.serialize(serializer)
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    if !deserializer.is_human_readable() {
        return u64::deserialize(deserializer);
    }
    let text = String::deserialize(deserializer)?;
    let digits = (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    let sum = if digits { u64::from_str_radix(&text, 16).ok() } else { None };
    sum.ok_or_else(|| D::Error::custom("a sum is written as at most 16 hexadecimal digits"))
}

/// The same for the sums of all parts.
pub(super) mod list {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
    };

    use super::{super::PARTS, Sum};

    pub(crate) fn serialize<S: Serializer>(sums: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(sums.iter().map(|sum| Sum(*sum)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
        struct Parts;
        impl<'de> Visitor<'de> for Parts {
            type Value = Vec<u64>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "the sums of {PARTS} parts")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u64>, A::Error> {
                let mut sums = Vec::with_capacity(PARTS);
                while let Some(Sum(sum)) = list.next_element()? {
                    if sums.len() == PARTS {
                        return Err(A::Error::invalid_length(PARTS + 1, &self));
                    }
                    sums.push(sum);
                }
                if sums.len() == PARTS { Ok(sums) } else { Err(A::Error::invalid_length(sums.len(), &self)) }
            }
        }
        deserializer.deserialize_seq(Parts)
    }
}
