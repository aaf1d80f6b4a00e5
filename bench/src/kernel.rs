//! What the kernel says of a process.

use std::time::Duration;

use crate::error::{Context, Failure, Result};

/// The CPU time, user and system, that a process has taken so far.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).context(format!("reading {path}"))?;
    parse_cpu_time(&stat, rustix::param::clock_ticks_per_second())
        .ok_or_else(|| Failure::new(format!("reading {path}"), "an unknown format"))
}

fn parse_cpu_time(stat: &str, ticks_per_second: u64) -> Option<Duration> {
    // The second field is the program's name, which may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_secs_f64((user + system) as f64 / ticks_per_second.max(1) as f64))
}

/// The memory, in bytes, that a process has resident.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(format!("reading {path}"))?;
    parse_resident(&status).ok_or_else(|| Failure::new(format!("reading {path}"), "an unknown format"))
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1_024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 99 1 2";
        assert_eq!(parse_cpu_time(stat, 100), Some(Duration::from_secs(2)));
        assert_eq!(parse_cpu_time("7 (a", 100), None);
        assert_eq!(parse_resident("Name:\tx\nVmRSS:\t    1200 kB\n"), Some(1_228_800));
        let me = std::process::id();
        assert!(resident(me).unwrap() > 100_000);
        cpu_time(me).unwrap();
    }
}
