//! Directory listings, read ahead by the workers while the planner is busy with others.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::error::{Result, SyncError};
use crate::transport::{Endpoint, Listing};

/// Listings that are ready but not yet wanted hold at most this many entries.
const READ_AHEAD: usize = 32_768;

/// How much is ready and not yet taken, over all listings of a run. Each also holds a descriptor.
#[derive(Debug)]
pub struct ReadAhead {
    used: AtomicUsize,
    /// What a listing counts for at least.
    least: usize,
}

impl ReadAhead {
    /// At most `listings` at a time.
    pub fn new(listings: usize) -> Self {
        Self { used: AtomicUsize::new(0), least: READ_AHEAD / listings.max(1) }
    }

    pub fn is_full(&self) -> bool {
        self.used.load(Relaxed) >= READ_AHEAD
    }

    fn weight(&self, listing: &Result<Listing>) -> usize {
        listing.as_ref().map_or(0, |listing| listing.len().max(self.least))
    }
}

/// One directory that will be wanted soon.
pub struct Wanted<'r> {
    endpoint: &'r dyn Endpoint,
    key: Vec<u8>,
    state: Mutex<State>,
    ready: Condvar,
    ahead: &'r ReadAhead,
}

enum State {
    Waiting,
    Running,
    Ready(Result<Listing>),
    Taken,
}

impl<'r> Wanted<'r> {
    pub fn new(endpoint: &'r dyn Endpoint, key: Vec<u8>, ahead: &'r ReadAhead) -> Arc<Self> {
        Arc::new(Self { endpoint, key, state: Mutex::new(State::Waiting), ready: Condvar::new(), ahead })
    }

    /// Reads the directory, unless somebody else does or did.
    pub fn read(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*state, State::Waiting) {
            return;
        }
        *state = State::Running;
        drop(state);
        let listing = self.endpoint.list(&self.key);
        self.ahead.used.fetch_add(self.ahead.weight(&listing), Relaxed);
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Ready(listing);
        self.ready.notify_one();
    }

    /// The listing: read now if nobody has begun to. While somebody else reads it, `help` is called, which does other
    /// work and returns whether it found any: going to sleep and being woken costs as much as reading a directory.
    pub fn take(&self, mut help: impl FnMut() -> bool) -> Result<Listing> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match std::mem::replace(&mut *state, State::Taken) {
                State::Waiting => {
                    drop(state);
                    return self.endpoint.list(&self.key);
                }
                State::Running => {
                    *state = State::Running;
                    drop(state);
                    let helped = help();
                    state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                    if !helped && matches!(*state, State::Running) {
                        state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
                State::Ready(listing) => {
                    self.ahead.used.fetch_sub(self.ahead.weight(&listing), Relaxed);
                    return listing;
                }
                State::Taken => return Err(SyncError::cancelled()),
            }
        }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        if let State::Ready(listing) = &*self.state.lock().unwrap_or_else(PoisonError::into_inner) {
            self.ahead.used.fetch_sub(self.ahead.weight(listing), Relaxed);
        }
    }
}
