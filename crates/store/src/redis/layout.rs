//! The names of our keys, and how far one has read.
//!
//! Every key of a namespace has it as hash tag, so that in a cluster a namespace is one slot:
//!
//! | key | what |
//! |---|---|
//! | `roundsman:namespaces` | set of the namespaces |
//! | `roundsman:{NS}:instance:NAME:ID` | hash, a live record |
//! | `roundsman:{NS}:evicted:NAME:ID` | hash, a record on probation; expires with it, unless it has `forget_after` or is `blocked`: servers forget those |
//! | `roundsman:{NS}:instances` | hash, id → the rest of the record's key |
//! | `roundsman:{NS}:damaged:…` | a record that could not be read, under what was the rest of its key |
//! | `roundsman:{NS}:damaged:index` | hash, what was wrong in the index alone |
//! | `roundsman:{NS}:removed` | sorted set of the ids that were removed in the last hour; scores are the versions of their removals |
//! | `roundsman:{NS}:changes` | stream of changes with ids `1-0`, `2-0`, … without gaps |
//! | `roundsman:{NS}:history` | stream of events; ids are their times, or just after the one before |
//! | `roundsman:{NS}:history:cut` | the oldest event that was kept when older ones were dropped, and why they were |
//! | `roundsman:{NS}:generation` | random name of this store's contents |
//! | `roundsman:{NS}:writer:…` | number of a server's last write; expires |

use std::collections::BTreeMap;

use roundsman_protocol::Namespace;
use roundsman_registry::Record;
use serde::{Deserialize, Serialize};

use crate::Position;

/// The set of all namespaces. Outside the hash tags: it is the only thing that is about more than one namespace.
pub(super) const NAMESPACES: &str = "roundsman:namespaces";

/// A point in the changes of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The generation it belongs to; empty when not known yet.
    pub(super) generation: String,
    /// The last change.
    pub(super) sequence: u64,
}

/// A point in the changes of each namespace.
pub(super) type Marks = BTreeMap<Namespace, Mark>;

/// What all keys of a namespace begin with.
pub(super) fn prefix(namespace: &Namespace) -> String {
    format!("roundsman:{{{namespace}}}:")
}

/// The stream of changes.
pub(super) fn changes_key(namespace: &Namespace) -> String {
    format!("roundsman:{{{namespace}}}:changes")
}

/// The index of records.
pub(super) fn index_key(namespace: &Namespace) -> String {
    format!("roundsman:{{{namespace}}}:instances")
}

/// The sorted set of ids that were removed.
pub(super) fn removed_key(namespace: &Namespace) -> String {
    format!("roundsman:{{{namespace}}}:removed")
}

/// The namespace whose stream of changes this is.
pub(super) fn namespace_of(changes_key: &str) -> Option<Namespace> {
    let namespace = changes_key.strip_prefix("roundsman:{")?.strip_suffix("}:changes")?;
    namespace.parse().ok()
}

/// A record's key without the prefix.
pub(super) fn rest_of_key(record: &Record) -> String {
    let kind = if record.is_evicted() { "evicted" } else { "instance" };
    format!("{kind}:{}:{}", record.instance.name, record.instance.id)
}

/// The number in a stream id such as `17-0`.
pub(super) fn sequence(id: &str) -> Option<u64> {
    id.strip_suffix("-0")?.parse().ok()
}

/// Marks as others carry them around.
pub(super) fn position(marks: &Marks) -> Position {
    // Namespaces are strings, so they can be keys in JSON; nothing else here can fail.
    Position(serde_json::to_string(marks).unwrap_or_default())
}

/// The marks in a position; `None` when it is not one of ours.
pub(super) fn marks(position: &Position) -> Option<Marks> {
    if position.0.is_empty() {
        return Some(Marks::new());
    }
    serde_json::from_str(&position.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_read_as_written() {
        let namespace: Namespace = "shop".parse().unwrap();
        let marks_of_shop = Marks::from([(namespace.clone(), Mark { generation: "abc".into(), sequence: 17 })]);
        assert_eq!(marks(&position(&marks_of_shop)), Some(marks_of_shop));
        assert_eq!(marks(&Position::default()), Some(Marks::new()));
        assert_eq!(marks(&Position("17-0".into())), None);
        assert_eq!(namespace_of(&changes_key(&namespace)).as_ref(), Some(&namespace));
        assert_eq!((sequence("17-0"), sequence("17-1"), sequence("x-0")), (Some(17), None, None));
    }
}
