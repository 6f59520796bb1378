//! Work that waits for one of a few threads, bounded by the bytes that it holds.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

pub struct Queue<'a> {
    state: Mutex<State<'a>>,
    work: Condvar,
    room: Condvar,
    most: usize,
}

struct State<'a> {
    jobs: VecDeque<(Job<'a>, usize)>,
    bytes: usize,
    closed: bool,
}

impl<'a> Queue<'a> {
    pub fn new(most: usize) -> Self {
        let state = State { jobs: VecDeque::new(), bytes: 0, closed: false };
        Self { state: Mutex::new(state), work: Condvar::new(), room: Condvar::new(), most }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while too much is waiting.
    pub fn push(&self, bytes: usize, job: Job<'a>) {
        let mut state = self.lock();
        while state.bytes > self.most {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.bytes += bytes;
        state.jobs.push_back((job, bytes));
        drop(state);
        self.work.notify_one();
    }

    /// What a worker does until the queue is closed and empty.
    pub fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((job, bytes)) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.lock();
                state.bytes -= bytes;
                self.room.notify_all();
            } else if state.closed {
                return;
            } else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.work.notify_all();
    }
}
