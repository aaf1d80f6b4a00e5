//! The stream of what happened in a namespace. Streams have no other order than that of time: questions about a
//! service or an instance look through it, so far at a time.

use redis::{AsyncTypedCommands, streams::StreamId, streams::StreamRangeReply};
use roundsman_protocol::{Event, HistoryPage, HistoryQuery, Namespace, Timestamp};

use super::{Shared, changes::text, layout::prefix, link::PATIENCE};
use crate::{StoreError, events};

/// How many events are read in one request.
const CHUNK: usize = 1_000;
/// How many are looked through for one answer. Whoever wants more goes on with the bookmark.
const REACH: usize = 20_000;

// === impl Shared ===

impl Shared {
    /// Answers a question.
    pub(super) async fn history(&self, namespace: &Namespace, query: &HistoryQuery) -> Result<HistoryPage, StoreError> {
        let key = format!("{}history", prefix(namespace));
        // Ids are never earlier than the times of their events.
        let oldest = query.since.map_or_else(|| "-".to_owned(), |since| since.as_millis().to_string());
        let mut end = query.after.as_deref().and_then(before).unwrap_or_else(|| "+".to_owned());
        let (mut page, mut at) = (HistoryPage::default(), String::new());
        let mut connection = self.link.connection().await?;
        for _ in 0..REACH / CHUNK {
            let range = connection.xrevrange_count(&key, &end, &oldest, CHUNK);
            let reply: StreamRangeReply = self.link.answer(PATIENCE * 2, range).await?;
            let last = reply.ids.len() < CHUNK;
            for entry in reply.ids {
                let Some(before) = before(&entry.id) else { continue };
                (at, end) = (entry.id.clone(), before);
                let Some(event) = event(&entry).filter(|event| query.matches(event)) else { continue };
                page.events.push(event);
                if page.events.len() == query.most() {
                    page.next = Some(at.as_str().into());
                    return Ok(page);
                }
            }
            if last {
                page.events.extend(self.cut(namespace).await?.filter(|cut| query.matches(cut)));
                return Ok(page);
            }
        }
        page.next = Some(at.as_str().into());
        Ok(page)
    }

    /// The mark of what was dropped at the old end.
    async fn cut(&self, namespace: &Namespace) -> Result<Option<Event>, StoreError> {
        let mut connection = self.link.connection().await?;
        let get = connection.get(format!("{}history:cut", prefix(namespace)));
        let Some(cut) = self.link.answer(PATIENCE, get).await? else { return Ok(None) };
        let Some((id, why)) = cut.split_once(' ') else { return Ok(None) };
        let millis = id.split_once('-').and_then(|(millis, _)| millis.parse().ok());
        let mark = |millis| {
            let at = Timestamp::from_millis(millis);
            Event::cut(Some(namespace.clone()), at, self.keep.reason(why == "many"), "".into())
        };
        Ok(millis.map(mark))
    }
}

/// The id before this one; `None` when it is no id. (That ranges can leave out their end is news to older servers.)
fn before(id: &str) -> Option<String> {
    let (millis, number) = id.split_once('-')?;
    let (millis, number): (u64, u64) = (millis.parse().ok()?, number.parse().ok()?);
    Some(match number.checked_sub(1) {
        Some(number) => format!("{millis}-{number}"),
        None => format!("{}-{}", millis.checked_sub(1)?, u64::MAX),
    })
}

fn event(entry: &StreamId) -> Option<Event> {
    let fields = events::FIELDS.map(|name| entry.map.get(name).and_then(text).unwrap_or_default().into());
    let event = events::event(&fields);
    if event.is_none() {
        tracing::debug!(id = entry.id, "left out an event that cannot be read");
    }
    event
}
