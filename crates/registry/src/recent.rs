//! The latest flips of all instances, for whoever asks what just happened.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use roundsman_protocol::{Flip, Namespace, status::RecentFlip};

use crate::edit::Effect;

/// How many are kept.
const KEPT: usize = 32;

/// The latest flips.
#[derive(Debug, Default)]
pub(crate) struct Recent(Mutex<VecDeque<RecentFlip>>);

impl Recent {
    /// Keeps those effects that changed a status.
    pub(crate) fn remember(&self, effects: &[Effect]) {
        let flips: Vec<RecentFlip> = effects.iter().rev().filter_map(flip).take(KEPT).collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(flips.into_iter().rev());
        let excess = kept.len().saturating_sub(KEPT);
        kept.drain(..excess);
    }

    /// Those of one namespace, or of all.
    pub(crate) fn newest_first(&self, only: Option<&Namespace>) -> Vec<RecentFlip> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().filter(|flip| only.is_none_or(|only| *only == flip.namespace)).cloned().collect()
    }
}

fn flip(effect: &Effect) -> Option<RecentFlip> {
    let after = effect.after.as_ref()?;
    let flipped = effect.before.as_ref().is_none_or(|before| before.status() != after.status());
    let known = &after.instance;
    flipped.then(|| RecentFlip {
        namespace: known.namespace.clone(),
        name: known.name.clone(),
        id: known.id.clone(),
        address: known.address.to_string().into(),
        flip: Flip { at: known.since, status: known.status, reason: Arc::clone(&known.reason) },
    })
}
