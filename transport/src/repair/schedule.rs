//! When a frame is sent again: a pure function of what is known of the path.

use std::time::Duration;

/// What is repaired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Repaired {
    /// Signals and control: rare, and must arrive now.
    Signal,
    /// Strokes: many, so copies are few.
    Stroke,
}

/// Round trips below this are of the same building: the copy that follows a missing answer comes
/// soon enough.
const NEAR: Duration = Duration::from_millis(5);

/// What is known of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PathView {
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Share of packets lost lately, 0 to 1.
    pub loss: f64,
    /// Packets were lost lately, or too few were sent to know.
    pub doubtful: bool,
    /// Enough is sent to know.
    pub busy: bool,
}

/// Times after the first sending at which a frame is sent again. Those at or after a round trip and
/// a half are sent only if nothing shows by then that the frame has arrived ([`if_unanswered`]).
pub(crate) fn stages(path: PathView, what: Repaired) -> impl Iterator<Item = Duration> {
    let ms = Duration::from_millis;
    let early: &[u64] = match what {
        _ if !path.doubtful => &[],
        // Nothing speaks for loss but that little was sent, and an answer is near: it is waited for.
        _ if path.loss == 0.0 && path.rtt < NEAR => &[],
        // Nothing else is sent. At 10% loss one signal in a hundred needs the second copy; at 20% one in 125
        // loses that as well, too near to the p99. Two copies are 1.5 times the bytes there.
        Repaired::Signal if !path.busy && path.loss < 0.12 => &[6, 16],
        Repaired::Signal if !path.busy => &[6, 16, 30],
        // A signal a second beside strokes and chat: its copies cost a tenth of the bytes. The
        // last one outlives a burst of 60 ms. At 20% loss the third decides where the p99 is.
        Repaired::Signal if path.loss < 0.03 => &[6, 16, 75],
        Repaired::Signal => &[6, 14, 26, 45, 75],
        // Strokes are half of the bytes: one copy is 1.45 times the whole, two are 1.9.
        Repaired::Stroke if path.loss < 0.005 => &[],
        Repaired::Stroke if path.loss < 0.14 => &[10],
        Repaired::Stroke => &[10, 25],
    };
    // What quinn's probe timer should have done: the data itself, soon after its ack is due. A burst of
    // 200 ms is outlived by the second.
    let late: &[f64] = match what {
        _ if !path.doubtful => &[],
        Repaired::Signal => &[1.5, 2.3, 4.0],
        Repaired::Stroke => &[],
    };
    let rtt = path.rtt.max(ms(20));
    early.iter().map(move |n| ms(*n)).chain(late.iter().map(move |n| rtt.mul_f64(*n)))
}

/// Whether a stage is only for a frame that nothing was heard of.
pub(crate) fn if_unanswered(stage: Duration, path: PathView) -> bool {
    stage >= path.rtt.max(Duration::from_millis(20)).mul_f64(1.4)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(loss: f64, doubtful: bool, busy: bool) -> PathView {
        PathView { rtt: Duration::from_millis(100), loss, doubtful, busy }
    }

    fn early(path: PathView, what: Repaired) -> usize {
        stages(path, what).filter(|s| !if_unanswered(*s, path)).count()
    }

    #[test]
    fn a_busy_clean_path_pays_nothing() {
        assert_eq!(early(view(0.0, false, true), Repaired::Signal), 0);
        assert_eq!(early(view(0.0, false, true), Repaired::Stroke), 0);
    }

    #[test]
    fn an_isolated_signal_is_sent_three_or_four_times_before_its_ack_is_due() {
        assert_eq!(early(view(0.0, true, false), Repaired::Signal), 2);
        assert_eq!(early(view(0.3, true, false), Repaired::Signal), 3);
    }

    #[test]
    fn more_loss_means_more_copies() {
        let copies = |loss| early(view(loss, true, true), Repaired::Signal);
        assert!(copies(0.01) < copies(0.1));
        let copies = |loss| early(view(loss, true, true), Repaired::Stroke);
        assert_eq!((copies(0.001), copies(0.05), copies(0.2)), (0, 1, 2));
    }

    #[test]
    fn a_near_path_that_loses_nothing_is_sent_a_copy_only_where_no_answer_comes() {
        let near = PathView { rtt: Duration::from_millis(1), ..view(0.0, true, false) };
        assert_eq!(early(near, Repaired::Signal), 0);
        assert_eq!(stages(near, Repaired::Signal).next(), Some(Duration::from_millis(30)));
        assert_eq!(early(PathView { loss: 0.02, ..near }, Repaired::Signal), 2);
    }

    #[test]
    fn stages_come_in_order() {
        for what in [Repaired::Signal, Repaired::Stroke] {
            let all: Vec<_> = stages(view(0.2, true, true), what).collect();
            assert!(all.windows(2).all(|w| w[0] < w[1]), "{all:?}");
        }
    }
}
