//! The order of one room and class: exactly once, and nothing left out unseen.

use edgeway_proto::Seq;

/// What has arrived of a class, and whether it arrives live.
#[derive(Debug)]
pub(crate) struct Order {
    /// Everything up to here was given to the app, is void, or was reported as missing.
    pub(crate) last: Seq,
    behind: Option<Behind>,
}

#[derive(Debug)]
struct Behind {
    /// The gateway said so and waits for `CaughtUp`. Otherwise this end found a hole by itself.
    told: bool,
    /// The highest position known to exist.
    head: Seq,
    /// Pages in a row that brought nothing although there should be more.
    stalls: u32,
}

/// What to do with a live delivery.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Live {
    /// Give it to the app.
    Deliver,
    /// Report what is missing, then give it to the app (chat).
    After(Seq, u64),
    /// It was there before.
    Old,
    /// It will come in a page.
    Skip,
    /// It does not follow what is there: page history (signal, binary).
    Hole,
}

/// What to do after a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for the next page.
    Ask,
    /// Nothing came although there is more: ask again, later each time.
    Later(u32),
    /// Tell the gateway `CaughtUp`.
    Tell(Seq),
    /// The gateway never stopped: live again.
    Live,
    /// The page was not asked for any more.
    Nothing,
}

impl Order {
    pub(crate) const fn new(last: Seq) -> Self {
        Self { last, behind: None }
    }

    /// A delivery arrived.
    pub(crate) fn live(&mut self, seq: Seq, reliable: bool) -> Live {
        if seq <= self.last || seq.counter == 0 {
            return Live::Old;
        }
        let next = seq == self.last.next();
        if let Some(behind) = &mut self.behind
            && (behind.told || !next)
        {
            behind.head = behind.head.max(seq);
            return Live::Skip;
        }
        if next {
            self.last = seq;
            return Live::Deliver;
        }
        if reliable {
            // Also where a new epoch begins: only the log knows how the old one ended.
            self.behind = Some(Behind { told: false, head: seq, stalls: 0 });
            return Live::Hole;
        }
        let after = self.last;
        let missed = missed(after, seq) - 1;
        self.last = seq;
        if missed == 0 { Live::Deliver } else { Live::After(after, missed) }
    }

    /// The gateway stopped live deliveries at `head`. Whether paging has to begin.
    pub(crate) fn behind(&mut self, head: Seq) -> bool {
        match &mut self.behind {
            Some(behind) => {
                behind.told = true;
                behind.head = behind.head.max(head);
                false
            }
            None => {
                self.behind = Some(Behind { told: true, head, stalls: 0 });
                true
            }
        }
    }

    /// What is missing is asked for before the gateway has said whether there is anything.
    pub(crate) fn asked(&mut self) {
        self.behind.get_or_insert(Behind { told: false, head: self.last, stalls: 0 });
    }

    pub(crate) const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// The connection is gone, and with it the gateway's idea of what this client has.
    pub(crate) fn disconnected(&mut self) {
        self.behind = None;
    }

    /// A message of a page: whether it is new.
    pub(crate) fn paged(&mut self, seq: Seq) -> bool {
        let new = seq > self.last;
        self.last = self.last.max(seq);
        new
    }

    /// A page has been taken: `before` is what `last` was when it began.
    pub(crate) fn page_done(&mut self, before: Seq, upto: Seq, head: Seq, more: bool) -> Next {
        self.last = self.last.max(upto);
        let Some(behind) = &mut self.behind else { return Next::Nothing };
        behind.head = behind.head.max(head);
        if !more && self.last >= behind.head {
            let told = behind.told;
            self.behind = None;
            return if told { Next::Tell(self.last) } else { Next::Live };
        }
        if self.last > before {
            behind.stalls = 0;
            return Next::Ask;
        }
        behind.stalls += 1;
        Next::Later(behind.stalls)
    }

    /// Gives up what lies before `upto`: the last position before it, and how many are missed at
    /// least. `None` where nothing is missed.
    pub(crate) fn skip_to(&mut self, upto: Seq) -> Option<(Seq, u64)> {
        if upto <= self.last {
            return None;
        }
        let after = std::mem::replace(&mut self.last, upto);
        let missed = missed(after, upto);
        (missed > 0).then_some((after, missed))
    }

    /// Gives up catching up (chat): what was missed, and what to tell the gateway.
    pub(crate) fn give_up(&mut self) -> (Option<(Seq, u64)>, Option<Seq>) {
        let Some(behind) = self.behind.take() else { return (None, None) };
        let gap = self.skip_to(behind.head);
        (gap, behind.told.then_some(self.last))
    }
}

/// Messages after `after` up to and with `upto`; where the epoch changed, those of the new one.
fn missed(after: Seq, upto: Seq) -> u64 {
    if after.epoch == upto.epoch {
        upto.counter.saturating_sub(after.counter)
    } else {
        upto.counter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seq(counter: u64) -> Seq {
        Seq::new(1, counter)
    }

    #[test]
    fn contiguous_deliveries_pass_and_repeats_do_not() {
        let mut order = Order::new(seq(3));
        assert_eq!(order.live(seq(4), true), Live::Deliver);
        assert_eq!(order.live(seq(4), true), Live::Old);
        assert_eq!(order.live(seq(3), true), Live::Old);
        assert_eq!(order.live(seq(5), true), Live::Deliver);
    }

    #[test]
    fn a_hole_in_chat_is_counted_and_passed() {
        let mut order = Order::new(seq(3));
        assert_eq!(order.live(seq(7), false), Live::After(seq(3), 3));
        assert_eq!(order.live(Seq::new(2, 3), false), Live::After(seq(7), 2));
        assert_eq!(order.live(Seq::new(3, 1), false), Live::Deliver);
    }

    #[test]
    fn a_hole_in_signals_pages_until_everything_seen_is_there() {
        let mut order = Order::new(seq(3));
        assert_eq!(order.live(seq(6), true), Live::Hole);
        assert_eq!(order.live(seq(9), true), Live::Skip);
        assert_eq!(order.page_done(seq(3), seq(7), seq(7), false), Next::Ask);
        assert_eq!(order.page_done(seq(7), seq(9), seq(9), false), Next::Live);
        assert_eq!(order.live(seq(10), true), Live::Deliver);
    }

    #[test]
    fn behind_ends_with_caught_up_at_the_head() {
        let mut order = Order::new(seq(3));
        assert!(order.behind(seq(8)));
        assert!(!order.behind(seq(9)));
        assert_eq!(order.page_done(seq(3), seq(8), seq(8), false), Next::Ask);
        assert_eq!(order.page_done(seq(8), seq(9), seq(9), false), Next::Tell(seq(9)));
        assert_eq!(order.live(seq(10), true), Live::Deliver);
    }

    #[test]
    fn what_is_asked_for_before_anything_is_known_to_be_missing_holds_nothing_up() {
        let mut order = Order::new(seq(3));
        order.asked();
        assert_eq!(order.live(seq(4), true), Live::Deliver, "nothing was missing");
        assert_eq!(order.page_done(seq(4), seq(3), seq(3), false), Next::Live);
        order.asked();
        assert!(!order.behind(seq(9)), "a page is under way");
        assert_eq!(order.live(seq(5), true), Live::Skip);
        assert_eq!(order.page_done(seq(4), seq(9), seq(9), false), Next::Tell(seq(9)));
        order.asked();
        order.disconnected();
        assert_eq!(order.live(seq(10), true), Live::Deliver);
    }

    #[test]
    fn a_page_without_progress_is_asked_for_again_later() {
        let mut order = Order::new(seq(3));
        order.behind(seq(8));
        assert_eq!(order.page_done(seq(3), seq(3), seq(8), false), Next::Later(1));
        assert_eq!(order.page_done(seq(3), seq(3), seq(8), true), Next::Later(2));
        assert_eq!(order.page_done(seq(3), seq(4), seq(8), true), Next::Ask);
    }

    #[test]
    fn a_new_epoch_is_a_hole_for_signals() {
        let mut order = Order::new(seq(3));
        assert_eq!(order.live(Seq::new(2, 1), true), Live::Hole);
        assert_eq!(order.page_done(seq(3), Seq::new(2, 1), Seq::new(2, 1), false), Next::Live);
    }
}
