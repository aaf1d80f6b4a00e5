use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::sleep,
};

use super::*;
use crate::doors::http::crowd::Crowd;

/// A line whose buffer holds this many bytes, and its other end.
fn line(buffer: usize) -> (Line<DuplexStream>, DuplexStream) {
    let (ours, theirs) = duplex(buffer);
    let seat = Crowd::new(1, Gauge::default()).admit().unwrap();
    (Line::new(ours, Arc::new(seat), Patience::CALLER), theirs)
}

async fn answer(line: &mut Line<DuplexStream>, bytes: usize) -> io::Result<()> {
    let seat = Arc::clone(&line.seat);
    drop(seat.serve());
    line.write_all(&vec![0; bytes]).await?;
    line.flush().await
}

#[tokio::test(start_paused = true)]
async fn a_head_that_trickles_in_has_no_more_time_than_one_that_does_not_come() {
    let (mut silent, _theirs) = line(64);
    let begun = Instant::now();
    silent.read_u8().await.unwrap_err();
    assert_eq!((silent.fault(), begun.elapsed()), (Some("head-timeout"), Patience::CALLER.head));

    let (mut slow, mut theirs) = line(64);
    let begun = Instant::now();
    let trickle = async {
        while theirs.write_u8(b'G').await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    };
    let reading = async { while slow.read_u8().await.is_ok() {} };
    tokio::select! { () = trickle => {}, () = reading => {} }
    assert_eq!((slow.fault(), slow.partial), (Some("head-timeout"), true));
    assert_eq!(begun.elapsed(), Patience::CALLER.head);
}

#[tokio::test(start_paused = true)]
async fn between_two_requests_there_is_more_time_but_not_for_the_second_head() {
    let (mut line, mut theirs) = line(64);
    theirs.write_u8(b'G').await.unwrap();
    line.read_u8().await.unwrap();
    answer(&mut line, 10).await.unwrap();
    let begun = Instant::now();
    line.read_u8().await.unwrap_err();
    assert_eq!((line.fault(), line.partial), (Some("idle"), false));
    assert_eq!(begun.elapsed(), Patience::CALLER.idle);

    answer(&mut line, 10).await.unwrap();
    sleep(Patience::CALLER.idle / 2).await;
    theirs.write_u8(b'G').await.unwrap();
    line.read_u8().await.unwrap();
    let begun = Instant::now();
    line.read_u8().await.unwrap_err();
    assert_eq!((line.fault(), begun.elapsed()), (Some("head-timeout"), Patience::CALLER.head));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_long_is_not_taken_for_a_slow_head() {
    let (mut line, _theirs) = line(64);
    let seat = Arc::clone(&line.seat);
    let serving = seat.serve();
    // As hyper does while an answer is being made.
    line.flush().await.unwrap();
    let read = tokio::time::timeout(Patience::CALLER.idle * 2, line.read_u8()).await;
    assert!(read.is_err() && line.fault().is_none());
    drop(serving);
}

#[tokio::test(start_paused = true)]
async fn a_steady_slow_reader_is_not_cut_off_and_one_that_stops_is() {
    let (mut line, mut theirs) = line(64);
    let begun = Instant::now();
    let reader = async {
        let mut chunk = vec![0; 8 * PROGRESS];
        for _ in 0..20 {
            sleep(Patience::CALLER.unread / 2).await;
            theirs.read_exact(&mut chunk).await.unwrap();
        }
    };
    let (answered, ()) = tokio::join!(answer(&mut line, 20 * 8 * PROGRESS), reader);
    answered.unwrap();
    assert!(begun.elapsed() >= Patience::CALLER.unread * 10);

    let begun = Instant::now();
    answer(&mut line, 1_000).await.unwrap_err();
    assert_eq!((line.fault(), begun.elapsed()), (Some("unread"), Patience::CALLER.unread));
}

#[tokio::test(start_paused = true)]
async fn a_trickle_counts_as_no_progress() {
    let (mut line, mut theirs) = line(64);
    let trickle = async {
        loop {
            sleep(Duration::from_secs(1)).await;
            theirs.read_u8().await.unwrap();
        }
    };
    tokio::select! {
        answered = answer(&mut line, 1_000) => drop(answered.unwrap_err()),
        () = trickle => {}
    }
    assert_eq!(line.fault(), Some("unread"));
}
