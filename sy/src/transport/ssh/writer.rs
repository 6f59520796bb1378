//! The destination on a host, wherever contents come from.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SshEndpoint;
use super::session::Reply;
use super::wire::message::{get_applied, put_doomed, put_op, put_optional_meta};
use super::wire::{Get, Kind, Put, body, body_len, frame::MOST, garbled};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{Keep, part_name};
use crate::transport::{Applied, Doomed, Endpoint, Found, Meta, Op, Time, split_key};

/// So many answers that nobody waits for may be outstanding.
const LATER: usize = 4096;

/// The destination of a run.
pub struct SshWriter<'r> {
    pub at: &'r SshEndpoint,
    pub keep: Keep,
    pub precision: u64,
    resume: bool,
    later: Mutex<VecDeque<Reply>>,
    /// What went wrong with what nobody waited for.
    failed: Mutex<Vec<SyncError>>,
}

impl std::fmt::Debug for SshWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshWriter").field("at", &self.at).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'r> SshWriter<'r> {
    pub fn new(dest: &'r SshEndpoint, options: &Options, precision: u64) -> Self {
        Self { at: dest, keep: Keep::new(options), precision, resume: options.resume, later: Mutex::default(), failed: Mutex::default() }
    }

    /// Sends a request whose answer `settle` will look at.
    fn later(&self, kind: Kind, body: Put) -> Result<()> {
        let reply = self.at.session()?.ask(kind, body)?;
        let mut later = lock(&self.later);
        later.push_back(reply);
        while let Some(first) = later.front_mut() {
            match first.try_next() {
                Ok(None) if later.len() <= LATER => break,
                Ok(None) => {
                    // Far ahead of the other side: wait for the oldest.
                    let Some(mut first) = later.pop_front() else { break };
                    drop(later);
                    if let Err(error) = first.done() {
                        self.note(error);
                    }
                    later = lock(&self.later);
                }
                Ok(Some(_)) => drop(later.pop_front()),
                Err(error) => {
                    drop(later.pop_front());
                    self.note(error);
                }
            }
        }
        Ok(())
    }

    fn note(&self, error: SyncError) {
        lock(&self.failed).push(self.at.at(error));
    }

    /// Waits for all that nobody waited for.
    pub fn settle(&self, report: &mut dyn FnMut(SyncError)) {
        loop {
            let Some(mut reply) = lock(&self.later).pop_front() else { break };
            if let Err(error) = reply.done() {
                self.note(error);
            }
        }
        for error in std::mem::take(&mut *lock(&self.failed)) {
            report(error);
        }
    }

    pub fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        let mut request = body();
        request.bytes(&parent.key).bytes(name).meta(source, None);
        put_optional_meta(&mut request, replaced, Some(source));
        parent.touch();
        self.later(Kind::MakeDir, request)
    }

    pub fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        let same = match (&dir.like, &dir.had) {
            (Some(like), Some(had)) => !self.keep.differs(like, had, self.precision),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if same && !dir.is_touched() || self.at.stop().is_set() {
            return Ok(false);
        }
        let mut request = body();
        request.bytes(&dir.key);
        put_optional_meta(&mut request, dir.like.as_ref(), None);
        put_optional_meta(&mut request, dir.had.as_ref(), dir.like.as_ref());
        request.bool(dir.is_touched());
        self.later(Kind::FinishDir, request)?;
        Ok(!same)
    }

    pub fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        let mut request = body();
        request.bytes(key).time(mtime);
        self.later(Kind::TouchDir, request)
    }

    pub fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        let mut request = body();
        request.bytes(&dir.key).u64(leftovers.len() as u64);
        for name in leftovers {
            request.bytes(name);
        }
        for op in wanted {
            put_op(&mut request, op);
        }
        if body_len(&request) <= MOST {
            let _ = self.later(Kind::CleanUp, request);
        }
    }

    pub fn remove(&self, dir: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        let mut rest = doomed;
        while !rest.is_empty() {
            let mut request = body();
            request.bytes(dir);
            let mut count = 0;
            while let Some(one) = rest.get(count).filter(|_| body_len(&request) < MOST / 4) {
                put_doomed(&mut request, split_key(&one.key).1, one);
                count += 1;
            }
            let (now, later) = rest.split_at(count);
            rest = later;
            match self.at.ask(Kind::Remove, request) {
                Ok(answer) => {
                    let mut get = Get(&answer);
                    for one in now {
                        report(one, outcome(&mut get).map_err(|error| self.at.at(error)));
                    }
                }
                Err(error) => now.iter().for_each(|one| report(one, Err(error.clone()))),
            }
        }
    }

    /// Is what the destination has for `op` already another name of the file at `leader`?
    pub fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        let (dir, name) = split_key(leader);
        matches!((self.at.stat(dir, name), &op.dest), (Ok(Some((leader, _))), Some(own)) if leader.identity() == own.identity())
    }

    pub fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        let mut request = body();
        request.bytes(&dir.key).bytes(leader);
        put_op(&mut request, op);
        let answer = self.at.ask(Kind::HardLink, request)?;
        dir.touch();
        let mut get = Get(&answer);
        if get.bool()? { get_applied(&mut get).map(Some) } else { Ok(None) }
    }

    pub fn sync_all(&self) -> Result<()> {
        self.at.ask(Kind::SyncAll, body()).map(drop)
    }

    /// Did an earlier try leave a part of that file?
    pub fn has_part(&self, dir: &Dir<'_>, op: &Op) -> bool {
        self.resume && self.at.has_leftover(&dir.key, &part_name(&op.name, &op.source))
    }

    /// This try may have left one.
    pub fn note_part(&self, dir: &Dir<'_>, op: &Op) {
        self.at.note_leftover(&dir.key, &part_name(&op.name, &op.source));
    }

    pub fn path(&self, key: &[u8]) -> Vec<u8> {
        self.at.path_of(key)
    }

    /// What stands at the destination now, where a connection was cut and nobody knows what became of an operation.
    pub fn stat(&self, dir: &Dir<'_>, name: &[u8]) -> Result<Option<Found>> {
        self.at.stat(&dir.key, name)
    }
}

/// One of several outcomes in an answer.
pub fn outcome(get: &mut Get<'_>) -> Result<()> {
    match get.u8() {
        Ok(1) => Ok(()),
        Ok(0) => Err(get.error()?),
        Ok(_) => Err(garbled("neither done nor failed")),
        Err(_) => Err(SyncError::new(ErrorKind::Network, "the other side did not say what became of it").retryable()),
    }
}
