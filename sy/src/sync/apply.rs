//! Carries the plan out: jobs for the workers, then links, then another try for what failed and may still go.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::context::Context;
use super::dir::Dir;
use super::event::Level;
use super::pool::Pool;
use crate::error::{ErrorKind, SyncError};
use crate::transport::{Applied, Lane, Op, Settled, What};

/// What takes the place of a directory that is to be deleted first.
pub struct After<'r> {
    pub dir: Arc<Dir<'r>>,
    pub op: Op,
    /// Another name of the same file, if it is to be linked and not copied.
    pub leader: Option<Vec<u8>>,
}

/// An operation that failed and may still go.
struct Failed<'r> {
    dir: Arc<Dir<'r>>,
    op: Op,
    /// Another name of the file, if it is to be linked.
    leader: Option<Vec<u8>>,
    error: SyncError,
}

/// The work of a run: what waits, and what has to be tried again.
pub struct Work<'r> {
    cx: &'r Context<'r>,
    pub pool: Pool<'r>,
    again: Again<'r>,
}

/// Shared with the jobs that wait in the pool.
type Again<'r> = Arc<Mutex<Vec<Failed<'r>>>>;

impl<'r> Work<'r> {
    pub fn new(cx: &'r Context<'r>, pool: Pool<'r>) -> Self {
        Self { cx, pool, again: Again::default() }
    }

    /// Hands operations of one directory to the workers. A dry run does them at once, to keep their order.
    pub fn submit(&self, dir: Arc<Dir<'r>>, ops: Vec<Op>) {
        let (cx, again) = (self.cx, Arc::clone(&self.again));
        let held = cx.lane.filter(|_| !cx.dry_run()).map(|lane| lane.hold(&dir));
        let job = move || {
            let _held = held;
            if cx.lane.is_some_and(Lane::takes_several) && !cx.dry_run() {
                let mut ops = ops;
                return cx.perform_all(&dir, &mut ops, &mut |op, error| failed(cx, &again, &dir, op.clone(), None, error));
            }
            for op in ops {
                if cx.control.should_stop() {
                    return;
                }
                perform_one(cx, &again, &dir, op);
            }
        };
        if cx.dry_run() {
            job();
        } else {
            self.pool.submit(Box::new(job));
        }
    }

    /// Waits for what was begun without waiting for its end.
    pub fn settle(&self) {
        if let Some(lane) = self.cx.lane {
            lane.settle(&mut |settled| match settled {
                Settled::Failed(error) => self.cx.fail(error),
                Settled::NotMade(error) => self.cx.directory_not_created(error),
                Settled::Directory(key) => self.cx.directory_differed(&key),
            });
        }
    }

    /// Tries again what may still go, a few times, waiting longer each time.
    pub fn retry(&self) {
        let cx = self.cx;
        for round in 0..cx.options.retry {
            let failed = std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner));
            if failed.is_empty() {
                return;
            }
            cx.log(Level::Info, &format!("trying {} failed items again", failed.len()));
            // A day is as long as for ever here, and keeps the sum within what a duration can hold.
            let delay = cx.options.retry_delay.0.saturating_mul(1 << round.min(16)).min(Duration::from_secs(24 * 3600));
            let mut wait = delay.mul_f64(0.75 + 0.5 * jitter());
            while !wait.is_zero() && !cx.control.should_stop() {
                let nap = wait.min(Duration::from_millis(50));
                std::thread::sleep(nap);
                wait -= nap;
            }
            let last = round + 1 == cx.options.retry;
            let later = |failed| self.again.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
            // First names that failed once more; those to be linked to them go on waiting.
            let mut awaited: Vec<Vec<u8>> = Vec::new();
            for Failed { dir, mut op, leader, error } in failed {
                if cx.control.should_stop() {
                    cx.fail(error);
                    continue;
                }
                if !last && leader.as_ref().is_some_and(|leader| awaited.contains(leader)) {
                    later(Failed { dir, op, leader, error });
                    continue;
                }
                cx.tally.retries.fetch_add(1, Relaxed);
                let transfer = matches!(op.what, What::Copy | What::CopyIfDifferent);
                let refreshed = cx.lane.map_or(Ok(()), |lane| lane.refresh(&dir, &mut op)).and_then(|()| match cx.owners {
                    Some(owners) => owners.translate(std::iter::once(&mut op.source)),
                    None => Ok(()),
                });
                let done = refreshed.and_then(|()| match &leader {
                    Some(leader) => try_link(cx, &dir, &op, leader),
                    None if transfer && op.what == What::Nothing => {
                        // It had been done, but a connection was cut before that was heard of.
                        cx.applied(&dir, &op, if op.dest.is_some() { Applied::Updated } else { Applied::Created }, false);
                        cx.remove_source(&dir, &op);
                        Ok(())
                    }
                    None => cx.perform(&dir, &mut op),
                });
                match done.map_err(|error| named(cx, &dir, &op, error)) {
                    Ok(()) => {}
                    Err(error) if error.retryable && !last => {
                        if op.source.nlink > 1 && leader.is_none() {
                            awaited.push(dir.key_of(&op.name));
                        }
                        later(Failed { dir, op, leader, error });
                    }
                    Err(error) => cx.fail(error),
                }
            }
        }
    }

    /// What still waits for another try when a run is stopped has failed.
    pub fn give_up(&self) {
        for failed in std::mem::take(&mut *self.again.lock().unwrap_or_else(PoisonError::into_inner)) {
            self.cx.fail(failed.error);
        }
    }

    /// Files that take the place of a directory, which should be gone by now.
    pub fn after_deletions(&self, all: Vec<After<'r>>, deleted: bool) {
        let cx = self.cx;
        for After { dir, op, leader } in all {
            if cx.control.should_stop() {
                return;
            }
            match leader {
                _ if !deleted => {
                    let key = dir.key_of(&op.name);
                    let path = cx.dest.map_or_else(|| key.clone(), |dest| dest.path_of(&key));
                    cx.fail(
                        SyncError::new(ErrorKind::AlreadyExists, "a directory stands in the way and was not deleted").at("create", path),
                    );
                }
                None => perform_one(cx, &self.again, &dir, op),
                Some(leader) => link(cx, &self.again, &dir, op, &leader),
            }
        }
    }

    /// The names of one file: `leader`, if it has to be brought over first, and those that become links to `key`.
    pub fn submit_names(&self, leader: Option<(Arc<Dir<'r>>, Op)>, key: Vec<u8>, followers: Vec<(Arc<Dir<'r>>, Op)>) {
        let (cx, again) = (self.cx, Arc::clone(&self.again));
        let job = move || {
            // Where the first name has to wait for another try, the others wait behind it.
            let mut waits = None;
            if let Some((dir, mut op)) = leader
                && let Err(error) = cx.perform(&dir, &mut op)
            {
                waits = error.retryable.then(|| error.clone());
                failed(cx, &again, &dir, op, None, error);
            }
            for (dir, op) in followers {
                if cx.control.should_stop() {
                    return;
                }
                match &waits {
                    Some(error) => failed(cx, &again, &dir, op, Some(&key), error.clone()),
                    None => link(cx, &again, &dir, op, &key),
                }
            }
        };
        if cx.dry_run() {
            job();
        } else {
            self.pool.submit(Box::new(job));
        }
    }
}

/// Makes `op` another name of the file at `leader`, which should be in place.
fn link<'r>(cx: &Context<'r>, again: &Again<'r>, dir: &Arc<Dir<'r>>, op: Op, leader: &[u8]) {
    if let Err(error) = try_link(cx, dir, &op, leader) {
        failed(cx, again, dir, op, Some(leader), error);
    }
}

fn try_link(cx: &Context<'_>, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<(), SyncError> {
    let linked = match cx.lane {
        Some(lane) if !cx.dry_run() => lane.hard_link(dir, op, leader)?,
        Some(lane) if lane.is_linked(op, leader) => Some(Applied::Same),
        _ => Some(if op.dest.is_some() { Applied::Updated } else { Applied::Created }),
    };
    match linked {
        Some(applied) => {
            cx.applied(dir, op, applied, applied != Applied::Same);
            cx.remove_source(dir, op);
            Ok(())
        }
        None => cx.perform(dir, &mut Op { what: What::Copy, ..op.clone() }),
    }
}

fn perform_one<'r>(cx: &Context<'r>, again: &Again<'r>, dir: &Arc<Dir<'r>>, mut op: Op) {
    if let Err(error) = cx.perform(dir, &mut op) {
        failed(cx, again, dir, op, None, error);
    }
}

/// What failed is told where the error does not know.
fn named(cx: &Context<'_>, dir: &Dir<'_>, op: &Op, error: SyncError) -> SyncError {
    if error.path.is_none() { error.at("copy", cx.source.path_of(&dir.key_of(&op.name))) } else { error }
}

/// Keeps for another try what may still go; records the rest.
fn failed<'r>(cx: &Context<'r>, again: &Again<'r>, dir: &Arc<Dir<'r>>, op: Op, leader: Option<&[u8]>, error: SyncError) {
    let error = named(cx, dir, &op, error);
    if error.retryable && cx.options.retry > 0 && !cx.dry_run() {
        let failed = Failed { dir: Arc::clone(dir), op, leader: leader.map(<[u8]>::to_vec), error };
        again.lock().unwrap_or_else(PoisonError::into_inner).push(failed);
    } else {
        cx.fail(error);
    }
}

/// A number from 0 to 1 that differs from one process and moment to the next.
fn jitter() -> f64 {
    f64::from(crate::transport::Time::now().nanos % 1000) / 1000.0
}
