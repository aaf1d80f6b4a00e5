//! Long answers, encoded once for everybody who asks the same at the same moment.
//!
//! When a server comes back, thousands of watchers ask for the same snapshot at once. Encoding it for each of them
//! would take seconds and a gigabyte; here the first one has it encoded, and all share the bytes.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use roundsman_protocol::{Codec, Cursor, Dialect, DiscoveryError, Instance, Namespace, Query, Version, v1};
use roundsman_registry::Snapshot;
use tokio::time::Instant;

use super::{
    frame::{HEADER, put, put_number},
    outbox::Outbox,
};
use crate::{
    memory::{Budget, Reservation, kept},
    method::Method,
    offload::Offload,
};

/// How many bytes of an answer are one chunk, about: as much as a socket takes at a time.
const CHUNK: usize = 64 * 1_024;
/// How many answers are kept for the next one who asks, and for how long.
const KEPT: usize = 32;
const KEPT_FOR: Duration = Duration::from_secs(1);

/// What is told about the instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// The answer of `list`.
    List,
    /// The answer of `watch` with a snapshot.
    Watch,
}

/// A long answer but for the id of the call.
#[derive(Debug)]
pub(super) struct Encoded {
    form: Form,
    /// Each is accounted for until every client has read it.
    chunks: Vec<Bytes>,
    len: usize,
}

/// An answer that is driven on by whoever waits for it: a connection that stands still holds up nobody else.
type Answer = Shared<BoxFuture<'static, Result<Arc<Encoded>, DiscoveryError>>>;

/// The long answers of this moment.
#[derive(Debug)]
pub(crate) struct Encodings {
    offload: Offload,
    budget: Arc<Budget>,
    kept: Mutex<HashMap<Question, Slot>>,
}

/// What is asked, and how it is to be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    pub(super) namespace: Namespace,
    pub(super) query: Query,
    pub(super) dialect: Dialect,
    pub(super) form: Form,
}

/// An answer in the making, or made.
#[derive(Debug)]
struct Slot {
    cursor: Cursor,
    answer: Answer,
    used: Instant,
}

// === impl Encodings ===

impl Encodings {
    pub(crate) fn new(offload: Offload, budget: Arc<Budget>) -> Self {
        Self { offload, budget, kept: Mutex::default() }
    }

    /// The answer to a question from a snapshot that was taken for it.
    ///
    /// # Errors
    /// When callers keep too much in memory already.
    pub(super) async fn answer(&self, question: Question, snapshot: Snapshot) -> Result<Arc<Encoded>, DiscoveryError> {
        self.slot(question, snapshot).await
    }

    /// The slot of a question at a moment: an answer of another moment is not the answer.
    fn slot(&self, question: Question, snapshot: Snapshot) -> Answer {
        let (now, cursor) = (Instant::now(), snapshot.cursor());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, slot| now.saturating_duration_since(slot.used) < KEPT_FOR);
        if let Some(slot) = kept.get_mut(&question).filter(|slot| slot.is_about(cursor)) {
            slot.used = now;
            return slot.answer.clone();
        }
        let answer = self.encode(question.clone(), snapshot);
        if kept.len() < KEPT || kept.contains_key(&question) {
            kept.insert(question, Slot { cursor, answer: answer.clone(), used: now });
        }
        answer
    }

    fn encode(&self, question: Question, snapshot: Snapshot) -> Answer {
        let (offload, budget) = (self.offload.clone(), Arc::clone(&self.budget));
        let work = move || {
            let instances: Vec<_> = snapshot.matching(&question.query).collect();
            let estimate = instances.iter().map(|instance| instance.bytes()).sum();
            let reservation = budget.reserve(&question.namespace, estimate)?;
            let chunks = chunks(question.dialect, question.form, snapshot.cursor(), &instances);
            let chunks = chunks.map_err(|error| {
                tracing::error!(%error, "an answer could not be written");
                DiscoveryError::ShuttingDown
            })?;
            Ok(Arc::new(Encoded::new(question.form, chunks, reservation)))
        };
        async move { offload.run(work).await? }.boxed().shared()
    }

    /// Does other work that takes longer than a moment.
    pub(super) fn offload(&self) -> &Offload {
        &self.offload
    }

    /// Drops what nobody asked for lately.
    pub(crate) fn tidy(&self) {
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, slot| now.saturating_duration_since(slot.used) < KEPT_FOR);
        if kept.is_empty() {
            kept.shrink_to_fit();
        }
    }
}

// === impl Slot ===

impl Slot {
    /// Whether it is an answer of this moment. One that could not be made is none.
    fn is_about(&self, cursor: Cursor) -> bool {
        self.cursor == cursor && !matches!(self.answer.peek(), Some(Err(_)))
    }
}

// === impl Encoded ===

impl Encoded {
    fn new(form: Form, chunks: Vec<Vec<u8>>, mut reservation: Reservation) -> Self {
        let len = chunks.iter().map(Vec::len).sum();
        reservation.settle(len);
        let reservation = Arc::new(reservation);
        Self { form, chunks: chunks.into_iter().map(|chunk| kept(chunk, &reservation)).collect(), len }
    }

    /// Puts a frame into the outbox: what belongs to this one call, and around it what all share.
    pub(super) fn put(&self, codec: Codec, id: u64, outbox: &mut Outbox) -> io::Result<()> {
        let method = match self.form {
            Form::List => Method::List,
            Form::Watch => Method::Watch,
        };
        let (variant, name) = (method.number(), method.variant());
        let (mut before, mut after) = (vec![0; HEADER], String::new());
        match codec {
            // Response.message: Ok; DiscoveryResponse: the method; its result: Ok.
            Codec::Postcard => {
                put_number(id, &mut before)?;
                before.extend_from_slice(&[0, variant, 0]);
            }
            Codec::Json => {
                let text = format!("{{\"request_id\":{id},\"message\":{{\"Ok\":{{\"{name}\":{{\"Ok\":");
                before.extend_from_slice(text.as_bytes());
                after.push_str("}}}}");
            }
        }
        let length = u32::try_from(before.len() - HEADER + self.len + after.len()).map_err(io::Error::other)?;
        if let Some(header) = before.first_chunk_mut::<HEADER>() {
            *header = length.to_be_bytes();
        }
        outbox.append(|out| io::Write::write_all(out, &before))?;
        outbox.share(self.chunks.iter().cloned());
        outbox.append(|out| io::Write::write_all(out, after.as_bytes()))
    }
}

/// Writes the value that a successful `list` or `watch` returns.
fn chunks(dialect: Dialect, form: Form, cursor: Cursor, instances: &[Arc<Instance>]) -> io::Result<Vec<Vec<u8>>> {
    let (mut chunks, mut out) = (Vec::new(), Vec::with_capacity(CHUNK + CHUNK / 8));
    let codec = dialect.codec;
    begin(dialect, form, cursor, &mut out)?;
    if codec == Codec::Postcard {
        put_number(u64::try_from(instances.len()).unwrap_or(u64::MAX), &mut out)?;
    }
    for (n, instance) in instances.iter().enumerate() {
        if n > 0 && codec == Codec::Json {
            out.push(b',');
        }
        match dialect.version {
            Version::V1 => put(codec, &mut out, &v1::Instance::from(Arc::clone(instance)))?,
            Version::V2 | Version::V3 => put(codec, &mut out, instance)?,
        }
        if out.len() >= CHUNK {
            chunks.push(std::mem::replace(&mut out, Vec::with_capacity(CHUNK + CHUNK / 8)));
        }
    }
    end(dialect, form, &mut out);
    if !out.is_empty() {
        out.shrink_to_fit();
        chunks.push(out);
    }
    Ok(chunks)
}

/// What stands before the instances. Before version 3 a list is only they.
fn begin(dialect: Dialect, form: Form, cursor: Cursor, out: &mut Vec<u8>) -> io::Result<()> {
    let bare = form == Form::List && dialect.version < Version::V3;
    match (dialect.codec, form) {
        (Codec::Postcard, Form::List) if bare => Ok(()),
        (Codec::Postcard, Form::List) => put(dialect.codec, out, &cursor),
        (Codec::Postcard, Form::Watch) => put(dialect.codec, out, &(cursor, true)),
        (Codec::Json, _) => {
            if !bare {
                out.extend_from_slice(b"{\"cursor\":");
                put(dialect.codec, out, &cursor)?;
                out.extend_from_slice(if form == Form::Watch { b",\"snapshot\":true" } else { b"" });
                out.extend_from_slice(b",\"instances\":");
            }
            out.push(b'[');
            Ok(())
        }
    }
}

/// What stands after the instances: nothing removed, no parts, no next page.
fn end(dialect: Dialect, form: Form, out: &mut Vec<u8>) {
    let rest: &[u8] = match (dialect.codec, form, dialect.version) {
        (Codec::Postcard, Form::List, Version::V3) => &[0],
        (Codec::Postcard, Form::List, Version::V1 | Version::V2) => &[],
        (Codec::Postcard, Form::Watch, Version::V3) => &[0, 0, 0],
        (Codec::Postcard, Form::Watch, Version::V1 | Version::V2) => &[0],
        (Codec::Json, Form::List, Version::V3) => b"]}",
        (Codec::Json, Form::List, Version::V1 | Version::V2) => b"]",
        (Codec::Json, Form::Watch, _) => b"],\"removed\":[]}",
    };
    out.extend_from_slice(rest);
}

#[cfg(test)]
mod tests {
    use roundsman_protocol::{DiscoveryResponse, Page, Registration, Timestamp, Update, wire::Answer};
    use roundsman_registry::{Draft, Registry};

    use super::*;

    fn registry(count: u16) -> Registry {
        let registry = Registry::new(7);
        let mut draft: Draft<'_> = registry.draft(roundsman_registry::Limits::default());
        for port in 1..=count {
            let registration = Registration {
                check: roundsman_protocol::Check::none(),
                ..Registration::new("product".parse().unwrap(), format!("10.0.0.1:{port}").parse().unwrap())
            };
            draft.register(&Namespace::default(), Arc::new(registration), Timestamp::default()).unwrap();
        }
        let (edits, _) = draft.finish();
        registry.apply(&edits);
        registry
    }

    fn dialects() -> impl Iterator<Item = Dialect> {
        let both = |version| [Codec::Postcard, Codec::Json].map(|codec| Dialect { version, codec });
        Version::ALL.into_iter().flat_map(both)
    }

    fn bytes(outbox: &mut Outbox) -> Vec<u8> {
        outbox.share([]);
        let mut all = Vec::new();
        outbox.drain_into(&mut all);
        all
    }

    #[tokio::test]
    async fn long_answers_are_what_tarpc_would_write() {
        for count in [0, 1, 130, 2_000] {
            let registry = registry(count);
            let encodings = Encodings::new(Offload::start().unwrap(), Budget::new(1 << 30));
            for dialect in dialects() {
                for form in [Form::List, Form::Watch] {
                    let (codec, query) = (dialect.codec, Query::default());
                    let snapshot = registry.snapshot(&Namespace::default(), &query);
                    let instances: Vec<_> = snapshot.matching(&query).collect();
                    let cursor = snapshot.cursor();
                    let response = match form {
                        Form::List => DiscoveryResponse::List(Ok(Page { cursor, instances, next: None })),
                        Form::Watch => DiscoveryResponse::Watch(Ok(Update {
                            snapshot: true,
                            instances,
                            ..Update::unchanged(cursor)
                        })),
                    };
                    let expected = codec.write(&Answer::new(dialect.version, 300, &Ok(response))).unwrap();
                    let question = Question { namespace: Namespace::default(), query, dialect, form };
                    let encoded = encodings.answer(question, snapshot).await.unwrap();
                    let mut outbox = Outbox::default();
                    encoded.put(codec, 300, &mut outbox).unwrap();
                    let written = bytes(&mut outbox);
                    assert_eq!(u32::from_be_bytes(written[..4].try_into().unwrap()) as usize, expected.len());
                    assert!(written[4..] == expected, "{dialect:?} {form:?} {count}");
                }
            }
        }
    }

    #[tokio::test]
    async fn whoever_asks_the_same_at_the_same_moment_shares_the_bytes_and_the_budget_bounds_them() {
        let registry = registry(500);
        let budget = Budget::new(1 << 20);
        let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
        let ask = |query: Query| {
            let snapshot = registry.snapshot(&Namespace::default(), &query);
            let question =
                Question { namespace: Namespace::default(), query, dialect: Codec::Json.into(), form: Form::List };
            encodings.answer(question, snapshot)
        };
        let (one, other) = tokio::join!(ask(Query::default()), ask(Query::default()));
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one, &other));
        assert_eq!(budget.status(0, 0).used, one.len as u64);
        let named = |name: &str| Query { zone: None, ..Query::service(name.parse().unwrap()) };
        let mut held = vec![one, other];
        let refusal = loop {
            let scope = roundsman_protocol::Scope::Registered;
            // The same instances under queries that differ: each answer is one more to keep.
            let services = std::iter::repeat_n("product".parse().unwrap(), held.len()).collect();
            match ask(Query { services, ..named("product").scope(scope) }).await {
                Ok(encoded) => held.push(encoded),
                Err(refusal) => break refusal,
            }
        };
        assert!(matches!(refusal, DiscoveryError::LimitReached { .. }));
        drop(held);
        encodings.kept.lock().unwrap().clear();
        assert_eq!(budget.status(0, 0).used, 0);
    }

    #[test]
    fn no_chunk_is_empty() {
        let registry = registry(2_000);
        let snapshot = registry.snapshot(&Namespace::default(), &Query::default());
        let (query, cursor) = (Query::default(), snapshot.cursor());
        let instances: Vec<_> = snapshot.matching(&query).collect();
        // Before version 3 nothing stands after the last instance.
        let dialect = Dialect { version: Version::V2, codec: Codec::Postcard };
        let chunks = |count| chunks(dialect, Form::List, cursor, &instances[..count]).unwrap();
        // The first chunk is full when the last instance ends it.
        let (mut fits, mut full) = (0, instances.len());
        while full - fits > 1 {
            let count = usize::midpoint(fits, full);
            if chunks(count)[0].len() < CHUNK { fits = count } else { full = count }
        }
        assert_eq!((chunks(fits).len(), chunks(full).len(), chunks(full + 1).len()), (1, 1, 2));
    }

    #[tokio::test]
    async fn an_answer_is_accounted_for_until_it_is_read() {
        let registry = registry(2_000);
        let budget = Budget::new(1 << 30);
        let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
        let query = Query::default();
        let snapshot = registry.snapshot(&Namespace::default(), &query);
        let question =
            Question { namespace: Namespace::default(), query, dialect: Codec::Json.into(), form: Form::List };
        let encoded = encodings.answer(question, snapshot).await.unwrap();
        let (len, mut outbox) = (encoded.len as u64, Outbox::default());
        encoded.put(Codec::Json, 1, &mut outbox).unwrap();
        drop(encoded);
        encodings.kept.lock().unwrap().clear();
        assert_eq!(budget.status(0, 0).used, len, "the client has not read it yet");
        drop(outbox);
        assert_eq!(budget.status(0, 0).used, 0);
    }

    #[tokio::test]
    async fn nobody_waits_for_one_who_asked_the_same_and_stands_still() {
        let registry = registry(500);
        let encodings = Encodings::new(Offload::start().unwrap(), Budget::new(1 << 30));
        let ask = || {
            let query = Query::default();
            let snapshot = registry.snapshot(&Namespace::default(), &query);
            let question =
                Question { namespace: Namespace::default(), query, dialect: Codec::Json.into(), form: Form::List };
            encodings.answer(question, snapshot)
        };
        // A connection whose client does not read lets none of its calls go on.
        let mut first = Box::pin(ask());
        assert!(futures::poll!(&mut first).is_pending());
        let second = tokio::time::timeout(Duration::from_secs(20), ask()).await.expect("an answer");
        assert!(Arc::ptr_eq(&second.unwrap(), &first.await.unwrap()));
    }
}
