//! Names whose name server is a socket that nobody reads.

use tokio::{net::UdpSocket, task::JoinSet, time::timeout};

use super::*;

/// Longer than anything takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Names that ask somebody who never answers, for as long as the socket is there.
async fn unanswered() -> (UdpSocket, Names) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, Names::new(Some(&[addr])))
}

#[tokio::test]
async fn a_name_that_was_not_asked_for_yet_is_our_own_trouble() {
    let (_socket, names) = unanswered().await;
    let mut others = JoinSet::new();
    for n in 0..2 * MOST_QUESTIONS {
        let names = names.clone();
        others.spawn(async move { names.find(&format!("dead-{n}"), Instant::now()).await });
    }
    others.join_all().await;
    let busy = names.find("product", Instant::now() + Duration::from_millis(20)).await.unwrap_err();
    assert!(matches!(&busy, NoAddress::Busy(why) if why.starts_with("product could not")), "{busy:?}");
    assert!(names.status().asked <= MOST_QUESTIONS as u64);
    names.stop().await;
}

/// More names than are remembered: questions about those that were forgotten meanwhile are still under way.
#[tokio::test]
async fn questions_under_way_are_bounded() {
    let (_socket, names) = unanswered().await;
    let ask = |again| (0..10 * MOST_UNDER_WAY).for_each(|n| drop(names.question(&format!("{again}-{n}"), again)));
    ask(true);
    assert!(names.inner.repeated.tasks.len() <= MOST_UNDER_WAY, "{:?}", names.inner.repeated.tasks);
    assert!(names.question("product", false).is_some(), "a name that is asked for the first time stands apart");
    ask(false);
    assert!(names.inner.questions.tasks.len() <= MOST_UNDER_WAY, "{:?}", names.inner.questions.tasks);
    let busy = names.find("order", Instant::now() + PATIENCE).await.unwrap_err();
    assert!(matches!(&busy, NoAddress::Busy(why) if why.starts_with("order could not")), "{busy:?}");
    names.stop().await;
}

#[tokio::test]
async fn nobody_waits_longer_than_asked_and_silence_is_remembered() {
    let (_socket, names) = unanswered().await;
    let late = names.find("product", Instant::now() + Duration::from_millis(40)).await.unwrap_err();
    let yet = "cannot resolve product: no name server has answered yet".to_owned();
    assert_eq!(late, NoAddress::Unresolved(yet));
    let silent = names.find("product", Instant::now() + PATIENCE).await.unwrap_err();
    assert_eq!(silent, NoAddress::Unresolved("cannot resolve product: no name server answers".to_owned()));
    let status = names.status();
    assert_eq!((status.asked, status.unanswered, status.known), (1, 1, 0), "one question served both");
}

#[tokio::test]
async fn the_last_clone_ends_all_questions() {
    let (_socket, names) = unanswered().await;
    drop(names.find("product", Instant::now()).await);
    let inner = Arc::downgrade(&names.inner);
    drop(names);
    let ended = async {
        while inner.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, ended).await.expect("a question outlives its names");
}
