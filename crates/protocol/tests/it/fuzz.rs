//! The corpora of the fuzzing targets, as they are and damaged.

use proptest::prelude::*;
use roundsman_protocol::{
    Codec, Dialect, DiscoveryRequest, Version,
    handshake::Hello,
    wire::{Head, write_message},
};

use crate::{
    mutations::{Mutation, corpus, mutation, valid},
    readers,
};

/// Reads whatever is sent, and never panics.
type Reader = fn(&[u8]);

const TARGETS: [(&str, Reader); 4] = [
    ("handshake", readers::handshake),
    ("frame_json", readers::frame_json),
    ("frame_postcard", readers::frame_postcard),
    ("names", readers::names),
];

#[test]
fn the_corpora_are_read_without_a_panic() {
    for (target, read) in TARGETS {
        let files = corpus(target);
        assert!(files.len() >= 10, "{target}");
        for (name, message) in files {
            println!("{target}/{name}");
            read(&message);
        }
    }
}

/// Fields are added to the protocol: what is called valid must remain so.
#[test]
fn what_is_called_valid_is_valid() {
    for (name, greeting) in corpus("handshake") {
        assert_eq!(Hello::read(&greeting).is_ok(), name.starts_with("valid"), "{name}");
    }
    for (codec, target) in [(Codec::Json, "frame_json"), (Codec::Postcard, "frame_postcard")] {
        for (name, frame) in corpus(target).into_iter().filter(|(name, _)| name.starts_with("valid")) {
            let cancel = matches!(Head::read(codec, &frame), Ok(Head::Cancel { .. }));
            let dialect = Dialect { version: readers::version(&name), codec };
            assert!(cancel || readers::request(dialect, &frame).is_some(), "{target}/{name}");
        }
    }
}

#[test]
fn valid_frames_say_the_same_in_both_codecs() {
    let json = corpus("frame_json");
    for (name, frame) in corpus("frame_postcard").into_iter().filter(|(name, _)| name.starts_with("valid")) {
        let version = readers::version(&name);
        let plain = name.split(".v").next();
        let (_, same) = json.iter().find(|(other, _)| Some(&**other) == plain).unwrap_or_else(|| panic!("{name}"));
        let said = |codec, frame| readers::request(Dialect { version, codec }, frame);
        let (a, b) = (said(Codec::Postcard, &frame), said(Codec::Json, same));
        assert_eq!(a.map(|request| format!("{request:?}")), b.map(|request| format!("{request:?}")), "{name}");
    }
}

fn damaged(target: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let messages = valid(target);
    let messages =
        if messages.is_empty() { corpus(target).into_iter().map(|(_, text)| text).collect() } else { messages };
    (any::<usize>(), proptest::collection::vec(mutation(), 1..5)).prop_map(
        move |(which, mutations): (_, Vec<Mutation>)| {
            let mut message = messages[which % messages.len()].clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut message, &messages));
            message
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_greetings_are_refused_with_a_sentence(frame in damaged("handshake")) {
        readers::handshake(&frame);
    }

    #[test]
    fn damaged_json_is_refused_and_never_panics(frame in damaged("frame_json")) {
        readers::frame_json(&frame);
        readers::frame_postcard(&frame);
    }

    #[test]
    fn damaged_postcard_is_refused_and_never_panics(frame in damaged("frame_postcard")) {
        readers::frame_postcard(&frame);
        readers::frame_json(&frame);
    }

    #[test]
    fn damaged_names_are_refused_or_written_as_they_are_read(text in damaged("names")) {
        readers::names(&text);
    }
}

/// With `-- --ignored`: the valid frames in JSON, in postcard, and in each version that can say the same.
#[test]
#[ignore = "only by hand, when the protocol has grown"]
fn the_postcard_corpus_is_written_anew() {
    for (name, frame) in corpus("frame_json").into_iter().filter(|(name, _)| name.starts_with("valid")) {
        for version in Version::ALL {
            let message = match Head::read(Codec::Json, &frame).unwrap() {
                Head::Request { id, .. } => {
                    let Some(message) = readers::request(Dialect { version, codec: Codec::Json }, &frame) else {
                        continue;
                    };
                    tarpc::ClientMessage::Request(tarpc::Request { context: tarpc::context::current(), id, message })
                }
                Head::Cancel { id } => tarpc::ClientMessage::<DiscoveryRequest>::Cancel {
                    trace_context: tarpc::trace::Context::default(),
                    request_id: id,
                },
            };
            let suffix = if version == Version::CURRENT { String::new() } else { format!(".v{version}") };
            let Ok(written) = write_message(Dialect { version, codec: Codec::Postcard }, &message) else { continue };
            std::fs::write(format!("../../fuzz/corpus/frame_postcard/{name}{suffix}"), written).unwrap();
        }
    }
}
