//! Two to four workers over one queue: transfers first, then listings ahead of the planner.
//!
//! The planner's thread works too: while the queue is full it carries out transfers itself instead of waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::scan::{ReadAhead, Wanted};

/// A piece of work that a worker carries out on its own.
pub type Job<'r> = Box<dyn FnOnce() + Send + 'r>;

pub struct Pool<'r> {
    state: Mutex<State<'r>>,
    work: Condvar,
    idle: Condvar,
    ahead: &'r ReadAhead,
    limit: usize,
}

struct State<'r> {
    jobs: VecDeque<Job<'r>>,
    /// The one wanted soonest is last.
    listings: Vec<Arc<Wanted<'r>>>,
    sleeping: usize,
    running: usize,
    closed: bool,
}

impl<'r> Pool<'r> {
    /// At most `limit` jobs wait; each may hold open directories.
    pub fn new(limit: usize, ahead: &'r ReadAhead) -> Self {
        let state = State { jobs: VecDeque::new(), listings: Vec::new(), sleeping: 0, running: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new(), ahead, limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<'r>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a worker thread does until the pool is closed.
    pub fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                state.running += 1;
                drop(state);
                let running = Running(self);
                job();
                drop(running);
                state = self.lock();
            } else if !self.ahead.is_full()
                && let Some(wanted) = state.listings.pop()
            {
                drop(state);
                wanted.read();
                state = self.lock();
            } else if state.closed {
                return;
            } else {
                state.sleeping += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.sleeping -= 1;
            }
        }
    }

    /// Hands over a job; carries out others itself while too many wait.
    pub fn submit(&self, job: Job<'r>) {
        let mut state = self.lock();
        state.jobs.push_back(job);
        if state.sleeping > 0 {
            self.work.notify_one();
        }
        while state.jobs.len() > self.limit {
            let Some(job) = state.jobs.pop_front() else { break };
            drop(state);
            job();
            state = self.lock();
        }
    }

    /// Reads one of the listings that will be wanted. Returns whether there was one.
    pub fn help(&self) -> bool {
        if self.ahead.is_full() {
            return false;
        }
        let next = self.lock().listings.pop();
        next.inspect(|wanted| wanted.read()).is_some()
    }

    /// Directories that will be wanted, soonest first.
    pub fn want(&self, soon: impl DoubleEndedIterator<Item = Arc<Wanted<'r>>>) {
        let mut state = self.lock();
        // What is gone was taken by the planner.
        state.listings.retain(|wanted| Arc::strong_count(wanted) > 1);
        let before = state.listings.len();
        state.listings.extend(soon.rev());
        for _ in 0..(state.listings.len() - before).min(state.sleeping) {
            self.work.notify_one();
        }
    }

    /// Works until nothing waits and nothing runs.
    pub fn drain(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
            } else if state.running > 0 {
                state = self.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else {
                return;
            }
        }
    }

    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.listings.clear();
        self.work.notify_all();
    }
}

/// A job under way. Dropped also when the job panics, so that nobody waits for it for ever.
struct Running<'p, 'r>(&'p Pool<'r>);

impl Drop for Running<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.running -= 1;
        if state.running == 0 && state.jobs.is_empty() {
            self.0.idle.notify_all();
        }
    }
}

/// Closes the pool when dropped, so that workers end also when the planner fails.
pub struct Closer<'p, 'r>(pub &'p Pool<'r>);

impl Drop for Closer<'_, '_> {
    fn drop(&mut self) {
        self.0.close();
    }
}
