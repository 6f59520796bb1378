//! The destination on a host, wherever contents come from.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::SshEndpoint;
use super::later::About;
use super::wire::attributes::put_attributes;
use super::wire::message::{get_applied, put_doomed, put_op, put_optional_meta};
use super::wire::{Get, Kind as Message, Put, body, body_len, frame::MOST, garbled};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{Attributes, Keep, part_name};
use crate::transport::{Applied, Doomed, Endpoint, Found, Kind, Meta, Op, Settled, Time, split_key};

/// The destination of a run.
pub struct SshWriter<'r> {
    pub at: &'r SshEndpoint,
    pub keep: Keep,
    pub precision: u64,
    /// The other side reads back what it wrote.
    pub verify: bool,
    resume: bool,
    /// What came of it, as far as it matters.
    settled: Mutex<Vec<Settled>>,
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
        Self { at: dest, keep: Keep::new(options), precision, verify: options.verify, resume: options.resume, settled: Mutex::default() }
    }

    /// Sends a request whose answer `settle` will look at.
    fn later(&self, kind: Message, body: &Put, about: &About) -> Result<()> {
        self.at.ask_later(kind, body, about)?;
        while let Some((about, answer)) = self.at.answer(false) {
            self.note(about, answer);
        }
        Ok(())
    }

    fn note(&self, about: About, answer: Result<Vec<u8>>) {
        let said = match (answer, about) {
            // Of one whose answer was lost it is not known.
            (Err(error), About::Made) if error.kind != ErrorKind::Network => Settled::NotMade(self.at.at(error)),
            (Err(error), _) => Settled::Failed(self.at.at(error)),
            (Ok(answer), About::Directory(dir)) => match Get(&answer).bool() {
                Ok(true) => Settled::Directory(dir.into()),
                Ok(false) => return,
                Err(error) => Settled::Failed(self.at.at(error)),
            },
            (Ok(_), _) => return,
        };
        lock(&self.settled).push(said);
    }

    /// Waits for all that nobody waited for.
    pub fn settle(&self, report: &mut dyn FnMut(Settled)) {
        while let Some((about, answer)) = self.at.answer(true) {
            self.note(about, answer);
        }
        std::mem::take(&mut *lock(&self.settled)).into_iter().for_each(report);
    }

    pub fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        let mut request = body();
        request.bytes(&parent.key).bytes(name).meta(source, None);
        put_optional_meta(&mut request, replaced, Some(source));
        // Not again.
        request.bool(false);
        parent.touch();
        self.later(Message::MakeDir, &request, &About::Made)
    }

    /// `wanted` is asked for the attributes it is to have, where such are kept.
    pub fn finish_dir(&self, dir: &Dir<'_>, wanted: &dyn Fn() -> Result<Attributes>) -> Result<bool> {
        let attributes = dir.like.is_some() && self.keep.reads_attributes(Kind::Dir);
        let same = match (&dir.like, &dir.had) {
            (Some(like), Some(had)) => !self.keep.differs(like, had, self.precision),
            (None, _) => true,
            (Some(_), None) => false,
        };
        if same && !dir.is_touched() && !attributes || self.at.stop().is_set() {
            return Ok(false);
        }
        let mut request = body();
        request.bytes(&dir.key);
        put_optional_meta(&mut request, dir.like.as_ref(), None);
        put_optional_meta(&mut request, dir.had.as_ref(), dir.like.as_ref());
        request.bool(dir.is_touched());
        put_attributes(&mut request, if attributes { Some(wanted()?) } else { None }.as_ref());
        let about = if attributes && same && dir.had.is_some() { About::Directory(dir.key.clone()) } else { About::Nothing };
        self.later(Message::FinishDir, &request, &about)?;
        Ok(!same)
    }

    pub fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        let mut request = body();
        request.bytes(key).time(mtime);
        self.later(Message::TouchDir, &request, &About::Nothing)
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
            dir.touch();
            let _ = self.later(Message::CleanUp, &request, &About::Nothing);
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
            match self.at.ask(Message::Remove, request) {
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

    /// Are the metadata, to be changed, those of other names too?
    pub fn shares_metadata(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.keep.shares_metadata(&op.source, &old, self.precision))
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
        let answer = self.at.ask(Message::HardLink, request)?;
        dir.touch();
        let mut get = Get(&answer);
        if get.bool()? { get_applied(&mut get).map(Some) } else { Ok(None) }
    }

    pub fn sync_all(&self) -> Result<()> {
        self.at.ask(Message::SyncAll, body()).map(drop)
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
