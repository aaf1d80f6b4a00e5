//! A moment that is kept, and what that costs.

use std::sync::Arc;

use roundsman_protocol::{Cursor, Namespace, Query};
use tokio::time::Instant;

use super::Moment;
use crate::memory::{Budget, Reservation};

/// What a moment takes besides its query.
const MOMENT: usize = 1_024;
/// What each change since then adds: the path from the root to the leaf that is no longer that of now. The record that
/// was replaced is kept by the change log already.
const PATH: usize = 2_048;

/// A moment that is kept.
#[derive(Debug)]
pub(super) struct Kept {
    moment: Arc<Moment>,
    pub(super) used: Instant,
    reservation: Option<Reservation>,
}

// === impl Kept ===

impl Kept {
    /// One after which there were so many changes. None when callers keep too much in memory already.
    pub(super) fn new(
        budget: &Arc<Budget>,
        namespace: &Namespace,
        moment: Arc<Moment>,
        changes: usize,
    ) -> Option<Self> {
        let bytes = MOMENT + moment.query.bytes() + changes.saturating_mul(PATH);
        let reservation = budget.try_reserve(namespace, bytes)?;
        Some(Self { moment, used: Instant::now(), reservation: Some(reservation) })
    }

    pub(super) fn moment(&self) -> Arc<Moment> {
        Arc::clone(&self.moment)
    }

    pub(super) fn is(&self, moment: &Arc<Moment>) -> bool {
        Arc::ptr_eq(&self.moment, moment)
    }

    pub(super) fn is_at(&self, cursor: Cursor) -> bool {
        self.moment.cursor() == cursor
    }

    pub(super) fn is_of(&self, query: &Query) -> bool {
        self.moment.query == *query
    }

    pub(super) fn revision(&self) -> u64 {
        self.moment.cursor().revision
    }

    /// Accounts for what it costs after so many changes. Says whether there is room for that.
    pub(super) fn weigh(&mut self, budget: &Arc<Budget>, namespace: &Namespace, changes: usize) -> bool {
        self.reservation = None;
        let bytes = MOMENT + self.moment.query.bytes() + changes.saturating_mul(PATH);
        self.reservation = budget.try_reserve(namespace, bytes);
        self.reservation.is_some()
    }
}

/// Forgets what was read longest ago.
pub(super) fn forget_oldest(kept: &mut Vec<Kept>) {
    let oldest = kept.iter().enumerate().min_by_key(|(_, one)| one.used).map(|(place, _)| place);
    if let Some(oldest) = oldest {
        kept.swap_remove(oldest);
    }
}
