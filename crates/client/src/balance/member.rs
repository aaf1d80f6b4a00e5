//! An instance to choose from, and a call to it.

use std::sync::Arc;

use roundsman_protocol::{Instance, Trouble};
use tokio::time::Instant;

use super::peer::Peer;

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
    /// When it began, if its latency is of interest.
    timed: Option<Instant>,
    /// How often the instance had been ejected by then.
    ejections: u32,
    trial: bool,
    /// Somebody said how it went.
    told: bool,
}

// === impl Call ===

impl Call {
    /// A call that begins now; its latency counts if it is `timed`.
    pub(crate) fn begin(member: &Arc<Member>, timed: bool, trial: bool) -> Self {
        let timed = timed.then(Instant::now);
        if timed.is_some() {
            member.peer.load.begin();
        }
        Self { member: Arc::clone(member), timed, ejections: member.peer.ejections(), trial, told: false }
    }

    pub(crate) fn instance(&self) -> &Arc<Instance> {
        &self.member.instance
    }

    pub(crate) fn succeeded(&mut self) {
        self.end(Some(true));
        if self.is_news() {
            self.member.peer.answered(&self.member.instance.id);
        }
    }

    pub(crate) fn failed(&mut self, trouble: Option<&Trouble>) {
        self.end(Some(false));
        if self.is_news() {
            self.member.peer.failed(&self.member.instance.id, trouble);
        }
    }

    /// Whether it began after the last ejection.
    fn is_news(&self) -> bool {
        self.member.peer.ejections() == self.ejections
    }

    fn end(&mut self, answered: Option<bool>) {
        self.told |= answered.is_some();
        if let Some(since) = self.timed.take() {
            self.member.peer.load.end(since.elapsed(), answered);
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
