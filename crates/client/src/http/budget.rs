//! What pays for second tries: a part of all calls, so that a service in trouble gets few requests more than usual.

use std::time::Duration;

use tower::retry::budget::{Budget as _, TpsBudget};

/// Calls of the last so many seconds pay for repetitions.
const WINDOW: Duration = Duration::from_secs(5);
/// So many repetitions a second are free, for services that are called seldom.
const RESERVE: u32 = 1;
/// So many calls pay for one repetition.
const CALLS: u8 = 10;

/// That of all calls to a service.
#[derive(Debug)]
pub(crate) struct Budget(TpsBudget);

/// Pays for one repetition. Dropped, it goes back to where it came from: the repetition did not come about.
#[derive(Debug)]
#[must_use = "it goes back"]
pub(crate) struct Payment<'a>(Option<&'a Budget>);

// === impl Budget ===

impl Budget {
    pub(crate) fn new() -> Self {
        Self(TpsBudget::new(WINDOW, RESERVE, 1.0 / f32::from(CALLS)))
    }

    /// A call begins, which pays for repetitions, its own or others'.
    pub(crate) fn deposit(&self) {
        self.0.deposit();
    }

    /// Pays for a repetition, if there is enough.
    pub(crate) fn pay(&self) -> Option<Payment<'_>> {
        self.0.withdraw().then(|| Payment(Some(self)))
    }
}

// === impl Payment ===

impl Payment<'_> {
    /// The repetition is made.
    pub(crate) fn spend(mut self) {
        self.0 = None;
    }
}

impl Drop for Payment<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.0 {
            (0..CALLS).for_each(|_| budget.deposit());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ten_calls_pay_for_one_and_what_is_not_spent_goes_back() {
        let budget = Budget::new();
        let spend = || std::iter::from_fn(|| budget.pay().map(Payment::spend)).count();
        assert_eq!(spend(), 5, "the reserve");
        (0..20).for_each(|_| budget.deposit());
        for _ in 0..100 {
            let both = (budget.pay(), budget.pay());
            assert!(both.0.is_some() && both.1.is_some() && budget.pay().is_none());
        }
        assert_eq!(spend(), 2);
    }
}
