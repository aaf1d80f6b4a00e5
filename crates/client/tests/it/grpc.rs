//! Calls over gRPC by the name of a service, to instances that are killed, freeze, drain and misbehave.

use std::{collections::BTreeMap, error::Error as _, sync::Arc, time::Duration};

use futures::{StreamExt, future::join_all, stream};
use roundsman::{
    CircuitBreaker, Discovery, Instance, Policy, Registration,
    grpc::{Channel, Idempotent, Key},
    http::Error,
};
use roundsman_discovery::Server;
use tokio::{sync::mpsc, task::yield_now};
use tonic::{Code, Request, Response, Status};

use crate::{
    backend::{self, Backend},
    shop::{Manner, Shop, buy, buy_as, chat, chat_as, join, repeat, text},
    support::{HANG, Network, State, client, instance, nowhere, server, soon},
};

/// Instances of `product`, and a client.
struct World {
    server: Server,
    discovery: Discovery,
    shops: Vec<Shop>,
    registrations: Vec<Registration>,
}

// === impl World ===

impl World {
    async fn of(manners: &[Manner]) -> Self {
        Self::with(manners, CircuitBreaker::default()).await
    }

    async fn with(manners: &[Manner], rules: CircuitBreaker) -> Self {
        let server = server().await;
        let builder = Discovery::builder().servers(server.rpc_addr()).timeout(HANG).circuit_breaker(rules);
        let discovery = builder.connect().await.unwrap();
        let mut world = Self { server, discovery, shops: Vec::new(), registrations: Vec::new() };
        for manner in manners {
            let shop = Shop::start(*manner).await;
            world.register(shop.addr.port()).await;
            world.shops.push(shop);
        }
        world
    }

    async fn register(&mut self, port: u16) {
        let new = instance("product", port).id(format!("i{}", self.registrations.len())).unwrap();
        self.registrations.push(self.discovery.register(new).await.unwrap());
    }

    /// Waits for an answer as long as it takes, in turn.
    fn channel(&self) -> Channel {
        self.discovery.grpc("product").timeout(HANG).policy(Policy::RoundRobin)
    }

    fn seen(&self) -> usize {
        self.shops.iter().map(Shop::seen).sum()
    }

    async fn is_ejected(&self, id: &str) -> bool {
        let resolver = self.discovery.resolver("product").await.unwrap();
        resolver.ejected().iter().any(|instance| instance.id.as_str() == id)
    }

    async fn stop(self) {
        self.discovery.close().await;
        self.server.stop().await;
    }
}

fn who<T>(answer: &Response<T>) -> String {
    answer.extensions().get::<Arc<Instance>>().unwrap().id.to_string()
}

fn cause(status: &Status) -> &Error {
    status.source().unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn all_kinds_of_calls_reach_an_instance_and_take_turns() {
    let world = World::of(&[Manner::Well; 3]).await;
    let channel = world.channel();
    let mut turns = BTreeMap::<_, usize>::new();
    for n in 0..9 {
        let answer = soon(buy(&channel, n.to_string())).await.unwrap();
        assert_eq!(answer.get_ref().text, n.to_string());
        *turns.entry(who(&answer)).or_default() += 1;
    }
    assert_eq!(turns.into_values().collect::<Vec<_>>(), [3, 3, 3]);
    let replies = soon(repeat(&channel, "a")).await.unwrap().into_inner();
    let replies: Vec<_> = soon(replies.map(|reply| reply.unwrap().text).collect()).await;
    assert_eq!(replies, ["a"; 3]);
    let parts = stream::iter(["a", "b", "c"]).then(|part| async move {
        yield_now().await;
        text(part)
    });
    assert_eq!(soon(join(&channel, parts)).await.unwrap().get_ref().text, "abc");
    // Each waits for the other.
    let (sender, said) = mpsc::channel(1);
    let said = stream::unfold(said, |mut said| async move { said.recv().await.map(|text| (text, said)) });
    let mut heard = soon(chat(&channel, said)).await.unwrap().into_inner();
    for n in 0..5 {
        sender.send(text(n.to_string())).await.unwrap();
        assert_eq!(soon(heard.message()).await.unwrap().unwrap().text, n.to_string());
    }
    drop(sender);
    assert_eq!(soon(heard.message()).await.unwrap(), None);
    world.stop().await;
}

#[tokio::test]
async fn what_is_chosen_is_chosen_as_over_http() {
    let world = World::of(&[Manner::Well; 4]).await;
    let of_key = async || {
        let mut request = Request::new(text("a"));
        request.extensions_mut().insert(Key::new("user-7"));
        who(&soon(buy_as(&world.channel(), request)).await.unwrap())
    };
    let home = world.discovery.resolver("product").await.unwrap().pick_for("user-7").unwrap().id.to_string();
    assert_eq!([of_key().await, of_key().await], [home.clone(), home]);
    let wrong = soon(buy(&world.channel().same_host("not a host"), "a")).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let elsewhere = world.channel().same_host("127.9.9.9").wait_for_instance(Duration::ZERO);
    let nobody = soon(buy(&elsewhere, "a")).await.unwrap_err();
    assert!(nobody.code() == Code::Unavailable && cause(&nobody).is_not_found(), "{nobody}");
    let unknown = soon(buy(&world.discovery.grpc("nobody"), "a")).await.unwrap_err();
    assert_eq!((unknown.code(), unknown.message()), (Code::Unavailable, "no service named `nobody` is registered"));
    assert_eq!(world.seen(), 2);
    world.stop().await;
}

#[tokio::test]
async fn what_was_never_sent_goes_to_another_instance() {
    let mut world = World::of(&[Manner::Well]).await;
    world.register(nowhere().await.port()).await;
    let channel = world.channel();
    for _ in 0..10 {
        soon(buy(&channel, "a")).await.unwrap();
        // A stream that nobody has begun to read as well.
        let parts = stream::once(async {
            yield_now().await;
            text("a")
        });
        assert_eq!(soon(join(&channel, parts)).await.unwrap().get_ref().text, "a");
    }
    assert_eq!(world.seen(), 20);
    world.stop().await;
}

#[tokio::test]
async fn only_what_is_idempotent_is_sent_twice() {
    let world = World::of(&[Manner::Says(Code::Unavailable); 3]).await;
    let refused = soon(buy(&world.channel(), "a")).await.unwrap_err();
    assert_eq!((refused.code(), refused.message(), world.seen()), (Code::Unavailable, "as told", 1));
    let refused = soon(buy(&world.channel().idempotent(true), "a")).await.unwrap_err();
    assert_eq!((refused.code(), world.seen()), (Code::Unavailable, 4));
    // A single request says it for itself, in both ways.
    let said = async |channel: Channel, idempotent| {
        let mut request = Request::new(text("a"));
        request.extensions_mut().insert(Idempotent(idempotent));
        let before = world.seen();
        soon(buy_as(&channel.tries(2), request)).await.unwrap_err();
        world.seen() - before
    };
    assert_eq!(said(world.channel(), true).await, 2);
    assert_eq!(said(world.channel().idempotent(true), false).await, 1);
    // Other codes are answers.
    world.shops.iter().for_each(|shop| shop.behave(Manner::Says(Code::NotFound)));
    let before = world.seen();
    let answer = soon(buy(&world.channel().idempotent(true), "a")).await.unwrap_err();
    assert_eq!((answer.code(), world.seen() - before), (Code::NotFound, 1));
    world.stop().await;
}

#[tokio::test]
async fn a_killed_instance_fails_no_call_that_may_be_repeated() {
    let mut world = World::of(&[Manner::Well; 3]).await;
    let channel = world.channel().idempotent(true);
    let load = async |count: usize| {
        let calls = (0..count).map(|_| buy(&channel, "a"));
        soon(join_all(calls)).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    };
    load(30).await;
    world.shops[1].kill();
    for _ in 0..10 {
        load(30).await;
    }
    // What carries streams breaks with an error that says where.
    let mut heard = loop {
        let answer = soon(chat(&channel, stream::pending())).await.unwrap();
        if who(&answer) == "i0" {
            break answer.into_inner();
        }
    };
    world.shops[0].kill();
    let broken = soon(heard.message()).await.unwrap_err();
    assert!(broken.code() == Code::Unavailable && broken.message().starts_with("i0 of `product` at "), "{broken}");
    world.stop().await;
}

#[tokio::test]
async fn a_frozen_instance_is_left_and_fails_no_call_that_may_be_repeated() {
    let rules = CircuitBreaker::default().consecutive_failures(1).ejection(HANG, HANG);
    let mut world = World::with(&[Manner::Well], rules).await;
    let frozen = Shop::start(Manner::Well).await;
    let network = Network::to(frozen.addr).await;
    world.register(network.addr.port()).await;
    let channel = world.channel().idempotent(true).try_timeout(Duration::from_secs(2));
    for _ in 0..20 {
        soon(buy(&channel, "a")).await.unwrap();
    }
    assert!(frozen.seen() >= 5);
    network.become_(State::Frozen);
    for _ in 0..20 {
        assert_eq!(who(&soon(buy(&channel, "a")).await.unwrap()), "i0");
    }
    assert!(world.is_ejected("i1").await);
    world.stop().await;
}

#[tokio::test]
async fn who_does_not_speak_grpc_is_passed_over() {
    let rules = CircuitBreaker::default().consecutive_failures(1).ejection(HANG, HANG);
    let mut world = World::with(&[Manner::Well; 2], rules).await;
    let garbage = Backend::start(backend::Manner::Garbage).await;
    world.register(garbage.addr.port()).await;
    let channel = world.channel().idempotent(true);
    for _ in 0..30 {
        soon(buy(&channel, "a")).await.unwrap();
    }
    assert!(world.is_ejected("i2").await);
    assert_eq!(world.seen(), 30);
    world.stop().await;
}

#[tokio::test]
async fn an_instance_that_drains_fails_no_call_and_ends_its_streams() {
    let world = World::of(&[Manner::Well; 2]).await;
    let channel = world.channel();
    let (sender, said) = mpsc::channel(1);
    let said = stream::unfold(said, |mut said| async move { said.recv().await.map(|text| (text, said)) });
    let under_way = soon(chat(&channel, said)).await.unwrap();
    let nth = usize::from(who(&under_way) == "i1");
    let mut heard = under_way.into_inner();
    let calls = stream::iter(0..2_000).map(|n| {
        if n == 1_000 {
            world.shops[nth].drain();
        }
        buy(&channel, "a")
    });
    // Nothing of it may be repeated, but what was never taken.
    let failed: Vec<_> = soon(calls.buffer_unordered(20).filter_map(|ended| async { ended.err() }).collect()).await;
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    for n in 0..3 {
        sender.send(text(n.to_string())).await.unwrap();
        assert_eq!(soon(heard.message()).await.unwrap().unwrap().text, n.to_string());
    }
    drop(sender);
    assert_eq!(soon(heard.message()).await.unwrap(), None);
    world.stop().await;
}

#[tokio::test]
async fn failures_after_the_head_count_and_codes_that_are_answers_do_not() {
    let rules = CircuitBreaker::default().consecutive_failures(3).ejection(HANG, HANG);
    let world = World::with(&[Manner::EndsWith(Code::Internal), Manner::EndsWith(Code::NotFound)], rules).await;
    let channel = world.channel();
    for _ in 0..6 {
        let mut replies = soon(repeat(&channel, "a")).await.unwrap().into_inner();
        assert_eq!(soon(replies.message()).await.unwrap().unwrap().text, "first");
        assert!(soon(replies.message()).await.is_err());
    }
    assert!(world.is_ejected("i0").await && !world.is_ejected("i1").await);
    world.stop().await;
}

#[tokio::test]
async fn calls_end_when_their_time_is_up() {
    let world = World::of(&[Manner::Hangs]).await;
    let short = Duration::from_millis(100);
    let late = soon(buy(&world.channel().timeout(short), "a")).await.unwrap_err();
    assert!(late.code() == Code::DeadlineExceeded && cause(&late).maybe_sent(), "{late}");
    let mut request = Request::new(text("a"));
    request.set_timeout(short);
    let late = soon(buy_as(&world.channel(), request)).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    // What the request says holds for the stream as well; what the channel says ends with the head.
    world.shops[0].behave(Manner::Well);
    let heard = soon(chat(&world.channel(), stream::pending())).await.unwrap();
    let mut request = Request::new(stream::pending());
    request.set_timeout(Duration::from_millis(500));
    let ended = match soon(chat_as(&world.channel(), request)).await {
        Ok(answer) => soon(answer.into_inner().message()).await.unwrap_err(),
        Err(late) => late,
    };
    assert_eq!(ended.code(), Code::DeadlineExceeded, "{ended}");
    // A client that is closed makes no more calls.
    let channel = world.channel();
    world.discovery.close().await;
    assert_eq!(soon(buy(&channel, "a")).await.unwrap_err().code(), Code::Cancelled);
    drop(heard);
    world.stop().await;
}

#[tokio::test]
async fn many_calls_share_a_connection() {
    let server = server().await;
    let discovery = client(&server).await;
    let shop = Shop::start(Manner::Well).await;
    let network = Network::to(shop.addr).await;
    let _registration = discovery.register(instance("product", network.addr.port())).await.unwrap();
    let channel = discovery.grpc("product").timeout(HANG);
    let calls = (0..200).map(|_| buy(&channel, "a"));
    soon(join_all(calls)).await.into_iter().for_each(|answer| drop(answer.unwrap()));
    assert_eq!((shop.seen(), network.connections.load(std::sync::atomic::Ordering::Relaxed)), (200, 1));
    server.stop().await;
}
