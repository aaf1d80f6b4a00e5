//! One try after another, each with a head start before the next, side by side from then on.

use std::time::Duration;

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::sleep;

/// For so long whoever was asked last is waited for, before the next one is asked beside it.
pub(crate) const HEAD_START: Duration = Duration::from_millis(300);

/// The first candidate that an attempt succeeds with, and what came of it, or all failures in the order of the candidates.
///
/// One attempt is begun after the other: as soon as one fails, and otherwise [`HEAD_START`] after the one before, so that one
/// that hangs keeps nobody. Those that are still under way when one succeeds are dropped.
pub(crate) async fn race<C, T, E, F>(candidates: Vec<C>, attempt: impl Fn(C) -> F) -> Result<(usize, T), Vec<E>>
where
    F: Future<Output = Result<T, E>>,
{
    let mut waiting = candidates.into_iter().enumerate();
    let (mut running, mut failures) = (FuturesUnordered::new(), Vec::new());
    loop {
        if let Some((nth, candidate)) = waiting.next() {
            let attempt = attempt(candidate);
            running.push(async move { (nth, attempt.await) });
        }
        tokio::select! {
            biased;
            Some((nth, ended)) = running.next() => match ended {
                Ok(won) => return Ok((nth, won)),
                Err(failure) => failures.push((nth, failure)),
            },
            () = sleep(HEAD_START), if waiting.len() > 0 => {}
            else => break,
        }
    }
    failures.sort_unstable_by_key(|(nth, _)| *nth);
    Err(failures.into_iter().map(|(_, failure)| failure).collect())
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, rc::Rc};

    use tokio::time::Instant;

    use super::*;

    /// An attempt that takes so long, and whether it succeeds.
    type Plan = (u64, bool);

    /// Notes who was still under way when it was dropped.
    struct Under<'a>(&'a RefCell<Vec<usize>>, usize);

    impl Drop for Under<'_> {
        fn drop(&mut self) {
            self.0.borrow_mut().push(self.1);
        }
    }

    /// What came of a race, when each attempt was begun, and how long all of it took, in milliseconds.
    async fn raced(plans: &[Plan]) -> (Result<usize, Vec<usize>>, Vec<u64>, u64, Vec<usize>) {
        let start = Instant::now();
        let millis = || u64::try_from(start.elapsed().as_millis()).unwrap();
        let (begun, dropped) = (Rc::new(RefCell::new(Vec::new())), RefCell::new(Vec::new()));
        let result = race((0..plans.len()).collect(), |nth| {
            let (begun, dropped, (takes, succeeds)) = (Rc::clone(&begun), &dropped, plans[nth]);
            async move {
                begun.borrow_mut().push(millis());
                let under = Under(dropped, nth);
                sleep(Duration::from_millis(takes)).await;
                std::mem::forget(under);
                if succeeds { Ok(nth) } else { Err(nth) }
            }
        });
        let result = result.await.map(|(nth, won)| {
            assert_eq!(nth, won);
            won
        });
        let begun = begun.borrow().clone();
        (result, begun, millis(), dropped.into_inner())
    }

    const NEVER: u64 = 1_000_000;

    #[tokio::test(start_paused = true)]
    async fn nobody_is_asked_beside_one_that_answers_in_time() {
        assert_eq!(raced(&[(299, true), (0, true)]).await, (Ok(0), vec![0], 299, vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_hangs_costs_its_head_start_and_is_dropped() {
        assert_eq!(raced(&[(NEVER, true), (5, true), (0, true)]).await, (Ok(1), vec![0, 300], 305, vec![0]));
        // One that is slow and not dead may still be the first.
        assert_eq!(raced(&[(400, true), (NEVER, true)]).await, (Ok(0), vec![0, 300], 400, vec![1]));
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_failure_the_next_is_asked_at_once() {
        assert_eq!(raced(&[(10, false), (20, false), (30, true)]).await, (Ok(2), vec![0, 10, 30], 60, vec![]));
        assert_eq!(
            raced(&[(NEVER, true), (10, false), (30, true)]).await,
            (Ok(2), vec![0, 300, 310], 340, vec![0]),
            "beside one that hangs, too"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_all_are_told_in_order() {
        let (result, _, took, _) = raced(&[(2_000, false), (50, false), (2_000, false)]).await;
        assert_eq!((result, took), (Err(vec![0, 1, 2]), 2_350), "and not one after the other");
        assert_eq!(raced(&[]).await.0, Err(vec![]));
    }
}
