//! Bodies that break off: of answers, and of requests whose own caller cannot deliver them, as a proxy whose client has gone.

use std::io;

use futures::stream;
use roundsman::{Policy, http::Body};

#[cfg(feature = "middleware")]
use crate::middleware::{ours, with};
use crate::{
    backend::{Manner, Service, patient},
    support::{client, eventually, server, soon},
};

/// A body that breaks off in the middle.
fn broken<T: Into<bytes::Bytes> + Send + 'static>(first: T) -> Body {
    let gone = Err(io::Error::other("whoever sent it to us has gone"));
    Body::from_stream(stream::iter([Ok(first.into()), gone]))
}

#[tokio::test]
async fn an_upload_that_its_caller_breaks_off_is_no_fault_of_the_instance() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Well, Manner::Well]).await;
    let (product, resolver) = (patient(&discovery, "product"), discovery.resolver("product").await.unwrap());
    for _ in 0..20 {
        let error = soon(product.post("/picture").body(broken("an ")).send()).await.unwrap_err();
        assert!(error.maybe_sent() && error.to_string().contains("has gone"), "{error}");
        assert_eq!(error.tries().len(), 1);
    }
    // Nor is one that another call has read before.
    let body = broken("an ");
    for _ in 0..20 {
        soon(product.put("/picture").body(body.clone()).send()).await.unwrap_err();
    }
    assert!(resolver.ejected().is_empty(), "{:?}", resolver.ejected());
    assert_eq!(service.count(), 0, "nothing arrived as a whole");
    server.stop().await;
}

#[cfg(feature = "middleware")]
#[tokio::test]
async fn nor_is_one_through_a_client_of_ones_own() {
    let server = server().await;
    let discovery = client(&server).await;
    let _service = Service::start(&discovery, &[Manner::Well, Manner::Well, Manner::Well]).await;
    let (http, resolver) = (with(discovery.middleware()), discovery.resolver("product").await.unwrap());
    let theirs = || {
        let gone = io::Error::other("whoever sent it to us has gone");
        let pieces = [Ok(http_body::Frame::data(bytes::Bytes::from("an "))), Err(gone)];
        reqwest::Body::wrap(http_body_util::StreamBody::new(stream::iter(pieces)))
    };
    for n in 0..40 {
        let body = if n % 2 == 0 { theirs() } else { broken("an ").into() };
        let error = ours(soon(http.post("http://product.roundsman/picture").body(body).send()).await.unwrap_err());
        assert!(error.maybe_sent() && error.to_string().contains("broke off: whoever sent it to us"), "{error}");
    }
    assert!(resolver.ejected().is_empty(), "{:?}", resolver.ejected());
    server.stop().await;
}

#[tokio::test]
async fn an_answer_that_breaks_off_counts_against_its_instance_whoever_reads_it() {
    let server = server().await;
    for passed_on in [false, true] {
        let discovery = client(&server).await;
        let service = Service::start(&discovery, &[Manner::Well, Manner::ResetInBody, Manner::Well]).await;
        let (product, resolver) = (patient(&discovery, "product"), discovery.resolver("product").await.unwrap());
        let product = product.policy(Policy::RoundRobin);
        eventually("it is passed over", async || {
            let answer = soon(product.get("/").stream()).await.unwrap();
            if passed_on {
                drop(soon(http_body_util::BodyExt::collect(answer.into_http().into_body())).await);
            } else {
                drop(soon(answer.read()).await);
            }
            resolver.ejected().iter().any(|instance| instance.id.as_str() == "i1")
        })
        .await;
        let asked = service.backends[1].seen().len();
        assert!((5..=6).contains(&asked), "{asked}");
        discovery.close().await;
    }
    server.stop().await;
}

#[cfg(feature = "grpc")]
mod messages {
    use futures::{StreamExt, stream};
    use http_body_util::BodyExt;
    use roundsman::{Discovery, Registration};
    use tokio::sync::oneshot;
    use tonic::Status;
    use tower::Service;

    use super::{Body, broken, client, server, soon};
    use crate::{
        shop::{Manner, Shop},
        support::instance,
    };

    /// The message "a".
    const A: &[u8] = b"\0\0\0\0\x03\x0a\x01a";

    async fn shops(discovery: &Discovery) -> Vec<(Shop, Registration)> {
        let mut shops = Vec::new();
        for _ in 0..3 {
            let shop = Shop::start(Manner::Well).await;
            let registration = discovery.register(instance("product", shop.addr.port())).await.unwrap();
            shops.push((shop, registration));
        }
        shops
    }

    async fn call(discovery: &Discovery, path: &str, body: Body) -> Result<http::Response<tonic::body::Body>, Status> {
        let request = http::Request::post(format!("http://product{path}")).header("content-type", "application/grpc");
        soon(discovery.grpc("product").call(request.header("te", "trailers").body(body).unwrap())).await
    }

    #[tokio::test]
    async fn a_stream_that_its_caller_breaks_off_is_no_fault_of_the_instance() {
        let server = server().await;
        let discovery = client(&server).await;
        let (_shops, resolver) = (shops(&discovery).await, discovery.resolver("product").await.unwrap());
        for _ in 0..20 {
            let status = call(&discovery, "/test.Shop/Join", broken(A)).await.unwrap_err();
            assert!(status.message().contains("body of the request broke off"), "{status}");
        }
        assert!(resolver.ejected().is_empty(), "{:?}", resolver.ejected());
        server.stop().await;
    }

    #[tokio::test]
    async fn nor_is_one_that_it_breaks_off_while_it_is_answered() {
        let server = server().await;
        let discovery = client(&server).await;
        let (_shops, resolver) = (shops(&discovery).await, discovery.resolver("product").await.unwrap());
        for _ in 0..20 {
            let (leave, left) = oneshot::channel::<()>();
            let gone = stream::once(async {
                drop(left.await);
                Err(std::io::Error::other("whoever sent it to us has gone"))
            });
            let body = Body::from_stream(stream::iter([Ok(A)]).chain(gone));
            let mut answer = call(&discovery, "/test.Shop/Chat", body).await.unwrap().into_body();
            assert!(soon(answer.frame()).await.unwrap().unwrap().is_data());
            drop(leave);
            let status = soon(answer.frame()).await.unwrap().unwrap_err();
            assert!(status.message().contains("body of the request broke off"), "{status}");
        }
        assert!(resolver.ejected().is_empty(), "{:?}", resolver.ejected());
        server.stop().await;
    }
}
