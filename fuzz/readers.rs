//! What is fed: everything that reads a stranger's bytes, and what must hold of it. The fuzzing
//! targets and the test command both run these.
#![allow(dead_code, reason = "each target needs one of them")]

use std::{fmt::Display, str::FromStr};

use roundsman_protocol::{
    Address, Codec, DiscoveryRequest, InstanceId, Namespace, ServiceName, Timestamp,
    handshake::Hello,
    time,
    wire::{Head, read_request},
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

/// A frame of a connection that speaks JSON.
pub(crate) fn frame_json(frame: &[u8]) {
    if let Some(request) = request(Codec::Json, frame) {
        Codec::Json.write(&request).expect("what was read can be written");
    }
}

/// A frame of a connection that speaks postcard: what can be read is read again as the same.
pub(crate) fn frame_postcard(frame: &[u8]) {
    if let Some(request) = request(Codec::Postcard, frame) {
        let written = Codec::Postcard.write(&request).expect("what was read can be written");
        let again: DiscoveryRequest = Codec::Postcard.read(&written).expect("what was written can be read");
        assert_eq!(Codec::Postcard.write(&again).expect("and written"), written);
    }
}

/// Names, ids and addresses: what is accepted is written as something that is accepted as the same.
/// Times and durations may be rounded.
pub(crate) fn names(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    survives::<ServiceName>(text);
    survives::<Namespace>(text);
    survives::<InstanceId>(text);
    survives::<Address>(text);
    drop(text.parse::<Timestamp>().map(|at| at.to_string()));
    drop(time::parse(text).map(time::display));
}

/// The request in a frame, when there is one.
pub(crate) fn request(codec: Codec, frame: &[u8]) -> Option<DiscoveryRequest> {
    match Head::read(codec, frame) {
        Ok(Head::Request { body, .. }) => read_request(&body).ok(),
        _ => None,
    }
}

fn survives<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string().parse::<T>();
        assert!(again.is_ok_and(|again| again == value), "{text:?} became {value}");
    }
}
