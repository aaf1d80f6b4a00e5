//! The RPC door, in both codecs.

use proptest::{
    prelude::{Strategy, any},
    strategy::ValueTree,
    test_runner::TestRunner,
};
use roundsman_protocol::{
    Codec, Dialect, DiscoveryRequest, Version,
    handshake::{Hello, Welcome},
    wire::{Head, read_request, read_response, write_message},
};

use super::{assert_stands, converse, server};
use crate::{
    mutations::{Mutation, corpus, mutation, valid},
    support::{Raw, config},
};

/// The id of a last call, which shows that the connection is still served.
const LAST: u64 = 987_654_321;

/// What one client says.
#[derive(Clone, Debug)]
struct Session {
    dialect: Dialect,
    greeting: Option<Vec<Mutation>>,
    frames: Vec<(usize, Vec<Mutation>)>,
    /// A length that is not that of its frame.
    lie: Option<(usize, u32)>,
}

/// What the server must have said in return, as far as that can be told from the bytes sent.
#[derive(Debug, PartialEq)]
enum Expected {
    /// Nothing: a frame is incomplete, and it is the client who hangs up.
    Anything,
    /// The greeting is refused.
    Refusal,
    /// At least so many errors, and then either the end or an answer to the last call.
    Errors { at_least: usize, last_answered: bool },
}

fn session() -> impl Strategy<Value = Session> {
    let mutations = |most| proptest::collection::vec(mutation(), 0..most);
    let frames = proptest::collection::vec((any::<usize>(), mutations(3)), 1..8);
    let greeting = proptest::option::weighted(0.15, mutations(3));
    let lie = proptest::option::weighted(0.15, (any::<usize>(), any::<u32>()));
    (0..dialects().len(), greeting, frames, lie).prop_map(|(dialect, greeting, frames, lie)| Session {
        dialect: dialects()[dialect],
        greeting,
        frames,
        lie,
    })
}

fn dialects() -> Vec<Dialect> {
    let both = |version| [Codec::Json, Codec::Postcard].map(|codec| Dialect { version, codec });
    Version::ALL.into_iter().flat_map(both).collect()
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&u32::try_from(message.len()).unwrap().to_be_bytes(), message].concat()
}

fn target(codec: Codec) -> &'static str {
    if codec == Codec::Json { "frame_json" } else { "frame_postcard" }
}

fn greeting(dialect: Dialect) -> Vec<u8> {
    let codec = if dialect.codec == Codec::Json { "json" } else { "postcard" };
    format!("{{\"roundsman\":{},\"codec\":\"{codec}\"}}", dialect.version).into_bytes()
}

fn last_call(dialect: Dialect) -> Vec<u8> {
    let message = DiscoveryRequest::Services {};
    let request = tarpc::Request { context: tarpc::context::current(), id: LAST, message };
    write_message(dialect, &tarpc::ClientMessage::Request(request)).unwrap()
}

/// What a connection speaks that was greeted so.
fn agreed(hello: &[u8]) -> Option<Dialect> {
    let hello = Hello::read(hello).ok()?;
    hello.agree().ok().map(|version| Dialect { version, codec: hello.codec })
}

impl Session {
    /// The bytes of the greeting, and all that follow.
    fn bytes(&self) -> (Vec<u8>, Vec<u8>) {
        let valid = valid(target(self.dialect.codec));
        let mut hello = greeting(self.dialect);
        let others = [hello.clone()];
        self.greeting.iter().flatten().for_each(|mutation| mutation.apply(&mut hello, &others));
        let mut rest = Vec::new();
        for (nth, (which, mutations)) in self.frames.iter().enumerate() {
            let mut message = valid[which % valid.len()].clone();
            mutations.iter().for_each(|mutation| mutation.apply(&mut message, &valid));
            let mut bytes = frame(&message);
            if let Some((_, length)) = self.lie.filter(|(at, _)| at % self.frames.len() == nth) {
                bytes[..4].copy_from_slice(&length.to_be_bytes());
            }
            rest.extend(bytes);
        }
        rest.extend(frame(&last_call(self.dialect)));
        (frame(&hello), rest)
    }
}

/// The frames in some bytes, and what is left of them.
fn split(mut bytes: &[u8]) -> (Vec<&[u8]>, &[u8]) {
    let mut frames = Vec::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let Some((frame, rest)) = rest.split_at_checked(u32::from_be_bytes(*length) as usize) else { break };
        frames.push(frame);
        bytes = rest;
    }
    (frames, bytes)
}

fn expected(greeting: &[u8], rest: &[u8]) -> Expected {
    let Some(dialect) = agreed(&greeting[4..]) else { return Expected::Refusal };
    let (frames, left) = split(rest);
    let mut at_least = 0;
    for frame in frames.iter().filter(|frame| frame.len() <= config("memory:").max_frame) {
        match Head::read(dialect.codec, frame) {
            Err(_) => return Expected::Errors { at_least: at_least + 1, last_answered: false },
            Ok(Head::Request { body, .. }) => at_least += usize::from(read_request(dialect.version, &body).is_err()),
            Ok(Head::Cancel { .. }) => {}
        }
    }
    match left.first_chunk::<4>() {
        None if left.is_empty() => Expected::Errors { at_least, last_answered: true },
        Some(length) if u32::from_be_bytes(*length) as usize > config("memory:").max_frame => {
            Expected::Errors { at_least: at_least + 1, last_answered: false }
        }
        _ => Expected::Anything,
    }
}

/// What the server said. Whatever was sent, it is well-formed.
#[derive(Debug, Default)]
struct Heard {
    refused: Option<String>,
    errors: Vec<String>,
    last_answered: bool,
}

impl Heard {
    fn read(dialect: Dialect, bytes: &[u8]) -> Self {
        let (frames, left) = split(bytes);
        assert!(left.is_empty(), "half a frame: {left:?}");
        let mut heard = Self::default();
        let Some((welcome, answers)) = frames.split_first() else { return heard };
        let welcome: Welcome = serde_json::from_slice(welcome).unwrap();
        assert!(welcome.ok || answers.is_empty(), "refused and answered");
        heard.refused = welcome.error;
        for answer in answers {
            let answer = read_response(dialect, answer).unwrap();
            heard.last_answered |= answer.request_id == LAST && answer.message.is_ok();
            heard.errors.extend(answer.message.err().map(|error| error.detail));
        }
        heard
    }
}

/// The last call to a server that was greeted so.
fn last_call_after(hello: &[u8]) -> Vec<u8> {
    frame(&last_call(agreed(hello).unwrap_or(Codec::Json.into())))
}

/// Whether the last call was answered, which is the end when the client does not hang up.
fn is_answered(dialect: Dialect, bytes: &[u8]) -> bool {
    let (frames, _) = split(bytes);
    frames.iter().skip(1).any(|frame| read_response(dialect, frame).is_ok_and(|answer| answer.request_id == LAST))
}

/// Holds one session and returns what had to come of it, and what came.
async fn hold(server: &roundsman_discovery::Server, dialect: Dialect, hello: &[u8], rest: &[u8]) -> (Expected, Heard) {
    let expected = expected(hello, rest);
    // A greeting that was damaged may name another codec or version.
    let dialect = agreed(&hello[4..]).unwrap_or(dialect);
    let hang_up = expected == Expected::Anything;
    let said = [hello, rest].concat();
    let heard = converse(server.rpc_addr(), &said, hang_up, |heard| is_answered(dialect, heard)).await;
    (expected, Heard::read(dialect, &heard))
}

#[tokio::test]
async fn the_rpc_door_stands_whatever_is_sent() {
    let server = server().await;
    let mut bystander = Raw::connect(&server).await;
    for (_, hello) in corpus("handshake") {
        hold(&server, Codec::Json.into(), &frame(&hello), &last_call_after(&hello)).await;
    }
    for dialect in dialects() {
        for (_, message) in corpus(target(dialect.codec)) {
            let rest = [frame(&message), frame(&last_call(dialect))].concat();
            hold(&server, dialect, &frame(&greeting(dialect)), &rest).await;
        }
    }
    assert_stands(&server, &mut bystander).await;
    let (sessions, mut runner) = (session(), TestRunner::deterministic());
    for nth in 0..600 {
        let session = sessions.new_tree(&mut runner).unwrap().current();
        let (hello, rest) = session.bytes();
        let (expected, heard) = hold(&server, session.dialect, &hello, &rest).await;
        if let Expected::Errors { last_answered: true, .. } = expected {
            assert!(heard.last_answered, "the last call is not answered: {session:?}: {heard:?}");
        }
        if nth % 20 == 19 {
            assert_stands(&server, &mut bystander).await;
        }
    }
    server.stop().await;
}

fn assert_told(session: &dyn std::fmt::Debug, expected: &Expected, heard: &Heard) {
    match expected {
        Expected::Anything => {}
        Expected::Refusal => {
            let sentence = heard.refused.as_ref().unwrap_or_else(|| panic!("not told why: {session:?}: {heard:?}"));
            assert!(sentence.contains(' '), "{sentence}");
        }
        Expected::Errors { at_least, .. } => {
            assert!(heard.errors.len() >= *at_least, "not told of {at_least} errors: {session:?}: {heard:?}");
            assert!(heard.errors.iter().all(|error| error.contains(' ')), "{heard:?}");
        }
    }
}

#[tokio::test]
async fn no_session_ends_without_a_sentence() {
    let server = server().await;
    for (name, hello) in corpus("handshake").into_iter().filter(|(name, _)| name.starts_with("bad")) {
        let (expected, heard) = hold(&server, Codec::Json.into(), &frame(&hello), &last_call_after(&hello)).await;
        assert_told(&name, &expected, &heard);
    }
    for dialect in dialects() {
        for (name, message) in corpus(target(dialect.codec)) {
            let rest = [frame(&message), frame(&last_call(dialect))].concat();
            let (expected, heard) = hold(&server, dialect, &frame(&greeting(dialect)), &rest).await;
            assert_told(&name, &expected, &heard);
        }
    }
    let (sessions, mut runner) = (session(), TestRunner::deterministic());
    for _ in 0..300 {
        let session = sessions.new_tree(&mut runner).unwrap().current();
        let (hello, rest) = session.bytes();
        let (expected, heard) = hold(&server, session.dialect, &hello, &rest).await;
        assert_told(&session, &expected, &heard);
    }
    server.stop().await;
}
