//! What happens to instances: each of them is killed, frozen, made to flap or to fail, and left alone again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fastrand::Rng;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until},
};

use super::{
    plan::Plan,
    population::{self, TTL},
    truth::{Kind, Truth},
    watcher::lock,
};
use crate::{
    error::{Context, Result},
    process::Helper,
};

/// A connection that breaks is no silence: whoever was killed is gone within this time, on a busy machine too.
pub(super) const KILLED: Duration = Duration::from_secs(2);
/// Silence: one interval, two timeouts, the pause between them, and what the brake's second opinion may take.
pub(super) const SILENT: Duration = Duration::from_millis(5_000 + 2_000 + 200 + 4_000);
/// A ttl that ran out: looked for at least each second.
pub(super) const EXPIRED: Duration = Duration::from_secs(TTL.as_secs() + 4);
/// The longest that anything of this takes.
pub(super) const LONGEST: Duration = Duration::from_secs(18);

/// Those who renew, and do so unless this says otherwise. By their number from the first of them on.
pub(super) type Silent = Arc<[AtomicBool]>;

/// Whoever makes it happen.
#[derive(Debug)]
pub(super) struct Director {
    pub(super) plan: Plan,
    pub(super) truth: Arc<Mutex<Truth>>,
    pub(super) silent: Silent,
    pub(super) port: u16,
    pub(super) rng: Rng,
}

/// An instance with a process of its own.
#[derive(Debug)]
struct Single {
    number: u32,
    helper: Helper,
}

/// What one task needs to do its part.
#[derive(Debug)]
struct Scene {
    truth: Arc<Mutex<Truth>>,
    port: u16,
    rng: Rng,
}

// === impl Director ===

impl Director {
    /// Goes on until `end`, then waits until everybody is left alone again.
    pub(super) async fn run(mut self, singles: Vec<Helper>, end: Instant) -> Result<Vec<Helper>> {
        let mut idle: Vec<Single> =
            self.plan.singles().zip(singles).map(|(number, helper)| Single { number, helper }).collect();
        let mut scenes = JoinSet::new();
        let mut ticks = interval(self.plan.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = sleep_until(end) => break,
                Some(ended) = scenes.join_next() => idle.extend(ended.context("playing a scene")??),
                _ = ticks.tick() => {
                    let kind = self.choose();
                    if kind == Kind::Silence {
                        self.silence(&mut scenes);
                    } else if let Some(single) = self.victim(&mut idle) {
                        let scene = Scene { truth: Arc::clone(&self.truth), port: self.port, rng: self.rng.fork() };
                        scenes.spawn(async move { scene.play(kind, single).await.map(Some) });
                    }
                }
            }
        }
        while let Some(ended) = scenes.join_next().await {
            idle.extend(ended.context("playing a scene")??);
        }
        Ok(idle.into_iter().map(|single| single.helper).collect())
    }

    fn choose(&mut self) -> Kind {
        match self.rng.u32(0..100) {
            0..40 => Kind::Kill,
            40..58 => Kind::Freeze,
            58..68 => Kind::Blink,
            68..85 => Kind::Flap,
            85..94 => Kind::Failing,
            _ => Kind::Silence,
        }
    }

    /// Somebody whom all watchers have and to whom nothing happened for a while.
    fn victim(&mut self, idle: &mut Vec<Single>) -> Option<Single> {
        let (truth, now) = (lock(&self.truth), Instant::now());
        let ripe = |single: &Single| usize::try_from(single.number).is_ok_and(|number| truth.is_ripe(number, now));
        let all: Vec<usize> = idle.iter().enumerate().filter(|(_, one)| ripe(one)).map(|(at, _)| at).collect();
        let chosen = self.rng.choice(all)?;
        Some(idle.swap_remove(chosen))
    }

    /// One of those who renew falls silent for a while.
    fn silence(&mut self, scenes: &mut JoinSet<Result<Option<Single>>>) {
        let turn = self.rng.usize(0..self.silent.len().max(1));
        let instance = usize::try_from(self.plan.renewing().start).unwrap_or_default() + turn;
        let (truth, silent) = (Arc::clone(&self.truth), Arc::clone(&self.silent));
        if !lock(&truth).is_ripe(instance, Instant::now()) {
            return;
        }
        scenes.spawn(async move {
            lock(&truth).begin(instance, Kind::Silence, Some(EXPIRED), Instant::now());
            set(&silent, turn, true);
            sleep(EXPIRED + Duration::from_secs(2)).await;
            set(&silent, turn, false);
            lock(&truth).end(instance, Instant::now());
            Ok(None)
        });
    }
}

fn set(silent: &Silent, turn: usize, value: bool) {
    if let Some(flag) = silent.get(turn) {
        flag.store(value, Ordering::Relaxed);
    }
}

// === impl Scene ===

impl Scene {
    async fn play(mut self, kind: Kind, mut single: Single) -> Result<Single> {
        let within = match kind {
            Kind::Kill => Some(KILLED),
            Kind::Freeze | Kind::Failing => Some(SILENT),
            Kind::Blink | Kind::Flap | Kind::Silence => None,
        };
        let instance = usize::try_from(single.number).unwrap_or(usize::MAX);
        lock(&self.truth).begin(instance, kind, within, Instant::now());
        match kind {
            Kind::Kill => self.restart(&mut single, 3_000..6_000).await?,
            Kind::Flap => {
                for _ in 0..3 {
                    self.restart(&mut single, 50..900).await?;
                    self.pause(300..1_500).await;
                }
            }
            Kind::Freeze => self.freeze(&mut single, 12_000..17_000).await?,
            Kind::Blink => self.freeze(&mut single, 200..600).await?,
            Kind::Failing => {
                single.helper.ask("503").await?;
                self.pause(12_000..15_000).await;
                single.helper.ask("200").await?;
            }
            Kind::Silence => {}
        }
        lock(&self.truth).end(instance, Instant::now());
        Ok(single)
    }

    /// `kill -9`, and the same again at the same address after a while.
    async fn restart(&mut self, single: &mut Single, after: std::ops::Range<u64>) -> Result<()> {
        single.helper.process().kill()?;
        self.pause(after).await;
        single.helper = population::single(single.number, self.port).await?;
        Ok(())
    }

    async fn freeze(&mut self, single: &mut Single, time: std::ops::Range<u64>) -> Result<()> {
        single.helper.process().freeze()?;
        self.pause(time).await;
        single.helper.process().thaw()
    }

    async fn pause(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.rng.u64(millis))).await;
    }
}
