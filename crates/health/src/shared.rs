//! What all visitors share: the settings, the brake, the start gate and the counters.

use std::{
    num::NonZeroU64,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::{
    Clock, Timestamp,
    status::{BrakeStatus, RoundsStatus},
};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    brake::{Brake, Fall, Standing, Turn},
    lag::Lag,
    lanes::Lanes,
    line::Line,
    machine::{Evidence, Hold, Rules},
    names::Names,
    observation::{Observation, Witness},
    probe::{Https, Room},
    roll::Roll,
    settings::Settings,
    waits::Waits,
};

/// How many others are visited at once when one falls silent and it is not clear whose fault it is.
const SAMPLE: usize = 4;

/// What all visitors share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) settings: Settings,
    pub(crate) clock: Clock,
    /// Rounds are counted from here.
    pub(crate) epoch: Instant,
    pub(crate) observations: mpsc::Sender<Observation>,
    pub(crate) witness: Arc<dyn Witness>,
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) waits: Waits,
    pub(crate) lag: Arc<Lag>,
    pub(crate) room: Room,
    pub(crate) https: Arc<Https>,
    pub(crate) names: Names,
    pub(crate) counters: Counters,
    brake: Mutex<Brake>,
    roll: Mutex<Roll>,
}

/// What the rounds did since the start, and what they are doing.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) in_flight: AtomicU64,
    pub(crate) visits: AtomicU64,
    pub(crate) failed: AtomicU64,
    pub(crate) evictions: AtomicU64,
    pub(crate) reinstatements: AtomicU64,
    unvisited: AtomicU64,
    /// Milliseconds after the epoch: by then evictions for silence begin, whoever was not visited yet.
    gate: AtomicU64,
}

/// A stored instance that was not visited yet. Dropped with the first visit, or with the visitor.
#[derive(Debug)]
pub(crate) struct Unvisited(Arc<Shared>);

/// A visit under way.
#[derive(Debug)]
pub(crate) struct InFlight<'a>(&'a AtomicU64);

/// The place of one instance in the counts of the brake; left when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    shared: Arc<Shared>,
    /// By which it is hurried, also on behalf of others.
    pub(crate) line: Arc<Line>,
    standing: Standing,
    /// Its number among those who can be asked.
    number: Option<NonZeroU64>,
}

// === impl Shared ===

impl Shared {
    pub(crate) fn new(
        settings: Settings,
        clock: Clock,
        observations: mpsc::Sender<Observation>,
        witness: Arc<dyn Witness>,
    ) -> Self {
        let asking = settings.asking.min(settings.max_visits / 2).max(1);
        let names = Names::new(settings.name_servers.as_deref());
        Self {
            clock,
            epoch: Instant::now(),
            observations,
            witness,
            lanes: Arc::new(Lanes::new(asking)),
            waits: Waits::new(settings.max_visits.saturating_sub(asking)),
            lag: Arc::new(Lag::new(settings.timeout)),
            room: Room::new(settings.max_kept),
            https: Arc::new(Https::new(settings.targets.clone(), names.clone(), &settings.user_agent)),
            names,
            counters: Counters::default(),
            brake: Mutex::new(Brake::new(settings.interval, settings.timeout, settings.brake_limit)),
            roll: Mutex::default(),
            settings,
        }
    }

    /// The rules of an instance that is visited every `interval`, and remembered for a time of its own or the usual one.
    pub(crate) fn rules(&self, interval: Duration, forget_after: Option<Duration>) -> Rules {
        let eager = self.settings.probation;
        Rules {
            interval,
            failures: self.settings.failures,
            probation: forget_after.unwrap_or(eager),
            eager,
            start_deadline: self.settings.start_deadline,
        }
    }

    /// Whether every stored instance was visited, so that evictions for silence may begin; or had the time to be.
    pub(crate) fn gate_is_open(&self) -> bool {
        self.counters.unvisited.load(Ordering::Acquire) == 0
            || self.epoch.elapsed().as_millis() >= u128::from(self.counters.gate.load(Ordering::Acquire))
    }

    /// Announces `count` stored instances that wait for their first visit.
    pub(crate) fn unvisited(self: &Arc<Self>, count: usize) -> impl Iterator<Item = Unvisited> {
        let opens = self.epoch.elapsed() + self.settings.interval + self.settings.timeout;
        self.counters.gate.store(u64::try_from(opens.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
        self.counters.unvisited.fetch_add(count as u64, Ordering::AcqRel);
        let shared = Arc::clone(self);
        // All tickets exist before the first is used, or the gate would open in between.
        (0..count).map(move |_| Unvisited(Arc::clone(&shared))).collect::<Vec<_>>().into_iter()
    }

    /// Something that was to happen does not, because we were late.
    pub(crate) fn void(&self) {
        self.lag.void();
        self.witness.voided();
    }

    pub(crate) fn begin_visit(&self) -> InFlight<'_> {
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(&self.counters.in_flight)
    }

    pub(crate) fn status(&self, targets: usize) -> RoundsStatus {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RoundsStatus {
            interval: self.settings.interval,
            timeout: self.settings.timeout,
            failures: self.settings.failures,
            probation: self.settings.probation,
            targets: targets as u64,
            kept: self.room.kept() as u64,
            in_flight: count(&self.counters.in_flight),
            visits: count(&self.counters.visits),
            failed: count(&self.counters.failed),
            evictions: count(&self.counters.evictions),
            reinstatements: count(&self.counters.reinstatements),
            unvisited: count(&self.counters.unvisited),
            queued: self.lanes.queued() as u64,
            lag: self.lag.status(Instant::now(), self.clock.now()),
            names: self.names.status(),
        }
    }

    pub(crate) fn brake_status(&self) -> BrakeStatus {
        let now = Instant::now();
        let (turn, counts) = {
            let mut brake = self.brake();
            (brake.assess(now), brake.counts())
        };
        self.announce(turn);
        let wall = self.clock.now().as_millis();
        let before = |at: Instant| u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or(u64::MAX);
        BrakeStatus {
            on: counts.on_since.is_some(),
            since: counts.on_since.map(|at| Timestamp::from_millis(wall.saturating_sub(before(at)))),
            silent: counts.silent.into(),
            visited: counts.visited.into(),
            held: counts.held.into(),
        }
    }

    /// Whether evictions for silence are held back, for one that does not count because it is not handed out.
    pub(crate) fn brakes(&self, now: Instant) -> bool {
        let (turn, on) = {
            let mut brake = self.brake();
            (brake.assess(now), brake.counts().on_since.is_some())
        };
        self.announce(turn);
        on
    }

    fn brake(&self) -> MutexGuard<'_, Brake> {
        self.brake.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roll(&self) -> MutexGuard<'_, Roll> {
        self.roll.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a few instances visited that answered last time: do they still?
    fn ask_others(&self) {
        let others = self.roll().draw(SAMPLE);
        tracing::debug!(others = others.len(), "visits are hurried: an instance fell silent, or we are cut off");
        for line in others {
            line.nudge();
        }
    }

    fn announce(&self, turn: Option<Turn>) {
        let Some(turn) = turn else { return };
        let counts = self.brake().counts();
        let (silent, visited) = (counts.silent, counts.visited);
        match turn {
            Turn::On => tracing::warn!(
                silent,
                visited,
                "more than half of all instances fell silent: evictions for silence are held back"
            ),
            Turn::Off => tracing::info!(silent, visited, "instances answer again: evictions are no longer held back"),
            Turn::Spent => tracing::warn!(
                silent,
                visited,
                "instances have been silent for too long: evictions are no longer held back"
            ),
        }
    }
}

// === impl Seat ===

impl Seat {
    pub(crate) fn new(shared: Arc<Shared>, line: Arc<Line>, visited: bool) -> Self {
        let mut seat = Self { shared, line, standing: Standing::default(), number: None };
        seat.stand(Standing { visited, unheard: true, ..Standing::default() }, Instant::now());
        seat
    }

    /// Tells the brake what a visit found, and asks which evictions are held back.
    /// `brink`: the visit may evict, so the answer matters.
    pub(crate) fn weigh(&mut self, evidence: Evidence, brink: bool, now: Instant) -> Hold {
        match evidence {
            Evidence::Silence => {
                let fall = self.standing.silent.unwrap_or_else(|| self.shared.brake().fall(now));
                self.stand(Standing { unheard: false, silent: Some(fall), ..self.standing }, now);
                let counts = self.standing.visited;
                let doubted = if counts { self.judge(fall, now) } else { brink && self.shared.brakes(now) };
                if brink && (doubted || !self.shared.gate_is_open()) {
                    return Hold::Silence;
                }
            }
            Evidence::Nothing => {}
            Evidence::Pass | Evidence::Proof | Evidence::Failure => {
                if self.standing.visited {
                    self.shared.brake().answered();
                }
                self.stand(Standing { unheard: false, silent: None, ..self.standing }, now);
            }
        }
        Hold::Nothing
    }

    /// Takes in what became of the instance.
    pub(crate) fn settle(&mut self, visited: bool, held: bool, now: Instant) {
        self.stand(Standing { visited, held, ..self.standing }, now);
    }

    /// Whether an eviction for silence is held back. Has others asked, where that is not clear.
    fn judge(&self, fall: Fall, now: Instant) -> bool {
        let verdict = self.shared.brake().judge(fall, now);
        self.shared.announce(verdict.turn);
        if verdict.ask {
            self.shared.ask_others();
        }
        verdict.holds
    }

    fn stand(&mut self, to: Standing, now: Instant) {
        let from = std::mem::replace(&mut self.standing, to);
        if from == to {
            return;
        }
        let turn = self.shared.brake().moved(from, to, now);
        self.shared.announce(turn);
        if to.visited && to.silent.is_none() {
            self.number.get_or_insert_with(|| self.shared.roll().join(&self.line));
        } else if let Some(number) = self.number.take() {
            self.shared.roll().leave(number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.stand(Standing::default(), Instant::now());
    }
}

// === impl Unvisited ===

impl Drop for Unvisited {
    fn drop(&mut self) {
        self.0.counters.unvisited.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl InFlight ===

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
