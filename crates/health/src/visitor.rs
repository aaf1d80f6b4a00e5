//! One visitor per instance: a thin shell that waits, visits and reports. What it means is decided by the machine.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use roundsman_protocol::{Address, Check, CheckKind};
use roundsman_registry::{Health, Key, Record};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    habit::Habit,
    lanes::{ASKING, Lane, Permit},
    line::Line,
    machine::{Machine, Next, SLOW},
    observation::Class,
    probe::{Finding, Probe, Visit},
    schedule::{Allowance, Place},
    shared::{Seat, Shared, Unvisited},
    shares::Owner,
};

pub(crate) mod caller;
mod judging;
mod telling;

/// Visits one instance until it is dropped.
#[derive(Debug)]
pub(crate) struct Visitor {
    shared: Arc<Shared>,
    name: Name,
    owner: Owner,
    address: Address,
    check: Arc<Check>,
    interval: Duration,
    timeout: Duration,
    machine: Machine,
    probe: Probe,
    seat: Seat,
    habit: Habit,
    allowance: Allowance,
    place: Place,
    unvisited: Option<Unvisited>,
    /// What was said last of why it does not pass yet, as a hash.
    told: Option<u64>,
    /// Visits in a row that were void.
    voided: u8,
}

/// Which life of which instance is visited.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) key: Key,
    pub(crate) incarnation: u64,
}

/// What a visit was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake {
    Due,
    /// Due for the first time, and the instance has just registered.
    New,
    Nudged,
    Closed,
}

/// How long a process that seems to be dying is given until it is visited once more, and once more.
const DYING: [Duration; 4] =
    [Duration::from_millis(5), Duration::from_millis(10), Duration::from_millis(20), Duration::from_millis(40)];

/// Visits that could not be made are made again up to so much further apart.
const APART: Duration = Duration::from_secs(2);

// === impl Visitor ===

impl Visitor {
    /// A visitor of an instance; `None` when its check knows no visits.
    pub(crate) fn new(
        shared: &Arc<Shared>,
        line: Arc<Line>,
        record: &Record,
        unvisited: Option<Unvisited>,
    ) -> Option<Self> {
        let (instance, settings) = (&record.instance, &shared.settings);
        let probe = Probe::new(&instance.check, &instance.address, &settings.user_agent, &shared.https)?;
        let name = name(record);
        let interval = instance.check.interval.unwrap_or(settings.interval).max(Duration::from_millis(1));
        let now = Instant::now();
        Some(Self {
            seat: Seat::new(Arc::clone(shared), line, is_handed_out(record.observed.health)),
            address: instance.address.clone(),
            interval,
            // What a store holds was not always checked when it registered.
            timeout: instance.check.timeout.map_or(settings.timeout, |timeout| timeout.min(interval)),
            owner: Owner { namespace: name.key.namespace.clone(), service: instance.name.clone() },
            check: Arc::clone(&instance.check),
            machine: machine(shared, record, now),
            probe,
            habit: Habit::default(),
            allowance: Allowance::new(now),
            place: Place::of(&name.key),
            name,
            unvisited,
            told: None,
            voided: 0,
            shared: Arc::clone(shared),
        })
    }

    /// The time until the first visit, for an instance that was tracked while the server ran.
    pub(crate) fn first_visit(&self) -> Duration {
        match self.machine.health() {
            Health::Passing => self.until_round(),
            Health::Starting | Health::Suspect | Health::Evicted => Duration::ZERO,
        }
    }

    /// The time until the first visit, for one of `count` stored instances.
    pub(crate) fn first_visit_of(&self, count: usize) -> Duration {
        self.place.at_start(count, self.shared.settings.interval)
    }

    /// Makes the first visit after `first`, and goes on until it is dropped because the instance is gone.
    pub(crate) async fn run(&mut self, first: Duration) {
        if self.is_forgotten() {
            drop(self.unvisited.take());
            if Box::pin(self.forget()).await.is_err() {
                return;
            }
        }
        let mut due = Instant::now() + first;
        let mut usual = if self.unvisited.is_some() { Wake::Due } else { Wake::New };
        loop {
            let wake = self.wait(due).await.max(std::mem::replace(&mut usual, Wake::Due));
            let Some(next) = self.look(wake).await else { return };
            due = next;
        }
    }

    /// Visits, and tells what came of it. Returns when the next visit is due; `None` when the rounds are over.
    async fn look(&mut self, wake: Wake) -> Option<Instant> {
        let mut seen = self.visit(wake).await?;
        if wake >= Wake::Nudged && self.may_be_dying(&seen.0) {
            // Boxed, so that only those who die take the room for it.
            seen = Box::pin(self.visit_dying(seen, wake)).await?;
        }
        let (now, (finding, took)) = (Instant::now(), seen);
        if wake == Wake::Closed && finding.class == Some(Class::Passed) {
            self.habit.closed_harmlessly(now);
            if !self.habit.keeps(now) {
                self.probe.let_go();
            }
        }
        let step = self.judge(&finding, now);
        self.report(step, &finding, took).await.ok()?;
        Some(now + self.until(step.next, finding.class, now))
    }

    /// The time until the next visit.
    fn until(&self, next: Next, class: Option<Class>, now: Instant) -> Duration {
        match next {
            Next::Round => self.until_round(),
            // What kept this visit from being made kept many: together they would only do it again.
            Next::After(delay) if class.is_none() => delay + APART.min(self.interval).mul_f64(fastrand::f64()),
            // Many are evicted together, in an outage; they must not be visited together for days.
            Next::After(delay) if delay >= SLOW && self.machine.health() == Health::Evicted => {
                self.place.until_round(self.shared.epoch, delay, now)
            }
            Next::After(delay) => delay,
            // It was to be forgotten, and is still there.
            Next::Forget => Duration::ZERO,
        }
    }

    fn until_round(&self) -> Duration {
        self.place.until_round(self.shared.epoch, self.interval, Instant::now())
    }

    /// Whether this may be what is left of a killed process: its sockets close one after the other, and until it is the
    /// listener's turn the kernel goes on accepting connections for it, which nobody will ever answer.
    fn may_be_dying(&self, finding: &Finding) -> bool {
        match finding.class {
            Some(Class::Reset) => true,
            Some(Class::Passed) => self.check.kind == CheckKind::Tcp,
            _ => false,
        }
    }

    /// Visits again for as long as it may be dying, a few times. `None` when the rounds are over.
    async fn visit_dying(&mut self, mut seen: (Finding, Duration), wake: Wake) -> Option<(Finding, Duration)> {
        for pause in DYING {
            sleep(pause).await;
            seen = self.visit(wake).await?;
            if !self.may_be_dying(&seen.0) {
                break;
            }
        }
        Some(seen)
    }

    /// Waits until the next visit is due, or until something hurries it.
    async fn wait(&mut self, due: Instant) -> Wake {
        let (mut due, mut wake) = (due, Wake::Due);
        loop {
            tokio::select! {
                () = sleep_until(due) => break,
                () = self.seat.line.nudged() => wake = wake.max(Wake::Nudged),
                () = poll_fn(|cx| self.probe.poll_closed(cx)) => wake = Wake::Closed,
            }
            let now = Instant::now();
            due = due.min(self.allowance.earliest(now));
            if due <= now {
                break;
            }
        }
        if wake != Wake::Due {
            self.allowance.book(Instant::now());
        }
        wake
    }

    /// How soon a visit must be made.
    fn lane(&self, wake: Wake) -> Lane {
        let doubted = self.machine.health() == Health::Suspect && !self.machine.held();
        let hurried = wake != Wake::Due && self.machine.health() != Health::Evicted;
        if doubted || hurried { Lane::Urgent } else { Lane::Routine }
    }

    /// Visits, when its turn has come. `None` when the rounds are over.
    async fn visit(&mut self, wake: Wake) -> Option<(Finding, Duration)> {
        let permit = self.shared.lanes.enter(self.lane(wake), &self.owner).await?;
        let start = Instant::now();
        // Boxed, so that only those who are being visited take the room for it.
        let found = Box::pin(self.ask(permit, start)).await;
        if let Some(Finding { class: None, detail }) = &found {
            let reason = detail.reason(&self.check, start.elapsed());
            tracing::warn!(id = %self.name.key.id, %reason, "a visit could not be made");
        }
        let now = Instant::now();
        let took = now.saturating_duration_since(start);
        let found = found.unwrap_or_else(|| self.cut_short(took));
        let finding = self.unless_void(found, start, now);
        if let Some(class) = finding.class {
            self.unvisited = None;
            self.shared.counters.visits.fetch_add(1, Ordering::Relaxed);
            if class != Class::Passed {
                self.shared.counters.failed.fetch_add(1, Ordering::Relaxed);
            }
            self.shared.witness.visited(class, took);
        }
        Some((finding, took))
    }

    /// Asks, and waits for the answer. The permit is given back when that does not come at once. `None`: the visit was ended
    /// early, because too many wait.
    async fn ask(&mut self, permit: Permit, start: Instant) -> Option<Finding> {
        let Self { shared, probe, owner, .. } = self;
        let _in_flight = shared.begin_visit();
        let visit = Visit {
            address: &self.address,
            policy: &shared.settings.targets,
            names: &shared.names,
            timeout: self.timeout,
            deadline: start + self.timeout,
            room: self.habit.keeps(start).then_some(&shared.room),
        };
        let mut visiting = pin!(probe.visit(&visit));
        if let Ok(finding) = timeout(ASKING, visiting.as_mut()).await {
            return Some(finding);
        }
        drop(permit);
        // Boxed, because those who hang are the exception, and every visitor has room for the larger way.
        Box::pin(shared.waits.outlast(visiting, owner)).await
    }
}

/// Which life of which instance it is.
pub(crate) fn name(record: &Record) -> Name {
    Name { key: record.key(), incarnation: record.asked.incarnation }
}

/// The machine of a record: how long it has been on probation, and how often it was evicted lately.
fn machine(shared: &Shared, record: &Record, now: Instant) -> Machine {
    let wall = shared.clock.now();
    let when = |at| now.checked_sub(wall.since(at));
    let since = match record.observed.health {
        Health::Evicted => when(record.observed.since).unwrap_or(now),
        // Time that passed while no server ran is not held against it.
        Health::Starting | Health::Passing | Health::Suspect => now,
    };
    let evicted = |flip: &&roundsman_protocol::Flip| flip.status == roundsman_protocol::InstanceStatus::Evicted;
    let evictions = record.history.iter().filter(evicted).filter_map(|flip| when(flip.at));
    Machine::new(record.observed.health, since, evictions)
}

fn is_handed_out(health: Health) -> bool {
    matches!(health, Health::Passing | Health::Suspect)
}
