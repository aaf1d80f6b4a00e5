//! The machine that the figures are from.

use std::fmt;

/// What to know about it.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    cores: usize,
    model: String,
    memory_gib: f64,
    kernel: String,
    /// How TCP avoids congestion, which shows even on loopback.
    congestion: String,
    /// Of the last minute: what else was going on before the run.
    busy: String,
}

// === impl Machine ===

impl Machine {
    pub(crate) fn look() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg");
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            line.split_once(':').map(|(_, value)| value.trim().to_owned())
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let kilobytes: f64 = memory.trim_end_matches("kB").trim().parse().unwrap_or_default();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            model: value(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".to_owned()),
            memory_gib: kilobytes / 1_048_576.0,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            congestion: read("/proc/sys/net/ipv4/tcp_congestion_control").trim().to_owned(),
            busy: load.split_ascii_whitespace().next().unwrap_or("unknown").to_owned(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, model, memory_gib, kernel, congestion, busy } = self;
        write!(
            f,
            "{cores} cores of {model}, {memory_gib:.0} GiB of memory, Linux {kernel}, TCP {congestion}, load average {busy} before the run"
        )
    }
}
