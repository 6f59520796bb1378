//! How many bytes of contents may be on their way at a time.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::session::Reply;
use super::wire::{Kind, body};
use crate::error::Result;
use crate::sync::Stop;

/// Enough for 100 ms at 1 Gbit/s, and well within what a run may take.
pub const MOST: u64 = 16 << 20;

/// What may come of one large file ahead of being taken.
pub const AHEAD: u64 = 4 << 20;

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

/// What was taken of one large file and has yet to be said to its sender, who may then send more.
#[derive(Debug)]
pub struct Credit {
    room: u64,
    untold: u64,
}

impl Credit {
    pub fn new(room: u64) -> Self {
        Self { room, untold: 0 }
    }

    pub fn took(&mut self, reply: &Reply, bytes: u64) -> Result<()> {
        self.untold += bytes;
        if self.untold < self.room / 4 {
            return Ok(());
        }
        let mut more = body();
        more.u64(std::mem::take(&mut self.untold));
        reply.tell(Kind::Credit, more)
    }
}
