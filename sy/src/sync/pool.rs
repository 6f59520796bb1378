//! Workers over one queue: transfers first, then listings ahead of the planner. Two to four of them, or many that mostly wait.
//!
//! The planner's thread works too: while the queue is full it carries out transfers itself instead of waiting.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::scan::{ReadAhead, Wanted};

/// Workers that are started whatever there is to do.
const AT_ONCE: u32 = 4;

/// A piece of work that a worker carries out on its own.
pub type Job<'r> = Box<dyn FnOnce() + Send + 'r>;

pub struct Pool<'r> {
    state: Mutex<State<'r>>,
    work: Condvar,
    idle: Condvar,
    /// More work waits than workers do.
    more: Condvar,
    ahead: &'r ReadAhead,
    limit: usize,
}

struct State<'r> {
    jobs: VecDeque<Job<'r>>,
    /// The one wanted soonest is last.
    listings: Vec<Arc<Wanted<'r>>>,
    sleeping: usize,
    running: usize,
    /// Workers that were started, and that may be.
    workers: u32,
    most: u32,
    closed: bool,
}

impl State<'_> {
    /// Listings need none: they are there or come all at once.
    fn wants_workers(&self) -> bool {
        self.workers < self.most && self.jobs.len() > self.sleeping
    }
}

impl<'r> Pool<'r> {
    /// At most `limit` jobs wait; each may hold open directories.
    pub fn new(limit: usize, ahead: &'r ReadAhead) -> Self {
        let state = State { jobs: VecDeque::new(), listings: Vec::new(), sleeping: 0, running: 0, workers: 0, most: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), idle: Condvar::new(), more: Condvar::new(), ahead, limit }
    }

    fn lock(&self) -> MutexGuard<'_, State<'r>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts `most` workers: a few at once, the others as work comes, for where they are many that mostly wait.
    pub fn start<'s>(&'s self, threads: &'s Scope<'s, '_>, most: u32) -> std::io::Result<()> {
        for n in 0..most.min(AT_ONCE) {
            self.start_one(threads, n + 1)?;
        }
        let mut state = self.lock();
        (state.workers, state.most) = (most.min(AT_ONCE), most);
        drop(state);
        if most > AT_ONCE {
            std::thread::Builder::new().name("sypy-start".into()).spawn_scoped(threads, || self.start_more(threads))?;
        }
        Ok(())
    }

    fn start_one<'s>(&'s self, threads: &'s Scope<'s, '_>, n: u32) -> std::io::Result<()> {
        std::thread::Builder::new().name(format!("sypy-{n}")).spawn_scoped(threads, || self.work()).map(drop)
    }

    fn start_more<'s>(&'s self, threads: &'s Scope<'s, '_>) {
        let mut state = self.lock();
        while !state.closed && state.workers < state.most {
            if !state.wants_workers() {
                state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.workers += 1;
            let n = state.workers;
            drop(state);
            if self.start_one(threads, n).is_err() {
                // With fewer it only takes longer.
                return;
            }
            state = self.lock();
        }
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
        if state.wants_workers() {
            self.more.notify_one();
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
        self.more.notify_all();
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
    use std::time::Duration;

    use super::*;

    /// Most jobs that ran at a time, and workers that were started.
    fn run(jobs: u32, most: u32) -> (u32, u32) {
        let ahead = ReadAhead::new(4);
        let (now, peak) = (AtomicU32::new(0), AtomicU32::new(0));
        let pool = Pool::new(1000, &ahead);
        std::thread::scope(|threads| {
            let _closer = Closer(&pool);
            pool.start(threads, most).expect("threads");
            for _ in 0..jobs {
                pool.submit(Box::new(|| {
                    peak.fetch_max(now.fetch_add(1, Relaxed) + 1, Relaxed);
                    std::thread::sleep(Duration::from_millis(100));
                    now.fetch_sub(1, Relaxed);
                }));
            }
            pool.drain();
        });
        (peak.load(Relaxed), pool.lock().workers)
    }

    #[test]
    fn workers_are_started_as_work_comes() {
        assert_eq!(run(0, 64), (0, AT_ONCE));
        let (peak, workers) = run(100, 32);
        // Whoever drains works as well.
        assert!(peak > AT_ONCE + 1 && peak <= 33 && workers <= 32, "{peak} {workers}");
        assert_eq!(run(3, 2).1, 2);
    }
}
