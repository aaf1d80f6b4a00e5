//! Calls over HTTP by the name of a service.

use std::{collections::BTreeSet, time::Duration};

use roundsman::{
    Check, Discovery, NewInstance, Policy,
    http::{Body, Error, Method, StatusCode},
};

use crate::{
    backend::{Backend, Manner, Service, patient},
    support::{HANG, Network, State, StoppedClock, client, connect, eventually, instance, nowhere, server, soon},
};

#[tokio::test]
async fn says_what_it_was_told_to_say() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let product = patient(&discovery, "Product");
    let request = product.post("/sale?a=1").query(&[("b", "2 3")]).header("x-one", "1").json(&["an", "apple"]);
    let answer = soon(request.send()).await.unwrap();
    assert_eq!((answer.status(), answer.tries()), (StatusCode::OK, 1));
    assert_eq!(answer.instance().id, *service.registrations[0].id());
    assert_eq!(answer.headers()["content-length"], answer.bytes().len().to_string());
    assert!(answer.text().starts_with("POST /sale?a=1&b=2+3 HTTP/1.1 of "), "{}", answer.text());
    let seen = service.backends[0].seen().remove(0);
    assert_eq!(
        (seen.body.as_slice(), seen.header("content-type")),
        (&br#"["an","apple"]"#[..], Some("application/json"))
    );
    assert_eq!(
        (seen.header("x-one"), seen.header("host")),
        (Some("1"), Some(service.backends[0].addr.to_string().as_str()))
    );

    for (request, line) in [
        (product.get("/"), "GET / HTTP/1.1"),
        (product.head("/a"), "HEAD /a HTTP/1.1"),
        (product.put("/a/b").body("x"), "PUT /a/b HTTP/1.1"),
        (product.patch("/a%20b"), "PATCH /a%20b HTTP/1.1"),
        (product.delete("//a"), "DELETE //a HTTP/1.1"),
        (product.request(Method::OPTIONS, "/@b:1"), "OPTIONS /@b:1 HTTP/1.1"),
    ] {
        // A head has no body: its backend says one all the same, which ends the connection.
        drop(soon(request.send()).await);
        assert!(service.backends[0].seen().iter().any(|seen| seen.line == line), "{line}");
    }
    server.stop().await;
}

/// In pieces, of which nobody knows how many there are.
fn pieces() -> Body {
    Body::from_stream(futures::stream::iter(["an ", "apple"].map(Ok::<_, std::io::Error>)))
}

#[tokio::test]
async fn bodies_may_be_streams_which_are_sent_once() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well, Manner::Status(503)]).await;
    let as_one = || Body::wrap("an apple".to_owned());
    for stream in [as_one(), as_one(), pieces(), pieces()] {
        let answer = soon(patient(&discovery, "product").put("/picture").body(stream).send()).await.unwrap();
        assert_eq!(answer.tries(), 1, "a stream cannot be sent again");
    }
    let seen: Vec<_> = service.backends.iter().flat_map(Backend::seen).collect();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.body == b"an apple"));
    assert_eq!(seen.iter().filter(|seen| seen.header("transfer-encoding") == Some("chunked")).count(), 2);
    assert_eq!(seen.iter().filter(|seen| seen.header("content-length") == Some("8")).count(), 2);
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_nobody_began_to_read_goes_elsewhere() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let gone = nowhere().await;
    let _gone = discovery.register(instance("product", gone.port())).await.unwrap();
    let product = patient(&discovery, "product").policy(Policy::RoundRobin);
    let mut tries = 0;
    for _ in 0..10 {
        tries += soon(product.post("/picture").body(pieces()).send()).await.unwrap().tries();
    }
    assert!(tries > 10, "nobody was refused");
    assert!(service.backends[0].seen().iter().all(|seen| seen.body == b"an apple"));
    assert_eq!(service.count(), 10);
    server.stop().await;
}

#[cfg(feature = "reqwest")]
#[tokio::test]
async fn calls_go_through_a_client_of_ones_own() {
    let server = server().await;
    // Only here: whoever tests the server brings a reqwest with TLS along.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let plain = reqwest::Client::builder().no_proxy().tls_certs_only([]).user_agent("order/1.2").build().unwrap();
    let discovery =
        Discovery::builder().servers(server.rpc_addr()).timeout(HANG).http_client(plain).connect().await.unwrap();
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let gone = nowhere().await;
    let _gone = discovery.register(instance("product", gone.port())).await.unwrap();
    let product = patient(&discovery, "product");
    for body in [Body::from("an apple"), pieces(), reqwest::Body::from("an apple").into()] {
        soon(product.post("/picture").body(body).send()).await.unwrap();
    }
    let mut answer = soon(product.get("/").stream()).await.unwrap();
    while soon(answer.chunk()).await.unwrap().is_some() {}
    let seen = service.backends[0].seen();
    assert_eq!(seen.len(), 4);
    assert!(seen.iter().all(|seen| seen.header("user-agent") == Some("order/1.2")));
    assert!(seen[..3].iter().all(|seen| seen.body == b"an apple"));
    server.stop().await;
}

#[tokio::test]
async fn paths_may_have_times_of_their_own() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Hang]).await;
    let clock = StoppedClock::new();
    let millis = Duration::from_millis;
    let product = patient(&discovery, "product").timeout_for("/a/", millis(300)).timeout_for("/a/b", millis(700));
    for (path, limit) in [("/a/", 300), ("/a/c", 300), ("/a/b/c", 700)] {
        let error = service.hanging(&clock, millis(limit), product.get(path).send()).await.unwrap_err();
        assert!(error.to_string().contains(&format!("did not answer within {limit}ms")), "{path}: {error}");
    }
    let request = product.get("/a/b").timeout(millis(100));
    let error = service.hanging(&clock, millis(100), request.send()).await.unwrap_err();
    assert!(error.to_string().contains("did not answer within 100ms"), "{error}");
    drop(clock);
    server.stop().await;
}

#[tokio::test]
async fn a_status_is_an_answer() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Status(404), Manner::Status(404)]).await;
    let answer = soon(patient(&discovery, "product").get("/product/zzz").send()).await.unwrap();
    assert_eq!((answer.status(), answer.tries(), service.count()), (StatusCode::NOT_FOUND, 1, 1));
    let error = answer.json::<u32>().unwrap_err();
    assert!(matches!(&error, Error::Unreadable { status: StatusCode::NOT_FOUND, .. }), "{error}");
    let error = answer.error_for_status().unwrap_err();
    let (id, at) = {
        let instance = error.instance().unwrap();
        (instance.id.clone(), instance.address.clone())
    };
    assert_eq!(error.to_string(), format!("{id} of `product` at {at} answered 404 Not Found"));
    assert!(error.maybe_sent());
    // Also one that another try might have bettered, when none did.
    for backend in &service.backends {
        backend.behave(Manner::Status(503));
    }
    let answer = soon(patient(&discovery, "product").get("/").tries(2).send()).await.unwrap();
    assert_eq!((answer.status(), answer.tries(), service.count()), (StatusCode::SERVICE_UNAVAILABLE, 2, 3));
    server.stop().await;
}

#[tokio::test]
async fn nobody_is_an_error_at_once() {
    let server = server().await;
    let discovery = client(&server).await;
    let error = soon(patient(&discovery, "nobody").get("/").send()).await.unwrap_err();
    assert!(error.is_not_found() && !error.maybe_sent() && error.instance().is_none());
    assert_eq!(error.to_string(), "no service named `nobody` is registered");
    // It is asked for anew, and found when it has come.
    let new = instance("nobody", nowhere().await.port());
    let registration = discovery.register(new).await.unwrap();
    assert!(matches!(soon(patient(&discovery, "nobody").get("/").send()).await, Err(Error::Failed { .. })));
    registration.close().await.unwrap();
    let request = || patient(&discovery, "nobody").wait_for_instance(Duration::ZERO).get("/").send();
    eventually("nobody is there", async || matches!(request().await, Err(Error::NobodyThere { .. }))).await;
    let error = soon(request()).await.unwrap_err();
    assert!(error.is_not_found() && !error.maybe_sent());
    assert_eq!(error.to_string(), "no instance of `nobody` can be called at the moment");
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_request_is_told_and_not_sent() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    let product = patient(&discovery, "product");
    let name = soon(patient(&discovery, "a b").get("/").send()).await.unwrap_err();
    assert!(name.to_string().contains("name"), "{name}");
    let host = soon(product.clone().same_host("not a host").get("/").send()).await.unwrap_err();
    assert!(host.to_string().contains("not a host"), "{host}");
    for (request, says) in [
        (product.get("product/aaa"), "a path begins with a slash, got `product/aaa`"),
        (product.get("http://elsewhere/"), "a path begins with a slash, got `http://elsewhere/`"),
        (product.get("/").header("a b", "1"), "this request cannot be sent: invalid HTTP header name"),
        (product.get("/").query(&"x"), "this request cannot be sent: "),
    ] {
        let error = soon(request.send()).await.unwrap_err();
        assert!(matches!(error, Error::Invalid(_)) && !error.maybe_sent());
        assert!(error.to_string().starts_with(says), "{error}");
    }
    assert_eq!(service.count(), 0);
    server.stop().await;
}

#[tokio::test]
async fn instances_are_chosen_as_told() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well; 4]).await;
    let product = patient(&discovery, "product");
    let turns = product.clone().policy(Policy::RoundRobin);
    for _ in 0..8 {
        soon(turns.get("/").send()).await.unwrap();
    }
    assert!(service.backends.iter().all(|backend| backend.seen().len() == 2));
    // By key, always the same.
    let home = soon(product.get("/").key("aaa").send()).await.unwrap();
    let resolver = discovery.resolver("product").await.unwrap();
    assert_eq!(home.instance().id, resolver.pick_for("aaa").unwrap().id);
    // To one, and past some.
    for instance in resolver.instances().iter() {
        let answer = soon(product.get("/").to(instance).send()).await.unwrap();
        assert_eq!(answer.instance().id, instance.id);
    }
    let mut been = Vec::new();
    for _ in 0..4 {
        let answer = soon(product.get("/").key("aaa").avoiding(&been).send()).await.unwrap();
        been.push(answer.instance().id.clone());
    }
    assert_eq!(been.iter().collect::<BTreeSet<_>>().len(), 4);
    let error = soon(product.get("/").avoiding(&been).send()).await.unwrap_err();
    assert!(matches!(error, Error::NobodyThere { avoided: 4, .. }));
    assert_eq!(error.to_string(), "no instance of `product` can be called at the moment besides the 4 to be avoided");
    // One that is no longer handed out can still be called by those who must.
    let gone = std::sync::Arc::clone(&resolver.instances()[0]);
    service.registrations[0].drain(true).await.unwrap();
    eventually("it is drained", async || resolver.instances().len() == 3).await;
    assert_eq!(soon(product.delete("/sale").to(&gone).send()).await.unwrap().instance().id, gone.id);
    server.stop().await;
}

#[tokio::test]
async fn zones_and_hosts_are_minded() {
    let server = server().await;
    let discovery = client(&server).await;
    let (near, far) = (Backend::start(Manner::Well).await, Backend::start(Manner::Well).await);
    let at = |backend: &Backend, zone| instance("product", backend.addr.port()).zone(zone);
    let _near = discovery.register(at(&near, "here")).await.unwrap();
    let _far = discovery.register(at(&far, "there")).await.unwrap();
    let elsewhere = NewInstance::new("product", "127.9.9.9:1").unwrap().check(Check::none());
    let _elsewhere = discovery.register(elsewhere).await.unwrap();
    let here = patient(&discovery, "product").prefer_zone("here").same_host("127.0.0.1");
    for _ in 0..10 {
        assert_eq!(soon(here.get("/").send()).await.unwrap().instance().zone.as_deref(), Some("here"));
    }
    // The second choice is another zone, never another host.
    near.behave(Manner::Status(503));
    let answer = soon(here.get("/").tries(8).send()).await.unwrap();
    assert_ne!(answer.instance().address.port(), 1);
    server.stop().await;
}

#[tokio::test]
async fn goes_on_when_discovery_is_gone() {
    let server = server().await;
    let discovery = client(&server).await;
    let service = Service::start(&discovery, &[Manner::Well]).await;
    soon(patient(&discovery, "product").get("/").send()).await.unwrap();
    server.stop().await;
    soon(discovery.disconnected()).await;
    for _ in 0..3 {
        assert_eq!(soon(patient(&discovery, "product").get("/").send()).await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(service.count(), 4);
    // Whom it does not know it cannot find, and says so in time.
    let request = patient(&discovery, "order").timeout(Duration::from_millis(200)).get("/");
    let error = soon(request.send()).await.unwrap_err();
    assert!(matches!(error, Error::Discovery(roundsman::Error::Unreachable { .. })), "{error}");
    assert!(!error.maybe_sent() && !error.is_not_found());
}

#[tokio::test]
async fn many_first_calls_follow_the_service_once() {
    let server = server().await;
    let near = client(&server).await;
    let service = Service::start(&near, &[Manner::Well, Manner::Well]).await;
    let discovery = client(&server).await;
    let calls = (0..50).map(|_| patient(&discovery, "product").get("/").send());
    for answer in soon(futures::future::join_all(calls)).await {
        assert_eq!(answer.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(service.count(), 50);
    eventually("one watch", async || near.status().await.unwrap().doors.watches == 1).await;
    server.stop().await;
}

#[tokio::test]
async fn the_first_list_is_waited_for_within_the_deadline() {
    let server = server().await;
    let network = Network::to(server.rpc_addr()).await;
    let discovery = connect(network.addr).await.unwrap();
    let service = Service::start(&discovery, &[Manner::Well]).await;
    network.become_(State::Frozen);
    let request = patient(&discovery, "product").timeout(Duration::from_millis(200)).get("/");
    let error = soon(request.send()).await.unwrap_err();
    assert!(matches!(&error, Error::Discovery(error) if error.is_retryable()) && !error.maybe_sent(), "{error}");
    // One that is named needs no list.
    let (id, port) = (service.registrations[0].id().clone(), service.backends[0].addr.port());
    network.become_(State::Whole);
    let known = client(&server).await.get("product").await.unwrap();
    assert_eq!((&known.id, known.address.port()), (&id, port));
    network.become_(State::Frozen);
    assert_eq!(soon(patient(&discovery, "product").get("/").to(&known).send()).await.unwrap().status(), StatusCode::OK);
    server.stop().await;
}

#[test]
fn nothing_is_left_after_close_nor_after_the_last_handle() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let ours = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let alive = || ours.metrics().num_alive_tasks();
    let (server, service, hanging) = servers.block_on(async {
        let server = server().await;
        let near = client(&server).await;
        let service = Service::start(&near, &[Manner::Well]).await;
        let hanging = Backend::start(Manner::Hang).await;
        let registration = near.register(instance("hanging", hanging.addr.port())).await.unwrap();
        (server, (service, near, registration), hanging)
    });
    let (addr, backend) = (server.rpc_addr(), &service.0.backends[0]);
    let closed = |error: &Error| matches!(error, Error::Discovery(roundsman::Error::Closed));
    ours.block_on(async {
        for close in [true, false] {
            let discovery = connect(addr).await.unwrap();
            soon(patient(&discovery, "product").get("/").send()).await.unwrap();
            assert_eq!(backend.open(), 1);
            if close {
                let request = patient(&discovery, "hanging").get("/").send();
                let (under_way, ()) = tokio::join!(soon(request), async {
                    eventually("it hangs", async || !hanging.seen().is_empty()).await;
                    discovery.close().await;
                });
                let error = under_way.unwrap_err();
                assert!(closed(&error) && error.maybe_sent(), "{error}");
                assert!(closed(&soon(patient(&discovery, "product").get("/").send()).await.unwrap_err()));
            }
            drop(discovery);
            eventually("all tasks ended", async || alive() == 0).await;
            eventually("its connections closed", async || backend.open() == 0 && hanging.open() == 0).await;
        }
    });
    servers.block_on(server.stop());
}
