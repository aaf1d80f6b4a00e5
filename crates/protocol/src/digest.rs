//! What a set of instances comes to in a few numbers, so that two sides can tell whether they know the same.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::{bounded, limits};

/// The digest of a set of instances. Equal digests mean equal sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// How many instances there are.
    pub count: u64,
    /// The sum of their fingerprints, wrapping.
    #[serde(with = "hex")]
    pub sum: u64,
    /// The same sum for each part of them: instances are told apart by their ids.
    #[serde(serialize_with = "write_parts", deserialize_with = "read_parts")]
    pub parts: Vec<u64>,
}

/// A sum: hexadecimal in JSON, where numbers of 64 bits do not survive every library.
#[derive(Serialize, Deserialize)]
struct Sum(#[serde(with = "hex")] u64);

fn write_parts<S: Serializer>(parts: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(parts.iter().copied().map(Sum))
}

fn read_parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u64>, D::Error> {
    let rule = || format!("a digest has {} parts", limits::DIGEST_PARTS);
    let parts: Vec<Sum> = bounded::few(deserializer, 2 * limits::DIGEST_PARTS, rule)?;
    Ok(parts.into_iter().map(|Sum(sum)| sum).collect())
}

mod hex {
    use super::{Deserialize, Deserializer, Error, Serialize, Serializer};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
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
        let digits = (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sum = digits.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        sum.ok_or_else(|| D::Error::custom("a sum must be 1 to 16 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_hexadecimal_in_json() {
        let digest = Digest { count: 2, sum: u64::MAX, parts: vec![0, 0xab] };
        let json = serde_json::to_string(&digest).unwrap();
        let expected = r#"{"count":2,"sum":"ffffffffffffffff","parts":["0000000000000000","00000000000000ab"]}"#;
        assert_eq!(json, expected);
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
        let bytes = postcard::to_allocvec(&digest).unwrap();
        assert_eq!(postcard::from_bytes::<Digest>(&bytes).unwrap(), digest);
        for bad in ["", "+1", "g", "00000000000000000"] {
            let text = format!(r#"{{"count":0,"sum":"{bad}","parts":[]}}"#);
            assert!(serde_json::from_str::<Digest>(&text).is_err(), "{bad:?}");
        }
    }
}
