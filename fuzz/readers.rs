//! What is fed: everything that reads a stranger's bytes, and what must hold of it. The fuzzing
//! targets and the test command both run these.
#![allow(dead_code, reason = "each target needs one of them")]

use std::{fmt::Display, str::FromStr};

use roundsman_protocol::{
    Address, Codec, Dialect, DiscoveryRequest, InstanceId, Namespace, ServiceName, Timestamp, Version,
    handshake::Hello,
    time, v1, v2,
    wire::{Body, Head, read_request},
};

/// The first frame of a connection: it is a greeting, or the client is told what is wrong with it.
pub(crate) fn handshake(frame: &[u8]) {
    match Hello::read(frame) {
        Ok(hello) => {
            let again = Codec::Json.write(&hello).expect("what was read can be written");
            assert_eq!(Hello::read(&again), Ok(hello));
        }
        Err(sentence) => assert!(sentence.contains(' '), "{sentence:?}"),
    }
}

/// A frame of a connection that speaks JSON, in whichever version.
pub(crate) fn frame_json(frame: &[u8]) {
    for version in Version::ALL {
        if let Some(request) = request(Dialect { version, codec: Codec::Json }, frame) {
            Codec::Json.write(&request).expect("what was read can be written");
        }
    }
}

/// A frame of a connection that speaks postcard, in whichever version: what can be read is read again as the same.
pub(crate) fn frame_postcard(frame: &[u8]) {
    for version in Version::ALL {
        if let Some(request) = request(Dialect { version, codec: Codec::Postcard }, frame) {
            let written = body(version, request);
            let again = read_request(version, &Body::Postcard(&written)).expect("what was written can be read");
            assert_eq!(body(version, again), written, "version {version}");
        }
    }
}

/// A request in postcard, as a client of that version sends it.
fn body(version: Version, request: DiscoveryRequest) -> Vec<u8> {
    let written = match version {
        Version::V3 => Codec::Postcard.write(&request),
        Version::V2 => Codec::Postcard.write(&<v2::Request>::of(request).expect("it came so")),
        Version::V1 => Codec::Postcard.write(&v1::Request::of(request).expect("it came so")),
    };
    written.expect("what was read can be written")
}

/// Names, ids and addresses: what is accepted is written as something that is accepted as the same.
/// Times and durations may be rounded.
pub(crate) fn names(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    survives::<ServiceName>(text);
    survives::<Namespace>(text);
    survives::<InstanceId>(text);
    survives::<Address>(text);
    drop(text.parse::<Timestamp>().map(|at| at.to_string()));
    drop(time::parse(text).map(time::display));
}

/// In which version a file of the corpora is valid: `valid-list.v1` is one of version 1, `valid-list` of the current one.
pub(crate) fn version(name: &str) -> Version {
    let number = name.rsplit_once(".v").and_then(|(_, number)| number.parse().ok());
    number.and_then(Version::of).unwrap_or_default()
}

/// The request in a frame, when there is one.
pub(crate) fn request(dialect: Dialect, frame: &[u8]) -> Option<DiscoveryRequest> {
    match Head::read(dialect.codec, frame) {
        Ok(Head::Request { body, .. }) => read_request(dialect.version, &body).ok(),
        _ => None,
    }
}

fn survives<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text:?} became {value}");
    }
}
