//! `backup_dir` on a host: where replaced and deleted files go, below the destination.

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use super::failure::{Failure, Result as Answer};
use super::session::{Session, Ticket};
use super::wire::{Attrs, MKDIR, Request, code};
use super::writer::{SftpWriter, is_still};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::cloud::plain_key;
use crate::transport::local::backup_stamp;
use crate::transport::{Endpoint, Kind, Meta, child_key, split_key};

/// `DIR/2026-01-31T23-59-59Z/key`. The dated folder is made when the first file goes there.
#[derive(Debug)]
pub struct Aside {
    dir: Vec<u8>,
    folder: Mutex<Option<Vec<u8>>>,
    made: Mutex<HashSet<Vec<u8>>>,
}

impl Aside {
    /// `dir` is a plain path below the destination.
    pub fn new(dir: &Path) -> Self {
        Self { dir: plain_key(dir), folder: Mutex::default(), made: Mutex::default() }
    }

    /// Keeps what stands at `key`, which is about to be replaced.
    pub fn keep(&self, to: &SftpWriter<'_>, session: &Session, key: &[u8], old: &Meta) -> Result<()> {
        let fail = |failure: Failure| failure.at("back up", to.at.path_of(key));
        let slot = self.slot(to, session, key).map_err(fail)?;
        let there = || to.at.look(session, &slot);
        if session.server.hardlink {
            let link = Request::extended("hardlink@openssh.com").text(&to.at.path(key)).text(&to.at.path(&slot));
            match session.ask(link).and_then(Ticket::done) {
                Ok(()) => return Ok(()),
                Err(Failure::Status(code::FAILURE | code::UNSUPPORTED | code::PERMISSION_DENIED)) => {
                    // An attempt before this one kept it, and failed later.
                    if is_still(there().map_err(fail)?.as_ref(), old) {
                        return Ok(());
                    }
                }
                Err(failure) => return Err(fail(failure)),
            }
        }
        // Without links there is a moment in which it stands under its new name only.
        to.rename(session, key, &slot).map_err(fail)
    }

    /// Moves what stands at `key` away.
    pub fn take(&self, to: &SftpWriter<'_>, session: &Session, key: &[u8]) -> Answer<()> {
        let slot = self.slot(to, session, key)?;
        to.rename(session, key, &slot)
    }

    /// The name for `key` in the backups; the folders on the way are made.
    fn slot(&self, to: &SftpWriter<'_>, session: &Session, key: &[u8]) -> Answer<Vec<u8>> {
        let folder = self.folder(to, session)?;
        let slot = child_key(&folder, key);
        let (parent, _) = split_key(&slot);
        let ends = parent.iter().enumerate().skip(folder.len()).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.skip(1).chain([parent.len()]).filter(|&end| end > folder.len()) {
            self.make(to, session, &parent[..end])?;
        }
        Ok(slot)
    }

    fn make(&self, to: &SftpWriter<'_>, session: &Session, key: &[u8]) -> Answer<()> {
        if self.made.lock().unwrap_or_else(PoisonError::into_inner).contains(key) {
            return to.at.enter(session, key);
        }
        match session.ask(Request::path(MKDIR, &to.at.path(key)).attrs(&Attrs::mode(0o700)))?.done() {
            Ok(()) => to.at.remember(key.to_vec()),
            Err(Failure::Status(code::FAILURE)) => {}
            Err(failure) => return Err(failure),
        }
        // Whatever was there already is a directory, and no link.
        to.at.enter(session, key)?;
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_vec());
        Ok(())
    }

    /// The dated folder of this run. Making it decides whose it is, should two runs begin in one second.
    fn folder(&self, to: &SftpWriter<'_>, session: &Session) -> Answer<Vec<u8>> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*folder {
            return Ok(made.clone());
        }
        let ends = self.dir.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([self.dir.len()]);
        for end in ends {
            self.make(to, session, &self.dir[..end])?;
        }
        let stamp = backup_stamp();
        for n in 1..10_000_u32 {
            let name = if n == 1 { stamp.clone() } else { format!("{stamp}.{n}") };
            let key = child_key(&self.dir, name.as_bytes());
            match session.ask(Request::path(MKDIR, &to.at.path(&key)).attrs(&Attrs::mode(0o700)))?.done() {
                Ok(()) => {
                    to.at.remember(key.clone());
                    return Ok(folder.insert(key).clone());
                }
                Err(Failure::Status(code::FAILURE)) if to.at.look(session, &key)?.is_some_and(|there| there.kind == Kind::Dir) => {}
                Err(failure) => return Err(failure),
            }
        }
        let error = SyncError::new(ErrorKind::AlreadyExists, "too many backup folders of this second");
        Err(Failure::Session(error.at("make a folder in", to.at.path_of(&self.dir))))
    }
}
