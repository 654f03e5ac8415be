//! CPU time and memory of processes, as the operating system counts them.

use std::{
    fs,
    ops::Add,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

/// The unit of CPU time in /proc/PID/stat. Linux gives user space 100 on every architecture
/// that Rust supports, whatever its own timer does.
const TICKS_PER_SECOND: u64 = 100;

/// CPU time that a process, all its threads included, has used so far.
pub fn cpu(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let ticks = cpu_ticks(&stat).with_context(|| format!("{path} is not as expected"))?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// Resident memory of a process in bytes.
pub fn rss_bytes(pid: u32) -> Result<u64> {
    // smaps_rollup walks the page table; statm sums counters of threads that may lag by some
    // hundred kilobytes.
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("Rss:")).and_then(|rest| {
        rest.trim().strip_suffix(" kB").and_then(|number| number.trim().parse::<u64>().ok())
    });
    Ok(kib.with_context(|| format!("{path} is not as expected"))? * 1024)
}

/// Resident memory of several processes together, in bytes.
pub fn rss_bytes_of(pids: &[u32]) -> Result<u64> {
    pids.iter().map(|pid| rss_bytes(*pid)).sum()
}

/// Load average of the machine over the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.parse().ok()
}

fn cpu_ticks(stat: &str) -> Option<u64> {
    // The second field is the program's name in brackets, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?; // utime is field 14 of man 5 proc
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The CPU time of some processes since a moment.
#[derive(Debug)]
pub struct Meter {
    since: Instant,
    before: Vec<(u32, Duration)>,
}

/// What a [`Meter`] has seen.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    pub cpu: Duration,
    pub wall: Duration,
}

impl Used {
    /// Cores kept busy on average.
    pub fn cores(self) -> f64 {
        self.cpu.as_secs_f64() / self.wall.as_secs_f64().max(f64::EPSILON)
    }

    /// Microseconds of CPU for each of so many.
    #[allow(clippy::cast_precision_loss)] // a figure for people
    pub fn cpu_us_each(self, count: u64) -> f64 {
        if count == 0 { 0.0 } else { self.cpu.as_secs_f64() * 1e6 / count as f64 }
    }
}

impl Add for Used {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, wall: self.wall + other.wall }
    }
}

impl Meter {
    pub fn start(pids: &[u32]) -> Result<Self> {
        let before = pids.iter().map(|pid| Ok((*pid, cpu(*pid)?))).collect::<Result<_>>()?;
        Ok(Self { since: Instant::now(), before })
    }

    pub fn used(&self) -> Result<Used> {
        let wall = self.since.elapsed();
        let cpu = self.before.iter().map(|(pid, before)| Ok(cpu(*pid)?.saturating_sub(*before)));
        Ok(Used { cpu: cpu.sum::<Result<Duration>>()?, wall })
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn the_cpu_time_of_a_name_with_spaces_and_brackets_is_found() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 700 77 0 0 20 0 1 0 100 200 300";
        assert_eq!(cpu_ticks(stat), Some(777));
    }

    #[test]
    fn work_and_memory_of_this_process_show() {
        let pid = std::process::id();
        let meter = Meter::start(&[pid]).unwrap();
        let before = rss_bytes(pid).unwrap();
        let memory = black_box(vec![1u8; 64 << 20]);
        assert!(rss_bytes(pid).unwrap() >= before + (60 << 20));
        while meter.used().unwrap().cpu < Duration::from_millis(50) {
            black_box(memory.iter().map(|byte| u64::from(*byte)).sum::<u64>());
        }
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        assert!(cpu(u32::MAX).unwrap_err().to_string().contains("/proc/4294967295/stat"));
    }
}
