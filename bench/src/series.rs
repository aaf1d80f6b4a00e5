//! The same measurement, round after round.

use std::time::Duration;

use crate::{
    error::Result,
    kernel,
    load::{self, Caller, Load},
    process::Process,
    stats::median,
};

/// One round's figures.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Calls per second.
    pub(crate) rate: f64,
    /// Microseconds.
    pub(crate) p50: f64,
    /// Microseconds.
    pub(crate) p99: f64,
    /// Microseconds of the server's CPU time per call; 0 where it was not measured.
    pub(crate) cpu: f64,
}

/// The rounds of one contestant.
#[derive(Clone, Debug)]
pub(crate) struct Series(Vec<Sample>);

/// One who is measured in turn with others: callers, and the server whose CPU time they take.
#[derive(Debug)]
pub(crate) struct Contestant<C> {
    callers: Vec<C>,
    server: u32,
    series: Series,
}

// === impl Contestant ===

impl<C: Caller> Contestant<C> {
    pub(crate) fn new(callers: Vec<C>, server: &Process) -> Self {
        Self { callers, server: server.pid(), series: Series::new() }
    }

    /// Calls for this long without counting: connections and caches get warm.
    pub(crate) async fn warm_up(&mut self, time: Duration) -> Result<()> {
        load::run(&mut self.callers, time).await.map(drop)
    }

    /// One more round.
    pub(crate) async fn round(&mut self, time: Duration) -> Result<()> {
        let before = self.cpu()?;
        let load = load::run(&mut self.callers, time).await?;
        let cpu = self.cpu()?.saturating_sub(before);
        self.series.push(&load, cpu);
        Ok(())
    }

    pub(crate) fn median(&self) -> Sample {
        self.series.median()
    }

    fn cpu(&self) -> Result<Duration> {
        kernel::cpu_time(self.server)
    }
}

// === impl Series ===

impl Series {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(crate) fn push(&mut self, load: &Load, cpu: Duration) {
        let calls = load.latencies.count() as f64;
        self.0.push(Sample {
            rate: calls / load.elapsed.as_secs_f64(),
            p50: micros(load.latencies.p50()),
            p99: micros(load.latencies.p99()),
            cpu: micros(cpu) / calls.max(1.0),
        });
    }

    pub(crate) fn push_sample(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// Each figure's median over the rounds.
    pub(crate) fn median(&self) -> Sample {
        let of = |field: fn(&Sample) -> f64| median(self.0.iter().map(field));
        Sample { rate: of(|s| s.rate), p50: of(|s| s.p50), p99: of(|s| s.p99), cpu: of(|s| s.cpu) }
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
