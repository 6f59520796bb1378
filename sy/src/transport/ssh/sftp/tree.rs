//! Directories of a destination on a host: made, finished, emptied.

use super::failure::{Failure, Result as Answer};
use super::session::{Session, Ticket};
use super::wire::{Attrs, LSTAT, MKDIR, REMOVE, RMDIR, Request, code};
use super::writer::{SftpWriter, is_still, times};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{ABANDONED, Ours, Refusal, ours, part_name};
use crate::transport::{Doomed, Endpoint, Kind, Meta, Op, Time, child_key};

/// Removals that are under way at a time.
const AT_ONCE: usize = 64;

impl SftpWriter<'_> {
    /// Makes the directory in place of what `replaced` describes.
    pub fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        let key = parent.key_of(name);
        let cut = std::cell::Cell::new(false);
        let made = self.at.client.repeat(|session| {
            let made = self.make_dir_once(session, parent, &key, source, replaced, cut.get());
            cut.set(matches!(&made, Err(Failure::Session(error)) if error.retryable));
            made
        });
        made.map_err(|failure| self.why(failure, &parent.key, "create", &key))?;
        parent.touch();
        self.at.remember(key);
        Ok(())
    }

    /// `again`: an attempt before this one was cut off, and may have made it.
    fn make_dir_once(
        &self,
        session: &Session,
        parent: &Dir<'_>,
        key: &[u8],
        source: &Meta,
        replaced: Option<&Meta>,
        again: bool,
    ) -> Answer<()> {
        let refused = || Failure::Session(Refusal::Changed.into_error(self.at.path_of(key)));
        self.at.enter(session, &parent.key)?;
        // Its owner must be able to work in it; nobody gets more than the source gives. The final mode comes last.
        let mode = if self.keep.owner { 0o700 } else { source.mode & 0o777 | 0o700 };
        let make = |key: &[u8]| {
            self.writable(session, parent, || session.ask(Request::path(MKDIR, &self.at.path(key)).attrs(&Attrs::mode(mode)))?.done())
        };
        let now = self.at.look(session, key)?;
        if again && now.is_some_and(|now| now.kind == Kind::Dir) {
            return Ok(());
        }
        let Some(old) = replaced else {
            if now.is_some() {
                return Err(refused());
            }
            return make(key).map_err(|failure| match self.at.look(session, key) {
                Ok(Some(_)) => refused(),
                _ => failure,
            });
        };
        if !is_still(now.as_ref(), old) {
            return Err(refused());
        }
        let (temp, out) = (child_key(&parent.key, &self.temp_names.next()), child_key(&parent.key, &self.temp_names.next()));
        make(&temp)?;
        // What is replaced makes way, and comes back if the directory can't take its place.
        let swapped = (|| {
            if let Some(aside) = &self.aside {
                aside.take(self, session, key)?;
                return self.rename(session, &temp, key);
            }
            self.rename(session, key, &out)?;
            self.rename(session, &temp, key).inspect_err(|_| {
                let _ = self.rename(session, &out, key);
            })
        })();
        if swapped.is_err() {
            let _ = session.ask(Request::path(RMDIR, &self.at.path(&temp))).and_then(Ticket::done);
        } else if self.aside.is_none() {
            self.remove_temp(session, &out);
        }
        swapped
    }

    /// Everything in the directory is done: sets its own metadata. Returns whether it had to.
    pub fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        if self.control.should_stop() {
            return Ok(false);
        }
        self.remove_orphans(Some(&dir.key));
        let lifted = dir.lifted.get().copied();
        let mut attrs = Attrs::default();
        let mut same = true;
        match &dir.like {
            Some(like) => {
                same = dir.had.as_ref().is_some_and(|had| !self.keep.differs(like, had, self.precision));
                if !same || dir.is_touched() {
                    attrs.owner = (self.keep.owner && like.known.owner).then_some((like.uid, like.gid));
                    attrs.mode = if self.keep.permissions && like.known.mode { Some(like.mode) } else { lifted };
                    attrs.times = self.times(like);
                }
            }
            // A directory that is not to be made like another gets back the mode that stood in the way.
            None => attrs.mode = lifted,
        }
        if attrs != Attrs::default() {
            let set = self.at.client.repeat(|session| {
                self.at.enter(session, &dir.key)?;
                self.set(session, &dir.key, Kind::Dir, &attrs)
            });
            set.map_err(|failure| self.why(failure, &dir.key, "set the metadata of", &dir.key))?;
        }
        Ok(dir.like.is_some() && !same)
    }

    pub fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        let attrs = Attrs { times: Some(times(mtime)), ..Attrs::default() };
        let set = self.at.client.repeat(|session| {
            self.at.enter(session, key)?;
            self.set(session, key, Kind::Dir, &attrs)
        });
        set.map_err(|failure| self.why(failure, key, "set the time of", key))
    }

    /// Sets what a listing shows of an entry's metadata, if it still is what was listed.
    pub fn set_listed(&self, dir: &Dir<'_>, op: &Op, old: &Meta) -> Result<()> {
        let key = dir.key_of(&op.name);
        let shown = || self.at.path_of(&key);
        let source = &op.source;
        let set = self.session().and_then(|session| {
            self.at.enter(&session, &dir.key)?;
            if !is_still(self.at.look(&session, &key)?.as_ref(), old) {
                return Err(Failure::Session(Refusal::Changed.into_error(shown())));
            }
            let owner = self.keep.owner && source.known.owner && (source.uid, source.gid) != (old.uid, old.gid);
            let mode = self.keep.permissions && source.known.mode && (owner || source.mode != old.mode);
            let attrs = Attrs {
                size: None,
                owner: owner.then_some((source.uid, source.gid)),
                mode: mode.then_some(source.mode),
                times: self.times(source),
            };
            self.set(&session, &key, old.kind, &attrs)
        });
        set.map_err(|failure| self.why(failure, &dir.key, "set the metadata of", &key))
    }

    /// Removes entries of one directory, or moves them aside; `report` hears of each.
    pub fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        for group in doomed.chunks(AT_ONCE) {
            let outcomes = self.at.client.repeat(|session| {
                self.at.enter(session, dir_key)?;
                self.remove_group(session, dir_key, group)
            });
            match outcomes {
                Ok(outcomes) => {
                    for (one, outcome) in group.iter().zip(outcomes) {
                        report(one, outcome.map_err(|failure| self.why(failure, dir_key, "delete", &one.key)));
                    }
                }
                Err(failure) => {
                    for one in group {
                        report(one, Err(failure.clone().at("delete", self.at.path_of(&one.key))));
                    }
                }
            }
        }
    }

    /// A cut connection fails as a whole, and may be tried again: what is gone is gone.
    fn remove_group(&self, session: &Session, dir: &[u8], group: &[Doomed]) -> Answer<Vec<Answer<()>>> {
        let path = |one: &Doomed| self.at.path(&one.key);
        let looks: Vec<Ticket> = group.iter().map(|one| session.ask(Request::path(LSTAT, &path(one)))).collect::<Answer<_>>()?;
        let mut under_way: Vec<Answer<Option<Ticket>>> = Vec::with_capacity(group.len());
        for (one, look) in group.iter().zip(looks) {
            under_way.push(match self.at.looked(&one.key, look) {
                Ok(None) => Ok(None),
                Ok(Some(now)) if one.kind == Kind::Dir && now.kind == Kind::Dir => Ok(Some(session.ask(Request::path(RMDIR, &path(one)))?)),
                Ok(Some(now)) if (now.kind, now.size, now.mtime) != (one.kind, one.size, one.mtime) => {
                    Err(Failure::Session(SyncError::new(ErrorKind::Conflict, "it changed since it was listed")))
                }
                Ok(Some(_)) => match &self.aside {
                    Some(aside) => aside.take(self, session, &one.key).map(|()| None),
                    None => Ok(Some(session.ask(Request::path(REMOVE, &path(one)))?)),
                },
                Err(failure) => Err(failure),
            });
        }
        let mut lifted = None;
        let mut outcomes = Vec::with_capacity(group.len());
        for (one, step) in group.iter().zip(under_way) {
            let mut outcome = step.and_then(|ticket| ticket.map_or(Ok(()), Ticket::done));
            if outcome == Err(Failure::Status(code::PERMISSION_DENIED)) {
                // A directory of ours without write permission gets it for the time being.
                lifted = lifted.or_else(|| self.lift(session, dir));
                if lifted.is_some() {
                    let request = match (&self.aside, one.kind) {
                        (_, Kind::Dir) => Some(RMDIR),
                        (Some(_), _) => None,
                        (None, _) => Some(REMOVE),
                    };
                    outcome = match (request, &self.aside) {
                        (Some(request), _) => session.ask(Request::path(request, &path(one)))?.done(),
                        (None, Some(aside)) => aside.take(self, session, &one.key),
                        (None, None) => Ok(()),
                    };
                }
            }
            match outcome {
                Err(Failure::Session(error)) if error.retryable || error.kind == ErrorKind::Cancelled => {
                    return Err(Failure::Session(error));
                }
                Err(Failure::Status(code::NO_SUCH_FILE)) => outcomes.push(Ok(())),
                Err(Failure::Status(code::FAILURE)) if one.kind == Kind::Dir => {
                    outcomes.push(Err(Failure::Session(SyncError::new(ErrorKind::Conflict, "the directory is not empty"))));
                }
                outcome => outcomes.push(outcome),
            }
            if one.kind == Kind::Dir {
                self.at.forget(&one.key);
            }
        }
        if let Some(mode) = lifted {
            let _ = self.set(session, dir, Kind::Dir, &Attrs::mode(mode));
        }
        Ok(outcomes)
    }

    /// Temporary files that earlier runs left in a directory.
    pub fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        let kept: Vec<Vec<u8>> = wanted.iter().filter(|_| self.resume).map(|op| part_name(&op.name, &op.source)).collect();
        let Ok(session) = self.session() else { return };
        if self.at.enter(&session, &dir.key).is_err() {
            return;
        }
        for name in leftovers.iter().filter(|name| !kept.iter().any(|part| **part == ***name)) {
            let key = dir.key_of(name);
            // Whether somebody is at work on a part nobody can tell; but it would be younger.
            if ours(name) == Some(Ours::Part) && !self.is_old(&session, &key) {
                continue;
            }
            // A directory is left where a run was killed while it put one in place of a file.
            let removed = [REMOVE, RMDIR].into_iter().any(|how| {
                let asked = session.ask(Request::path(how, &self.at.path(&key)));
                asked.and_then(Ticket::done).is_ok()
            });
            if removed {
                dir.touch();
            }
        }
    }

    fn is_old(&self, session: &Session, key: &[u8]) -> bool {
        let found = self.at.look(session, key).ok().flatten();
        found.is_some_and(|meta| meta.mtime.seconds < Time::now().seconds - ABANDONED)
    }
}
