use super::*;
use futures::FutureExt;
use tokio::time::advance;

const MOMENT: Duration = Duration::from_millis(1);

fn has_left(seat: &Seat) -> bool {
    seat.leave().now_or_never().is_some()
}

async fn admit(crowd: &Arc<Crowd>) -> Seat {
    advance(MOMENT).await;
    crowd.admit().expect("there is a seat")
}

#[tokio::test(start_paused = true)]
async fn the_one_that_waits_longest_for_a_head_gives_way() {
    let crowd = Crowd::new(2, Gauge::default());
    let (first, second) = (admit(&crowd).await, admit(&crowd).await);
    // It was answered meanwhile, and waits for its next request since then.
    drop(first.serve());
    advance(MOMENT).await;
    first.wait();
    let third = admit(&crowd).await;
    assert!(!has_left(&first) && has_left(&second) && !third.is_guest());
    drop(second);
    let fourth = admit(&crowd).await;
    assert!(has_left(&first) && !has_left(&third) && !fourth.is_guest());
}

#[tokio::test(start_paused = true)]
async fn who_is_served_never_gives_way_and_who_does_not_read_does_after_a_while() {
    let crowd = Crowd::new(1, Gauge::default());
    let first = admit(&crowd).await;
    let serving = first.serve();
    assert!(admit(&crowd).await.is_guest(), "the only other one is being served");
    drop(serving);
    first.stall();
    assert!(admit(&crowd).await.is_guest(), "it may be about to read on");
    advance(STALLED_AFTER / 2).await;
    first.busy();
    first.stall();
    advance(STALLED_AFTER / 2).await;
    assert!(admit(&crowd).await.is_guest(), "it has read on meanwhile");
    advance(STALLED_AFTER).await;
    assert!(!admit(&crowd).await.is_guest());
    assert!(has_left(&first));
}

#[tokio::test(start_paused = true)]
async fn guests_give_way_to_guests() {
    let (open, crowd) = (Gauge::default(), Crowd::new(1, Gauge::default()));
    let crowd = Arc::new(Crowd { open: open.clone(), limit: crowd.limit, tables: Mutex::default() });
    let first = admit(&crowd).await;
    let _serving = first.serve();
    let mut guests = Vec::new();
    for _ in 0..RESERVE {
        guests.push(admit(&crowd).await);
    }
    let one_more = admit(&crowd).await;
    assert!(one_more.is_guest() && has_left(&guests[0]) && !has_left(&guests[1]));
    guests.push(one_more);
    guests.iter().for_each(Seat::busy);
    assert!(crowd.admit().is_none(), "something happens on all of them");
    assert_eq!(open.get(), 66, "the one that has to leave is still there");
    guests.clear();
    assert_eq!(open.get(), 1);
    assert!(crowd.admit().is_some());
}
