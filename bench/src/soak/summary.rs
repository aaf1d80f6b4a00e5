//! What came of it, as figures and as a page.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use roundsman_protocol::Clock;

use super::{
    gauge::{Account, Gauge, Sample},
    lookups::{Doorbell, Lookups},
    plan::Plan,
    troubles::{EXPIRED, KILLED, LONGEST, SILENT},
    truth::{Finding, Kind, Truth},
    watcher::{Watcher, lock},
};
use crate::{
    error::Result,
    machine::Machine,
    rows::duration,
    stats::{Latencies, median},
};

/// The page names so many findings of a kind.
const NAMED: usize = 20;
/// Memory is flat when the last tenth's median is not beyond the second tenth's by more than this share, or, where that
/// is more, by this much.
const GROWTH: f64 = 1.1;
const SLACK: f64 = 10e6;

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Evidence<'a> {
    pub(super) plan: Plan,
    pub(super) elapsed: Duration,
    pub(super) helpers_cpu: Duration,
    pub(super) server_cpu: Duration,
    pub(super) truth: &'a Truth,
    pub(super) watchers: &'a [Arc<Watcher>],
    pub(super) gauge: &'a Gauge,
    pub(super) lookups: &'a Lookups,
    pub(super) doorbell: &'a Doorbell,
    pub(super) hostile: BTreeMap<&'static str, u64>,
    pub(super) renewals: &'a AtomicU64,
    /// Watchers that differ from the server at the end.
    pub(super) unequal: Vec<String>,
    pub(super) evictions: Account,
}

/// What to tell.
#[derive(Debug)]
pub(super) struct Summary {
    lines: Vec<(String, String)>,
    verdicts: Vec<Verdict>,
    findings: Vec<String>,
}

/// A promise, and whether it was kept.
#[derive(Debug)]
struct Verdict {
    promise: &'static str,
    found: String,
    kept: bool,
}

/// The server's memory at four moments, in bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Memory {
    first: f64,
    early: f64,
    middle: f64,
    last: f64,
    most: f64,
}

// === impl Summary ===

impl Summary {
    pub(super) fn new(evidence: Evidence<'_>) -> Result<Self> {
        let samples = lock(&evidence.gauge.samples).clone();
        let memory = Memory::of(&samples);
        let (lines, verdicts) = (evidence.lines(&samples, memory)?, evidence.verdicts(memory));
        let truth = evidence.truth;
        let tell = |what: &'static str| {
            move |finding: &Finding| {
                let excuse = if truth.is_excused(finding) { " (while the machine or the server lagged)" } else { "" };
                format!("{what}: instance {}, {}{excuse}", finding.instance, finding.what)
            }
        };
        let false_ones = truth.false_evictions.iter().map(tell("evicted while it was well"));
        let late_ones = truth.late_evictions.iter().map(tell("kept"));
        let findings = false_ones.take(NAMED).chain(late_ones.take(NAMED));
        let findings = findings.chain(evidence.unequal.iter().take(NAMED).cloned()).collect();
        Ok(Self { lines, verdicts, findings })
    }

    /// Whether every promise was kept.
    pub(super) fn holds(&self) -> bool {
        self.verdicts.iter().all(|verdict| verdict.kept)
    }

    /// The page. Writing into a string cannot fail.
    pub(super) fn markdown(&self, machine: &Machine, seed: u64) -> String {
        let mut page = String::from("# Soak\n\nWritten by `./scripts/soak.sh`; run it to see your machine do it.\n\n");
        let _ = writeln!(page, "- when: {}", Clock::system().now());
        let _ = writeln!(page, "- where: {machine}");
        let _ = writeln!(page, "- Roundsman {}, release build; seed {seed}\n", env!("CARGO_PKG_VERSION"));
        page.push_str("| promise | found | kept |\n|---|---|---|\n");
        for Verdict { promise, found, kept } in &self.verdicts {
            let _ = writeln!(page, "| {promise} | {found} | {} |", if *kept { "yes" } else { "NO" });
        }
        page.push_str("\n| what | measured |\n|---|---|\n");
        for (what, measured) in &self.lines {
            let _ = writeln!(page, "| {what} | {measured} |");
        }
        if !self.findings.is_empty() {
            page.push_str("\n## Findings\n\n");
            for finding in &self.findings {
                let _ = writeln!(page, "- {finding}");
            }
        }
        let _ = write!(page, "\n{}", rules());
        page
    }
}

/// How it was judged.
fn rules() -> String {
    format!(
        "## How it was judged\n\n\
        - An eviction is false when nothing was done to the instance within the last 3 s (two timeouts and a second), or when all that was done\n  \
          was to stop it for less than a timeout. It counts as soon as one watcher is told of it.\n\
        - An eviction is late when a single watcher still has the instance after its time: {} after a `kill -9`, {} after it froze or began to\n  \
          answer 503 (an interval, two timeouts, their pause, and 4 s for the second opinion of the brake), {} after its last renewal.\n\
        - Findings from moments in which this machine did not let a process run for 250 ms, or the server said of itself that it lagged or held\n  \
          evictions back, are counted apart and listed.\n\
        - Memory is flat when the median of its last tenth is at most 10 % (or 10 MB, where that is more) above that of the second;\n  \
          the first one is for warming up.\n\
        - Watchers are connections with one long-poll watch each, a tenth of them on everything, the others on one of 20 services, every other\n  \
          one on what is evicted, too. At the end each of their maps is compared with a list of everything.\n\
        - Only those whom every watcher has are killed, frozen and made to flap. All else (1,850 of them) must stay throughout.\n",
        duration(KILLED),
        duration(SILENT),
        duration(EXPIRED),
    )
}

// === impl Evidence ===

impl Evidence<'_> {
    fn verdicts(&self, memory: Memory) -> Vec<Verdict> {
        let Self { truth, unequal, watchers, .. } = self;
        let count = |findings: &[Finding]| {
            let excused = findings.iter().filter(|finding| truth.is_excused(finding)).count();
            (findings.len() - excused, format!("{}, and {excused} while the machine lagged", findings.len() - excused))
        };
        let (wrong, wrongly) = count(&truth.false_evictions);
        let (late, lately) = count(&truth.late_evictions);
        let grown =
            format!("{} → {}, at most {}", megabytes(memory.early), megabytes(memory.last), megabytes(memory.most));
        let differing = format!("{} of {} differ", unequal.len(), watchers.len());
        vec![
            Verdict { promise: "false evictions: 0", found: wrongly, kept: wrong == 0 },
            Verdict { promise: "late evictions: 0", found: lately, kept: late == 0 },
            Verdict { promise: "watchers equal to the server at the end", found: differing, kept: unequal.is_empty() },
            Verdict { promise: "memory flat", found: grown, kept: memory.is_flat() },
        ]
    }

    fn lines(&self, samples: &[Sample], memory: Memory) -> Result<Vec<(String, String)>> {
        let Self { plan, truth, elapsed, .. } = self;
        let share = |cpu: Duration| format!("{:.1} % of a core", cpu.as_secs_f64() / elapsed.as_secs_f64() * 100.0);
        let mut lines = vec![
            ("duration".to_owned(), format!("{:.1} min", elapsed.as_secs_f64() / 60.0)),
            ("instances".to_owned(), self.instances()),
            ("watchers".to_owned(), self.watchers()),
        ];
        // The last of it begins so early that it can be judged.
        let minutes = elapsed.saturating_sub(LONGEST).as_secs_f64() / 60.0;
        let done: u64 = truth.done.values().sum();
        lines.push(("done to instances".to_owned(), format!("{done}, {:.0} a minute", done as f64 / minutes)));
        for kind in Kind::ALL {
            let times = truth.done.get(&kind).copied().unwrap_or_default();
            let gone = truth.gone.get(&kind).map(|gone| format!("; gone from every watcher: {}", distribution(gone)));
            lines.push((format!("… {}", kind.describe()), format!("{times}{}", gone.unwrap_or_default())));
        }
        for (what, times) in &self.hostile {
            lines.push((format!("hostile: {what}"), times.to_string()));
        }
        let mut all = Latencies::new()?;
        let tenths = lock(&self.lookups.tenths).clone();
        tenths.iter().try_for_each(|tenth| all.add(tenth))?;
        let each: Vec<String> = tenths.iter().map(|tenth| duration(tenth.p99())).collect();
        let failed = self.lookups.failed.load(Ordering::Relaxed);
        let every = duration(plan.lookup);
        lines.push((format!("lookups, one every {every}"), format!("{}; {failed} failed", distribution(&all))));
        lines.push(("… p99 of each tenth".to_owned(), each.join(", ")));
        let unanswered = self.doorbell.unanswered.load(Ordering::Relaxed);
        let answered = distribution(&lock(&self.doorbell.answered));
        lines.push(("`GET /health`, once a second".to_owned(), format!("{answered}; {unanswered} not answered")));
        let Memory { first, early, middle, last, most } = memory;
        let at = [first, early, middle, last].map(megabytes).join(", ");
        let figures = format!("{at}; at most {}; {}", megabytes(most), slope(samples, *elapsed));
        lines.push(("server's memory at the start, in the 2nd tenth, the middle, the last tenth".to_owned(), figures));
        let files = |sample: Option<&Sample>| sample.map_or(0, |sample| sample.files);
        let (first, last) = (files(samples.first()), files(samples.last()));
        let most = samples.iter().map(|sample| sample.files).max().unwrap_or_default();
        lines.push((
            "server's open files".to_owned(),
            format!("{first} at the start, {last} at the end, at most {most}"),
        ));
        lines.push(("CPU of the server".to_owned(), share(self.server_cpu)));
        lines.push(("CPU of instances, watchers and callers".to_owned(), share(self.helpers_cpu)));
        lines.extend(self.server_says());
        Ok(lines)
    }

    fn instances(&self) -> String {
        let Plan { hosted, renewing, hosts, .. } = self.plan;
        let alone = self.plan.singles().len();
        format!("{hosted} in {hosts} processes, {alone} in one each, {renewing} that renew a ttl")
    }

    fn watchers(&self) -> String {
        let sum = |field: fn(&Watcher) -> &AtomicU64| -> u64 {
            self.watchers.iter().map(|watcher| field(watcher).load(Ordering::Relaxed)).sum()
        };
        let (cut, snapshots) = (sum(|watcher| &watcher.cut_off), sum(|watcher| &watcher.snapshots));
        let changes = self.truth.changes;
        format!("{}; {changes} changes in their maps, {snapshots} snapshots, {cut} times cut off", self.watchers.len())
    }

    fn server_says(&self) -> Vec<(String, String)> {
        let Account { evictions, reinstatements, visits, worst_lag, voided, braked, .. } = &self.evictions;
        let renewals = self.renewals.load(Ordering::Relaxed);
        let delay = duration(*lock(&self.gauge.worst_delay));
        let starved = duration(self.truth.starved_for());
        vec![
            (
                "the server counts".to_owned(),
                format!("{visits} visits, {renewals} renewals, {evictions} evictions, {reinstatements} reinstatements"),
            ),
            (
                "lag".to_owned(),
                format!(
                    "the server's own at most {worst_lag}, {voided} verdicts void, {braked} s of the brake; this machine's at most {delay}; \
                     {starved} in all"
                ),
            ),
        ]
    }
}

// === impl Memory ===

impl Memory {
    fn of(samples: &[Sample]) -> Self {
        let tenth = |number: usize| {
            let (from, to) = (samples.len() * number / 10, samples.len() * (number + 1) / 10);
            let part = samples.get(from..to.max(from + 1).min(samples.len())).unwrap_or_default();
            median(part.iter().map(|sample| sample.resident as f64))
        };
        let first = samples.first().map_or(0.0, |sample| sample.resident as f64);
        let most = samples.iter().map(|sample| sample.resident).max().unwrap_or_default() as f64;
        Self { first, early: tenth(1), middle: tenth(5), last: tenth(9), most }
    }

    fn is_flat(self) -> bool {
        self.last <= (self.early * GROWTH).max(self.early + SLACK)
    }
}

/// How fast memory grows after the first tenth, by least squares.
fn slope(samples: &[Sample], elapsed: Duration) -> String {
    let step = elapsed.as_secs_f64() / 3_600.0 / samples.len().max(1) as f64;
    let points: Vec<(f64, f64)> = samples
        .iter()
        .enumerate()
        .skip(samples.len() / 10)
        .map(|(number, sample)| (number as f64 * step, sample.resident as f64))
        .collect();
    let count = points.len().max(1) as f64;
    let mean = points.iter().fold((0.0, 0.0), |sum, point| (sum.0 + point.0 / count, sum.1 + point.1 / count));
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean.0) * (y - mean.1)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean.0).powi(2)).sum();
    format!("slope {:+.1} MB an hour", if variance > 0.0 { covariance / variance / 1e6 } else { 0.0 })
}

fn distribution(latencies: &Latencies) -> String {
    let count = latencies.count();
    let (p50, p99, max) = (duration(latencies.p50()), duration(latencies.p99()), duration(latencies.max()));
    format!("{count}, p50 {p50}, p99 {p99}, longest {max}")
}

fn megabytes(bytes: f64) -> String {
    format!("{:.0} MB", bytes / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl IntoIterator<Item = u64>) -> Vec<Sample> {
        resident.into_iter().map(|resident| Sample { resident: resident * 1_000_000, files: 10 }).collect()
    }

    #[test]
    fn memory_is_flat_or_it_is_not() {
        let level = samples((0..100).map(|second| if second < 10 { 40 } else { 80 + second % 3 }));
        let memory = Memory::of(&level);
        assert!(memory.is_flat() && memory.most > 81e6, "{memory:?}");
        let growing = samples((0..100).map(|second| 80 + second));
        assert!(!Memory::of(&growing).is_flat());
        assert_eq!(slope(&growing, Duration::from_secs(100)), "slope +3600.0 MB an hour");
        assert!(Memory::of(&[]).is_flat());
    }
}
