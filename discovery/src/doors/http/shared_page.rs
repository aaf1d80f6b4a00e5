//! A page that many ask for at once is written once for all of them.
//!
//! It is never older than the question: whoever asks while it is being written gets the next one.
//! Between two of them there is a pause in proportion to what one costs, so that no crowd of
//! callers can keep a worker busy with it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::body::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};
use tokio::time::{Instant, sleep_until};

/// How much longer than its writing the pause after it is.
const PAUSE: u32 = 4;
/// The longest pause: on a busy machine the writing of a page takes long, whatever it costs.
const MAX_PAUSE: Duration = Duration::from_millis(250);

/// A page, or why there is none.
pub(super) type Written = Result<Bytes, Fault>;
type Edition = Shared<BoxFuture<'static, Written>>;

/// Why a page could not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Too much else is to be done; a little later it can be.
    Busy(Arc<str>),
    /// It is a bug.
    Broken(Arc<str>),
}

/// A page that is written when somebody asks.
#[derive(Default)]
pub(super) struct SharedPage {
    latest: Mutex<Option<Latest>>,
    not_before: Arc<Mutex<Option<Instant>>>,
}

/// The latest edition, for as long as anybody waits for it.
struct Latest {
    edition: WeakShared<BoxFuture<'static, Written>>,
    begun: Arc<AtomicBool>,
}

impl SharedPage {
    /// A page that is not begun yet; `write` writes it when this is the first to ask for it.
    pub(super) fn ask(&self, write: impl Future<Output = Written> + Send + 'static) -> Edition {
        let mut latest = lock(&self.latest);
        let running = latest.as_ref().and_then(|latest| Some((latest.edition.upgrade()?, &latest.begun)));
        let earlier = match running {
            Some((edition, begun)) if !begun.load(Ordering::Acquire) => return edition,
            Some((edition, _)) => Some(edition),
            None => None,
        };
        let begun = Arc::new(AtomicBool::new(false));
        let edition = edition(earlier, Arc::clone(&self.not_before), Arc::clone(&begun), write).boxed().shared();
        *latest = edition.downgrade().map(|edition| Latest { edition, begun });
        edition
    }
}

/// Writes after the earlier edition, and not at once.
async fn edition(
    earlier: Option<Edition>,
    not_before: Arc<Mutex<Option<Instant>>>,
    begun: Arc<AtomicBool>,
    write: impl Future<Output = Written> + Send,
) -> Written {
    if let Some(earlier) = earlier {
        // For its end, not for what is in it; and in turn it needs somebody who drives it on,
        // should its own callers leave.
        drop(earlier.await);
    }
    let until = *lock(&not_before);
    if let Some(until) = until.filter(|until| *until > Instant::now()) {
        sleep_until(until).await;
    }
    begun.store(true, Ordering::Release);
    let from = Instant::now();
    let written = write.await;
    *lock(&not_before) = Some(Instant::now() + (from.elapsed() * PAUSE).min(MAX_PAUSE));
    written
}

// === impl Fault ===

impl Fault {
    pub(super) fn broken(error: &impl std::error::Error) -> Self {
        Self::Broken(error.to_string().into())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use futures::future::join_all;
    use tokio::time::sleep;

    use super::*;

    const COST: Duration = Duration::from_millis(10);

    /// Says which edition this is, after a while.
    fn number(editions: &Arc<AtomicU32>) -> impl Future<Output = Written> + Send + 'static {
        let editions = Arc::clone(editions);
        async move {
            let number = editions.fetch_add(1, Ordering::Relaxed);
            sleep(COST).await;
            Ok(Bytes::from(number.to_string()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_ask_before_it_is_begun_share_it_and_later_ones_get_the_next() {
        let (page, editions) = (SharedPage::default(), Arc::new(AtomicU32::new(0)));
        let first = join_all((0..100).map(|_| page.ask(number(&editions))));
        let later = async {
            sleep(COST / 2).await;
            join_all((0..100).map(|_| page.ask(number(&editions)))).await
        };
        let (first, later) = tokio::join!(first, later);
        assert!(first.iter().all(|page| page.as_deref() == Ok(b"0")));
        assert!(later.iter().all(|page| page.as_deref() == Ok(b"1")));
        assert_eq!(editions.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn most_of_the_time_nothing_is_written() {
        let (page, editions) = (SharedPage::default(), Arc::new(AtomicU32::new(0)));
        let begun = Instant::now();
        for _ in 0..10 {
            page.ask(number(&editions)).await.unwrap();
        }
        assert!(begun.elapsed() >= (COST * (1 + PAUSE)) * 9);
        sleep(COST * PAUSE).await;
        let begun = Instant::now();
        page.ask(number(&editions)).await.unwrap();
        assert_eq!(begun.elapsed(), COST, "whoever asks now and then does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn those_who_leave_do_not_keep_it_from_the_others() {
        let (page, editions) = (SharedPage::default(), Arc::new(AtomicU32::new(0)));
        let mut impatient = page.ask(number(&editions));
        assert!((&mut impatient).now_or_never().is_none());
        let second = page.ask(number(&editions));
        drop(impatient);
        assert_eq!(second.await.as_deref(), Ok(&b"1"[..]));
        // Nobody is left: nothing is kept.
        assert!(lock(&page.latest).as_ref().is_none_or(|latest| latest.edition.upgrade().is_none()));
    }
}
