//! The listings of a whole tree, sent ahead of being asked for in the order in which they will be.
//!
//! The planner asks for directories in one order: each before what is below it, names in key order. So what comes before
//! the one that is asked for will not be asked for any more. How much may wait here is granted to the other side.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::wire::frame::MOST;
use super::wire::message::get_listing;
use super::wire::{Frame, Get, garbled};
use crate::error::{Result, SyncError};
use crate::transport::Listing;

/// Bytes of listings on the way or waiting.
const GRANT: u64 = 4 << 20;
/// What was taken is granted anew in pieces of this size.
const PIECE: u64 = 256 << 10;
/// So many listings that nobody wants are passed over one by one; then the walk begins anew where it is wanted.
const PASSED_OVER: usize = 32;

#[derive(Debug, Default)]
pub struct Walk {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The walk under way; what belongs to others is dropped.
    id: u32,
    ready: VecDeque<Ready>,
    /// A directory of which parts have come.
    partial: Option<(Vec<u8>, Listing)>,
    /// The last directory that came.
    reached: Option<Vec<u8>>,
    ended: bool,
    /// Bytes that may still come.
    allowed: i64,
    /// Bytes taken since the last grant.
    taken: u64,
    waiting: usize,
}

impl State {
    /// What was taken may come again.
    fn grant(&mut self) -> u64 {
        let granted = std::mem::take(&mut self.taken);
        self.allowed += granted as i64;
        granted
    }
}

#[derive(Debug)]
struct Ready {
    key: Vec<u8>,
    listing: Result<Listing>,
    bytes: u64,
}

/// What a search in the walk came to.
#[derive(Debug)]
pub enum Found {
    Here(Result<Listing>),
    /// It has to be asked for by itself.
    Absent,
    /// The walk has to begin anew there.
    Far,
}

impl Walk {
    /// A new walk; returns what may be sent of it.
    pub fn begin(&self, id: u32) -> u64 {
        let mut state = self.lock();
        *state = State { id, waiting: state.waiting, allowed: GRANT as i64, ..State::default() };
        GRANT
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn wake(&self) {
        self.arrived.notify_all();
    }

    pub fn is_waited_for(&self) -> bool {
        self.lock().waiting > 0
    }

    /// A part of a listing arrived.
    pub fn take_in(&self, frame: &Frame) -> Result<()> {
        let mut state = self.lock();
        if frame.id != state.id {
            return Ok(());
        }
        let bytes = frame.body.len() as u64;
        state.allowed -= bytes as i64;
        // The last part of a grant may be larger than what was left of it.
        if state.allowed < -(MOST as i64) {
            return Err(garbled("more listings than were asked for"));
        }
        let mut get = Get(&frame.body);
        match Part::read(&mut get)? {
            Part::End => state.ended = true,
            Part::Failed(key, error) => {
                state.partial = None;
                state.reached = Some(key.clone());
                state.ready.push_back(Ready { key, listing: Err(error), bytes });
            }
            Part::Entries(key, last) => {
                let mut listing = match state.partial.take() {
                    Some((other, listing)) if other == key => listing,
                    _ => Listing::default(),
                };
                get_listing(&mut get, &mut listing)?;
                if last {
                    get_rest(&mut get, &mut listing)?;
                    state.reached = Some(key.clone());
                    state.ready.push_back(Ready { key, listing: Ok(listing), bytes });
                } else {
                    state.partial = Some((key, listing));
                    // A directory larger than the grant must still come whole.
                    state.taken += bytes;
                }
            }
        }
        drop(state);
        self.arrived.notify_all();
        Ok(())
    }

    /// The listing of `key`, waiting for it while the walk has yet to come there. `grant` lets more come; `gave_up` ends the
    /// waiting.
    pub fn find(&self, key: &[u8], grant: &dyn Fn(u64), gave_up: &dyn Fn() -> Option<SyncError>) -> Found {
        let mut passed = 0;
        let mut state = self.lock();
        state.waiting += 1;
        let found = loop {
            if let Some(front) = state.ready.front() {
                let order = walk_order(&front.key, key);
                if order == Ordering::Greater {
                    break Found::Absent;
                }
                let Some(ready) = state.ready.pop_front() else { continue };
                state.taken += ready.bytes;
                if order == Ordering::Equal {
                    break Found::Here(ready.listing);
                }
                passed += 1;
                continue;
            }
            if state.ended || state.id == 0 || state.reached.as_ref().is_some_and(|reached| walk_order(reached, key).is_ge()) {
                break Found::Absent;
            }
            if passed > PASSED_OVER {
                break Found::Far;
            }
            if let Some(error) = gave_up() {
                break Found::Here(Err(error));
            }
            let granted = state.grant();
            if granted > 0 {
                drop(state);
                grant(granted);
                state = self.lock();
                continue;
            }
            state = self.arrived.wait_timeout(state, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.waiting -= 1;
        let granted = if state.taken >= PIECE { state.grant() } else { 0 };
        drop(state);
        grant(granted);
        found
    }
}

/// What a message of listings holds.
#[derive(Debug)]
pub enum Part {
    Entries(Vec<u8>, bool),
    Failed(Vec<u8>, SyncError),
    /// There are no more directories.
    End,
}

impl Part {
    pub fn read(get: &mut Get<'_>) -> Result<Self> {
        Ok(match get.u8()? {
            0 => Self::End,
            1 => Self::Failed(get.key()?.to_vec(), get.error()?),
            last => Self::Entries(get.key()?.to_vec(), last == 3),
        })
    }
}

/// What follows the last entries of a directory: temporary files, and names of which nothing is known.
pub fn get_rest(get: &mut Get<'_>, listing: &mut Listing) -> Result<()> {
    for _ in 0..get.usize()? {
        listing.leftovers.push(get.name()?.into());
    }
    for _ in 0..get.usize()? {
        let name = get.name()?.into();
        listing.unknown.push((name, get.error()?));
    }
    get.end()
}

/// The order of directories in a walk: each before what is below it.
pub fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let common = a.len().min(b.len());
    a[..common].cmp(&b[..common]).then_with(|| {
        // One is the beginning of the other: what follows decides against the slash that a directory's name ends in.
        match (a.get(common), b.get(common)) {
            (None, None) => Ordering::Equal,
            (None, Some(next)) if common > 0 => b'/'.cmp(next).then(Ordering::Less),
            (Some(next), None) if common > 0 => next.cmp(&b'/').then(Ordering::Greater),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(_), Some(_)) => Ordering::Equal,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_comes_before_what_is_below_it() {
        let mut keys = ["a", "a/b", "", "a-b", "a/b/c", "a0", "a.b/c", "a.b"];
        keys.sort_by(|a, b| walk_order(a.as_bytes(), b.as_bytes()));
        assert_eq!(keys, ["", "a-b", "a.b", "a.b/c", "a", "a/b", "a/b/c", "a0"]);
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_that_of_the_keys_with_a_slash(a in "[a.0/-]{0,5}", b in "[a.0/-]{0,5}") {
            let written = |key: &str| if key.is_empty() { String::new() } else { format!("{key}/") };
            proptest::prop_assert_eq!(walk_order(a.as_bytes(), b.as_bytes()), written(&a).cmp(&written(&b)));
        }
    }
}
