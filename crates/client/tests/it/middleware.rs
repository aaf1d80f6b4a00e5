//! Calls by the name of a service through a client of one's own.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::Extensions;
use reqwest::{Request, Response, StatusCode};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware, Next};
use roundsman::{
    Instance, TraceContext,
    http::Error,
    middleware::{Idempotent, Middleware},
};

use crate::{
    backend::{Backend, Manner, Service},
    support::{HANG, StoppedClock, client, nowhere, server, soon},
};

const PRODUCT: &str = "http://product.roundsman/product/aaa";

pub(crate) fn with(middleware: Middleware) -> ClientWithMiddleware {
    // A certificate store is not needed, and may be missing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    ClientBuilder::new(plain).with(middleware).build()
}

/// The error that was ours.
pub(crate) fn ours(error: reqwest_middleware::Error) -> Error {
    match error {
        reqwest_middleware::Error::Middleware(error) => error.downcast().unwrap(),
        reqwest_middleware::Error::Reqwest(error) => panic!("not ours: {error}"),
    }
}

#[tokio::test]
async fn urls_of_services_lead_to_their_instances() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Status(503)]).await;
    let http = with(discovery.middleware());
    for _ in 0..50 {
        let answer = soon(http.get(PRODUCT).send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.extensions().get::<Arc<Instance>>().unwrap().id.as_str(), "i0");
        assert!(answer.text().await.unwrap().starts_with("GET /product/aaa HTTP/1.1 of "));
    }
    assert!(service.count() <= 60, "{}", service.count());
    let trace = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None).unwrap();
    Box::pin(trace.clone().scope(soon(http.get("http://PRODUCT.Roundsman").send()))).await.unwrap();
    let seen = service.backends[0].seen().pop().unwrap();
    assert_eq!(seen.header("traceparent"), Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
    server.stop().await;
}

#[tokio::test]
async fn other_hosts_are_none_of_its_business() {
    let server = server().await;
    let discovery = client(&server).await;
    let elsewhere = Backend::start(Manner::Status(503)).await;
    let http = with(discovery.middleware());
    let answer = soon(http.get(format!("http://{}/", elsewhere.addr)).send()).await.unwrap();
    assert_eq!((answer.status(), elsewhere.seen().len()), (StatusCode::SERVICE_UNAVAILABLE, 1), "not repeated");
    let gone = soon(http.get(format!("http://{}/", nowhere().await)).send()).await.unwrap_err();
    assert!(matches!(gone, reqwest_middleware::Error::Reqwest(_)), "{gone}");
    server.stop().await;
}

#[tokio::test]
async fn errors_are_those_of_calls() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang; 3]).await;
    let (clock, limit) = (StoppedClock::new(), Duration::from_millis(300));
    let http = with(discovery.middleware().timeout(limit));
    let unknown = ours(clock.still(http.get("http://nobody.roundsman/").send()).await.unwrap_err());
    assert!(unknown.is_not_found(), "{unknown}");
    for url in [
        "http://a.b.roundsman/",
        "https://product.roundsman/",
        "http://product.roundsman:80/",
        "http://product.roundsman:81/",
    ] {
        let result = service.hanging(&clock, limit, http.get(url).send()).await;
        if url.ends_with(":80/") {
            // The scheme's own port, which the URL's parser drops.
            assert!(matches!(ours(result.unwrap_err()), Error::Deadline { .. }));
            continue;
        }
        let error = ours(result.unwrap_err());
        assert!(!error.maybe_sent() && error.tries().is_empty(), "{url}: {error}");
    }
    let before = service.count();
    let error = ours(service.hanging(&clock, limit, http.post(PRODUCT).body("x").send()).await.unwrap_err());
    assert!(matches!(error, Error::Deadline { .. }) && error.maybe_sent());
    assert_eq!(service.count(), before + 1);
    let limit = Duration::from_millis(50);
    let http = with(discovery.middleware().try_timeout(limit).tries(2));
    let request = http.post(PRODUCT).body("x").with_extension(Idempotent(true));
    let error = ours(service.hanging(&clock, limit, request.send()).await.unwrap_err());
    assert!(matches!(error, Error::Failed { .. }) && error.tries().len() == 2, "{error}");
    assert_eq!(service.count(), before + 3);
    // The request's own timeout is the whole time, its body included.
    for backend in &service.backends {
        backend.behave(Manner::Slow(Duration::from_millis(20)));
    }
    let http = with(discovery.middleware());
    let answer = clock.still(http.get(PRODUCT).timeout(Duration::from_millis(300)).send()).await.unwrap();
    assert!(clock.passing(Duration::from_millis(20), answer.text()).await.unwrap_err().is_timeout());
    drop(clock);
    discovery.close().await;
    let closed = ours(soon(http.get(PRODUCT).send()).await.unwrap_err());
    assert!(matches!(closed, Error::Discovery(roundsman::Error::Closed)), "{closed}");
    server.stop().await;
}

#[tokio::test]
async fn two_tries_of_one_request_may_be_under_way() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang, Manner::Well]).await;
    let (clock, patience) = (StoppedClock::new(), Duration::from_millis(100));
    let middleware = discovery.middleware().timeout(HANG).hedge_after(patience);
    let http = with(middleware.policy(roundsman::Policy::RoundRobin));
    for _ in 0..2 {
        let answer = service.hanging(&clock, patience, http.get(PRODUCT).send()).await.unwrap();
        assert_eq!(answer.extensions().get::<Arc<Instance>>().unwrap().id.as_str(), "i1");
    }
    assert!(!service.backends[0].seen().is_empty());
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn layers_behind_it_see_each_try_and_may_refuse() {
    #[derive(Debug, thiserror::Error)]
    #[error("not today")]
    struct NotToday;
    struct Third(AtomicUsize);
    #[async_trait::async_trait]
    impl reqwest_middleware::Middleware for Third {
        async fn handle(
            &self,
            request: Request,
            extensions: &mut Extensions,
            next: Next<'_>,
        ) -> reqwest_middleware::Result<Response> {
            if self.0.fetch_add(1, Ordering::Relaxed) == 2 {
                return Err(reqwest_middleware::Error::middleware(NotToday));
            }
            next.run(request, extensions).await
        }
    }
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Status(503); 4]).await;
    let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let http = ClientBuilder::new(plain).with(discovery.middleware().tries(5)).with(Third(AtomicUsize::new(0))).build();
    let error = soon(http.get(PRODUCT).send()).await.unwrap_err();
    assert!(matches!(&error, reqwest_middleware::Error::Middleware(error) if error.is::<NotToday>()), "{error}");
    assert_eq!(service.count(), 2, "what another layer says is not repeated");
    server.stop().await;
}
