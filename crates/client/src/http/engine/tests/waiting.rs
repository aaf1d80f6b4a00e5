//! Nobody is there, for a while or for good.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_single_instance_that_restarts_within_a_second_fails_no_call() {
    // Its process is away for a second, and the list knows of it, or does not.
    for told in [true, false] {
        let away = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&away);
        let world = World::new(
            1,
            move |_, _| {
                if gone.load(Ordering::Relaxed) { Does::Refuses } else { Does::Answers(200, MILLI) }
            },
        );
        let all = world.callee.feed().current().instances().to_vec();
        let (ended, ()) = tokio::join!(world.calls(400, SECOND / 100, &Method::POST), async {
            sleep(SECOND).await;
            away.store(true, Ordering::Relaxed);
            sleep(20 * MILLI).await;
            if told {
                world.show(&[]);
            }
            sleep(SECOND).await;
            away.store(false, Ordering::Relaxed);
            world.show(&all);
        });
        let failed: Vec<_> = ended.iter().filter_map(|(answered, _)| answered.as_ref().err()).collect();
        assert!(failed.is_empty(), "told: {told}: {} failed: {}", failed.len(), failed[0]);
        assert!(ended.iter().all(|(_, took)| *took <= SECOND * 21 / 10));
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_waited_for_as_long_as_said_and_no_longer() {
    let world = World::new(1, |_, _| Does::Refuses);
    let call = async |millis: u64| {
        let mut plan = Plan::new(Limits::default(), &Method::GET);
        plan.limits.wait_for_instance = Duration::from_millis(millis);
        let began = Instant::now();
        let error = world.call_as(&Choice::default(), &plan, Method::GET).await.unwrap_err();
        (error, began.elapsed())
    };
    let (error, took) = call(500).await;
    assert!(matches!(error, Error::Failed { .. }) && error.tries().len() == 3 && !error.maybe_sent(), "{error}");
    assert!(took >= 490 * MILLI && took <= 550 * MILLI, "{took:?}");
    let (error, took) = call(0).await;
    assert!(error.tries().len() == 3 && took <= SECOND / 5, "{error} after {took:?}");
    world.show(&[]);
    let (error, took) = call(500).await;
    assert!(matches!(error, Error::NobodyThere { avoided: 0, .. }), "{error}");
    assert!(took >= 500 * MILLI && took <= 510 * MILLI, "{took:?}");
    let (_, took) = call(u64::MAX).await;
    assert!(took >= 5 * SECOND && took <= 51 * SECOND / 10, "within the time of the call: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn those_to_be_avoided_are_not_waited_for() {
    let world = World::new(1, |_, _| Does::Answers(200, MILLI));
    let mut plan = Plan::new(Limits::default(), &Method::GET);
    plan.avoiding = vec!["i0".parse().unwrap()];
    let began = Instant::now();
    let error = world.call_as(&Choice::default(), &plan, Method::GET).await.unwrap_err();
    assert!(matches!(error, Error::NobodyThere { avoided: 1, .. }), "{error}");
    assert_eq!(began.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_hung_instance_in_the_zone_fails_no_call_while_the_other_zone_is_well() {
    let zones = ["a", "b", "b"].map(|zone| Instance { zone: Some(zone.into()), ..instance("product", "any") });
    let world = World::of(zones.into(), |_, _| Does::Answers(200, 2 * MILLI));
    let choice = Choice { zone: Some("a".into()), ..Choice::default() };
    let get = Plan::new(Limits::default(), &Method::GET);
    let calls = (0..1_201).map(|n| {
        let (world, choice, get) = (&world, &choice, &get);
        async move {
            sleep(n * SECOND / 100).await;
            world.call_as(choice, get, Method::GET).await.map(|answered| answered.answer.0)
        }
    });
    let (ended, ()) = tokio::join!(join_all(calls), async {
        sleep(3 * SECOND).await;
        world.freeze();
    });
    assert!(ended[..300].iter().all(|answered| matches!(answered, Ok(0))), "at home");
    let failed = ended.iter().filter(|answered| answered.is_err()).count();
    assert_eq!(failed, 0, "of {}", ended.len());
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_time_gets_it() {
    // All 503 ask for three seconds.
    let world = World::new(3, |to, _| Does::Answers(if to == 0 { 503 } else { 200 }, MILLI));
    for _ in 0..250 {
        assert_eq!(world.call(Method::GET).await.unwrap().answer.1, StatusCode::OK);
        sleep(10 * MILLI).await;
    }
    assert_eq!(world.counts()[&0], 1, "for as long as it said");
    sleep(SECOND).await;
    for _ in 0..10 {
        world.call(Method::GET).await.unwrap();
    }
    assert_eq!(world.counts()[&0], 2, "then one asks again");
    // The only one: it is asked again when it said, or not at all.
    let world = World::new(1, |_, _| Does::Answers(503, MILLI));
    let began = Instant::now();
    assert_eq!(world.call(Method::GET).await.unwrap().answer.1, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((world.came().len(), began.elapsed().as_secs()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_time_keeps_no_other_from_being_asked() {
    for (first, other) in [(0, 1), (1, 0)] {
        // One resets once and is well then; the other asks for three seconds.
        let resets = AtomicBool::new(true);
        let world = World::new(2, move |to, _| match to {
            to if to == first && resets.swap(false, Ordering::Relaxed) => Does::Resets,
            to if to == first => Does::Answers(200, MILLI),
            _ => Does::Answers(503, MILLI),
        });
        let began = Instant::now();
        // Whoever comes first, the third try goes to the one that is well.
        while world.came().len() < 3 {
            assert_eq!(world.call(Method::GET).await.unwrap().answer, (first, StatusCode::OK));
        }
        assert_eq!((world.counts()[&first], world.counts()[&other]), (2, 1));
        assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_time_gets_it_also_when_the_others_go() {
    // One refuses, and leaves the list; the other asks for three seconds, once.
    let overloaded = AtomicBool::new(true);
    let world = World::new(2, move |to, _| match to {
        0 => Does::Refuses,
        _ if overloaded.swap(false, Ordering::Relaxed) => Does::Answers(503, MILLI),
        _ => Does::Answers(200, MILLI),
    });
    let left = world.callee.feed().current().instances()[1..].to_vec();
    let (choice, mut get) = (Choice::default(), Plan::new(Limits::default(), &Method::GET));
    get.limits.tries = 4;
    let (answered, ()) = tokio::join!(world.call_as(&choice, &get, Method::GET), async {
        sleep(100 * MILLI).await;
        world.show(&left);
    });
    assert_eq!(answered.unwrap().answer, (1, StatusCode::OK));
    let asked: Vec<_> = world.came().iter().filter(|came| came.to == 1).map(|came| came.at).collect();
    assert!(asked.len() == 2 && asked[1] - asked[0] >= 3 * SECOND, "{asked:?}");
}
