//! Slow is not dead: who is asked beside whom.

use super::*;

/// A plan for this method, with something said about it.
fn plan(method: &Method, change: impl FnOnce(&mut Plan)) -> Plan {
    let mut plan = Plan::new(Limits::default(), method);
    change(&mut plan);
    plan
}

#[tokio::test(start_paused = true)]
async fn slow_handlers_answer_every_call_without_a_storm() {
    let world = World::new(3, |_, _| Does::Answers(200, SECOND * 12 / 10));
    let ended = world.calls(160, SECOND / 20, &Method::GET).await;
    assert!(ended.iter().all(|(answered, took)| answered.is_ok() && *took < SECOND * 13 / 10));
    assert!(world.came().len() <= 176, "{} requests for 160 calls", world.came().len());
}

#[tokio::test(start_paused = true)]
async fn a_try_ends_early_only_when_something_else_can_answer() {
    // Nobody else: the one there is has all the time of the call.
    let world = World::new(1, |_, _| Does::Answers(200, 4 * SECOND));
    assert_eq!(world.call(Method::GET).await.unwrap().tries, 1);
    assert_eq!(world.came().len(), 1);
    // No budget: neither has it less.
    let world = World::new(3, |_, _| Does::Answers(200, 4 * SECOND));
    spend_all(&world);
    assert_eq!(world.call(Method::GET).await.unwrap().tries, 1);
    // Everybody hangs: each that was asked had its time until the end.
    let world = World::new(3, |_, _| Does::Hangs);
    let began = Instant::now();
    let error = world.call(Method::GET).await.unwrap_err();
    assert!(matches!(error, Error::Deadline { .. }) && error.tries().len() == 3, "{error}");
    assert_eq!((began.elapsed().as_secs(), world.came().len()), (5, 3));
}

#[tokio::test(start_paused = true)]
async fn the_first_answer_wins_and_the_other_try_is_dropped() {
    let world = World::new(2, |to, _| Does::Answers(200, if to == 0 { 4 * SECOND } else { MILLI }));
    let product = Choice { policy: Policy::RoundRobin, ..Choice::default() };
    let get = plan(&Method::GET, |plan| plan.limits.hedge_after = SECOND / 10);
    for _ in 0..4 {
        let began = Instant::now();
        let answered = world.call_as(&product, &get, Method::GET).await.unwrap();
        assert!(answered.answer.0 == 1 && began.elapsed() <= SECOND / 10 + 3 * MILLI, "{:?}", began.elapsed());
    }
    // The first may win as well, though another was asked.
    let world = World::new(2, |to, _| Does::Answers(200, if to == 0 { SECOND / 5 } else { 4 * SECOND }));
    let (mut firsts, began) = (0, Instant::now());
    for _ in 0..4 {
        firsts += usize::from(world.call_as(&product, &get, Method::GET).await.unwrap().tries == 1);
    }
    assert!(firsts >= 1 && began.elapsed() < 2 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_repeated_is_never_asked_twice() {
    let world = World::new(3, |_, _| Does::Hangs);
    for method in [Method::POST, Method::PATCH] {
        let before = world.came().len();
        let error = world.call(method).await.unwrap_err();
        assert!(error.maybe_sent() && world.came().len() == before + 1, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frozen_instance_fails_no_get_and_a_flow_of_posts_leaves_it_within_a_second() {
    for method in [Method::GET, Method::POST] {
        let world = World::new(3, |_, _| Does::Answers(200, 2 * MILLI));
        let (ended, at) = tokio::join!(world.calls(2_000, SECOND / 100, &method), async {
            sleep(5 * SECOND).await;
            world.freeze();
            Instant::now()
        });
        let last = world.came().iter().filter(|came| came.to == 0).map(|came| came.at).max().unwrap();
        let left = last.saturating_duration_since(at);
        let failed = ended.iter().filter(|(answered, _)| answered.is_err()).count();
        if method == Method::GET {
            let mut took: Vec<_> = ended.iter().map(|(_, took)| *took).collect();
            took.sort_unstable();
            assert!(failed == 0 && took[1_980] <= SECOND * 12 / 10, "{failed} failed, p99 {:?}", took[1_980]);
            assert!(world.came().len() <= 2_020, "{}", world.came().len());
        } else {
            assert!(left <= SECOND && failed <= 2, "{failed} failed, the last was sent after {left:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_the_policy_a_hung_instance_is_ejected_before_its_calls_end() {
    for policy in [Policy::Weighted, Policy::Random, Policy::RoundRobin] {
        let world = World::new(3, |_, _| Does::Answers(200, 2 * MILLI));
        let (choice, post) = (Choice { policy, ..Choice::default() }, plan(&Method::POST, |_| {}));
        let calls = (0..1_000).map(|n| {
            let (world, choice, post) = (&world, &choice, &post);
            async move {
                sleep(n * SECOND / 100).await;
                drop(world.call_as(choice, post, Method::POST).await);
            }
        });
        let (_, at) = tokio::join!(join_all(calls), async {
            sleep(3 * SECOND).await;
            world.freeze();
            Instant::now()
        });
        // One at a time finds out whether it is back.
        let late = world.came().iter().filter(|came| came.to == 0 && came.at > at + SECOND).count();
        assert!(late <= 3, "{policy:?}: {late}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_slows_down_is_not_taken_for_dead() {
    // From a millisecond to 0.7 s, everywhere at once: calls are overdue, and answered after all.
    let slow = Arc::new(AtomicBool::new(false));
    let slows = Arc::clone(&slow);
    let takes = move || if slows.load(Ordering::Relaxed) { SECOND * 7 / 10 } else { MILLI };
    let world = World::new(4, move |_, _| Does::Answers(200, takes()));
    world.calls(200, SECOND / 100, &Method::POST).await;
    slow.store(true, Ordering::Relaxed);
    let ended = world.calls(2_000, SECOND / 100, &Method::POST).await;
    assert!(ended.iter().all(|(answered, _)| answered.is_ok()));
    let balancer = world.callee.balancer(&Choice::default(), None, &world.peers);
    assert!(balancer.ejected(&world.callee.feed().current()).is_empty(), "what is usual has changed");
}

#[tokio::test(start_paused = true)]
async fn a_hedge_that_fails_ends_nothing_that_is_under_way() {
    for bad in [Does::Resets, Does::Refuses, Does::Answers(503, MILLI)] {
        let world = World::new(2, move |to, _| if to == 0 { Does::Answers(200, 2 * SECOND) } else { bad });
        let (turns, get) = (Choice { policy: Policy::RoundRobin, ..Choice::default() }, plan(&Method::GET, |_| {}));
        for _ in 0..2 {
            let answered = world.call_as(&turns, &get, Method::GET).await.unwrap();
            assert_eq!((answered.answer.0, answered.answer.1), (0, StatusCode::OK), "{bad:?}");
        }
        assert!(world.counts()[&1] <= 2, "{bad:?}: {:?}", world.counts());
    }
    // The only answer is better than none, whatever it says.
    let world = World::new(2, |to, _| if to == 0 { Does::Hangs } else { Does::Answers(503, MILLI) });
    assert_eq!(world.call(Method::GET).await.unwrap().answer.1, StatusCode::SERVICE_UNAVAILABLE);
}
