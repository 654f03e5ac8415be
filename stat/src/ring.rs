//! The recent samples.

use std::collections::VecDeque;

use crate::Load;

/// Samples that are kept: five minutes, at one a second. Some 20 KiB.
pub const RECENT: usize = 300;

/// See the module.
#[derive(Debug, Default)]
pub struct Ring(VecDeque<Load>);

impl Ring {
    /// Adds one; the oldest goes where there are [`RECENT`].
    pub fn push(&mut self, load: Load) {
        if self.0.len() >= RECENT {
            self.0.pop_front();
        }
        self.0.push_back(load);
    }

    /// The last one.
    #[must_use]
    pub fn now(&self) -> Load {
        self.0.back().copied().unwrap_or_default()
    }

    /// All of them, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Load> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_kept_and_no_more() {
        let mut ring = Ring::default();
        assert_eq!(ring.now(), Load::default());
        for at_unix_ms in 0..1_000 {
            ring.push(Load { at_unix_ms, ..Load::default() });
        }
        let recent = ring.recent();
        assert_eq!(recent.len(), RECENT);
        assert_eq!((recent[0].at_unix_ms, ring.now().at_unix_ms), (1_000 - RECENT as u64, 999));
    }
}
