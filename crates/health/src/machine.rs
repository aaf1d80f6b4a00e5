//! The state machine of one instance: what its visits mean, and when the next one is due.
//!
//! No IO and no clock: visits and the time come in, flips and delays go out.

use std::time::Duration;

use roundsman_registry::Health;
use tokio::time::Instant;

/// First delay after a failed visit of an instance that starts.
const STARTING_DELAY: Duration = Duration::from_millis(50);
/// First delay after a failed visit of any other instance.
const DOUBT_DELAY: Duration = Duration::from_millis(200);
/// Evictions longer ago than this no longer count against an instance.
const DAMPING_WINDOW: Duration = Duration::from_secs(600);
/// The most evictions that count: the fourth one asks for eight passes, and so does every later one.
const DAMPING_STEPS: usize = 4;
/// Whoever is remembered for longer than the usual probation is visited so often after that.
pub(crate) const SLOW: Duration = Duration::from_secs(30);
/// Delays never fall below this, whatever the settings say.
const SHORTEST_DELAY: Duration = Duration::from_millis(1);

/// The rules that one instance is under.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) interval: Duration,
    pub(crate) failures: u32,
    /// How long it is remembered once it is evicted.
    pub(crate) probation: Duration,
    /// For how long after its eviction it is visited as often as everybody else: the usual probation.
    pub(crate) eager: Duration,
    pub(crate) start_deadline: Duration,
}

/// What a visit says about the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It is well.
    Pass,
    /// It is gone: no second visit is needed.
    Proof,
    /// It is not well.
    Failure,
    /// It, or the way to it, is not well.
    Silence,
    /// The visit could not be made, for reasons of our own.
    Nothing,
}

/// Which evictions are held back at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// None.
    Nothing,
    /// Those for silence: the fault may be ours, or not every stored instance was visited yet.
    Silence,
}

/// What follows from a visit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The health from now on, when it changed.
    pub(crate) flip: Option<Flip>,
    pub(crate) next: Next,
}

/// A change of health, and whether it was the visit or the start deadline that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flip {
    Passing,
    Reinstated,
    Suspect,
    Evicted,
    NeverStarted,
}

/// When the next visit is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// With the next round.
    Round,
    /// After this time, never more than the interval; late in a long probation never more than half a minute.
    After(Duration),
    /// Never: probation is over.
    Forget,
}

/// The state of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    health: Health,
    /// Since when it starts, or is on probation.
    since: Instant,
    /// Failed visits in a row; during probation, passed ones.
    run: u32,
    /// How often the delay was doubled.
    doublings: u32,
    /// Visits in a row that could not be made.
    unmade: u32,
    /// Whether an eviction is being held back.
    held: bool,
    /// Its latest evictions, oldest first.
    evictions: Vec<Instant>,
}

// === impl Machine ===

impl Machine {
    /// The machine of an instance that has been in `health` since `since`, with its latest evictions, oldest first.
    pub(crate) fn new(health: Health, since: Instant, evictions: impl DoubleEndedIterator<Item = Instant>) -> Self {
        let mut evictions: Vec<_> = evictions.rev().take(DAMPING_STEPS).collect();
        evictions.reverse();
        let run = u32::from(health == Health::Suspect);
        Self { health, since, run, doublings: 0, unmade: 0, held: false, evictions }
    }

    /// Another server saw it in another health, which is where it begins anew. Its evictions still count.
    pub(crate) fn begin_anew(&mut self, health: Health, now: Instant) {
        *self = Self::new(health, now, std::mem::take(&mut self.evictions).into_iter());
    }

    pub(crate) fn health(&self) -> Health {
        self.health
    }

    /// Whether an eviction is held back at this moment.
    pub(crate) fn held(&self) -> bool {
        self.held
    }

    /// Since when it starts, or is on probation.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Whether failing now would evict: then it is worth asking what is held back.
    pub(crate) fn at_the_brink(&self, rules: &Rules, evidence: Evidence, now: Instant) -> bool {
        match self.health {
            Health::Passing | Health::Suspect => evidence == Evidence::Proof || self.run + 1 >= rules.failures,
            Health::Starting => self.time_to_start(rules, now).is_zero(),
            Health::Evicted => false,
        }
    }

    /// Takes in a visit.
    pub(crate) fn visited(&mut self, rules: &Rules, evidence: Evidence, hold: Hold, now: Instant) -> Step {
        self.unmade = if evidence == Evidence::Nothing { self.unmade.saturating_add(1) } else { 0 };
        let step = match (evidence, self.health) {
            (Evidence::Nothing, _) => self.unmade(rules, now),
            (Evidence::Pass, Health::Evicted) => self.passed_on_probation(rules, now),
            (Evidence::Pass, Health::Passing) => self.round(None),
            (Evidence::Pass, Health::Starting | Health::Suspect) => self.pass(),
            (_, Health::Starting) => self.failed_to_start(rules, evidence, hold, now),
            (_, Health::Passing | Health::Suspect) => self.failed(rules, evidence, hold, now),
            (_, Health::Evicted) => self.failed_on_probation(rules, now),
        };
        let Next::After(delay) = step.next else { return step };
        Step { next: Next::After(delay.min(self.longest_delay(rules, now)).max(SHORTEST_DELAY)), ..step }
    }

    /// Whether its probation was over before anybody looked.
    pub(crate) fn is_forgotten(&self, rules: &Rules, now: Instant) -> bool {
        self.health == Health::Evicted && now.saturating_duration_since(self.since) >= rules.probation
    }

    /// The longest time between two visits.
    fn longest_delay(&self, rules: &Rules, now: Instant) -> Duration {
        if self.is_late(rules, now) { rules.interval.max(SLOW) } else { rules.interval }
    }

    /// Whether it has been out for so long that it is visited seldom.
    fn is_late(&self, rules: &Rules, now: Instant) -> bool {
        let out = now.saturating_duration_since(self.since);
        self.health == Health::Evicted && self.run == 0 && (rules.eager..rules.probation).contains(&out)
    }

    fn round(&mut self, flip: Option<Flip>) -> Step {
        (self.run, self.doublings, self.held) = (0, 0, false);
        Step { flip, next: Next::Round }
    }

    fn pass(&mut self) -> Step {
        self.health = Health::Passing;
        self.round(Some(Flip::Passing))
    }

    /// Soon again, but less and less often: where the reason lasts, trying harder makes it worse.
    fn unmade(&self, rules: &Rules, now: Instant) -> Step {
        let delay = DOUBT_DELAY.saturating_mul(1_u32 << (self.unmade - 1).min(31));
        Step { flip: None, next: Next::After(delay.min(self.longest_delay(rules, now))) }
    }

    fn time_to_start(&self, rules: &Rules, now: Instant) -> Duration {
        (self.since + rules.start_deadline).saturating_duration_since(now)
    }

    fn failed_to_start(&mut self, rules: &Rules, evidence: Evidence, hold: Hold, now: Instant) -> Step {
        let left = self.time_to_start(rules, now);
        self.held = left.is_zero() && hold == Hold::Silence && evidence == Evidence::Silence;
        if left.is_zero() && !self.held {
            return self.evict(Flip::NeverStarted, now);
        }
        let delay = self.doubled(STARTING_DELAY, rules);
        // The deadline gets a visit of its own, so that it is not overrun by an interval.
        Step { flip: None, next: Next::After(if self.held { delay } else { delay.min(left) }) }
    }

    fn failed(&mut self, rules: &Rules, evidence: Evidence, hold: Hold, now: Instant) -> Step {
        if self.held && evidence != Evidence::Silence {
            // The silence that was held may have been ours, and does not count against an instance that answers.
            self.run = 0;
        }
        self.run = self.run.saturating_add(1);
        let over = evidence == Evidence::Proof || self.run >= rules.failures;
        self.held = over && hold == Hold::Silence && evidence == Evidence::Silence;
        if over && !self.held {
            return self.evict(Flip::Evicted, now);
        }
        let flip = (self.health != Health::Suspect).then_some(Flip::Suspect);
        self.health = Health::Suspect;
        let delay = if self.held { self.doubled(DOUBT_DELAY, rules) } else { DOUBT_DELAY };
        Step { flip, next: Next::After(delay) }
    }

    fn evict(&mut self, flip: Flip, now: Instant) -> Step {
        if self.evictions.len() >= DAMPING_STEPS {
            self.evictions.remove(0);
        }
        self.evictions.push(now);
        (self.health, self.since, self.run, self.doublings, self.held) = (Health::Evicted, now, 0, 0, false);
        Step { flip: Some(flip), next: Next::After(DOUBT_DELAY) }
    }

    fn passed_on_probation(&mut self, rules: &Rules, now: Instant) -> Step {
        if self.run == 0 {
            self.doublings = 0;
        }
        self.run = self.run.saturating_add(1);
        if self.run >= self.passes_needed(now) {
            self.health = Health::Passing;
            return self.round(Some(Flip::Reinstated));
        }
        // An instance that is just proving itself is not forgotten over it: its passes are few.
        Step { flip: None, next: Next::After(self.doubled(DOUBT_DELAY, rules)) }
    }

    fn failed_on_probation(&mut self, rules: &Rules, now: Instant) -> Step {
        self.run = 0;
        let left = (self.since + rules.probation).saturating_duration_since(now);
        if left.is_zero() {
            return Step { flip: None, next: Next::Forget };
        }
        let most = self.longest_delay(rules, now);
        // Whoever was out for long already when this server started has no row of delays behind it.
        let slow = self.doublings == 0 && self.is_late(rules, now);
        let delay = if slow { most } else { self.doubled_to(DOUBT_DELAY, most) };
        Step { flip: None, next: Next::After(delay.min(left)) }
    }

    /// Passes in a row that reinstate: 1, 2, 4, 8 with the evictions of the last ten minutes.
    fn passes_needed(&self, now: Instant) -> u32 {
        let recent = |at: &&Instant| now.saturating_duration_since(**at) < DAMPING_WINDOW;
        let recent = self.evictions.iter().filter(recent).count();
        1 << (recent.clamp(1, DAMPING_STEPS) - 1)
    }

    /// The delay that comes next in a doubling row, up to the interval.
    fn doubled(&mut self, first: Duration, rules: &Rules) -> Duration {
        self.doubled_to(first, rules.interval)
    }

    fn doubled_to(&mut self, first: Duration, most: Duration) -> Duration {
        let delay = first.saturating_mul(1_u32 << self.doublings.min(31));
        if delay < most {
            self.doublings += 1;
        }
        delay.min(most)
    }
}

#[cfg(test)]
mod tests;
