use std::time::Duration;

use roundsman_protocol::{
    Codec, DiscoveryResponse, Page, Registration, Timestamp, Update, digest::ALL_PARTS, wire::Answer as Written,
};
use roundsman_registry::{Draft, Registry};

use super::{super::outbox::Outbox, *};

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
    let (edits, _) = draft.finish(Timestamp::default());
    registry.apply(&edits);
    registry
}

fn dialects() -> impl Iterator<Item = Dialect> {
    let both = |version| [Codec::Postcard, Codec::Json].map(|codec| Dialect { version, codec });
    Version::ALL.into_iter().flat_map(both)
}

fn reading(registry: &Registry, query: Query) -> Reading {
    let snapshot = registry.snapshot(&Namespace::default(), &query);
    Reading::whole(query, snapshot)
}

async fn listed(
    encodings: &Encodings,
    registry: &Registry,
    codec: Codec,
    query: Query,
) -> Result<Arc<Encoded>, DiscoveryError> {
    encodings.answer(Namespace::default(), codec.into(), Form::List, reading(registry, query)).await
}

fn frame_of(encoded: &Encoded, codec: Codec) -> Vec<u8> {
    let (mut outbox, mut all) = (Outbox::default(), Vec::new());
    encoded.put(codec, 300, &mut outbox).unwrap();
    outbox.share([]);
    outbox.drain_into(&mut all);
    assert_eq!(u32::from_be_bytes(all[..4].try_into().unwrap()) as usize, all.len() - 4);
    all.split_off(4)
}

fn used(budget: &Budget) -> u64 {
    budget.status(0, 0).used
}

/// What tarpc would write of a page.
fn expected(
    dialect: Dialect,
    form: Form,
    reading: &Reading,
    most: usize,
) -> (Vec<u8>, Option<roundsman_protocol::Bookmark>) {
    let all: Vec<_> = reading.instances().collect();
    let next = all.get(most).map(|_| reading.cut.next(&all[most - 1]).unwrap());
    let instances = all.into_iter().take(most).collect();
    let (cursor, parts, snapshot) = (reading.cut.first, reading.cut.parts(), reading.cut.is_whole());
    let response = match form {
        Form::List => DiscoveryResponse::List(Ok(Page { cursor, instances, next: next.clone() })),
        Form::Watch => DiscoveryResponse::Watch(Ok(Update {
            snapshot,
            instances,
            parts,
            next: next.clone(),
            ..Update::unchanged(cursor)
        })),
    };
    (dialect.codec.write(&Written::new(dialect.version, 300, &Ok(response))).unwrap(), next)
}

#[tokio::test]
async fn long_answers_are_what_tarpc_would_write() {
    for count in [0, 1, 130, 2_000] {
        let registry = registry(count);
        let encodings = Encodings::new(Offload::start().unwrap(), Budget::new(1 << 30));
        for dialect in dialects() {
            for form in [Form::List, Form::Watch] {
                let reading = reading(&registry, Query::default());
                let (namespace, asked) = (Namespace::default(), reading.clone());
                let frame = frame_of(&encodings.answer(namespace, dialect, form, asked).await.unwrap(), dialect.codec);
                let mut most = usize::from(count).max(1);
                if dialect.version == Version::V3 {
                    assert!(frame.len() + 4 <= limits::PAGE_BYTES);
                    // As many as there are on the page.
                    let answer = roundsman_protocol::wire::read_response(dialect, &frame).unwrap();
                    most = match answer.message.unwrap() {
                        DiscoveryResponse::List(Ok(page)) => page.instances.len(),
                        DiscoveryResponse::Watch(Ok(update)) => update.instances.len(),
                        other => panic!("{other:?}"),
                    };
                    assert!(most >= usize::from(count.min(600)), "a page is full: {most}");
                }
                let (expected, _) = expected(dialect, form, &reading, most.max(1));
                assert!(frame == expected, "{dialect:?} {form:?} {count}");
            }
        }
    }
}

#[test]
fn a_page_of_parts_and_one_in_the_middle_are_what_tarpc_would_write() {
    let registry = registry(500);
    let all = reading(&registry, Query::default());
    let last = all.instances().nth(99).unwrap();
    for parts in [ALL_PARTS, 0b1011] {
        let cut = Cut::of(Cursor { epoch: 3, revision: 4 }, parts, &last);
        let reading = Reading { cut, ..all.clone() };
        for (form, codec) in [(Form::List, Codec::Json), (Form::Watch, Codec::Json), (Form::Watch, Codec::Postcard)] {
            let dialect: Dialect = codec.into();
            for most in [1, 500, 2_000, 4_000] {
                let sheet = Sheet { dialect, form, cut: &reading.cut };
                let chunks = sheet.write(reading.instances(), most).unwrap();
                let mut value = chunks.concat();
                let instances = match (form, codec) {
                    (Form::List, codec) => codec.read::<Page>(&value).unwrap().instances,
                    (Form::Watch, codec) => codec.read::<Update>(&value).unwrap().instances,
                };
                assert!(!instances.is_empty() && instances[0].id > last.id);
                let (expected, next) = expected(dialect, form, &reading, instances.len());
                let whole = reading.instances().count() == instances.len();
                assert_eq!(next.is_none(), whole);
                if codec == Codec::Json {
                    value.extend_from_slice(b"}}}}");
                }
                assert!(expected.ends_with(&value), "{form:?} {codec:?} {most}");
            }
        }
    }
}

#[tokio::test]
async fn one_instance_that_is_larger_than_a_page_is_a_page() {
    let registry = registry(100);
    let encodings = Encodings::with_pages(Offload::start().unwrap(), Budget::new(1 << 30), 1);
    let encoded = listed(&encodings, &registry, Codec::Json, Query::default()).await.unwrap();
    let page = frame_of(&encoded, Codec::Json);
    let answer = roundsman_protocol::wire::read_response(Codec::Json.into(), &page).unwrap();
    let Ok(DiscoveryResponse::List(Ok(page))) = answer.message else { panic!("{answer:?}") };
    assert_eq!((page.instances.len(), page.next.is_some()), (1, true));
}

#[tokio::test]
async fn whoever_asks_the_same_at_the_same_moment_shares_the_bytes_and_the_budget_bounds_them() {
    let registry = registry(500);
    let budget = Budget::new(1 << 20);
    let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
    let ask = |query| listed(&encodings, &registry, Codec::Json, query);
    let (one, other) = tokio::join!(ask(Query::default()), ask(Query::default()));
    let (one, other) = (one.unwrap(), other.unwrap());
    assert!(Arc::ptr_eq(&one, &other));
    let kept = (SLOT + Query::default().bytes()) as u64;
    assert_eq!(used(&budget), one.len() as u64 + kept);
    let mut held = vec![one, other];
    let refusal = loop {
        // The same instances under queries that differ: each answer is one more to keep.
        let services = std::iter::repeat_n("product".parse().unwrap(), held.len()).collect();
        match ask(Query { services, ..Query::default() }).await {
            Ok(encoded) => held.push(encoded),
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, DiscoveryError::LimitReached { .. }));
    assert!(held.len() > 4);
    drop(held);
    encodings.shelf().clear(&Namespace::default());
    assert!(used(&budget) < 2 * kept, "only the answer that could not be made is remembered");
}

#[tokio::test]
async fn what_is_kept_for_the_next_one_gives_way_to_whoever_asks_now() {
    let registry = registry(500);
    let budget = Budget::new(1 << 20);
    let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
    for n in 0..100 {
        let services = std::iter::repeat_n("product".parse().unwrap(), n + 1).collect();
        listed(&encodings, &registry, Codec::Json, Query { services, ..Query::default() }).await.unwrap();
        assert!(used(&budget) <= (1 << 20) / 2, "not all that callers may have: {}", used(&budget));
    }
    assert_eq!(budget.status(0, 0).refused, 0);
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asks_for_any_more_is_dropped() {
    let registry = registry(500);
    let budget = Budget::new(1 << 30);
    let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
    drop(listed(&encodings, &registry, Codec::Json, Query::default()).await.unwrap());
    encodings.tidy();
    assert!(used(&budget) > 0);
    tokio::time::advance(Duration::from_secs(3)).await;
    encodings.tidy();
    assert_eq!(used(&budget), 0);
}

#[test]
fn no_chunk_is_empty() {
    let registry = registry(2_000);
    let reading = reading(&registry, Query::default());
    // Before version 3 nothing stands after the last instance.
    let dialect = Dialect { version: Version::V2, codec: Codec::Postcard };
    let sheet = Sheet { dialect, form: Form::List, cut: &reading.cut };
    let chunks = |count| sheet.write(reading.instances().take(count), usize::MAX).unwrap();
    // The first chunk is full when the last instance ends it.
    let (mut fits, mut full) = (0, 2_000);
    while full - fits > 1 {
        let count = usize::midpoint(fits, full);
        if chunks(count + 1).len() == 1 { fits = count } else { full = count }
    }
    assert_eq!((chunks(fits).len(), chunks(full).len(), chunks(full + 1).len()), (1, 1, 2));
}

#[tokio::test]
async fn an_answer_is_accounted_for_until_it_is_read() {
    let registry = registry(2_000);
    let budget = Budget::new(1 << 30);
    let encodings = Encodings::new(Offload::start().unwrap(), Arc::clone(&budget));
    let encoded = listed(&encodings, &registry, Codec::Json, Query::default()).await.unwrap();
    let (len, mut outbox) = (encoded.len() as u64, Outbox::default());
    encoded.put(Codec::Json, 1, &mut outbox).unwrap();
    drop(encoded);
    encodings.shelf().clear(&Namespace::default());
    assert_eq!(used(&budget), len, "the client has not read it yet");
    drop(outbox);
    assert_eq!(used(&budget), 0);
}

#[tokio::test]
async fn nobody_waits_for_one_who_asked_the_same_and_stands_still() {
    let registry = registry(500);
    let encodings = Encodings::new(Offload::start().unwrap(), Budget::new(1 << 30));
    let ask = || listed(&encodings, &registry, Codec::Json, Query::default());
    // A connection whose client does not read lets none of its calls go on.
    let mut first = Box::pin(ask());
    assert!(futures::poll!(&mut first).is_pending());
    let second = tokio::time::timeout(Duration::from_secs(60), ask()).await.expect("an answer");
    assert!(Arc::ptr_eq(&second.unwrap(), &first.await.unwrap()));
}
