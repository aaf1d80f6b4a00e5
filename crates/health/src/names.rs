//! Host names and their addresses, without a thread of the blocking pool.
//!
//! A name server that does not answer is our silence, not that of the instances: what it said last is used on, and is
//! marked as unconfirmed. Questions are asked by tasks of their own, one per name, so that no visit waits for a dead
//! name server longer than it wants to, and an answer that came late serves the next one.
//! Which addresses may be visited is decided by [`TargetPolicy`](crate::TargetPolicy) at every use, not here.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::status::NamesStatus;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{shared::Shared, target::NoAddress};

mod cache;
mod question;
mod source;

use cache::{Cache, Last, Stage, View};
use question::{answered, ask};
use source::Source;

/// The longest that a question may take.
const QUESTION: Duration = Duration::from_secs(2);
/// The longest that the first question about a name may take. It is repeated with more patience, but apart from the
/// others: a thousand names whose name server is dead must not stand before the one whose name server lives.
const FIRST_QUESTION: Duration = Duration::from_secs(1);
/// The most questions at a time, of two packets each.
const MOST_QUESTIONS: usize = 256;
/// The most questions at a time about names whose last question was not answered.
const MOST_REPEATED: usize = 128;
/// The most questions that are under way or wait for their turn, and the most repeated ones.
const MOST_UNDER_WAY: usize = 4_096;
/// How long those wait for an unknown name who do not visit it.
const ELSEWHERE: Duration = Duration::from_millis(500);

/// The addresses of host names. Cheap to clone; when the last clone is dropped, no question is asked any more.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    inner: Arc<Inner>,
    _guard: Arc<DropGuard>,
}

/// The addresses of a name, at least one, in one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) addrs: Arc<[IpAddr]>,
    pub(crate) certainty: Certainty,
}

/// How well it is known that these are the addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Certainty {
    /// A name server, or the hosts file, says so just now.
    Confirmed,
    /// A name server said so before.
    Remembered,
    /// The same, and when it was asked anew it did not answer: why, in words.
    Unconfirmed(Cow<'static, str>),
}

#[derive(Debug)]
struct Inner {
    source: Source,
    cache: Mutex<Cache>,
    questions: Questions,
    repeated: Questions,
    stop: CancellationToken,
    asked: AtomicU64,
    unanswered: AtomicU64,
}

/// The questions of a kind.
#[derive(Debug)]
struct Questions {
    turns: Semaphore,
    tasks: TaskTracker,
}

// === impl Names ===

impl Names {
    /// Reads how the system resolves names; asks `servers` instead of the system's, where there are any.
    pub(crate) fn new(servers: Option<&[SocketAddr]>) -> Self {
        let stop = CancellationToken::new();
        let inner = Inner {
            source: Source::new(servers),
            cache: Mutex::default(),
            questions: Questions::new(MOST_QUESTIONS),
            repeated: Questions::new(MOST_REPEATED),
            stop: stop.clone(),
            asked: AtomicU64::new(0),
            unanswered: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner), _guard: Arc::new(stop.drop_guard()) }
    }

    /// The addresses of a name. Where one is known, a name server that does not answer costs little of the time until
    /// `deadline` or none; where none is known, half of it. Cancel safe.
    pub(crate) async fn find(&self, name: &str, deadline: Instant) -> Result<Known, NoAddress> {
        if let Some(known) = self.at_home(name) {
            return Ok(known);
        }
        let start = Instant::now();
        let view = self.inner.cache().look(name, start);
        if view.fresh {
            return Self::remembered(name, view, start, None);
        }
        let rest = deadline.saturating_duration_since(start);
        let patience = match &view.last {
            _ if view.addrs.is_empty() => rest / 2,
            Last::Silence(_) => Duration::ZERO,
            Last::Never | Last::Answered | Last::Denied(_) => rest / 8,
        };
        let stage = match self.question(name, matches!(view.last, Last::Silence(_))) {
            Some(stage) => answered(stage, start + patience).await,
            None if view.addrs.is_empty() => return Err(busy(name)),
            None => None,
        };
        let view = self.inner.cache().look(name, Instant::now());
        Self::remembered(name, view, start, stage)
    }

    /// The addresses of a name as a name server gives them, asked at `since` or later; those known before, as
    /// [`Certainty::Unconfirmed`], when none answers until `deadline`. Cancel safe.
    pub(crate) async fn confirm(&self, name: &str, since: Instant, deadline: Instant) -> Result<Known, NoAddress> {
        if let Some(known) = self.at_home(name) {
            return Ok(known);
        }
        let view = self.inner.cache().look(name, Instant::now());
        // While questions pause because none was answered, that is known already.
        let told = view.at >= since && view.last != Last::Never;
        let silent = matches!(view.last, Last::Silence(_));
        if !(told || view.fresh && silent)
            && let Some(stage) = self.question(name, silent)
        {
            answered(stage, deadline).await;
        }
        let view = self.inner.cache().look(name, Instant::now());
        let why = match &view.last {
            Last::Denied(why) => return Err(unresolved(name, why)),
            _ if view.addrs.is_empty() => return Err(unresolved(name, "no name server has answered yet")),
            Last::Silence(why) => why.clone(),
            Last::Answered if view.is_confirmed(since) => {
                return Ok(Known { addrs: view.addrs, certainty: Certainty::Confirmed });
            }
            Last::Never | Last::Answered => "no name server has answered yet".into(),
        };
        Ok(Known { addrs: view.addrs, certainty: Certainty::Unconfirmed(why) })
    }

    pub(crate) fn status(&self) -> NamesStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Inner { asked, unanswered, .. } = &*self.inner;
        NamesStatus { asked: count(asked), unanswered: count(unanswered), ..self.inner.cache().count() }
    }

    /// Gives all questions up, and waits until their tasks have ended. Names are not resolved from then on.
    pub(crate) async fn stop(&self) {
        self.inner.stop.cancel();
        for questions in [&self.inner.questions, &self.inner.repeated] {
            questions.tasks.close();
            questions.tasks.wait().await;
        }
    }

    fn at_home(&self, name: &str) -> Option<Known> {
        let addrs = self.inner.source.hosts(name)?;
        Some(Known { addrs: addrs.into(), certainty: Certainty::Confirmed })
    }

    /// What is known after waiting for a question, which is at this stage if it has not ended.
    fn remembered(name: &str, view: View, since: Instant, stage: Option<Stage>) -> Result<Known, NoAddress> {
        if !view.addrs.is_empty() {
            let confirmed = view.is_confirmed(since);
            let certainty = if confirmed { Certainty::Confirmed } else { Certainty::Remembered };
            return Ok(Known { addrs: view.addrs, certainty });
        }
        match (view.last, stage) {
            (Last::Denied(why) | Last::Silence(why), _) if view.fresh => Err(unresolved(name, &why)),
            (_, Some(stage)) if !*stage.borrow() => Err(busy(name)),
            _ => Err(unresolved(name, "no name server has answered yet")),
        }
    }

    /// The question about a name that is under way, or a new one. `again`: the last one was not answered. `None`: too many are
    /// under way, be it about names that are forgotten already.
    fn question(&self, name: &str, again: bool) -> Option<Stage> {
        let name: Arc<str> = Arc::from(name);
        let questions = if again { &self.inner.repeated } else { &self.inner.questions };
        let (sender, stage) = watch::channel(false);
        {
            let mut cache = self.inner.cache();
            if let Some(stage) = cache.asking(&name) {
                return Some(stage);
            }
            if questions.tasks.len() >= MOST_UNDER_WAY {
                return None;
            }
            cache.asked(&name, stage.clone(), Instant::now());
        }
        if !questions.tasks.is_closed() {
            questions.tasks.spawn(ask(Arc::clone(&self.inner), name, again, sender));
        }
        Some(stage)
    }
}

fn busy(name: &str) -> NoAddress {
    NoAddress::Busy(format!("{name} could not be resolved, because this server asks for too many names at a time"))
}

fn unresolved(name: &str, why: &str) -> NoAddress {
    NoAddress::Unresolved(format!("cannot resolve {name}: {why}"))
}

// === impl Shared ===

impl Shared {
    /// The addresses of a name that may be visited, for somebody who does not visit it.
    pub(crate) async fn resolve(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, NoAddress> {
        let known = self.names.find(name, Instant::now() + 2 * ELSEWHERE).await?;
        self.settings.targets.choose(name, &known.addrs, port)
    }
}

// === impl Questions ===

impl Questions {
    fn new(most_at_a_time: usize) -> Self {
        Self { turns: Semaphore::new(most_at_a_time), tasks: TaskTracker::new() }
    }
}

// === impl Inner ===

impl Inner {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
