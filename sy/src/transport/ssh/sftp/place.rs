//! Puts a finished temporary entry in place, whole, and only over what was listed there.

use super::failure::{Failure, Result as Answer};
use super::session::{Session, Ticket};
use super::wire::{Attrs, READLINK, RENAME, RMDIR, Request, SYMLINK, code};
use super::writer::{SftpWriter, is_still};
use crate::error::{Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{Refusal, same_time};
use crate::transport::{Applied, Endpoint, Kind, Meta, Op, child_key, split_key};

impl SftpWriter<'_> {
    /// Renames the temporary entry to the name of `op`, where `now` was seen a moment ago.
    pub fn place(&self, session: &Session, dir: &Dir<'_>, op: &Op, temp: &[u8], now: Option<&Meta>) -> Result<Applied> {
        let key = dir.key_of(&op.name);
        let shown = || self.at.path_of(&key);
        let refused = || Refusal::Changed.into_error(shown());
        let fail = |failure| self.explain(session, failure, &dir.key, 1, "write", shown());
        let Some(old) = &op.dest else {
            if now.is_some() {
                return Err(refused());
            }
            return match self.rename(session, temp, &key) {
                Ok(()) => Ok(Applied::Created),
                // Somebody was quicker.
                Err(Failure::Status(code::FAILURE)) if self.at.look(session, &key).is_ok_and(|now| now.is_some()) => Err(refused()),
                Err(failure) => Err(fail(failure)),
            };
        };
        if !is_still(now, old) {
            return Err(refused());
        }
        if old.kind == Kind::Dir {
            match session.ask(Request::path(RMDIR, &self.at.path(&key))).and_then(Ticket::done) {
                Ok(()) => self.at.forget(&key),
                Err(Failure::Status(code::FAILURE)) => return Err(refused()),
                Err(failure) => return Err(fail(failure)),
            }
            self.rename(session, temp, &key).map_err(fail)?;
            return Ok(Applied::Updated);
        }
        if let Some(aside) = &self.aside {
            aside.keep(self, session, &key, old)?;
        }
        self.replace(session, temp, &key).map_err(fail)?;
        Ok(Applied::Updated)
    }

    /// The same, after a look.
    fn place_as_is(&self, session: &Session, dir: &Dir<'_>, op: &Op, temp: &[u8]) -> Result<Applied> {
        let key = dir.key_of(&op.name);
        let now = self.at.look(session, &key).map_err(|failure| failure.at("write", self.at.path_of(&key)))?;
        self.place(session, dir, op, temp, now.as_ref())
    }

    /// Only where nothing is: that is what `RENAME` of version 3 does.
    pub fn rename(&self, session: &Session, from: &[u8], to: &[u8]) -> Answer<()> {
        session.ask(Request::path(RENAME, &self.at.path(from)).text(&self.at.path(to)))?.done()
    }

    /// In place of what is there, in one step.
    fn replace(&self, session: &Session, from: &[u8], to: &[u8]) -> Answer<()> {
        if !session.server.posix_rename {
            let error = SyncError::unsupported("the server can't replace a file in one step")
                .hint("it lacks the extension posix-rename@openssh.com; ignore_existing (--ignore-existing) leaves alone what is there");
            return Err(Failure::Session(error));
        }
        session.ask(Request::extended("posix-rename@openssh.com").text(&self.at.path(from)).text(&self.at.path(to)))?.done()
    }

    /// A symbolic link: made under a temporary name, then put in place.
    pub fn make_link(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let shown = || self.path(dir, op);
        let target = op.target.as_deref().unwrap_or_default();
        let session = self.session().map_err(|failure| failure.at("create", shown()))?;
        let fail = |failure| self.explain(&session, failure, &dir.key, 1, "create", shown());
        if !session.server.symlinks {
            return Err(SyncError::unsupported("the server's way to make symbolic links is not known").at("create", shown()));
        }
        if target.is_empty() || target.contains(&0) {
            return Err(SyncError::unsupported("its target makes no symbolic link").at("create", shown()));
        }
        self.at.enter(&session, &dir.key).map_err(fail)?;
        let temp = child_key(&dir.key, &self.temp_names.next());
        // The target first, as OpenSSH takes it; the draft says otherwise.
        self.writable(&session, dir, || session.ask(Request::path(SYMLINK, target).text(&self.at.path(&temp)))?.done()).map_err(fail)?;
        dir.touch();
        let done = (|| {
            let made = session.ask(Request::path(READLINK, &self.at.path(&temp)))?.name()?;
            if made != target {
                return Err(Failure::Session(SyncError::unsupported("the server made another link than it was told to")));
            }
            let owner = self.keep.owner.then_some((op.source.uid, op.source.gid));
            self.set(&session, &temp, Kind::Symlink, &Attrs { owner, times: self.times(&op.source), ..Attrs::default() })
        })();
        let placed = done.map_err(fail).and_then(|()| self.place_as_is(&session, dir, op, &temp));
        if placed.is_err() {
            self.remove_temp(&session, &temp);
        }
        placed
    }

    /// Makes `op` another name of the file at `leader`. `None`: it has to be copied.
    pub fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        let shown = || self.path(dir, op);
        let session = self.session().map_err(|failure| failure.at("link", shown()))?;
        let fail = |failure| self.explain(&session, failure, &dir.key, 1, "link", shown());
        self.at.enter(&session, &dir.key).and_then(|()| self.at.enter(&session, split_key(leader).0)).map_err(fail)?;
        let key = dir.key_of(&op.name);
        let Some(target) = self.at.look(&session, leader).map_err(fail)? else { return Ok(None) };
        // A leader that could not be brought over must not lend its old content to others.
        let stale = target.kind != op.source.kind
            || op.source.kind == Kind::File && target.size != op.source.size
            || self.keep.times && !same_time(&op.source, &target, self.precision);
        if stale || !session.server.hardlink {
            return Ok(None);
        }
        let temp = child_key(&dir.key, &self.temp_names.next());
        let link = || session.ask(Request::extended("hardlink@openssh.com").text(&self.at.path(leader)).text(&self.at.path(&temp)))?.done();
        match self.writable(&session, dir, link) {
            Ok(()) => {}
            // The file system has no links, or no more for this file.
            Err(Failure::Status(code::FAILURE | code::UNSUPPORTED)) => return Ok(None),
            Err(failure) => return Err(fail(failure)),
        }
        dir.touch();
        let placed = self.place_link(&session, dir, op, &key, &temp);
        if placed.is_err() {
            self.remove_temp(&session, &temp);
        }
        placed.map(Some)
    }

    fn place_link(&self, session: &Session, dir: &Dir<'_>, op: &Op, key: &[u8], temp: &[u8]) -> Result<Applied> {
        let fail = |failure: Failure| failure.at("link", self.at.path_of(key));
        let same = |old: &Meta| old.nlink > 1 && old.kind == op.source.kind && old.size == op.source.size;
        if op.dest.as_ref().is_some_and(same) && self.are_one(session, dir, key, temp).map_err(fail)? {
            self.remove_temp(session, temp);
            return Ok(Applied::Same);
        }
        let applied = self.place_as_is(session, dir, op, temp)?;
        // They were one all the same.
        if op.dest.is_some() && self.at.look(session, temp).map_err(fail)?.is_some() {
            self.remove_temp(session, temp);
            return Ok(Applied::Same);
        }
        Ok(applied)
    }

    /// Nobody tells whether two names are one file. But to rename one over the other does nothing then, and leaves both.
    /// That is tried with a third name of what stands at `key`.
    fn are_one(&self, session: &Session, dir: &Dir<'_>, key: &[u8], temp: &[u8]) -> Answer<bool> {
        let third = child_key(&dir.key, &self.temp_names.next());
        session.ask(Request::extended("hardlink@openssh.com").text(&self.at.path(key)).text(&self.at.path(&third)))?.done()?;
        let one = self.replace(session, temp, &third).and_then(|()| Ok(self.at.look(session, temp)?.is_some()));
        if let Ok(true) | Err(_) = one {
            self.remove_temp(session, &third);
            return one;
        }
        self.rename(session, &third, temp).inspect_err(|_| self.remove_temp(session, &third))?;
        Ok(false)
    }
}
