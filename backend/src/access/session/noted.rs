//! Places by group, with a note of each that comes or goes: what the directory is to be told. Nothing
//! else changes them, so that none can be forgotten.

use std::{collections::HashMap, ops::Deref};

use bytes::Bytes;

/// What has a place in a group.
pub(super) trait Placed {
    /// As it stands in the directory.
    fn line(&self, group: u64) -> Bytes;
}

/// A line that has come (`true`) or gone.
pub(in crate::access) type Move = (Bytes, bool);

#[derive(Debug)]
pub(super) struct Noted<P> {
    places: HashMap<u64, P>,
    moves: Vec<Move>,
}

impl<P> Default for Noted<P> {
    fn default() -> Self {
        Self { places: HashMap::new(), moves: Vec::new() }
    }
}

/// To be looked at as the map that it is.
impl<P> Deref for Noted<P> {
    type Target = HashMap<u64, P>;

    fn deref(&self) -> &Self::Target {
        &self.places
    }
}

impl<P: Placed> Noted<P> {
    pub(super) fn insert(&mut self, group: u64, place: P) {
        let line = place.line(group);
        match self.places.insert(group, place) {
            Some(old) if old.line(group) == line => return,
            Some(old) => self.moves.push((old.line(group), false)),
            None => {}
        }
        self.moves.push((line, true));
    }

    pub(super) fn remove(&mut self, group: u64) -> Option<P> {
        let place = self.places.remove(&group)?;
        self.moves.push((place.line(group), false));
        Some(place)
    }

    /// To change what its line does not say.
    pub(super) fn get_mut(&mut self, group: u64) -> Option<&mut P> {
        self.places.get_mut(&group)
    }

    /// The same for all of them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut P)> {
        self.places.iter_mut()
    }

    /// Takes those out that `which` says yes to.
    pub(super) fn take(&mut self, mut which: impl FnMut(&P) -> bool) -> Vec<(u64, P)> {
        let taken: Vec<_> = self.places.extract_if(|_, place| which(place)).collect();
        let line = |(group, place): &(u64, P)| (place.line(*group), false);
        self.moves.extend(taken.iter().map(line));
        taken
    }

    /// What has come and gone since this was last asked.
    pub(super) fn take_moves(&mut self) -> Vec<Move> {
        std::mem::take(&mut self.moves)
    }

    pub(super) fn has_moves(&self) -> bool {
        !self.moves.is_empty()
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.places.iter().map(|(group, place)| place.line(*group))
    }
}
