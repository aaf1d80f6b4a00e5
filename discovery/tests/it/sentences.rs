//! Nobody is hung up on without a sentence.

use roundsman_discovery::Server;
use roundsman_protocol::{Codec, DiscoveryRequest, DiscoveryResponse};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Raw, SOON, server};

/// What a client is told before the server hangs up on it.
async fn refusal(server: &Server, greeting: &[u8]) -> String {
    let mut raw = Raw::silent(server).await;
    raw.send_bytes(greeting).await;
    let welcome = raw.receive().await.expect("a sentence before the close");
    assert_eq!(welcome["ok"], false, "{welcome}");
    assert!(raw.receive().await.is_none(), "and then the close");
    welcome["error"].as_str().expect("why").to_owned()
}

#[tokio::test]
async fn a_greeting_that_cannot_be_taken_is_told_why() {
    let server = server().await;
    for (greeting, told) in [
        (r#"{"roundsman":2}"#, "codec"),
        (r#"{"roundsman":2,"codec":"json""#, "handshake"),
        ("", "handshake"),
        (r#"{"roundsman":9,"codec":"json"}"#, "version"),
        (r#"{"roundsman":-2,"codec":"json"}"#, "-2"),
        (r#"{"roundsman":2,"codec":"json","codec":"json"}"#, "duplicate"),
    ] {
        let sentence = refusal(&server, greeting.as_bytes()).await;
        assert!(sentence.contains(told) && sentence.contains(' '), "{greeting}: {sentence}");
    }
    let sentence = refusal(&server, &vec![b' '; 4_097]).await;
    assert!(sentence.contains("4096"), "{sentence}");
    server.stop().await;
}

/// A connection after the handshake.
async fn greeted(server: &Server, codec: &str) -> Raw {
    let mut raw = Raw::silent(server).await;
    raw.send(&json!({"roundsman": 2, "codec": codec})).await;
    assert_eq!(raw.receive().await.unwrap()["ok"], true);
    raw
}

/// The next answer, in the codec of the connection; it has to be an error. Returns its sentence.
async fn told(raw: &mut Raw, codec: Codec) -> String {
    let frame = async {
        let length = raw.stream.read_u32().await.expect("a sentence before the close");
        let mut bytes = vec![0; length as usize];
        raw.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    let bytes = tokio::time::timeout(SOON, frame).await.expect("neither answered nor hung up");
    let answer: tarpc::Response<DiscoveryResponse> = codec.read(&bytes).unwrap();
    let sentence = answer.message.expect_err("an error").detail;
    assert!(sentence.contains(' '), "{sentence}");
    sentence
}

#[tokio::test]
async fn json_that_cannot_be_read_is_told_why_before_the_close() {
    let server = server().await;
    for (frame, why) in [
        ("not json", " "),
        ("", " "),
        ("{}", " "),
        (r#"{"Request":{"id":1,"message":{"Services":{}}"#, " "),
        (r#"{"Request":{"id":1,"id":1,"message":{"Services":{}}}}"#, "duplicate"),
        (r#"{"Request":{"id":-1,"message":{"Services":{}}}}"#, "-1"),
        (r#"{"Request":{"id":18446744073709551616,"message":{"Services":{}}}}"#, " "),
        (r#"{"Cancel":{"request_id":-1}}"#, "-1"),
    ] {
        let mut raw = greeted(&server, "json").await;
        raw.send_bytes(frame.as_bytes()).await;
        let sentence = told(&mut raw, Codec::Json).await;
        assert!(sentence.contains(why), "{frame}: {sentence}");
        assert!(raw.receive().await.is_none(), "{frame}: and then the close");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_duplicate_key_in_a_request_is_told_and_the_connection_goes_on() {
    let server = server().await;
    let mut raw = greeted(&server, "json").await;
    raw.send_bytes(br#"{"Request":{"id":7,"message":{"Get":{"service":"a","service":"b"}}}}"#).await;
    assert!(told(&mut raw, Codec::Json).await.contains("duplicate"));
    assert_eq!(raw.call(json!({"Services": {}})).await, json!({"Ok": []}));
    server.stop().await;
}

#[tokio::test]
async fn postcard_that_cannot_be_read_is_told_so_before_the_close() {
    let server = server().await;
    for frame in [&b""[..], b"\x05", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"{}"] {
        let mut raw = greeted(&server, "postcard").await;
        raw.send_bytes(frame).await;
        told(&mut raw, Codec::Postcard).await;
        assert!(raw.receive().await.is_none(), "{frame:?}: and then the close");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_oversized_frame_is_told_so_before_the_close() {
    let server = server().await;
    for (name, codec) in [("json", Codec::Json), ("postcard", Codec::Postcard)] {
        let mut raw = greeted(&server, name).await;
        // Some of what it announces is on its way already: the sentence must arrive all the same.
        raw.stream.write_u32(1_048_577).await.unwrap();
        raw.stream.write_all(&[b' '; 100_000]).await.unwrap();
        let sentence = told(&mut raw, codec).await;
        assert!(sentence.contains("--max-frame") || sentence.contains("1048576"), "{sentence}");
        assert!(raw.receive().await.is_none(), "{name}: and then the close");
    }
    server.stop().await;
}

/// Every method of postcard, with a body that is cut in its middle: told, and the connection goes
/// on.
#[tokio::test]
async fn a_request_that_is_cut_is_told_so_and_the_connection_goes_on() {
    let server = server().await;
    let mut raw = greeted(&server, "postcard").await;
    let message = DiscoveryRequest::Get { service: "product".parse().unwrap() };
    let request = tarpc::Request { context: tarpc::context::current(), id: 7, message };
    let frame = Codec::Postcard.write(&tarpc::ClientMessage::Request(request)).unwrap();
    for _ in 0..3 {
        raw.send_bytes(&frame[..frame.len() - 3]).await;
        told(&mut raw, Codec::Postcard).await;
    }
    server.stop().await;
}
