//! Files with several names in the source: one name is brought over, or is there already, and the others are linked to it.
//!
//! The names of a file are gathered until all have been met, or the walk is over. Then one of them leads.

use std::collections::HashMap;
use std::sync::Arc;

use super::dir::Dir;
use crate::transport::{Meta, Op, What};

/// A file by itself, whatever it is called: device and inode.
type Identity = (u64, u64);

/// A name that waits for its leader.
pub struct Waiting<'r> {
    pub dir: Arc<Dir<'r>>,
    pub op: Op,
    /// A directory of the destination has to go first.
    pub blocked: bool,
}

/// The names of one file, as far as they have been met.
#[derive(Default)]
pub struct Group<'r> {
    /// A name that the destination has as it should be: its key, and its file there.
    pub in_place: Option<(Vec<u8>, Identity)>,
    pub waiting: Vec<Waiting<'r>>,
    met: u32,
}

#[derive(Default)]
pub struct Groups<'r>(HashMap<Identity, Group<'r>>);

impl<'r> Groups<'r> {
    /// Meets a name. `what` is what would be done to it if it were alone, `None` if nothing. Returns whether it is taken
    /// care of here; if not it goes its ordinary way.
    pub fn meet(
        &mut self,
        source: &Meta,
        key: &[u8],
        what: Option<What>,
        dest: Option<&Meta>,
        waiting: impl FnOnce() -> Waiting<'r>,
    ) -> bool {
        let group = self.0.entry((source.dev, source.ino)).or_default();
        group.met += 1;
        let transfer = matches!(what, Some(What::Copy | What::CopyIfDifferent));
        let identity = dest.map(|dest| (dest.dev, dest.ino)).filter(|_| !transfer);
        match (&group.in_place, identity) {
            (Some((_, leader)), Some(own)) if *leader == own => false,
            (None, Some(own)) => {
                group.in_place = Some((key.to_vec(), own));
                false
            }
            _ => {
                group.waiting.push(waiting());
                true
            }
        }
    }

    /// The group of this file if all its names have been met: nothing will be added to it.
    pub fn complete(&mut self, source: &Meta) -> Option<Group<'r>> {
        let identity = (source.dev, source.ino);
        let complete = self.0.get(&identity).is_some_and(|group| group.met >= source.nlink);
        complete.then(|| self.0.remove(&identity)).flatten()
    }

    /// All groups of which some names are outside the source or left out, in the order of their first waiting name.
    pub fn rest(&mut self) -> Vec<Group<'r>> {
        let mut rest: Vec<Group<'r>> = std::mem::take(&mut self.0).into_values().filter(|group| !group.waiting.is_empty()).collect();
        rest.sort_by_cached_key(|group| group.waiting.first().map(|first| first.dir.key_of(&first.op.name)));
        rest
    }
}
