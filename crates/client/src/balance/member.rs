//! An instance to choose from, and a call to it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{Instance, Trouble};
use tokio::time::Instant;

use super::peer::Peer;
use crate::breaker::{Before, Counted};

/// One instance, and what we know of it by our own calls.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: Arc<Instance>,
    pub(crate) peer: Arc<Peer>,
    /// Of its id.
    pub(crate) hash: u64,
}

/// A call that began. It holds one pointer, so that picking costs no more than counting that up and down.
#[derive(Debug)]
pub(crate) struct Call {
    member: Arc<Member>,
    /// When it began, if its latency is of interest, and how the load knows that.
    timed: Option<(Instant, u64)>,
    /// How often the instance had been ejected by then.
    ejections: u32,
    trial: bool,
    /// It had to go to this instance and no other: its answer tells nothing of what the instance does with the rest.
    named: bool,
    /// Somebody said how it went.
    told: bool,
    /// It took so long that it counted as a failure before its end.
    overdue: Option<Counted>,
}

/// An answer that counted as one, and may turn out to be of no use.
#[derive(Debug)]
pub(crate) struct Verdict {
    member: Arc<Member>,
    ejections: u32,
    before: Option<Before>,
    rejected: AtomicBool,
}

// === impl Call ===

impl Call {
    /// A call that begins now; its latency counts if it is `timed`.
    pub(crate) fn begin(member: &Arc<Member>, timed: bool, trial: bool) -> Self {
        let timed = timed.then(|| (Instant::now(), member.peer.load.begin()));
        let ejections = member.peer.ejections();
        Self { member: Arc::clone(member), timed, ejections, trial, named: false, told: false, overdue: None }
    }

    /// It had to go to this instance and no other.
    pub(crate) fn named(mut self) -> Self {
        self.named = true;
        self
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.member.instance
    }

    pub(crate) fn peer(&self) -> &Peer {
        &self.member.peer
    }

    pub(crate) fn succeeded(&mut self) -> Verdict {
        self.end(Some(true));
        let (peer, ejections) = (&self.member.peer, self.ejections);
        let mut before = None;
        if self.is_news() {
            if !self.named {
                before = Some(peer.answered(&self.member.instance.id, self.overdue));
            } else if let Some(counted) = self.overdue {
                peer.take_back(counted);
            }
        }
        Verdict { member: Arc::clone(&self.member), ejections, before, rejected: AtomicBool::new(false) }
    }

    pub(crate) fn failed(&mut self, trouble: Option<&Trouble>) {
        self.end(Some(false));
        if self.is_news() && self.overdue.is_none() {
            self.member.peer.failed(&self.member.instance, trouble);
        }
    }

    /// It waits for much longer than is usual: that counts now, whatever comes of it.
    pub(crate) fn overdue(&mut self) {
        if self.is_news() && self.overdue.is_none() {
            self.overdue = Some(self.member.peer.overdue(&self.member.instance));
        }
        self.told = true;
    }

    /// It was never made, and tells nothing.
    pub(crate) fn unused(&mut self) {
        // Whoever is to be tried is tried by the next call.
        self.told = true;
    }

    /// Its answer came after so long.
    pub(crate) fn took(&self, time: Duration) {
        self.member.peer.latencies.note(time);
    }

    /// Whether it began after the last ejection.
    fn is_news(&self) -> bool {
        self.member.peer.ejections() == self.ejections
    }

    fn end(&mut self, answered: Option<bool>) {
        self.told |= answered.is_some();
        if let Some((since, began)) = self.timed.take() {
            self.member.peer.load.end(began, since.elapsed(), answered);
        }
    }
}

// === impl Verdict ===

impl Verdict {
    /// The answer is of no use to its caller. Counts once.
    pub(crate) fn rejected(&self) {
        let peer = &self.member.peer;
        if peer.ejections() == self.ejections && !self.rejected.swap(true, Ordering::Relaxed) {
            peer.rejected(&self.member.instance, self.before);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(None);
        if self.trial {
            self.member.peer.end_trial(self.told);
        }
    }
}
