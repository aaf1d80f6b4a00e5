//! One call at a time finds out whether an instance is back: it must be a call, and it must be made.

use super::*;

/// Three instances, of which the first refuses every PUT; GETs hang, and everything else is answered. The first is passed over.
async fn one_is_ejected() -> World {
    let world = World::new(3, |to, method| match (to, method) {
        (0, &Method::PUT) => Does::Resets,
        (_, &Method::GET) => Does::Hangs,
        _ => Does::Answers(200, MILLI),
    });
    let mut put = Plan::new(Limits::default(), &Method::PUT);
    (put.idempotent, put.to) = (false, Some(Arc::clone(&world.callee.feed().current().instances()[0])));
    for _ in 0..5 {
        world.call_as(&Choice::default(), &put, Method::PUT).await.unwrap_err();
    }
    world
}

/// Whether calls that may go anywhere find out that the first is back.
async fn is_tried(world: &World) -> bool {
    let before = world.counts()[&0];
    for _ in 0..4 {
        world.call(Method::POST).await.unwrap();
    }
    world.counts()[&0] > before
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_and_may_not_ask_another_leaves_the_trial_to_others() {
    let world = one_is_ejected().await;
    spend_all(&world);
    let waiting = world.call(Method::GET);
    let others = async {
        // The ejection is over, and the other call has looked around since.
        sleep(SECOND * 19 / 10).await;
        is_tried(&world).await
    };
    let (waited, tried) = tokio::join!(waiting, others);
    assert!(matches!(waited.unwrap_err(), Error::Deadline { .. }));
    assert!(tried);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_avoids_it_leaves_the_trial_to_others() {
    let world = one_is_ejected().await;
    sleep(SECOND * 13 / 10).await;
    for key in 0..50_u32 {
        let mut post = Plan::new(Limits::default(), &Method::POST);
        (post.key, post.avoiding) = (Some(key.to_be_bytes().into()), vec!["i0".parse().unwrap()]);
        assert_ne!(world.call_as(&Choice::default(), &post, Method::POST).await.unwrap().answer.0, 0);
    }
    assert!(is_tried(&world).await);
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_nobody_else_to_ask_costs_no_budget() {
    let fresh = spend_all(&World::new(2, |_, _| Does::Hangs));
    let world = World::new(2, |to, _| if to == 0 { Does::Hangs } else { Does::Answers(503, SECOND / 5) });
    let mut get = Plan::new(Limits::default(), &Method::GET);
    get.limits.hedge_after = SECOND / 10;
    let answered = world.call_as(&Choice::default(), &get, Method::GET).await.unwrap();
    assert_eq!((answered.answer.1, world.came().len()), (StatusCode::SERVICE_UNAVAILABLE, 2));
    assert_eq!(spend_all(&world), fresh - 1, "two requests for one call");
}

#[tokio::test(start_paused = true)]
async fn calls_that_are_given_up_leave_nothing_behind() {
    let world = one_is_ejected().await;
    sleep(SECOND * 13 / 10).await;
    // Given up at each moment of its life, one after the other: before the hedge, with two under way, and the trial among them.
    for n in 1..60 {
        drop(tokio::time::timeout(50 * MILLI * n, world.call(Method::GET)).await);
    }
    sleep(70 * SECOND).await;
    for _ in 0..20 {
        world.call(Method::POST).await.unwrap();
    }
    let snapshot = world.callee.feed().current();
    let peers = world.peers.of(snapshot.instances());
    assert!(peers.iter().all(|peer| peer.load.cost(1.0) < 9.0), "nothing is under way");
    assert!(peers.iter().all(|peer| peer.claim_trial()), "and nobody tries");
}

#[tokio::test(start_paused = true)]
async fn a_second_try_for_which_there_is_no_time_costs_no_budget() {
    let fresh = spend_all(&World::new(1, |_, _| Does::Hangs));
    // All 503 ask for three seconds, and there is but one.
    let world = World::new(1, |_, _| Does::Answers(503, MILLI));
    let mut get = Plan::new(Limits::default(), &Method::GET);
    get.limits.timeout = SECOND;
    let answered = world.call_as(&Choice::default(), &get, Method::GET).await.unwrap();
    assert_eq!((answered.answer.1, world.came().len()), (StatusCode::SERVICE_UNAVAILABLE, 1));
    // Nor one that its caller did not wait for.
    drop(tokio::time::timeout(SECOND, world.call(Method::GET)).await);
    assert_eq!(world.came().len(), 2);
    assert_eq!(spend_all(&world), fresh, "one request for each call");
}
