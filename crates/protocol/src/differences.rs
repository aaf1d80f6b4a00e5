//! What a change of an instance comes to, in words.

use std::time::Duration;

use crate::{Check, Instance, Meta, time};

/// The most characters that are shown of a value.
const SHOWN: usize = 60;

// === impl Instance ===

impl Instance {
    /// What differs in `after`, as far as its registration says it: `weight 1 → 50`. Long values are cut.
    #[must_use]
    pub fn differences(&self, after: &Self) -> Vec<String> {
        let changed = said(self).into_iter().zip(said(after)).filter(|((_, before), (_, after))| before != after);
        changed.map(|((field, before), (_, after))| format!("{field} {} → {}", cut(&before), cut(&after))).collect()
    }
}

fn said(instance: &Instance) -> [(&'static str, String); 10] {
    let text = |text: &Option<Box<str>>| text.as_deref().unwrap_or("none").to_owned();
    let time = |time: Option<Duration>| time.map_or_else(|| "default".to_owned(), time::display);
    let check = &instance.check;
    [
        ("address", instance.address.to_string()),
        ("weight", instance.weight.to_string()),
        ("version", text(&instance.version)),
        ("zone", text(&instance.zone)),
        ("tags", list(instance.tags.iter().map(ToString::to_string).collect())),
        ("meta", meta(&instance.meta)),
        ("health", health(check)),
        ("interval", time(check.interval)),
        ("timeout", time(check.timeout)),
        ("forget-after", time(instance.forget_after)),
    ]
}

fn list(texts: Vec<String>) -> String {
    if texts.is_empty() { "none".to_owned() } else { texts.join(",") }
}

fn meta(meta: &Meta) -> String {
    list(meta.iter().map(|(key, value)| format!("{key}={value}")).collect())
}

/// The path where there is one.
fn health(check: &Check) -> String {
    check.path().map_or_else(|| check.kind.to_string(), ToOwned::to_owned)
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Patch, Registration, Timestamp};

    fn instance(registration: &Registration) -> Instance {
        serde_json::from_value(serde_json::json!({
            "id": "web-1", "namespace": "default", "name": "web", "address": "10.0.0.7:80", "status": "passing", "reason": "",
            "since": Timestamp::default(), "registered_at": Timestamp::default(), "check": registration.check,
            "tags": registration.tags, "meta": registration.meta, "zone": registration.zone,
            "version": registration.version, "weight": registration.weight, "history": [],
        }))
        .unwrap()
    }

    #[test]
    fn only_what_differs_is_named_and_long_values_are_cut() {
        let before: Registration =
            serde_json::from_value(serde_json::json!({"name": "web", "address": "10.0.0.7:80"})).unwrap();
        let before = instance(&before);
        assert!(before.differences(&before).is_empty());
        let patch = Patch {
            weight: Some(50),
            path: Some("/alive".into()),
            tags: vec!["x".repeat(100).into()],
            ..Patch::default()
        };
        let after = instance(&patch.apply(&before));
        let expected = ["weight 1 → 50", &format!("tags none → {}…", "x".repeat(60)), "health /health → /alive"];
        assert_eq!(before.differences(&after), expected);
    }
}
