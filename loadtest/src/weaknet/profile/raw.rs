//! What a profile's file says, before it is checked as a whole.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Result, anyhow};
use serde::Deserialize;

use super::{
    Bottleneck, Bursts, Event, GilbertElliott, Jitter, LinkSpec, OldPath, Profile, Shape, What,
    When,
};
use crate::weaknet::units::{Queue, Rate, Share, Span};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawProfile {
    reason: String,
    #[serde(default)]
    both: RawLink,
    #[serde(default)]
    up: RawLink,
    #[serde(default)]
    down: RawLink,
    #[serde(default)]
    shared: bool,
    #[serde(default)]
    blackouts: Vec<RawBlackout>,
    #[serde(default)]
    hand_overs: Vec<RawHandOver>,
    #[serde(default)]
    rebinds: Vec<RawRebind>,
    #[serde(default)]
    udp_blocks: Vec<RawBlock>,
}

#[derive(Deserialize, Default, Clone)]
#[serde(deny_unknown_fields)]
struct RawLink {
    delay: Option<Span>,
    jitter: Option<RawJitter>,
    loss: Option<Share>,
    gilbert_elliott: Option<RawGilbertElliott>,
    bursts: Option<RawBursts>,
    rate: Option<Rate>,
    queue: Option<Queue>,
    duplicate: Option<Share>,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct RawJitter {
    spread: Span,
    slot: Option<Span>,
    #[serde(default)]
    shape: RawShape,
    #[serde(default)]
    reorder: bool,
}

#[derive(Deserialize, Clone, Copy, Default)]
#[serde(rename_all = "lowercase")]
enum RawShape {
    #[default]
    Even,
    Tail,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct RawGilbertElliott {
    good: Span,
    bad: Span,
    loss_good: Option<Share>,
    loss_bad: Share,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct RawBursts {
    length: Span,
    share: Share,
    #[serde(default)]
    together: bool,
}

#[derive(Deserialize, Clone)]
#[serde(deny_unknown_fields)]
struct RawWhen {
    at: Span,
    every: Option<Span>,
    stagger: Option<Span>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlackout {
    when: RawWhen,
    lasts: Span,
    #[serde(default)]
    packets: RawPackets,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq)]
#[serde(rename_all = "lowercase")]
enum RawPackets {
    #[default]
    Lost,
    Held,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawHandOver {
    when: RawWhen,
    old_path: RawOldPath,
    lasts: Option<Span>,
    loss: Option<Share>,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum RawOldPath {
    Dead,
    Dying,
    Follows,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRebind {
    when: RawWhen,
    #[serde(default)]
    address: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawBlock {
    when: RawWhen,
    lasts: Option<Span>,
    #[serde(default)]
    passes: u32,
}

/// Collects what is wrong, each with its key.
struct Checker {
    errors: Vec<String>,
}

pub(super) fn parse(text: &str) -> Result<BTreeMap<String, Profile>> {
    let raw: BTreeMap<String, RawProfile> = toml::from_str(text)?;
    let mut checker = Checker { errors: vec![] };
    let profiles = raw
        .into_iter()
        .map(|(name, raw)| (name.clone(), checker.profile(name, raw)))
        .collect::<BTreeMap<_, _>>();
    if checker.errors.is_empty() { Ok(profiles) } else { Err(anyhow!(checker.errors.join("\n"))) }
}

impl RawLink {
    /// These keys, and those of `base` where there is none.
    fn over(self, base: &Self) -> Self {
        let base = base.clone();
        Self {
            delay: self.delay.or(base.delay),
            jitter: self.jitter.or(base.jitter),
            loss: self.loss.or(base.loss),
            gilbert_elliott: self.gilbert_elliott.or(base.gilbert_elliott),
            bursts: self.bursts.or(base.bursts),
            rate: self.rate.or(base.rate),
            queue: self.queue.or(base.queue),
            duplicate: self.duplicate.or(base.duplicate),
        }
    }
}

impl Checker {
    fn require(&mut self, holds: bool, key: &str, error: &str) {
        if !holds {
            self.errors.push(format!("{key}: {error}"));
        }
    }

    fn profile(&mut self, name: String, raw: RawProfile) -> Profile {
        self.require(
            !raw.reason.trim().is_empty(),
            &format!("{name}.reason"),
            "must say where such a network is met",
        );
        let up = self.link(&format!("{name}.up"), raw.up.over(&raw.both));
        let down = self.link(&format!("{name}.down"), raw.down.over(&raw.both));
        self.require(
            !raw.shared || (up.bottleneck.is_some() && down.bottleneck.is_some()),
            &format!("{name}.shared"),
            "there must be a bottleneck (rate and queue) to share",
        );
        let mut events = vec![];
        for (index, raw) in raw.blackouts.into_iter().enumerate() {
            let held = raw.packets == RawPackets::Held;
            let what = What::Blackout { lasts: raw.lasts.0, held };
            events.push(self.event(&format!("{name}.blackouts[{index}]"), &raw.when, what));
        }
        for (index, raw) in raw.hand_overs.into_iter().enumerate() {
            let key = format!("{name}.hand_overs[{index}]");
            let what = What::HandOver(self.old_path(&key, &raw));
            events.push(self.event(&key, &raw.when, what));
        }
        for (index, raw) in raw.rebinds.into_iter().enumerate() {
            let what = What::Rebind { address: raw.address };
            events.push(self.event(&format!("{name}.rebinds[{index}]"), &raw.when, what));
        }
        for (index, raw) in raw.udp_blocks.into_iter().enumerate() {
            let lasts = raw.lasts.map(|Span(time)| time);
            let what = What::BlockUdp { lasts, passes: raw.passes };
            events.push(self.event(&format!("{name}.udp_blocks[{index}]"), &raw.when, what));
        }
        Profile { name, reason: raw.reason, up, down, shared: raw.shared, events }
    }

    fn link(&mut self, key: &str, raw: RawLink) -> LinkSpec {
        let bottleneck = match (raw.rate, raw.queue) {
            (Some(rate), Some(queue)) => Some(self.bottleneck(key, rate, queue)),
            (rate, queue) => {
                let both = rate.is_some() == queue.is_some();
                self.require(both, key, "rate and queue only mean something together");
                None
            }
        };
        LinkSpec {
            delay: raw.delay.map_or(Duration::ZERO, |Span(time)| time),
            jitter: raw.jitter.map(|raw| self.jitter(key, &raw)),
            loss: raw.loss.map_or(0.0, |Share(share)| share),
            gilbert_elliott: raw.gilbert_elliott.map(|raw| self.gilbert_elliott(key, &raw)),
            bursts: raw.bursts.map(|raw| self.bursts(key, &raw)),
            bottleneck,
            duplicate: raw.duplicate.map_or(0.0, |Share(share)| share),
        }
    }

    fn bottleneck(&mut self, key: &str, rate: Rate, queue: Queue) -> Bottleneck {
        let fits = match queue {
            Queue::Bytes(bytes) => bytes >= 1500,
            Queue::Time(time) => time >= rate.time_of(1500),
        };
        self.require(fits, &format!("{key}.queue"), "must hold a packet of 1500 bytes");
        Bottleneck { rate, queue }
    }

    fn jitter(&mut self, key: &str, raw: &RawJitter) -> Jitter {
        // Long enough that the delay never falls faster than time passes: then the queue that
        // keeps the order adds nothing, and the mean is as configured.
        let kept = raw.spread.0;
        let slot = match raw.slot {
            Some(Span(slot)) => slot,
            None if raw.reorder => Duration::from_millis(1),
            None => kept,
        };
        let key = format!("{key}.jitter");
        self.require(!slot.is_zero(), &key, "spread and slot must be more than 0");
        Jitter {
            spread: raw.spread.0,
            slot,
            shape: match raw.shape {
                RawShape::Even => Shape::Even,
                RawShape::Tail => Shape::Tail,
            },
            reorder: raw.reorder,
        }
    }

    fn gilbert_elliott(&mut self, key: &str, raw: &RawGilbertElliott) -> GilbertElliott {
        // Below this the walk over spells would cost more than the packets.
        let least = Duration::from_millis(1);
        let lasting = raw.good.0 >= least && raw.bad.0 >= least;
        self.require(
            lasting,
            &format!("{key}.gilbert_elliott"),
            "good and bad must be at least 1ms",
        );
        GilbertElliott {
            good: raw.good.0.max(least),
            bad: raw.bad.0.max(least),
            loss_good: raw.loss_good.map_or(0.0, |Share(share)| share),
            loss_bad: raw.loss_bad.0,
        }
    }

    fn bursts(&mut self, key: &str, raw: &RawBursts) -> Bursts {
        let key = format!("{key}.bursts");
        self.require(!raw.length.0.is_zero(), &key, "length must be more than 0");
        let share = raw.share.0;
        self.require(share > 0.0 && share <= 0.9, &key, "share must be more than 0% and up to 90%");
        Bursts { length: raw.length.0, share: share.clamp(0.001, 0.9), together: raw.together }
    }

    fn old_path(&mut self, key: &str, raw: &RawHandOver) -> OldPath {
        match (raw.old_path, raw.lasts, raw.loss) {
            (RawOldPath::Dead, None, None) => OldPath::Dead,
            (RawOldPath::Follows, None, None) => OldPath::Follows,
            (RawOldPath::Dying, Some(Span(lasts)), Some(Share(loss))) => {
                OldPath::Dying { lasts, loss }
            }
            _ => {
                let error = "lasts and loss belong to old_path = \"dying\", which needs both";
                self.require(false, key, error);
                OldPath::Dead
            }
        }
    }

    fn event(&mut self, key: &str, raw: &RawWhen, what: What) -> Event {
        let when = When {
            at: raw.at.0,
            every: raw.every.map(|Span(time)| time),
            stagger: raw.stagger.map_or(Duration::ZERO, |Span(time)| time),
        };
        let lasts = match what {
            What::Blackout { lasts, .. } | What::BlockUdp { lasts: Some(lasts), .. } => lasts,
            What::BlockUdp { lasts: None, .. } => {
                let once = when.every.is_none();
                self.require(once, key, "what has no end (lasts) cannot come again (every)");
                Duration::ZERO
            }
            What::HandOver(_) | What::Rebind { .. } => Duration::ZERO,
        };
        // Only then is there never more than one of it, and a moment's answer needs no search.
        if let Some(every) = when.every {
            let apart = !every.is_zero() && lasts + when.stagger < every;
            self.require(apart, key, "lasts and stagger together must be less than every");
        }
        Event { when, what }
    }
}
