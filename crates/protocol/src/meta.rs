//! Free metadata of an instance.

use std::{borrow::Cow, fmt, fmt::Write};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};

/// Metadata: keys and values, sorted by key.
///
/// All of it is one text, `2;6:commit7:09ab3f14:team8:checkout`: how many entries, then each text after its length. A
/// list of texts of their own takes five times the memory for two entries, and registries hold many instances.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Meta(Box<str>);

/// The entries that are left to see.
struct Entries<'a> {
    rest: &'a str,
    left: usize,
}

// === impl Meta ===

impl Meta {
    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find(|(known, _)| *known == key).map(|(_, value)| value)
    }

    /// Keys and values, sorted by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let (count, rest) = self.0.split_once(';').unwrap_or_default();
        // Only `from_iter` writes it, so it can be read.
        Entries { rest, left: count.parse().unwrap_or_default() }
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.iter().map(|(k, v)| k.len() + v.len()).sum()
    }

    /// The bytes that it takes in memory.
    pub(crate) fn allocated(&self) -> usize {
        self.0.len()
    }

    fn of<T: AsRef<str>>(mut entries: Vec<(T, T)>) -> Self {
        entries.reverse();
        entries.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        entries.dedup_by(|later, kept| later.0.as_ref() == kept.0.as_ref());
        if entries.is_empty() {
            return Self::default();
        }
        let texts = || entries.iter().flat_map(|(key, value)| [key.as_ref(), value.as_ref()]);
        // Room for the signs, too.
        let mut all = String::with_capacity(texts().map(|text| text.len() + 4).sum::<usize>() + 4);
        // Writing to a text does not fail.
        let _ = write!(all, "{};", entries.len());
        for text in texts() {
            let _ = write!(all, "{}:", text.len());
            all.push_str(text);
        }
        Self(all.into_boxed_str())
    }
}

// === impl Entries ===

impl<'a> Entries<'a> {
    fn text(&mut self) -> Option<&'a str> {
        let (length, rest) = self.rest.split_once(':')?;
        let (text, rest) = rest.split_at_checked(length.parse().ok()?)?;
        self.rest = rest;
        Some(text)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.text()?, self.text()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for Meta {
    /// Of several values for one key the last one counts.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let entries = entries.into_iter().map(|(k, v)| (k.into(), v.into()));
        Self::of::<Box<str>>(entries.collect())
    }
}

impl fmt::Debug for Meta {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (key, value) in self.iter() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// A text that is borrowed where it stands as it is: very many records are read at a start.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Meta {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> serde::de::Visitor<'de> for Map {
            type Value = Meta;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of strings")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Meta, A::Error> {
                let mut entries: Vec<(Text<'de>, Text<'de>)> = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Meta::of(entries))
            }
        }
        deserializer.deserialize_map(Map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorted_and_the_last_value_wins() {
        let meta: Meta = [("b", "1"), ("a", "2"), ("b", "3")].into_iter().collect();
        assert_eq!(serde_json::to_string(&meta).unwrap(), r#"{"a":"2","b":"3"}"#);
        assert_eq!((meta.get("b"), meta.get("c")), (Some("3"), None));
        let bytes = postcard::to_allocvec(&meta).unwrap();
        assert_eq!(postcard::from_bytes::<Meta>(&bytes).unwrap(), meta);
    }

    proptest::proptest! {
        #[test]
        fn what_goes_in_comes_out(entries: std::collections::BTreeMap<String, String>) {
            let meta: Meta = entries.clone().into_iter().collect();
            let pairs = entries.iter().map(|(key, value)| (key.as_str(), value.as_str()));
            assert!(meta.iter().eq(pairs));
            assert_eq!((meta.len(), meta.is_empty()), (entries.len(), entries.is_empty()));
            assert_eq!(meta.bytes(), entries.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>());
            for (key, value) in &entries {
                assert_eq!(meta.get(key), Some(value.as_str()));
            }
            let again: Meta = serde_json::from_str(&serde_json::to_string(&entries).unwrap()).unwrap();
            assert_eq!(again, meta);
        }
    }

    #[test]
    fn texts_may_look_like_its_own_signs() {
        let odd = [("2;6:", ":::"), ("", "7"), ("1:a", ""), ("ü", "0;\0")];
        let meta: Meta = odd.into_iter().collect();
        assert!(odd.into_iter().all(|(key, value)| meta.get(key) == Some(value)));
    }
}
