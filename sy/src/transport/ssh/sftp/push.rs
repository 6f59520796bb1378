//! To a host: from here, from a bucket or from another host.

use std::io::Read;

use super::endpoint::SftpEndpoint;
use super::failure::{Failure, Result as Answer};
use super::wire::{Attrs, CLOSE, OPEN, Request, open};
use super::writer::SftpWriter;
use crate::cli::{Links, Options};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::cloud::{Content, read_error};
use crate::transport::local::{Refusal, changed, fits};
use crate::transport::source::{become_link, read_whole};
use crate::transport::{Applied, Done, Doomed, Endpoint, Held, Kind, Lane, Meta, Op, Pace, Source, Time, What, not_in_place, split_key};

/// Operations under way at a time: each spends its time waiting for the host.
const WORKERS: u32 = 32;
/// Small files that count as one transfer, as for buckets.
const SMALL_ONES: u32 = 4;
/// A target of a symbolic link is not longer.
const LONGEST_TARGET: u64 = 4096;

pub struct PushLane<'r, S> {
    from: S,
    to: SftpWriter<'r>,
    skips_links: bool,
    pace: Pace,
}

impl<S> std::fmt::Debug for PushLane<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushLane").finish_non_exhaustive()
    }
}

/// How many operations to have under way.
pub fn pace(options: &Options) -> Pace {
    let wanted = options.parallel.map_or(WORKERS, |parallel| parallel.saturating_mul(SMALL_ONES));
    Pace { ops: 1, workers: Some(wanted.clamp(1, WORKERS)) }
}

impl<'r, S: Source> PushLane<'r, S> {
    pub fn new(from: S, dest: &'r SftpEndpoint, options: &Options, precision: u64, control: &'r Control, tally: &'r Tally) -> Self {
        Self {
            from,
            to: SftpWriter::new(dest, options, precision, control, tally),
            skips_links: options.links == Links::Skip,
            pace: pace(options),
        }
    }

    fn copy(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Applied> {
        fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)))?;
        if op.source.kind != Kind::File {
            return self.to.make_link(dir, op);
        }
        let (now, content) = self.from.open(dir, op)?;
        if now.kind == Kind::Symlink {
            let target = read_whole(&*content)?;
            become_link(op, now, &target).map_err(|error| error.at("create", self.from.path(dir, op)))?;
            return self.to.make_link(dir, op);
        }
        // What is open now is as good as what was listed.
        op.source = now;
        if now.kind == Kind::Symlink {
            // In a bucket that shows only now.
            if self.skips_links {
                return Err(SyncError::new(ErrorKind::SourceChanged, "it became a symbolic link").at("read", self.from.path(dir, op)));
            }
            op.target = Some(self.target(dir, op, &*content)?);
            return self.to.make_link(dir, op);
        }
        self.to.put(dir, op, &now, &*content)
    }

    /// What a link's object holds.
    fn target(&self, dir: &Dir<'_>, op: &Op, content: &dyn Content) -> Result<Box<[u8]>> {
        if content.size() >= LONGEST_TARGET {
            return Err(SyncError::unsupported("its target makes no symbolic link").at("create", self.to.path(dir, op)));
        }
        let mut target = Vec::new();
        content.open(0..content.size())?.read_to_end(&mut target).map_err(|error| read_error(&error))?;
        Ok(target.into_boxed_slice())
    }

    /// Reads both: the host has no sums to ask for.
    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let Some(old) = op.dest.filter(|old| op.source.kind == Kind::File && old.kind == Kind::File) else { return Ok(false) };
        if old.size != op.source.size {
            return Ok(false);
        }
        let (now, content) = self.from.open(dir, op)?;
        if !now.same_state(&op.source) {
            return Err(changed(self.from.path(dir, op)));
        }
        let (to, key) = (&self.to, dir.key_of(&op.name));
        let shown = to.at.path_of(&key);
        let opened: Answer<_> = (|| {
            let session = to.session()?;
            to.at.enter(&session, split_key(&key).0)?;
            if !super::writer::is_still(to.at.look(&session, &key)?.as_ref(), &old) {
                return Err(Failure::Session(Refusal::Changed.into_error(shown.clone())));
            }
            let request = Request::path(OPEN, &to.at.path(&key)).u32(open::READ).attrs(&Attrs::default());
            let handle = session.ask(request)?.handle()?;
            Ok((session, handle))
        })();
        let (session, handle) = opened.map_err(|failure| failure.at("read", &shown))?;
        let difference = to.first_difference(&*content, &session, &handle, old.size, &shown);
        let _ = session.ask(Request::path(CLOSE, &handle));
        content.still()?;
        Ok(difference?.is_none())
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, self.to.precision))
    }

    /// Does the destination's file have other names, and metadata that are not the source's? They can't be set for one
    /// name alone, so the file has to become one of its own.
    fn shares_metadata(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| op.source.nlink == 1 && old.nlink > 1) && self.differs(op)
    }

    fn set_metadata(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        match &op.dest {
            Some(old) if self.differs(op) => self.to.set_listed(dir, op, old).map(|()| Applied::Metadata),
            _ => Ok(Applied::Same),
        }
    }
}

impl<S: Source> Lane for PushLane<'_, S> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.ask(dir, op)
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.from.hold(dir), None)
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let applied = match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? && !self.shares_metadata(op) => self.set_metadata(dir, op),
            What::Copy | What::CopyIfDifferent => self.copy(dir, op),
            What::Metadata => self.set_metadata(dir, op),
            What::Attributes | What::Nothing | What::Ask => Ok(Applied::Same),
        };
        applied.map(Done::from)
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? && !self.shares_metadata(op) => {
                if self.differs(op) {
                    Applied::Metadata
                } else {
                    Applied::Same
                }
            }
            What::Copy | What::CopyIfDifferent => {
                fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)))?;
                if op.dest.is_some() { Applied::Updated } else { Applied::Created }
            }
            What::Metadata => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)
    }

    fn examine_make_dir(&self, parent: &Dir<'_>, name: &[u8]) -> Result<()> {
        fits(name).map_err(|error| error.at("create", self.to.at.path_of(&parent.key_of(name))))
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.examine_make_dir(parent, name)?;
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir)
    }

    fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        // As near as one gets without trying: both look alike, and have other names.
        let (dir, name) = split_key(leader);
        let found = self.to.at.stat(dir, name).ok().flatten();
        matches!((found, &op.dest), (Some((leader, _)), Some(own)) if own.nlink > 1 && (own.size, own.mtime) == (leader.size, leader.mtime))
    }

    fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        self.to.hard_link(dir, op, leader)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let key = dir.key_of(&op.name);
        let found = self.to.at.client.repeat(|session| {
            self.to.at.enter(session, &dir.key)?;
            self.to.at.look(session, &key)
        });
        let copy = found.map_err(|failure| failure.at("remove the source", self.from.path(dir, op)))?;
        if !copy.is_some_and(|copy| copy.looks_like(&op.source)) {
            return Err(not_in_place(self.from.path(dir, op)));
        }
        self.from.remove(dir, op)
    }

    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        self.to.remove(dir_key, doomed, report);
    }

    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        // Of a directory that is none in a bucket no time is known.
        if mtime == Time::default() { Ok(()) } else { self.to.touch_dir(key, mtime) }
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        self.to.clean_up(dir, leftovers, wanted);
    }

    fn end(&self, _: Option<&[u8]>) {
        self.to.end();
    }
}
