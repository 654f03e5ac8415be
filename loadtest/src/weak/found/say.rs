//! What was found, for the terminal.

use super::{Found, Quantiles, Row, number};
use crate::weaknet::draw::Direction;

impl Found {
    /// Prints a summary.
    pub fn say(&self) {
        println!(
            "\n{} over {}, load {}, {} clients, {} s a direction, seeds {:?}",
            self.profile,
            self.name(),
            self.load,
            self.clients,
            self.seconds,
            self.seeds
        );
        println!(
            "  {:<7} {:<5} {:>8} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "class", "way", "sent", "missing", "p50", "p90", "p99", "p99.9", "max"
        );
        for row in self.rows.iter().filter(|row| row.sent > 0) {
            let Quantiles { p50, p90, p99, p999, max } = row.latency_ms;
            let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(number);
            println!(
                "  {:<7} {:<5} {:>8} {:>9} {p50:>8} {p90:>8} {p99:>8} {p999:>8} {max:>8}{}",
                row.class,
                row.direction,
                row.sent,
                row.sent - row.delivered,
                row.wrong()
            );
        }
        for back in &self.back {
            println!(
                "  back after {} {:<4} {} times, {} never: p50 {} p90 {} max {} ms; longest gap {:.0} ms",
                back.what,
                if back.direction == Direction::Up { "up" } else { "down" },
                back.count,
                back.never,
                number(back.back_ms.p50),
                number(back.back_ms.p90),
                number(back.back_ms.max),
                back.gap_ms
            );
        }
        println!(
            "  wire {} bytes in {} packets, {:.1}% lost; resent {}, reconnects {}, leaves seen {}, joins seen {}, \
             chat told as missed {}, unaccounted for {}",
            self.wire.bytes,
            self.wire.packets,
            self.wire.loss * 100.0,
            self.resent,
            self.reconnects,
            self.leaves,
            self.joins,
            self.chat_missed,
            self.chat_unaccounted.map_or_else(|| "-".to_owned(), |chat| chat.to_string())
        );
        for one in &self.machine {
            println!(
                "  seed {}: load before {:.2}, {:.2} cores, testbed late p99 {:.2} max {:.2} ms, {} drops of its own",
                one.seed,
                one.load_before.unwrap_or(f64::NAN),
                one.cores,
                one.testbed_late_ms.p99,
                one.testbed_late_ms.max,
                one.testbed_drops
            );
            for waits in &one.waits {
                println!(
                    "    queue before the bottleneck {}: mean {:.0} max {:.0} ms",
                    if waits.direction == Direction::Up { "up" } else { "down" },
                    waits.mean_ms,
                    waits.max_ms
                );
            }
        }
        self.problems.iter().for_each(|problem| println!("  PROBLEM {problem}"));
    }
}

impl Row {
    fn wrong(&self) -> String {
        match (self.twice, self.out_of_order) {
            (0, 0) => String::new(),
            (twice, order) => format!("  {twice} TWICE, {order} OUT OF ORDER"),
        }
    }
}
