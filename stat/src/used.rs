//! CPU and memory of this process.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

/// What the process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// Since its start, of all threads.
    pub cpu: Duration,
    /// In RAM now; 0 where the system does not say it as Linux does.
    pub memory_bytes: u64,
}

impl Used {
    /// As it is now.
    #[must_use]
    pub fn now() -> Self {
        let cpu = getrusage(UsageWho::RUSAGE_SELF).map_or(Duration::ZERO, |usage| {
            let time = |t: nix::sys::time::TimeVal| {
                let micros = t.tv_sec() * 1_000_000 + t.tv_usec();
                Duration::from_micros(u64::try_from(micros).unwrap_or(0))
            };
            time(usage.user_time()) + time(usage.system_time())
        });
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        Self { cpu, memory_bytes: resident(&status) }
    }
}

/// Of the text of /proc/self/status, which counts in KiB.
fn resident(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_from_what_linux_says() {
        assert_eq!(resident("VmSize:\t 9 kB\nVmRSS:\t    1234 kB\n"), 1234 * 1024);
        assert_eq!(resident("VmRSS: many\n"), 0);
    }

    #[test]
    fn work_shows_in_the_cpu_time() {
        let before = Used::now();
        let mut sum = 0_u64;
        while Used::now().cpu < before.cpu + Duration::from_millis(20) {
            sum = (0..100_000).fold(sum, |sum, n| sum.rotate_left(1) ^ n);
        }
        assert!(Used::now().cpu > before.cpu, "{sum}");
    }
}
