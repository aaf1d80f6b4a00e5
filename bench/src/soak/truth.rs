//! What was done to whom, and whether what the watchers saw keeps the promises. No IO, and the time is a parameter.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};

use tokio::time::Instant;

use crate::{error::Result, stats::Latencies};

/// Evicted within this time after it was well again: the verdict was on its way.
const GRACE: Duration = Duration::from_secs(3);
/// How long an instance must have been left alone before the next thing happens to it.
const REST: Duration = Duration::from_secs(5);
/// A verdict takes at most this long to come about: what kept the machine busy before it counts for it.
const VERDICT: Duration = Duration::from_secs(8);
/// Watchers see the same eviction within this time of each other.
const SAME: Duration = Duration::from_secs(10);

/// What happens to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `kill -9`; it is started again seconds later.
    Kill,
    /// SIGSTOP for longer than any verdict takes.
    Freeze,
    /// SIGSTOP for less than one timeout: nobody may be evicted for it.
    Blink,
    /// Killed and started again within a second, several times.
    Flap,
    /// It answers 503.
    Failing,
    /// An instance with a ttl renews no more.
    Silence,
}

/// An instance, its watchers, and what is being done to it.
#[derive(Clone, Debug)]
struct Case {
    /// Watchers that are to see it.
    audience: u32,
    /// Of these: whose map has it as handed out.
    up: u32,
    trouble: Option<Trouble>,
    /// When it was well again.
    well_since: Instant,
    /// What was done to it last.
    last: Option<Kind>,
    blamed: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Trouble {
    kind: Kind,
    since: Instant,
    /// When it must be gone from every watcher.
    gone_by: Option<Instant>,
    gone: bool,
}

/// A promise that was not kept.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) instance: usize,
    pub(super) what: String,
    /// From when to when the machine's state counts for it.
    from: Instant,
    pub(super) at: Instant,
}

/// Everything that was done and seen.
#[derive(Debug)]
pub(super) struct Truth {
    cases: Vec<Case>,
    pub(super) done: BTreeMap<Kind, u64>,
    pub(super) gone: BTreeMap<Kind, Latencies>,
    pub(super) false_evictions: Vec<Finding>,
    pub(super) late_evictions: Vec<Finding>,
    /// When this machine, or the server by its own account, lagged, and how it showed.
    starved: Vec<(Instant, Instant)>,
    pub(super) changes: u64,
}

// === impl Kind ===

impl Kind {
    pub(super) const ALL: [Self; 6] = [Self::Kill, Self::Freeze, Self::Blink, Self::Flap, Self::Failing, Self::Silence];

    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::Kill => "kill -9, started again after 3 to 6 s",
            Self::Freeze => "SIGSTOP for longer than a verdict takes",
            Self::Blink => "SIGSTOP for less than a timeout",
            Self::Flap => "killed and started again within a second, thrice",
            Self::Failing => "answers 503",
            Self::Silence => "stops to renew its ttl",
        }
    }
}

// === impl Truth ===

impl Truth {
    /// Of instances that so many watchers each are to see.
    pub(super) fn new(audiences: impl IntoIterator<Item = u32>, now: Instant) -> Self {
        let case = |audience| Case { audience, up: 0, trouble: None, well_since: now, last: None, blamed: None };
        Self {
            cases: audiences.into_iter().map(case).collect(),
            done: BTreeMap::new(),
            gone: BTreeMap::new(),
            false_evictions: Vec::new(),
            late_evictions: Vec::new(),
            starved: Vec::new(),
            changes: 0,
        }
    }

    /// Something is about to be done to an instance; it must be gone from everywhere `within` then.
    pub(super) fn begin(&mut self, instance: usize, kind: Kind, within: Option<Duration>, now: Instant) {
        *self.done.entry(kind).or_default() += 1;
        if let Some(case) = self.cases.get_mut(instance) {
            case.last = Some(kind);
            case.trouble = Some(Trouble { kind, since: now, gone_by: within.map(|within| now + within), gone: false });
        }
    }

    /// It is over: the instance answers again.
    pub(super) fn end(&mut self, instance: usize, now: Instant) {
        self.judge(now);
        if let Some(case) = self.cases.get_mut(instance) {
            (case.trouble, case.well_since) = (None, now);
        }
    }

    /// A watcher's map has the instance as handed out.
    pub(super) fn rises(&mut self, instance: usize) {
        self.changes += 1;
        if let Some(case) = self.cases.get_mut(instance) {
            case.up += 1;
        }
    }

    /// A watcher's map no longer has it so.
    pub(super) fn falls(&mut self, instance: usize, reason: &str, now: Instant) -> Result<()> {
        self.changes += 1;
        let Some(case) = self.cases.get_mut(instance) else { return Ok(()) };
        case.up = case.up.saturating_sub(1);
        let all_know = case.up == 0;
        let guilty = match &case.trouble {
            Some(trouble) => trouble.kind != Kind::Blink,
            None => now.saturating_duration_since(case.well_since) <= GRACE,
        };
        if !guilty && case.blamed.is_none_or(|blamed| now.saturating_duration_since(blamed) > SAME) {
            case.blamed = Some(now);
            let alone = now.saturating_duration_since(case.well_since).as_secs_f64();
            let what = format!("{reason}; it had been left alone for {alone:.1} s, and before: {:?}", case.last);
            self.false_evictions.push(Finding {
                instance,
                what,
                from: now.checked_sub(VERDICT).unwrap_or(now),
                at: now,
            });
        }
        if let Some(trouble) = case.trouble.as_mut().filter(|trouble| all_know && !trouble.gone) {
            trouble.gone = true;
            let took = now.saturating_duration_since(trouble.since);
            match self.gone.entry(trouble.kind) {
                Entry::Occupied(mut latencies) => latencies.get_mut().record(took),
                Entry::Vacant(place) => place.insert(Latencies::new()?).record(took),
            }
        }
        Ok(())
    }

    /// Who is not gone although its time is over?
    pub(super) fn judge(&mut self, now: Instant) {
        for (instance, case) in self.cases.iter_mut().enumerate() {
            let Some(trouble) = &mut case.trouble else { continue };
            let Some(gone_by) = trouble.gone_by.filter(|gone_by| *gone_by <= now) else { continue };
            trouble.gone_by = None;
            if trouble.gone || case.up == 0 {
                continue;
            }
            let Case { up, audience, .. } = case;
            let limit = gone_by.saturating_duration_since(trouble.since).as_secs_f64();
            let what = format!("{:?}: {up} of {audience} watchers still have it after {limit:.1} s", trouble.kind);
            self.late_evictions.push(Finding { instance, what, from: trouble.since, at: gone_by });
        }
    }

    /// Whether everyone has it and nothing happened to it for a while.
    pub(super) fn is_ripe(&self, instance: usize, now: Instant) -> bool {
        self.cases.get(instance).is_some_and(|case| {
            let rested = now.saturating_duration_since(case.well_since) > REST;
            case.trouble.is_none() && case.up == case.audience && rested
        })
    }

    /// How many are well and not in every map.
    pub(super) fn missing(&self) -> usize {
        self.cases.iter().filter(|case| case.trouble.is_none() && case.up < case.audience).count()
    }

    /// The machine, or the server, lagged meanwhile.
    pub(super) fn starved(&mut self, from: Instant, to: Instant) {
        match self.starved.last_mut().filter(|last| from <= last.1) {
            Some(last) => last.1 = last.1.max(to),
            None => self.starved.push((from, to)),
        }
    }

    pub(super) fn starved_for(&self) -> Duration {
        self.starved.iter().map(|(from, to)| to.saturating_duration_since(*from)).sum()
    }

    /// Whether the finding is from a time in which the machine did not let anybody work.
    pub(super) fn is_excused(&self, finding: &Finding) -> bool {
        self.starved.iter().any(|(from, to)| *from <= finding.at && *to >= finding.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// Two watchers have the only instance, and nothing happened to it for a minute.
    fn calm() -> (Truth, Instant) {
        let start = Instant::now();
        let mut truth = Truth::new([2], start);
        truth.rises(0);
        assert!(!truth.is_ripe(0, start + seconds(60)), "one watcher does not have it");
        truth.rises(0);
        assert!(truth.is_ripe(0, start + seconds(60)) && truth.missing() == 0);
        (truth, start + seconds(60))
    }

    #[test]
    fn whoever_is_evicted_in_peace_is_a_false_eviction_and_counts_once() {
        let (mut truth, now) = calm();
        truth.falls(0, "timeout", now).unwrap();
        truth.falls(0, "timeout", now + seconds(1)).unwrap();
        assert_eq!(truth.false_evictions.len(), 1);
        assert_eq!(truth.missing(), 1);
        let finding = truth.false_evictions[0].clone();
        assert!(!truth.is_excused(&finding));
        truth.starved(now - seconds(30), now - seconds(20));
        assert!(!truth.is_excused(&finding), "long before");
        truth.starved(now - seconds(4), now - seconds(2));
        assert!(truth.is_excused(&finding), "while the verdict came about");
        assert_eq!(truth.starved_for(), seconds(12));
    }

    #[test]
    fn whoever_was_killed_may_go_and_must() {
        let (mut truth, now) = calm();
        truth.begin(0, Kind::Kill, Some(seconds(2)), now);
        truth.falls(0, "refused", now + Duration::from_millis(1)).unwrap();
        truth.judge(now + seconds(1));
        assert!(truth.late_evictions.is_empty(), "there is still time");
        truth.judge(now + seconds(3));
        truth.judge(now + seconds(4));
        assert_eq!(truth.late_evictions.len(), 1, "one watcher has it still, and that is said once");
        assert!(truth.late_evictions[0].what.contains("1 of 2"));
        assert!(truth.false_evictions.is_empty() && truth.gone.is_empty());
    }

    #[test]
    fn the_last_watcher_is_what_counts() {
        let (mut truth, now) = calm();
        truth.begin(0, Kind::Freeze, Some(seconds(12)), now);
        truth.falls(0, "timeout", now + seconds(2)).unwrap();
        truth.falls(0, "timeout", now + seconds(7)).unwrap();
        truth.end(0, now + seconds(14));
        assert!(truth.late_evictions.is_empty() && truth.false_evictions.is_empty());
        assert_eq!(truth.gone[&Kind::Freeze].count(), 1);
        assert!(truth.gone[&Kind::Freeze].max().abs_diff(seconds(7)) < Duration::from_millis(20));
        assert!(!truth.is_ripe(0, now + seconds(30)), "it has not come back");
        truth.rises(0);
        truth.falls(0, "late verdict", now + seconds(16)).unwrap();
        assert!(truth.false_evictions.is_empty(), "the verdict was on its way");
        truth.rises(0);
        truth.falls(0, "timeout", now + seconds(18)).unwrap();
        assert_eq!(truth.false_evictions.len(), 1);
    }

    #[test]
    fn a_blink_evicts_nobody() {
        let (mut truth, now) = calm();
        truth.begin(0, Kind::Blink, None, now);
        truth.falls(0, "timeout", now + seconds(1)).unwrap();
        assert_eq!(truth.false_evictions.len(), 1);
    }
}
