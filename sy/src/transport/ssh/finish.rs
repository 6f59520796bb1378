//! Directories that wait for their attributes to come. Each is finished when they do, in the order in which they were asked for,
//! so that a directory comes after those in it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::agent::SILENT;
use super::session::Reply;
use crate::error::Result;
use crate::sync::Dir;
use crate::transport::Settled;

/// So many may wait.
const LATER: usize = 4096;

#[derive(Debug, Default)]
pub struct Finishing {
    waiting: Mutex<VecDeque<(Dir<'static>, Reply)>>,
    settled: Mutex<Vec<Settled>>,
}

/// Finishes a directory, of which the other side said that; did it differ?
type Finish<'a> = &'a dyn Fn(&Dir<'_>, Result<Vec<u8>>) -> Result<bool>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Finishing {
    pub fn add(&self, dir: &Dir<'_>, reply: Reply, finish: Finish<'_>) {
        let copy = Dir::new(&dir.key, None, dir.like, dir.had, &SILENT);
        if let Some(&mode) = dir.lifted.get() {
            let _ = copy.lifted.set(mode);
        }
        if dir.is_touched() {
            copy.touch();
        }
        let mut waiting = lock(&self.waiting);
        waiting.push_back((copy, reply));
        while let Some((_, reply)) = waiting.front_mut() {
            let answer = match reply.try_next() {
                Ok(None) if waiting.len() <= LATER => return,
                Ok(None) => reply_of(&mut waiting),
                Ok(Some(frame)) => Ok(frame.body),
                Err(error) => Err(error),
            };
            self.finish(&mut waiting, answer, finish);
        }
    }

    fn finish(&self, waiting: &mut VecDeque<(Dir<'static>, Reply)>, answer: Result<Vec<u8>>, finish: Finish<'_>) {
        let Some((dir, _)) = waiting.pop_front() else { return };
        let settled = match finish(&dir, answer) {
            Ok(true) if dir.had.is_some() => Settled::Directory(dir.key.to_vec()),
            Ok(_) => return,
            Err(error) => Settled::Failed(error),
        };
        lock(&self.settled).push(settled);
    }

    /// Waits for all of them.
    pub fn settle(&self, finish: Finish<'_>, report: &mut dyn FnMut(Settled)) {
        let mut waiting = lock(&self.waiting);
        while !waiting.is_empty() {
            let answer = reply_of(&mut waiting);
            self.finish(&mut waiting, answer, finish);
        }
        drop(waiting);
        std::mem::take(&mut *lock(&self.settled)).into_iter().for_each(report);
    }
}

fn reply_of(waiting: &mut VecDeque<(Dir<'static>, Reply)>) -> Result<Vec<u8>> {
    waiting.front_mut().map_or_else(|| Ok(Vec::new()), |(_, reply)| reply.done())
}
