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
    let ticks = parse_times(stat, 2)?;
    Some(Duration::from_secs_f64(ticks as f64 / ticks_per_second.max(1) as f64))
}

/// The sum of the first `count` of user, system, and both again for children that have ended.
fn parse_times(stat: &str, count: usize) -> Option<u64> {
    // The second field is the program's name, which may contain anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_ascii_whitespace().skip(11).take(count);
    times.map(|time| time.parse::<u64>().ok()).sum()
}

/// The memory, in bytes, that a process has resident.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

/// The most that it ever had.
pub(crate) fn peak_resident(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// Has the most that a process ever had begin anew, with what it has now.
pub(crate) fn forget_peak(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/clear_refs");
    std::fs::write(&path, "5").context(format!("writing {path}"))
}

/// The CPU time of this process and of those children of it that have ended.
pub(crate) fn own_cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("reading /proc/self/stat")?;
    let ticks = rustix::param::clock_ticks_per_second();
    let times = parse_times(&stat, 4).ok_or_else(|| Failure::new("reading /proc/self/stat", "an unknown format"))?;
    Ok(Duration::from_secs_f64(times as f64 / ticks.max(1) as f64))
}

/// How many files a process has open, sockets among them.
pub(crate) fn open_files(pid: u32) -> Result<usize> {
    let path = format!("/proc/{pid}/fd");
    Ok(std::fs::read_dir(&path).context(format!("reading {path}"))?.count())
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).context(format!("reading {path}"))?;
    parse_memory(&status, field).ok_or_else(|| Failure::new(format!("reading {path}"), "an unknown format"))
}

fn parse_memory(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
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
        assert_eq!(parse_times(stat, 4), Some(200));
        assert_eq!(parse_cpu_time("7 (a", 100), None);
        assert_eq!(parse_memory("Name:\tx\nVmRSS:\t    1200 kB\n", "VmRSS:"), Some(1_228_800));
        let me = std::process::id();
        assert!(resident(me).unwrap() > 100_000);
        forget_peak(me).unwrap();
        assert!(peak_resident(me).unwrap() >= 1 && open_files(me).unwrap() > 2);
        cpu_time(me).unwrap();
        own_cpu_time().unwrap();
    }
}
