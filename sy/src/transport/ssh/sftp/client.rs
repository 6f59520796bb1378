//! The connections to one host: opened when needed, again when they were cut, not more often than it makes sense.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::failure::{Failure, Result};
use super::session::Session;
use crate::error::{ErrorKind, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::SshConfig;
use crate::transport::ssh::connect::{Start, Target, connect};

/// How often to try again, and how long to wait before: `retry` and `retry_delay`.
#[derive(Debug, Clone, Copy)]
pub struct Again {
    pub times: u32,
    pub delay: Duration,
}

impl Again {
    /// Before the try after `failures` ones.
    fn wait(self, failures: u32) -> Duration {
        self.delay.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(Duration::from_secs(24 * 3600))
    }
}

#[derive(Debug)]
pub struct Client {
    target: Target,
    config: SshConfig,
    again: Again,
    pub stop: Stop,
    slots: Vec<Mutex<Slot>>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Slot {
    session: Option<Arc<Session>>,
    /// Connections in a row that were of no use, and why the last one was not.
    failures: u32,
    last: Option<(SyncError, Instant)>,
}

impl Client {
    pub fn new(target: Target, config: &SshConfig, again: Again, stop: &Stop) -> Self {
        let size = config.pool_size.unwrap_or(1).clamp(1, 64);
        Self {
            target,
            config: config.clone(),
            again,
            stop: stop.clone(),
            slots: (0..size).map(|_| Mutex::default()).collect(),
            next: AtomicUsize::new(0),
        }
    }

    /// A connection that works, as far as is known.
    pub fn session(&self) -> Result<Arc<Session>> {
        let index = self.next.fetch_add(1, Relaxed) % self.slots.len();
        let mut slot = self.slots[index].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &slot.session {
            let Some(error) = session.ended() else { return Ok(Arc::clone(session)) };
            // Beside its greeting and limits it has answered something.
            if session.answers() > 1 {
                slot.failures = 0;
            }
            slot.session = None;
            slot.note(error);
        }
        if let Some((error, when)) = &slot.last {
            // The first cut is mended at once.
            let too_often = slot.failures > self.again.times;
            if too_often || !error.retryable {
                return Err(Failure::Session(SyncError { retryable: false, ..error.clone() }));
            }
            if slot.failures > 1 && when.elapsed() < self.again.wait(slot.failures - 1) {
                return Err(Failure::Session(error.clone()));
            }
        }
        let opened = connect(&self.target, &self.config, Start::Subsystem("sftp"), &self.stop)
            .and_then(|stream| Session::begin(stream, self.config.connect_timeout.map(|span| span.0), &self.stop));
        match opened {
            Ok(session) => {
                let session = Arc::new(session);
                slot.session = Some(Arc::clone(&session));
                Ok(session)
            }
            Err(error) => {
                if error.kind != ErrorKind::Cancelled {
                    slot.note(error.clone());
                }
                Err(Failure::Session(error))
            }
        }
    }

    /// Does what may be done twice, anew on another connection if one is cut.
    pub fn repeat<T>(&self, call: impl Fn(&Arc<Session>) -> Result<T>) -> Result<T> {
        let mut failures = 0;
        loop {
            match self.session().and_then(|session| call(&session)) {
                Err(Failure::Session(error)) if error.retryable && failures < self.again.times && !self.stop.is_set() => {
                    failures += 1;
                    self.pause(if failures == 1 { Duration::ZERO } else { self.again.wait(failures - 1) });
                }
                other => return other,
            }
        }
    }

    fn pause(&self, mut wait: Duration) {
        while !wait.is_zero() && !self.stop.is_set() {
            let nap = wait.min(Duration::from_millis(50));
            std::thread::sleep(nap);
            wait -= nap;
        }
    }
}

impl Slot {
    fn note(&mut self, error: SyncError) {
        self.failures += 1;
        self.last = Some((error, Instant::now()));
    }
}
