//! Standard sets of measurements: what the documentation's figures are made of.

use clap::ValueEnum;

use super::{Congestion, Group, Mode, offer::Offer};

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Suite {
    /// Every kind of figure from few samples, in some 15 minutes
    Quick,
    /// As many samples as a p99.9 needs, in some hours
    Full,
}

const LOSSY: [&str; 4] = ["lossy-1", "lossy-5", "lossy-10", "lossy-20"];

const PLAIN: [(Mode, Congestion); 2] =
    [(Mode::PlainTcp, Congestion::Cubic), (Mode::PlainTcp, Congestion::Bbr)];
const TCP: [(Mode, Congestion); 2] = [(Mode::Tcp, Congestion::Cubic), (Mode::Tcp, Congestion::Bbr)];
const QUIC: (Mode, Congestion) = (Mode::Quic, Congestion::Cubic);
const NO_REPAIR: (Mode, Congestion) = (Mode::QuicNorepair, Congestion::Cubic);

impl Suite {
    /// What is measured, in order.
    pub fn groups(self) -> Vec<Group> {
        let mut set = Set { suite: self, groups: Vec::new() };
        for profile in LOSSY {
            set.add(profile, Offer::Standard, &[QUIC, NO_REPAIR]);
            if self == Self::Full || profile == "lossy-10" || profile == "lossy-20" {
                set.add(profile, Offer::Standard, &PLAIN);
                set.add(profile, Offer::Standard, &TCP);
            }
            set.add(profile, Offer::Isolated, &[QUIC, NO_REPAIR]);
        }
        set.add("clean", Offer::Standard, &[QUIC, NO_REPAIR]);
        set.add("burst-60", Offer::Standard, &[QUIC]);
        set.add("burst-200", Offer::Standard, &[QUIC]);
        set.add("blackout-6s", Offer::Standard, &[QUIC, PLAIN[0], PLAIN[1]]);
        set.add("bufferbloat", Offer::Flood, &[QUIC, TCP[0], TCP[1]]);
        set.add("handover", Offer::Standard, &[QUIC]);
        for group in set.add("handover", Offer::Standard, &[QUIC]) {
            group.hint = true;
        }
        set.add("nat-rebind", Offer::Standard, &[QUIC]);
        let auto = (Mode::Auto, Congestion::Cubic);
        set.add("udp-blocked", Offer::Standard, &[auto]);
        set.add("udp-blocked-midway", Offer::Standard, &[auto]);
        set.groups
    }
}

struct Set {
    suite: Suite,
    groups: Vec<Group>,
}

impl Set {
    fn add(&mut self, profile: &str, offer: Offer, modes: &[(Mode, Congestion)]) -> &mut [Group] {
        let first = self.groups.len();
        for (mode, congestion) in modes.iter().copied() {
            let full = self.suite == Suite::Full;
            self.groups.push(Group {
                profile: profile.to_owned(),
                mode,
                congestion,
                offer,
                // A flood is the machine's limit, not the link's.
                clients: match (offer, full) {
                    (Offer::Flood, _) => 10,
                    (_, true) => 200,
                    (_, false) => 60,
                },
                seconds: if full { 45 } else { 20 },
                seeds: if full { vec![1, 2, 3] } else { vec![1] },
                hint: false,
            });
        }
        &mut self.groups[first..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weaknet::profile::Profiles;

    #[test]
    fn every_measurement_of_the_suites_has_a_profile() {
        let profiles = Profiles::load(None).unwrap();
        for suite in [Suite::Quick, Suite::Full] {
            for group in suite.groups() {
                assert!(profiles.get(&group.profile).is_ok(), "{}", group.profile);
            }
        }
    }

    #[test]
    fn a_full_suite_has_50_000_signals_on_a_lossy_link() {
        let groups = Suite::Full.groups();
        let group = groups.iter().find(|one| one.profile == "lossy-5").unwrap();
        let seeds = u32::try_from(group.seeds.len()).unwrap();
        assert!(group.clients * group.seconds * 2 * seeds >= 50_000);
    }
}
