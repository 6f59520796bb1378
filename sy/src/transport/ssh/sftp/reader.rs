//! Reads from a directory tree on a host, wherever the content goes.

use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::endpoint::SftpEndpoint;
use super::failure::{Failure, Result as Answer};
use super::session::{Session, Ticket};
use super::stream::{Flowing, Pieces};
use super::wire::{Attrs, CLOSE, FSTAT, LSTAT, OPEN, REMOVE, Request, code, open};
use crate::error::{Result, SyncError};
use crate::sync::{Dir, Tally};
use crate::transport::cloud::Content;
use crate::transport::local::changed;
use crate::transport::{Endpoint, Kind, Meta, Op, Source};

/// The source of a run.
pub struct SftpReader<'r> {
    pub at: &'r SftpEndpoint,
    pub tally: &'r Tally,
}

impl std::fmt::Debug for SftpReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SftpReader").finish_non_exhaustive()
    }
}

/// An open file of the source.
pub struct Remote<'r> {
    pub session: Arc<Session>,
    pub handle: Vec<u8>,
    /// What it was when it was opened.
    pub meta: Meta,
    key: Vec<u8>,
    at: &'r SftpEndpoint,
    tally: &'r Tally,
}

impl std::fmt::Debug for Remote<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl<'r> SftpReader<'r> {
    pub fn key(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    /// Opens the source's file, of which nothing but a file is wanted: no link is followed.
    pub fn open(&self, dir: &Dir<'_>, op: &Op) -> Result<Remote<'r>> {
        let key = self.key(dir, op);
        self.open_key(&dir.key, key.clone()).map_err(|failure| failure.at("read", self.at.path_of(&key)))
    }

    fn open_key(&self, dir: &[u8], key: Vec<u8>) -> Answer<Remote<'r>> {
        let session = self.at.client.session()?;
        let path = self.at.path(&key);
        let entering = self.at.begin_enter(&session, dir)?;
        let look = session.ask(Request::path(LSTAT, &path))?;
        let opened = session.ask(Request::path(OPEN, &path).u32(open::READ).attrs(&Attrs::default()))?;
        let (entered, looked, opened) = (self.at.end_enter(entering), self.at.looked(&key, look), opened.handle());
        let close = |failure: Failure| {
            if let Ok(handle) = &opened {
                let _ = session.ask(Request::path(CLOSE, handle));
            }
            failure
        };
        entered.map_err(close)?;
        let meta = match looked.map_err(close)? {
            Some(meta) if meta.kind == Kind::File => meta,
            Some(_) => return Err(close(Failure::Session(SyncError { retryable: false, ..changed(self.at.path_of(&key)) }))),
            None => return Err(close(Failure::Status(code::NO_SUCH_FILE))),
        };
        let handle = opened?;
        Ok(Remote { session, handle, meta, key, at: self.at, tally: self.tally })
    }

    /// What stands there now.
    pub fn look(&self, dir: &Dir<'_>, op: &Op) -> Result<Meta> {
        let key = self.key(dir, op);
        let shown = || self.at.path_of(&key);
        let found = self.at.client.repeat(|session| {
            self.at.enter(session, &dir.key)?;
            self.at.look(session, &key)
        });
        found.and_then(|found| found.ok_or(Failure::Status(code::NO_SUCH_FILE))).map_err(|failure| failure.at("read", shown()))
    }
}

impl Remote<'_> {
    pub fn pieces(&self, range: Range<u64>) -> Pieces<'_> {
        Pieces::new(&self.session, &self.handle, range)
    }

    /// An error of a failure to read it.
    pub fn fail(&self, failure: Failure) -> SyncError {
        failure.at("read", self.at.path_of(&self.key))
    }

    pub fn ask_state(&self) -> Answer<Ticket> {
        self.session.ask(Request::path(FSTAT, &self.handle))
    }

    /// An error unless it is what it was when it was opened, as far as its size and time tell.
    pub fn is_still(&self, state: Ticket) -> Result<()> {
        let attrs = state.attrs().map_err(|failure| self.fail(failure))?;
        let time = |attrs: &Attrs| attrs.times.map(|(_, change)| i64::from(change));
        let same = attrs.size == Some(self.meta.size) && (!self.meta.known.mtime || time(&attrs) == Some(self.meta.mtime.seconds));
        if same { Ok(()) } else { Err(changed(self.at.path_of(&self.key))) }
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        // Nobody waits for it.
        let _ = self.session.ask_with(Request::path(CLOSE, &self.handle), super::session::Patience::CleanUp);
    }
}

impl Content for Remote<'_> {
    fn size(&self) -> u64 {
        self.meta.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let count = |n| {
            self.tally.bytes_read.fetch_add(n, Relaxed);
        };
        Ok(Box::new(Flowing::new(self.pieces(range), |failure| self.fail(failure), count)))
    }

    fn still(&self) -> Result<()> {
        let state = self.ask_state().map_err(|failure| self.fail(failure))?;
        self.is_still(state)
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn mark(&self) -> u64 {
        self.meta.ino ^ self.meta.dev.rotate_left(1) ^ self.meta.size.rotate_left(32) ^ (self.meta.mtime.seconds as u64).rotate_left(16)
    }
}

impl Source for SftpReader<'_> {
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)> {
        let remote = Self::open(self, dir, op)?;
        Ok((remote.meta, Box::new(remote)))
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let now = self.look(dir, op)?;
        if now.kind != op.source.kind {
            return Err(SyncError { retryable: false, ..changed(self.path(dir, op)) });
        }
        if !now.same_state(&op.source) {
            op.source = Meta { nlink: op.source.nlink, ..now };
        }
        if now.kind == Kind::Symlink {
            let key = self.key(dir, op);
            let target = self.at.client.repeat(|session| self.at.link_target(session, &key));
            op.target = Some(target.map_err(|failure| failure.at("read", self.at.path_of(&key)))?);
        }
        Ok(())
    }

    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let key = self.key(dir, op);
        if !self.look(dir, op)?.same_state(&op.source) {
            return Err(changed(self.at.path_of(&key)));
        }
        let removed = self.at.client.session().and_then(|session| session.ask(Request::path(REMOVE, &self.at.path(&key)))?.done());
        removed.map_err(|failure| failure.at("remove the source", self.at.path_of(&key)))
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.at.path_of(&self.key(dir, op))
    }
}
