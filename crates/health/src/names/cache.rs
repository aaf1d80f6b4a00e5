//! What is known of host names, and for how long. Pure: no sockets, and the time is a parameter.

use std::{borrow::Cow, collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use roundsman_protocol::status::NamesStatus;
use tokio::{sync::watch, time::Instant};

/// Answers are believed for at least this long, whatever they say: nobody moves more often.
const SHORTEST_TTL: Duration = Duration::from_secs(1);
/// Answers are believed for at most this long, whatever they say: instances move.
const LONGEST_TTL: Duration = Duration::from_secs(30);
/// The same for the answer that there is no such name.
const SHORTEST_DENIAL: Duration = Duration::from_secs(1);
const LONGEST_DENIAL: Duration = Duration::from_secs(5);
/// How long nobody asks again after a question without an answer; doubled with each, up to the longest denial.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Names that nobody asked for this long are forgotten: longer than any interval, or the last known address of who is visited
/// that seldom would be forgotten between two visits.
const UNUSED: Duration = Duration::from_secs(2 * 3_600);
/// How often those are looked for.
const SWEEP: Duration = Duration::from_secs(60);
/// The most names that are remembered.
const MOST_NAMES: usize = 16_384;
/// The most addresses of a name that are remembered.
const MOST_ADDRESSES: usize = 16;

/// What a question came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name has these addresses, for this long.
    Addresses(Vec<IpAddr>, Duration),
    /// The name has these addresses of one family, for this long; about those of the other one nobody answered.
    Half(Vec<IpAddr>, Duration),
    /// There is no such name, or it has no address: for this long, if the answer says that.
    Denied(Cow<'static, str>, Option<Duration>),
    /// No name server answered, or none could.
    Silence(Cow<'static, str>),
}

/// Where the question about a name stands: whether it has left for the name server. The sender is dropped when the
/// cache knows what became of it.
pub(super) type Stage = watch::Receiver<bool>;

/// What came of the last question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Last {
    /// None was answered or given up yet.
    Never,
    Answered,
    Denied(Cow<'static, str>),
    Silence(Cow<'static, str>),
}

/// What is known of one name.
#[derive(Clone, Debug)]
pub(super) struct View {
    /// Sorted. Empty when no address is known.
    pub(super) addrs: Arc<[IpAddr]>,
    pub(super) last: Last,
    /// When the last question ended.
    pub(super) at: Instant,
    /// Whether that is recent enough not to ask again.
    pub(super) fresh: bool,
}

/// What is known of host names.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: HashMap<Arc<str>, Entry>,
    swept: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    view: View,
    until: Instant,
    used: Instant,
    /// Questions without an answer in a row.
    silences: u32,
    asking: Option<Stage>,
}

// === impl Cache ===

impl Cache {
    /// What is known of a name, by somebody who uses it.
    pub(super) fn look(&mut self, name: &str, now: Instant) -> View {
        let Some(entry) = self.entries.get_mut(name) else { return View::unknown(now) };
        entry.used = now;
        View { fresh: now < entry.until, ..entry.view.clone() }
    }

    /// The question about a name that is under way.
    pub(super) fn asking(&self, name: &str) -> Option<Stage> {
        // A sender that is gone without an answer was stopped, or its task panicked.
        self.entries.get(name)?.asking.clone().filter(|stage| stage.has_changed().is_ok())
    }

    /// A question about a name is under way from now on.
    pub(super) fn asked(&mut self, name: &Arc<str>, stage: Stage, now: Instant) {
        self.sweep(now);
        let fresh = || Entry { view: View::unknown(now), until: now, used: now, silences: 0, asking: None };
        self.entries.entry(Arc::clone(name)).or_insert_with(fresh).asking = Some(stage);
    }

    /// Takes in what a question came to.
    pub(super) fn settle(&mut self, name: &str, answer: Answer, now: Instant) {
        let Some(entry) = self.entries.get_mut(name) else { return };
        let silences = std::mem::take(&mut entry.silences);
        let (addrs, last, ttl) = match answer {
            Answer::Addresses(addrs, ttl) => (sorted(addrs), Last::Answered, ttl.clamp(SHORTEST_TTL, LONGEST_TTL)),
            Answer::Half(mut addrs, ttl) => {
                let is_answered = |ip: &IpAddr| addrs.iter().any(|new| new.is_ipv4() == ip.is_ipv4());
                let kept: Vec<IpAddr> = entry.view.addrs.iter().copied().filter(|ip| !is_answered(ip)).collect();
                addrs.extend(kept);
                (sorted(addrs), Last::Answered, ttl.clamp(SHORTEST_TTL, LONGEST_TTL))
            }
            Answer::Denied(why, ttl) => {
                let ttl = ttl.unwrap_or(SHORTEST_DENIAL).clamp(SHORTEST_DENIAL, LONGEST_DENIAL);
                (Arc::default(), Last::Denied(why), ttl)
            }
            Answer::Silence(why) => {
                entry.silences = silences.saturating_add(1);
                let pause = FIRST_PAUSE.saturating_mul(1 << silences.min(8)).min(LONGEST_DENIAL);
                (Arc::clone(&entry.view.addrs), Last::Silence(why), pause)
            }
        };
        entry.view = View { addrs, last, at: now, fresh: true };
        (entry.until, entry.asking) = (now + ttl, None);
    }

    /// How many names are known, and how many of these are used without a name server's word.
    pub(super) fn count(&self) -> NamesStatus {
        let known = self.entries.values().filter(|entry| !entry.view.addrs.is_empty());
        let stale = known.clone().filter(|entry| matches!(entry.view.last, Last::Silence(_)));
        NamesStatus { known: known.count() as u64, stale: stale.count() as u64, ..NamesStatus::default() }
    }

    /// Forgets what nobody uses, and more when there are too many names.
    fn sweep(&mut self, now: Instant) {
        let full = self.entries.len() >= MOST_NAMES;
        if !full && self.swept.is_some_and(|swept| now.saturating_duration_since(swept) < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.entries.retain(|_, entry| now.saturating_duration_since(entry.used) < UNUSED);
        if self.entries.len() < MOST_NAMES {
            return;
        }
        // A quarter at once, so that this is not to be done again with the next name.
        let mut used: Vec<Instant> = self.entries.values().map(|entry| entry.used).collect();
        let (_, oldest, _) = used.select_nth_unstable(MOST_NAMES / 4);
        let oldest = *oldest;
        let mut spared = MOST_NAMES * 3 / 4;
        self.entries.retain(|_, entry| {
            let keep = entry.used >= oldest && spared > 0;
            spared -= usize::from(keep);
            keep
        });
    }
}

// === impl View ===

impl View {
    fn unknown(now: Instant) -> Self {
        Self { addrs: Arc::default(), last: Last::Never, at: now, fresh: false }
    }

    /// Whether a name server gave these addresses at `since` or later.
    pub(super) fn is_confirmed(&self, since: Instant) -> bool {
        self.last == Last::Answered && self.at >= since
    }
}

/// In one order, whatever order a name server gives them in, so that they can be compared.
fn sorted(mut addrs: Vec<IpAddr>) -> Arc<[IpAddr]> {
    for addr in &mut addrs {
        *addr = addr.to_canonical();
    }
    addrs.sort_unstable();
    addrs.dedup();
    addrs.truncate(MOST_ADDRESSES);
    addrs.into()
}

#[cfg(test)]
mod tests;
