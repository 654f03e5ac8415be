//! A Session whose strokes have an owner of their own.

use super::{Route, Session};
use crate::access::{
    out::{Out, left},
    owners::OwnerId,
};

impl Session {
    /// Strokes that went to an owner, or acks from it, may be lost: the client joins again, and says what is
    /// not acked. How many groups that concerns.
    pub(in crate::access) fn draw_again(&mut self, owner: OwnerId, out: &mut Vec<Out>) -> usize {
        self.join_again(|_, drew| drew == owner, out)
    }

    /// The same of groups whose strokes have another owner than they were sent to.
    pub(in crate::access) fn draw_moved(
        &mut self,
        route: &impl Route,
        out: &mut Vec<Out>,
    ) -> usize {
        self.join_again(|group, drew| route.strokes(group) != Some(drew), out)
    }

    fn join_again(&mut self, which: impl Fn(u64, OwnerId) -> bool, out: &mut Vec<Out>) -> usize {
        let before = out.len();
        for (group, found) in self.groups.iter_mut() {
            if found.drew.take_if(|drew| which(*group, *drew)).is_some() {
                out.push(left(*group, "the strokes of the room have to be sent again"));
            }
        }
        out.len() - before
    }
}
