//! Calls over HTTP to services in trouble: what the caller sees, and what it costs the service.

use std::time::Duration;

use futures::{StreamExt, future::join_all};
use roundsman::{
    Policy, Trouble,
    http::{Error, StatusCode},
};
use tokio::time::advance;

use crate::{
    backend::{Backend, Manner, Service, patient},
    support::{HANG, StoppedClock, client, eventually, instance, nowhere, server, soon},
};

const TROUBLES: [Manner; 6] =
    [Manner::Status(500), Manner::EveryThird, Manner::Hang, Manner::ResetInBody, Manner::Reset, Manner::Garbage];

#[tokio::test]
async fn one_of_three_in_trouble_is_not_seen_with_one_repetition() {
    let server = server().await;
    for manner in TROUBLES {
        let discovery = client(&server).await;
        let service = Service::start(&discovery, &[Manner::Well, manner, Manner::Well]).await;
        let (clock, limit) = (StoppedClock::new(), Duration::from_millis(300));
        let product = patient(&discovery, "product").tries(2).try_timeout(limit);
        for n in 0..100 {
            let call = service.hanging(&clock, limit, product.get("/").send());
            let answer = call.await.unwrap_or_else(|error| panic!("{manner:?} {n}: {error}"));
            assert_eq!(answer.status(), StatusCode::OK, "{manner:?}");
        }
        assert!(!service.backends[1].seen().is_empty(), "{manner:?}: never asked");
        assert!(service.count() <= 120, "{manner:?}: {}", service.count());
        drop(clock);
        discovery.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn one_that_is_gone_is_not_seen() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Well]).await;
    let gone = nowhere().await;
    let _gone = discovery.register(instance("product", gone.port())).await.unwrap();
    let product = patient(&discovery, "product");
    // All kinds of requests, for it is certain that none has arrived.
    for _ in 0..30 {
        soon(product.get("/").send()).await.unwrap();
        soon(product.post("/").send()).await.unwrap();
    }
    assert_eq!(service.count(), 60);
    server.stop().await;
}

#[tokio::test]
async fn what_must_not_happen_twice_is_never_sent_twice() {
    let server = server().await;
    for manner in TROUBLES {
        let discovery = client(&server).await;
        let service = Service::start(&discovery, &[manner; 3]).await;
        let (clock, limit) = (StoppedClock::new(), Duration::from_millis(300));
        let product = patient(&discovery, "product").timeout(limit);
        for (n, request) in
            [product.post("/"), product.patch("/"), product.put("/").idempotent(false)].into_iter().enumerate()
        {
            match service.hanging(&clock, limit, request.send()).await {
                Ok(answer) => assert!(matches!(manner, Manner::Status(_) | Manner::EveryThird) && answer.tries() == 1),
                Err(error) => assert!(error.maybe_sent() && error.tries().len() == 1, "{manner:?}: {error}"),
            }
            assert_eq!(service.count(), n + 1, "{manner:?}");
        }
        drop(clock);
        discovery.close().await;
    }
    // Said to be safe, it is repeated.
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Reset; 3]).await;
    let error = soon(patient(&discovery, "product").post("/").idempotent(true).send()).await.unwrap_err();
    assert_eq!((error.tries().len(), service.count()), (3, 3));
    server.stop().await;
}

#[tokio::test]
async fn errors_tell_what_each_try_came_to() {
    let server = server().await;
    let discovery = client(&server).await;
    let gone = nowhere().await;
    let _gone = discovery.register(instance("product", gone.port()).id("gone").unwrap()).await.unwrap();
    let product = patient(&discovery, "product");
    let error = soon(product.post("/").tries(2).send()).await.unwrap_err();
    assert!(matches!(error, Error::Failed { .. }) && !error.maybe_sent());
    assert_eq!(error.instance().unwrap().id.as_str(), "gone");
    let once = format!("gone at {gone}: connection refused");
    assert_eq!(error.to_string(), format!("`product` did not answer ({once}; {once})"));
    let (clock, limit) = (StoppedClock::new(), Duration::from_millis(250));
    let tells = async |manner, trouble, says: &str| {
        let discovery = client(&server).await;
        let service = Service::start_as("other", &discovery, &[manner]).await;
        let request = patient(&discovery, "other").post("/").timeout(limit);
        let error = service.hanging(&clock, limit, request.send()).await.unwrap_err();
        discovery.deregister(service.registrations[0].id()).await.unwrap();
        assert_eq!(error.tries()[0].trouble, trouble, "{error}");
        assert!(error.maybe_sent() && error.to_string().contains(says), "{manner:?}: {error}");
        error
    };
    tells(Manner::Reset, Trouble::Reset, ": connection reset").await;
    tells(Manner::ResetInBody, Trouble::Reset, ": connection reset").await;
    tells(Manner::Garbage, Trouble::Reset, "invalid HTTP").await;
    let error = tells(Manner::Hang, Trouble::Timeout, "no answer within 250ms").await;
    assert!(matches!(error, Error::Deadline { .. }));
    assert!(error.to_string().starts_with("`other` did not answer within 250ms (i0 at 127.0.0.1:"), "{error}");
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn the_deadline_covers_all_tries() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang; 3]).await;
    let (clock, limit) = (StoppedClock::new(), Duration::from_millis(200));
    let product = patient(&discovery, "product").timeout(2 * limit + Duration::from_millis(100));
    let request = product.get("/").try_timeout(limit).tries(9);
    let error = service.hanging(&clock, limit, request.send()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!((error.tries().len(), service.count()), (3, 3));
    let said: Vec<_> = error.tries().iter().map(|tried| tried.detail.as_str()).collect();
    // Each timer is a millisecond late.
    assert_eq!(said, ["no answer within 200ms", "no answer within 200ms", "no answer within 98ms"]);
    // A body that takes its time is part of it.
    for backend in &service.backends {
        backend.behave(Manner::Slow(Duration::from_millis(20)));
    }
    let error = clock.passing(limit / 10, product.get("/").tries(1).send()).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    let streamed = clock.still(product.get("/").tries(1).stream()).await.unwrap();
    assert!(service.registrations.iter().any(|registration| *registration.id() == streamed.instance().id));
    let mut body = streamed;
    for _ in 0..3 {
        assert!(clock.still(body.chunk()).await.unwrap().is_some(), "it has no end");
        advance(limit / 5).await;
    }
    let broke = loop {
        match clock.passing(limit, body.chunk()).await {
            Ok(chunk) => assert!(chunk.is_some(), "it has no end"),
            Err(error) => break error,
        }
    };
    assert!(matches!(broke, Error::BodyBroken { trouble: Trouble::Timeout, .. }), "{broke}");
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn a_service_in_trouble_is_not_drowned() {
    let server = server().await;
    for manner in [Manner::Status(503), Manner::Reset] {
        let discovery = client(&server).await;
        let service = Service::start(&discovery, &[manner; 3]).await;
        let product = patient(&discovery, "product");
        let calls = futures::stream::iter(0..500).map(|_| product.get("/").send()).buffer_unordered(20);
        let ended: Vec<_> = soon(calls.collect()).await;
        let failed = ended.iter().filter(|ended| ended.as_ref().map_or(true, |answer| answer.status() == 503)).count();
        assert_eq!((ended.len(), failed), (500, 500));
        assert!((501..=600).contains(&service.count()), "{manner:?}: {} requests for 500 calls", service.count());
        discovery.close().await;
    }
    server.stop().await;
}

#[tokio::test]
async fn the_only_one_is_asked_again_after_a_pause() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::EveryThird]).await;
    for _ in 0..4 {
        let answer = soon(patient(&discovery, "product").get("/").send()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
    }
    assert_eq!(service.count(), 5);
    // No time for it: what there is must do.
    service.backends[0].behave(Manner::Status(503));
    let request = patient(&discovery, "product").get("/").timeout(Duration::from_millis(20)).tries(100);
    match soon(request.send()).await {
        Ok(answer) => assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE),
        Err(error) => assert!(matches!(error, Error::Deadline { .. }), "{error}"),
    }
    server.stop().await;
}

#[tokio::test]
async fn long_answers_are_refused_or_streamed() {
    const LONG: usize = 300_000;
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Long(LONG), Manner::Long(LONG)]).await;
    let product = patient(&discovery, "product").body_limit(1_000);
    let error = soon(product.get("/").send()).await.unwrap_err();
    assert!(matches!(&error, Error::TooLarge { limit: 1_000, .. }) && error.maybe_sent());
    assert!(error.to_string().ends_with("answered with more than 1000 bytes"), "{error}");
    assert_eq!(service.count(), 1, "another one would say the same");
    assert_eq!(soon(product.get("/").body_limit(LONG).send()).await.unwrap().bytes().len(), LONG);
    let streamed = soon(product.get("/").stream()).await.unwrap();
    assert!(matches!(soon(streamed.read()).await.unwrap_err(), Error::TooLarge { limit: 1_000, .. }));
    let streamed = soon(product.get("/").body_limit(LONG).stream()).await.unwrap();
    assert_eq!(soon(streamed.read()).await.unwrap().bytes().len(), LONG);
    let passed_on = soon(product.get("/").stream()).await.unwrap().into_http();
    assert!(passed_on.extensions().get::<std::sync::Arc<roundsman::Instance>>().is_some());
    let whole = soon(http_body_util::BodyExt::collect(passed_on.into_body())).await.unwrap().to_bytes();
    assert_eq!(whole.len(), LONG);
    // Without a length it is noticed on the way.
    for backend in &service.backends {
        backend.behave(Manner::Slow(Duration::ZERO));
    }
    assert!(matches!(soon(product.get("/").send()).await, Err(Error::TooLarge { .. })));
    server.stop().await;
}

#[tokio::test]
async fn who_hangs_is_passed_over_soon() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang, Manner::Well, Manner::Well]).await;
    let (clock, limit) = (StoppedClock::new(), Duration::from_millis(100));
    let product = patient(&discovery, "product").try_timeout(limit);
    while service.backends[0].seen().is_empty() {
        service.hanging(&clock, limit, product.get("/").send()).await.unwrap();
    }
    for _ in 0..100 {
        service.hanging(&clock, limit, product.get("/").send()).await.unwrap();
    }
    let asked = service.backends[0].seen().len();
    assert!(asked <= 5, "asked {asked} times");
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn a_service_whose_only_instances_drain_is_still_called() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Well]).await;
    let (product, resolver) = (patient(&discovery, "product"), discovery.resolver("product").await.unwrap());
    service.registrations[0].drain(true).await.unwrap();
    eventually("one is left", async || resolver.instances().len() == 1).await;
    for _ in 0..10 {
        assert_eq!(soon(product.post("/").send()).await.unwrap().instance().id.as_str(), "i1");
    }
    service.registrations[1].drain(true).await.unwrap();
    eventually("none is left", async || resolver.instances().is_empty()).await;
    let calls = (0..20).map(|_| product.post("/").send());
    assert!(soon(join_all(calls)).await.iter().all(Result::is_ok));
    assert!(product.same_host("127.9.9.9").wait_for_instance(Duration::ZERO).get("/").send().await.is_err());
    // Whoever comes is called before them.
    let new = Backend::start(Manner::Well).await;
    let _new = discovery.register(instance("product", new.addr.port()).id("new").unwrap()).await.unwrap();
    eventually("it is there", async || resolver.instances().len() == 1).await;
    let product = patient(&discovery, "product");
    assert_eq!(soon(product.get("/").send()).await.unwrap().instance().id.as_str(), "new");
    server.stop().await;
}

#[tokio::test]
async fn a_call_waits_for_the_first_instance_and_for_the_next() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let product = patient(&discovery, "product").wait_for_instance(HANG);
    soon(product.get("/").send()).await.unwrap();
    service.registrations[0].clone().close().await.unwrap();
    let resolver = discovery.resolver("product").even_if_unknown().await.unwrap();
    eventually("it is gone", async || resolver.instances().is_empty()).await;
    let (answered, registration) = tokio::join!(soon(product.post("/").send()), async {
        let new = instance("product", service.backends[0].addr.port()).id("again").unwrap();
        discovery.register(new).await.unwrap()
    });
    assert_eq!(answered.unwrap().instance().id, *registration.id());
    server.stop().await;
}

#[tokio::test]
async fn while_one_is_waited_for_another_is_asked() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang, Manner::Well]).await;
    let (clock, patience) = (StoppedClock::new(), Duration::from_millis(100));
    let product = discovery.http("product").timeout(HANG).hedge_after(patience).policy(Policy::RoundRobin);
    for n in 0..4 {
        let answer = service.hanging(&clock, patience, product.get("/").send()).await.unwrap();
        assert_eq!(answer.instance().id.as_str(), "i1", "{n}");
    }
    let hung = service.backends[0].seen().len();
    assert!((1..=4).contains(&hung) && service.count() == 4 + hung, "{hung} of {}", service.count());
    eventually("what was overtaken is given up", async || service.backends[0].open() == 0).await;
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn whoever_picks_learns_from_calls() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Status(500), Manner::Well]).await;
    let (product, resolver) = (patient(&discovery, "product"), discovery.resolver("product").await.unwrap());
    // In turn, so that it is asked however slow it is thought to be.
    let product = product.policy(Policy::RoundRobin);
    eventually("it is passed over", async || {
        assert!(soon(product.get("/").send()).await.is_ok());
        resolver.ejected().iter().any(|instance| instance.id.as_str() == "i1")
    })
    .await;
    let asked = service.backends[1].seen().len();
    assert!((5..=10).contains(&asked), "{asked}");
    // What a caller is to blame for does not count.
    let discovery = client(&server).await;
    service.backends[1].behave(Manner::Status(404));
    let (product, resolver) = (patient(&discovery, "product"), discovery.resolver("product").await.unwrap());
    for _ in 0..60 {
        soon(product.clone().policy(Policy::RoundRobin).get("/").send()).await.unwrap();
    }
    assert!(resolver.ejected().is_empty());
    server.stop().await;
}
