//! Fixed examples, so that another implementation can be held against them and ours never changes unnoticed.

use std::sync::Arc;

use super::*;
use crate::{Check, Registration, Timestamp};

fn instance(id: &str) -> Instance {
    let registration = Registration::new("product".parse().unwrap(), "10.0.0.7:7070".parse().unwrap());
    Instance {
        id: id.parse().unwrap(),
        name: registration.name,
        namespace: "default".parse().unwrap(),
        address: registration.address,
        status: InstanceStatus::Passing,
        reason: "GET /health: 200".into(),
        since: Timestamp::from_millis(1_700_000_000_000),
        registered_at: Timestamp::from_millis(1_600_000_000_000),
        check: Arc::new(
            Check::default().or_defaults(crate::time::parse("5s").unwrap(), crate::time::parse("1s").unwrap()).unwrap(),
        ),
        tags: Box::default(),
        meta: crate::Meta::default(),
        zone: None,
        version: None,
        weight: 1,
        history: Box::default(),
        forget_after: None,
    }
}

fn full() -> Instance {
    Instance {
        tags: vec!["blue".into(), "größer".into()].into(),
        meta: [("b", "2"), ("a", "1")].into_iter().collect(),
        zone: Some("eu-1".into()),
        version: Some("1.2.3".into()),
        weight: 250,
        ..instance("product-2")
    }
}

#[test]
fn fingerprints_are_these_for_ever() {
    assert_eq!(format!("{:016x}", instance("product-1").fingerprint()), "12db437de1338689");
    assert_eq!(format!("{:016x}", full().fingerprint()), "211f5f083e096d93");
    let parts = ["product-1", "product-2", "a", "x:1.y_z-0"].map(|id| id.parse::<InstanceId>().unwrap().part());
    assert_eq!(parts, [14, 6, 19, 10]);
}

#[test]
fn the_bytes_are_those_of_the_table() {
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    let full = full();
    let check = r#"{"kind":"http","path":"/health","interval":"5s","timeout":"1s","ttl":null}"#;
    for field in ["product-2", "product", "10.0.0.7:7070", "passing", "GET /health: 200"] {
        text(&mut bytes, field);
    }
    bytes.extend(1_700_000_000_000_u64.to_le_bytes());
    bytes.extend(1_600_000_000_000_u64.to_le_bytes());
    text(&mut bytes, check);
    bytes.extend(2_u64.to_le_bytes());
    ["blue", "größer"].into_iter().for_each(|tag| text(&mut bytes, tag));
    bytes.extend(2_u64.to_le_bytes());
    ["a", "1", "b", "2"].into_iter().for_each(|word| text(&mut bytes, word));
    for label in ["eu-1", "1.2.3"] {
        bytes.extend(1_u64.to_le_bytes());
        text(&mut bytes, label);
    }
    bytes.extend(250_u64.to_le_bytes());
    assert_eq!(full.fingerprint(), SipHasher13::new().hash(&bytes));
}

#[test]
fn every_field_counts_but_the_history_and_the_namespace() {
    let known = full();
    let print = known.fingerprint();
    let differ = [
        Instance { id: "product-3".parse().unwrap(), ..known.clone() },
        Instance { name: "order".parse().unwrap(), ..known.clone() },
        Instance { address: "10.0.0.7:7071".parse().unwrap(), ..known.clone() },
        Instance { status: InstanceStatus::Suspect, ..known.clone() },
        Instance { reason: "".into(), ..known.clone() },
        Instance { since: Timestamp::default(), ..known.clone() },
        Instance { registered_at: Timestamp::default(), ..known.clone() },
        Instance { check: Arc::new(Check::tcp()), ..known.clone() },
        Instance { tags: vec!["blue".into()].into(), ..known.clone() },
        Instance { meta: [("a", "1b"), ("", "2")].into_iter().collect(), ..known.clone() },
        Instance { zone: None, ..known.clone() },
        Instance { zone: known.version.clone(), version: known.zone.clone(), ..known.clone() },
        Instance { weight: 251, ..known.clone() },
    ];
    for other in &differ {
        assert_ne!(other.fingerprint(), print, "{other:?}");
    }
    let flip = crate::Flip { at: Timestamp::default(), status: InstanceStatus::Passing, reason: "".into() };
    // What came with later versions is not in it: both sides compute the same, whatever their releases.
    let later = Some(std::time::Duration::from_secs(72 * 3_600));
    assert_eq!(Instance { history: vec![flip].into(), forget_after: later, ..known }.fingerprint(), print);
}

#[test]
fn a_digest_is_that_of_the_set_and_tells_which_parts_differ() {
    let (one, two) = (instance("product-1"), full());
    let both = Digest::of([&one, &two]);
    assert_eq!(both, Digest::of([&two, &one]));
    assert_eq!(both.parts_that_differ(&both.clone()), 0);
    let changed = Instance { reason: "other".into(), ..two.clone() };
    assert_eq!(both.parts_that_differ(&Digest::of([&one, &changed])), two.id.part_mask());
    assert_eq!(Digest { count: 3, ..both.clone() }.parts_that_differ(&both), ALL_PARTS, "no part says where");
    let mut less = both.clone();
    less.remove(&two.id, two.fingerprint());
    assert_eq!(less, Digest::of([&one]));
    less.remove(&one.id, one.fingerprint());
    assert_eq!(less, Digest::default());
}

#[test]
fn sums_are_text_in_json_and_parts_are_sixty_four() {
    let digest = Digest::of([&instance("product-1")]);
    let json = serde_json::to_string(&digest).unwrap();
    assert!(json.starts_with(&format!(r#"{{"count":1,"sum":"{:016x}","parts":["#, digest.sum)), "{json}");
    assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    let bytes = postcard::to_allocvec(&digest).unwrap();
    assert_eq!(postcard::from_bytes::<Digest>(&bytes).unwrap(), digest);
    assert!(bytes.len() < 90, "empty parts take a byte each");
    let with = |sum: &str, parts: usize| {
        let parts = vec!["\"0\""; parts].join(",");
        serde_json::from_str::<Digest>(&format!(r#"{{"count":0,"sum":"{sum}","parts":[{parts}]}}"#))
    };
    assert_eq!(with("0", 64).unwrap(), Digest::default());
    for (sum, parts) in [("0", 63), ("0", 65), ("", 64), ("+1", 64), ("00000000000000000", 64), ("g", 64)] {
        assert!(with(sum, parts).is_err(), "{sum} {parts}");
    }
}
