use proptest::prelude::*;

use super::*;
use crate::shares::tests::owner;

#[test]
fn routine_leaves_a_quarter_to_what_is_urgent() {
    for (permits, routine) in [(1, 1), (2, 1), (3, 2), (4, 3), (512, 384)] {
        let mut turns = Turns::<()>::new(permits);
        let taken = (0..permits).filter(|_| turns.take(Lane::Routine)).count();
        assert_eq!(taken, routine, "of {permits}");
        let urgent = (0..permits).filter(|_| turns.take(Lane::Urgent)).count();
        assert_eq!(urgent, permits - routine);
    }
}

#[test]
fn what_is_urgent_comes_first_and_each_lane_takes_turns() {
    let mut turns = Turns::new(1);
    assert!(turns.take(Lane::Urgent));
    for n in 0..3 {
        turns.routine.insert(&owner("a", "order"), ("a", n));
    }
    turns.routine.insert(&owner("b", "order"), ("b", 0));
    turns.urgent.insert(&owner("a", "order"), ("urgent", 0));
    assert!(!turns.take(Lane::Urgent) && turns.next().is_none(), "no permit is free");
    let mut lane = Lane::Urgent;
    let mut order = Vec::new();
    loop {
        turns.give_back(lane);
        let Some((next, who)) = turns.next() else { break };
        order.push(who);
        lane = next;
    }
    assert_eq!(order, [("urgent", 0), ("a", 0), ("b", 0), ("a", 1), ("a", 2)]);
}

#[test]
fn what_is_urgent_without_end_does_not_stop_the_rounds() {
    let mut turns = Turns::new(1);
    assert!(turns.take(Lane::Urgent));
    turns.routine.insert(&owner("a", "order"), ());
    let mut lane = Lane::Urgent;
    let routine = (0..100).find(|_| {
        turns.urgent.insert(&owner("b", "order"), ());
        turns.give_back(lane);
        lane = turns.next().unwrap().0;
        lane == Lane::Routine
    });
    assert_eq!(routine, Some(3), "one in four");
}

#[tokio::test]
async fn who_no_longer_waits_leaves_the_queue_and_its_permit_is_passed_on() {
    let (lanes, owner) = (Arc::new(Lanes::new(1)), owner("a", "order"));
    let first = lanes.enter(Lane::Urgent, &owner).await.unwrap();
    let mut gone = Box::pin(lanes.enter(Lane::Urgent, &owner));
    let mut granted = Box::pin(lanes.enter(Lane::Urgent, &owner));
    let mut last = Box::pin(lanes.enter(Lane::Routine, &owner));
    for waiter in [&mut gone, &mut granted, &mut last] {
        assert!(futures_poll(waiter).await.is_none());
    }
    assert_eq!(lanes.queued(), 3);
    drop(gone);
    assert_eq!(lanes.queued(), 2);
    drop(first);
    assert_eq!(lanes.queued(), 1, "granted, but not taken yet");
    drop(granted);
    assert!(last.await.is_some());
    assert_eq!(lanes.turns().free, 1);
    assert!(lanes.turns().take(Lane::Routine));
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    tokio::select! {
        biased;
        output = future => Some(output),
        () = std::future::ready(()) => None,
    }
}

proptest! {
    #[test]
    fn permits_are_neither_lost_nor_made(permits in 1_usize..9, steps in proptest::collection::vec((0_u8..3, any::<bool>()), 0..200)) {
        let mut turns = Turns::new(permits);
        let (mut urgent, mut routine) = (0, 0);
        let most_routine = turns.free_for_routine;
        for (step, is_urgent) in steps {
            let lane = if is_urgent { Lane::Urgent } else { Lane::Routine };
            let count = |lane| if lane == Lane::Urgent { (1, 0) } else { (0, 1) };
            match step {
                0 if turns.take(lane) => {
                    urgent += count(lane).0;
                    routine += count(lane).1;
                }
                0 => { turns.lane(lane).insert(&owner("a", "x"), ()); }
                _ if lane == Lane::Urgent && urgent > 0 => { turns.give_back(lane); urgent -= 1; }
                _ if lane == Lane::Routine && routine > 0 => { turns.give_back(lane); routine -= 1; }
                _ => {}
            }
            while let Some((lane, ())) = turns.next() {
                urgent += count(lane).0;
                routine += count(lane).1;
            }
            prop_assert_eq!(turns.free + urgent + routine, permits);
            prop_assert!(routine <= most_routine);
            prop_assert!(turns.free == 0 || turns.urgent.is_empty());
        }
    }
}
