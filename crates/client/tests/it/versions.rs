//! A server of an earlier release.

use std::time::Duration;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use roundsman::{
    Discovery, Error, Expect, NewInstance, Query,
    protocol::{
        Codec, Cursor, DiscoveryResponse, Dismissed, Page, Patch, Version,
        handshake::Hello,
        instance::{Outcome, Registered},
        v1,
        wire::{Answer, Head, read_request},
    },
};
use tokio::net::TcpStream;
use tokio_util::codec::{Framed, LengthDelimitedCodec};

use crate::{failing::impostor, support::soon};

/// Speaks version 1 in postcard, and nothing else: registers whatever comes, and lists nobody.
async fn serve(mut framed: Framed<TcpStream, LengthDelimitedCodec>) {
    let hello: Hello = serde_json::from_slice(&framed.next().await.unwrap().unwrap()).unwrap();
    if hello.roundsman != 1 {
        let refusal = format!(
            r#"{{"ok":false,"error":"this server speaks version 1 of the protocol, the client version {}"}}"#,
            hello.roundsman
        );
        return framed.send(Bytes::from(refusal)).await.unwrap();
    }
    framed.send(Bytes::from_static(br#"{"ok":true,"version":"0.1.0","server":"old"}"#)).await.unwrap();
    let (version, codec, cursor) = (Version::V1, Codec::Postcard, Cursor { epoch: 0, revision: 0 });
    while let Some(Ok(frame)) = framed.next().await {
        let Ok(Head::Request { id, body, .. }) = Head::read(codec, &frame) else { continue };
        let answer = match v1::Request::of(read_request(version, &body).unwrap()).unwrap() {
            v1::Request::Register { registration } => {
                let id = registration.id.unwrap();
                DiscoveryResponse::Register(Ok(Registered { id, outcome: Outcome::Created, replaced: Vec::new() }))
            }
            v1::Request::Deregister { .. } => DiscoveryResponse::Deregister(Ok(())),
            v1::Request::List { .. } => DiscoveryResponse::List(Ok(Page { cursor, instances: Vec::new(), next: None })),
            _ => continue,
        };
        let answer = codec.write(&Answer::new(version, id, &Ok(answer))).unwrap();
        framed.send(Bytes::from(answer)).await.unwrap();
    }
}

#[tokio::test]
async fn todays_client_gets_along_with_a_server_of_version_1() {
    let (addr, _tasks) = impostor(serve).await;
    let discovery = soon(Discovery::connect(addr)).await.unwrap();
    assert!(soon(discovery.list(Query::default())).await.unwrap().is_empty());
    let instance = || NewInstance::new("product", "10.0.0.7:7070").unwrap();
    drop(soon(discovery.register(instance())).await.unwrap());
    drop(soon(discovery.register(instance().identified())).await.unwrap());
    let refused = soon(discovery.register(instance().expect(Expect::body("me")))).await.unwrap_err();
    let Error::Invalid(invalid) = &refused else { panic!("{refused}") };
    assert_eq!(invalid.field, "check.expect");
    assert!(refused.to_string().contains("the server speaks version 1 of the protocol"), "{refused}");

    // What came later: done in another way where there is one, and refused in a sentence where there is none.
    let (id, hour) = ("product-1".parse().unwrap(), Duration::from_secs(3_600));
    assert_eq!(soon(discovery.dismiss(&id, None)).await, Ok(Dismissed::default()));
    let field = |refused: Error| match refused {
        Error::Invalid(invalid) => invalid.field,
        other => panic!("{other}"),
    };
    assert_eq!(field(soon(discovery.dismiss(&id, Some(hour))).await.unwrap_err()), "block");
    assert_eq!(field(soon(discovery.patch(&id, &Patch::default())).await.unwrap_err()), "update");
    assert_eq!(field(soon(discovery.register(instance().forget_after(hour))).await.unwrap_err()), "forget_after");
    // The connection is none the worse for it.
    assert!(soon(discovery.list(Query::default())).await.unwrap().is_empty());
}
