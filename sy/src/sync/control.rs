//! The handle on a run from outside: cancel it, ask how far it is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use super::event::Progress;

/// Is there a reason to begin nothing more? For what outlives a borrow of `Control`, such as connections.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    cancelled: Arc<AtomicBool>,
    gave_up: Arc<AtomicBool>,
    deadline: Arc<OnceLock<Instant>>,
}

impl Stop {
    pub fn is_set(&self) -> bool {
        self.cancelled.load(Relaxed) || self.gave_up.load(Relaxed) || self.timed_out()
    }

    fn timed_out(&self) -> bool {
        self.deadline.get().is_some_and(|deadline| Instant::now() >= *deadline)
    }
}

/// Shared between a run and whoever watches it.
#[derive(Debug)]
pub struct Control {
    stop: Stop,
    started: Instant,
    pub(crate) bytes: AtomicU64,
    pub(crate) total_bytes: AtomicU64,
    pub(crate) transfers: AtomicU64,
    pub(crate) total_transfers: AtomicU64,
    pub(crate) active: AtomicU64,
    pub(crate) scanned: AtomicU64,
    pub(crate) totals_are_final: AtomicBool,
    current: Mutex<Option<Vec<u8>>>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            stop: Stop::default(),
            started: Instant::now(),
            bytes: AtomicU64::default(),
            total_bytes: AtomicU64::default(),
            transfers: AtomicU64::default(),
            total_transfers: AtomicU64::default(),
            active: AtomicU64::default(),
            scanned: AtomicU64::default(),
            totals_are_final: AtomicBool::default(),
            current: Mutex::default(),
        }
    }
}

impl Control {
    /// Asks the run to stop. It cleans up and returns within a second.
    pub fn cancel(&self) {
        self.stop.cancelled.store(true, Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.stop.cancelled.load(Relaxed)
    }

    /// The run itself gives up (`max_errors`).
    pub(crate) fn give_up(&self) {
        self.stop.gave_up.store(true, Relaxed);
    }

    pub(crate) fn gave_up(&self) -> bool {
        self.stop.gave_up.load(Relaxed)
    }

    /// For what outlives a borrow.
    pub fn stop(&self) -> Stop {
        self.stop.clone()
    }

    pub(crate) fn set_timeout(&self, timeout: Duration) {
        // A time that no clock can show never comes.
        if let Some(deadline) = Instant::now().checked_add(timeout) {
            let _ = self.stop.deadline.set(deadline);
        }
    }

    pub(crate) fn timed_out(&self) -> bool {
        self.stop.timed_out()
    }

    /// Is there a reason to begin nothing more?
    pub fn should_stop(&self) -> bool {
        self.stop.is_set()
    }

    /// The flag that `cancel` sets, for signal handlers.
    pub fn cancel_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop.cancelled)
    }

    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn set_current(&self, key: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            let current = current.get_or_insert_default();
            current.clear();
            current.extend_from_slice(key);
        }
    }

    pub fn progress(&self) -> Progress {
        Progress {
            bytes: self.bytes.load(Relaxed),
            total_bytes: self.total_bytes.load(Relaxed),
            transfers: self.transfers.load(Relaxed),
            total_transfers: self.total_transfers.load(Relaxed),
            active_transfers: self.active.load(Relaxed),
            scanned: self.scanned.load(Relaxed),
            totals_are_final: self.totals_are_final.load(Relaxed),
            current_file: self.current.lock().map_or(None, |current| current.clone()),
            elapsed: self.elapsed(),
        }
    }
}
