//! How many bytes of contents may be on their way at a time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use crate::sync::Stop;

/// Enough for 100 ms at 1 Gbit/s, and well within what a run may take.
pub const MOST: u64 = 16 << 20;

#[derive(Debug)]
pub struct Window {
    free: Mutex<u64>,
    freed: Condvar,
}

impl Default for Window {
    fn default() -> Self {
        Self { free: Mutex::new(MOST), freed: Condvar::new() }
    }
}

impl Window {
    /// Takes room if there is some now.
    pub fn try_take(&self, bytes: u64) -> bool {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        let there = *free >= bytes.min(MOST);
        if there {
            *free -= bytes.min(MOST);
        }
        there
    }

    /// Takes room, waiting for it. `false` if the run is stopped.
    pub fn take(&self, bytes: u64, stop: &Stop) -> bool {
        let bytes = bytes.min(MOST);
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free < bytes {
            if stop.is_set() {
                return false;
            }
            free = self.freed.wait_timeout(free, Duration::from_millis(100)).unwrap_or_else(PoisonError::into_inner).0;
        }
        *free -= bytes;
        true
    }

    pub fn give_back(&self, bytes: u64) {
        *self.free.lock().unwrap_or_else(PoisonError::into_inner) += bytes.min(MOST);
        self.freed.notify_all();
    }
}
