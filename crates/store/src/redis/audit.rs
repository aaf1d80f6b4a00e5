//! Which records are no longer there, although no server removed them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use redis::{AsyncTypedCommands, Pipeline, Value, streams::StreamRangeReply};
use roundsman_protocol::Namespace;
use roundsman_registry::Record;

use super::{
    Shared,
    layout::{changes_key, index_key, prefix, rest_of_key, sequence},
    link::PATIENCE,
};
use crate::StoreError;

/// Changes read in one request, from the newest on.
const CHANGES: usize = 1_000;
/// Most requests for changes: more than a stream keeps.
const REQUESTS: usize = 20;

// === impl Shared ===

impl Shared {
    /// Those of these records that are gone, and were not removed by another server.
    pub(super) async fn missing(&self, records: &[Arc<Record>]) -> Result<Vec<Arc<Record>>, StoreError> {
        let mut groups: BTreeMap<&Namespace, Vec<&Arc<Record>>> = BTreeMap::new();
        for record in records {
            groups.entry(&record.instance.namespace).or_default().push(record);
        }
        let mut missing = Vec::new();
        for (namespace, records) in groups {
            let mut suspects = match self.absent(namespace, &records).await {
                // This namespace cannot be used; a commit says so. The others are looked at all the same.
                Err(StoreError::Unusable(_)) => continue,
                found => found?,
            };
            if !suspects.is_empty() {
                // An emptied store is another matter, and told by this.
                self.probe().await?;
                self.leave_out_removed(namespace, &mut suspects).await?;
            }
            missing.extend(suspects.into_values().cloned());
        }
        Ok(missing)
    }

    async fn absent<'a>(
        &self,
        namespace: &Namespace,
        records: &[&'a Arc<Record>],
    ) -> Result<HashMap<String, &'a Arc<Record>>, StoreError> {
        let (prefix, index) = (prefix(namespace), index_key(namespace));
        let mut pipeline = Pipeline::with_capacity(records.len() + 1);
        let ids = records.iter().map(|record| record.instance.id.as_str());
        pipeline.cmd("HMGET").arg(&index).arg(ids.collect::<Vec<_>>());
        let rests: Vec<String> = records.iter().map(|record| rest_of_key(record)).collect();
        for rest in &rests {
            pipeline.cmd("EXISTS").arg(format!("{prefix}{rest}"));
        }
        let mut connection = self.link.connection().await?;
        let answers: Vec<Value> = self.link.answer(PATIENCE * 2, pipeline.query_async(&mut connection)).await?;
        let Some((Value::Array(entries), exist)) = answers.split_first() else { return Ok(HashMap::new()) };
        let there = entries.iter().zip(exist).zip(&rests).map(|((entry, exists), rest)| {
            matches!(entry, Value::BulkString(entry) if entry == rest.as_bytes()) && *exists == Value::Int(1)
        });
        let absent = records.iter().zip(there).filter(|(_, there)| !there);
        Ok(absent.map(|(record, _)| (record.instance.id.to_string(), *record)).collect())
    }

    /// Leaves out those whose last change is a removal by another server: we are about to hear of it.
    async fn leave_out_removed(
        &self,
        namespace: &Namespace,
        suspects: &mut HashMap<String, &Arc<Record>>,
    ) -> Result<(), StoreError> {
        let (key, mut to, mut open) = (changes_key(namespace), "+".to_owned(), suspects.len());
        let mut seen = std::collections::HashSet::new();
        let mut connection = self.link.connection().await?;
        for _ in 0..REQUESTS {
            let range = connection.xrevrange_count(&key, &to, "-", CHANGES);
            let reply: StreamRangeReply = self.link.answer(PATIENCE * 2, range).await?;
            for entry in &reply.ids {
                let field = |name: &str| entry.map.get(name).and_then(super::changes::text);
                let Some(id) = field("id").filter(|id| suspects.contains_key(*id)) else { continue };
                if !seen.insert(id.to_owned()) {
                    continue;
                }
                open = open.saturating_sub(1);
                if field("op") == Some("remove") && field("by") != Some(&*self.server) {
                    suspects.remove(id);
                }
            }
            let oldest = reply.ids.last().and_then(|entry| sequence(&entry.id));
            match oldest {
                Some(oldest) if oldest > 1 && open > 0 => to = format!("{}-0", oldest - 1),
                _ => break,
            }
        }
        Ok(())
    }
}
