//! Object store to local.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use super::composite::{Check, Whose};
use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::fetch::{read_error_of, wrong};
use super::slots::Slots;
use super::store::{Head, Removal, Store};
use super::writer::{look, pace, slots};
use crate::cli::{Links, Options};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Limiter, LocalEndpoint, Temp, Writer, fits, stat_at};
use crate::transport::{Applied, Done, Doomed, Endpoint, Held, Kind, Known, Lane, Meta, Op, Pace, Time, What};

/// Larger objects come in ranges, several at a time.
pub const LARGE: u64 = 16 << 20;
/// A target of a symbolic link is not longer.
const LONGEST_TARGET: u64 = 4096;

pub struct DownloadLane<'r> {
    pub(super) from: &'r CloudEndpoint,
    pub(super) store: &'r dyn Store,
    pub(super) to: Writer<'r>,
    links: Links,
    pub(super) limiter: Option<Limiter>,
    pub(super) slots: Slots<'r>,
    pace: Pace,
    pub(super) tally: &'r Tally,
}

impl std::fmt::Debug for DownloadLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DownloadLane").finish_non_exhaustive()
    }
}

impl<'r> DownloadLane<'r> {
    pub fn new(
        source: &'r CloudEndpoint,
        dest: &'r LocalEndpoint,
        options: &Options,
        precision: u64,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Result<Self> {
        Ok(Self {
            from: source,
            store: source.store(),
            to: Writer::new(dest, options, precision, control)?,
            links: options.links,
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            slots: slots(options, control, &[source]),
            pace: pace(options, source.connections()),
            tally,
        })
    }

    fn key(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    fn download(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let key = self.key(dir, op);
        fits(&op.name).map_err(|error| error.at("create", self.from.path_of(&key)))?;
        if op.source.size >= LARGE { self.in_ranges(dir, op, &key) } else { self.at_once(dir, op, &key) }
    }

    /// Puts the file in place if its content is right, and away if not.
    pub(super) fn finish(&self, dir: &Dir<'_>, op: &Op, temp: Temp, dest_dir: BorrowedFd<'_>, content: Result<Check>) -> Result<Done> {
        let path = || self.to.dest_path(dir, op);
        let done = content.and_then(|check| {
            self.to.describe(dir, op, &op.source, None, &temp, dest_dir)?;
            if self.to.verify {
                self.verify(temp.fd.as_fd(), op.source.size, &check).map_err(|error| error.at("verify", path()))?;
            }
            Ok(())
        });
        if let Err(error) = done {
            if !temp.part || error.kind == ErrorKind::Verification {
                temp.discard(dest_dir);
            }
            return Err(error);
        }
        let applied = self.to.put_in_place(dir, op, temp, dest_dir)?;
        // A later write sets another time than the one that was set here.
        let made = if self.to.keep.times { stat_at(dest_dir, &op.name).ok() } else { None };
        Ok(Done { applied, made })
    }

    /// `verify`: reads the file back from the disk.
    fn verify(&self, fd: BorrowedFd<'_>, size: u64, check: &Check) -> Result<()> {
        let fail = read_error_of(b"");
        rustix::fs::fdatasync(fd).map_err(&fail)?;
        let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
        let same = check.agrees(size, &|range, kinds| self.sum_one(fd, range, kinds).map_err(&fail))?;
        let Some(same) = same else {
            return Err(SyncError::new(ErrorKind::Verification, "the store has no check sum to verify against"));
        };
        let counter = if same { &self.tally.files_verified } else { &self.tally.verification_failures };
        counter.fetch_add(1, Relaxed);
        if same { Ok(()) } else { Err(wrong()) }
    }

    pub(super) fn link(&self, dir: &Dir<'_>, op: &mut Op, target: Vec<u8>) -> Result<Done> {
        if self.links == Links::Skip {
            // It was none when it was asked for, and as it has not been copied it must not count as such.
            return Err(self.from.at(SyncError::new(ErrorKind::SourceChanged, "it became a symbolic link"), "read", &self.key(dir, op)));
        }
        if target.is_empty() || target.len() as u64 >= LONGEST_TARGET || target.contains(&0) {
            return Err(SyncError::unsupported("its target makes no symbolic link").at("create", self.to.dest_path(dir, op)));
        }
        op.target = Some(target.into_boxed_slice());
        let applied = self.to.make_other(dir, op, None)?;
        let dest_dir = self.to.dest_dir(dir)?;
        Ok(Done { applied, made: if self.to.keep.times { stat_at(dest_dir.as_fd(), &op.name).ok() } else { None } })
    }

    /// What the answer told about the object.
    pub(super) fn learn(&self, op: &mut Op, head: &Head) {
        op.source = self.known(head);
        op.target = Some(tag_of(head));
    }

    pub(super) fn known(&self, head: &Head) -> Meta {
        let meta = self.allowed(meta_of_head(head));
        // Where the time of the file is not known, that of the upload is the nearest to it, as other tools take it.
        Meta { known: Known { mtime: true, ..meta.known }, ..meta }
    }

    /// Who may run as somebody else is for an owner to say, not for a bucket.
    fn allowed(&self, meta: Meta) -> Meta {
        Meta { mode: if self.to.keep.owner { meta.mode } else { meta.mode & 0o777 }, ..meta }
    }

    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let key = self.key(dir, op);
        let Some(head) = self.from.head(&key)? else { return Ok(false) };
        let Some(old) = op.dest.filter(|old| old.kind == Kind::File && old.size == head.size) else { return Ok(false) };
        let whole = self.from.key_of(&key);
        let mut check = Check::of(self.store, &whole, &head).map_err(|error| self.from.at(error, "read", &key))?;
        if check == Check::Nothing {
            return Ok(false);
        }
        let fd = self.to.open_dest(dir, op)?;
        let path = self.to.dest_path(dir, op);
        self.tally.bytes_read.fetch_add(old.size, Relaxed);
        let sum = |range, kinds| self.sum_one(fd.as_fd(), range, kinds).map_err(read_error_of(&path));
        Ok(check.judge(&Whose { store: self.store, key: &whole, head: &head }, None, &sum)? == Some(true))
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, self.to.precision))
    }
}

impl Lane for DownloadLane<'_> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if op.source.known.all {
            return Ok(());
        }
        let key = self.key(dir, op);
        let (meta, target) = look(self.from, &key)?;
        let gone = || self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", &key);
        (op.source, op.target) = (self.allowed(meta.ok_or_else(gone)?), target);
        Ok(())
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (None, self.to.dest_dir(dir).ok())
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => {
                if !self.differs(op) {
                    return Ok(Applied::Same.into());
                }
                self.set_metadata(dir, op)
            }
            What::Copy | What::CopyIfDifferent => self.download(dir, op),
            What::Metadata => self.set_metadata(dir, op),
            What::Attributes | What::Nothing | What::Ask => Ok(Applied::Same.into()),
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if self.same_content(dir, op)? => {
                if self.differs(op) {
                    Applied::Metadata
                } else {
                    Applied::Same
                }
            }
            What::Copy | What::CopyIfDifferent if op.dest.is_some() => Applied::Updated,
            What::Copy | What::CopyIfDifferent => {
                fits(&op.name).map_err(|error| error.at("create", self.from.path_of(&self.key(dir, op))))?;
                Applied::Created
            }
            What::Metadata => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let key = self.key(dir, op);
        match self.from.head(&key)? {
            Some(head) => {
                let meta = meta_of_head(&head);
                // The name of a kept part depends on what was listed.
                if (meta.ino, meta.size) != (op.source.ino, op.source.size) {
                    (op.source, op.target) = (self.allowed(meta), Some(tag_of(&head)));
                }
                Ok(())
            }
            None => Err(self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", &key)),
        }
    }

    fn examine_make_dir(&self, parent: &Dir<'_>, name: &[u8]) -> Result<()> {
        fits(name).map_err(|error| error.at("create", self.from.path_of(&parent.key_of(name))))
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.examine_make_dir(parent, name)?;
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir, &mut || Err(SyncError::unsupported("an object store keeps no attributes of directories")))
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        remove_source(self.from, &self.key(dir, op), op)
    }

    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        self.to.remove(dir_key, doomed, report);
    }

    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        // Of a directory that is none in the bucket no time is known.
        if mtime == Time::default() { Ok(()) } else { self.to.touch_dir(key, mtime) }
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        self.to.clean_up(dir, leftovers, wanted);
    }

    fn sync_all(&self) -> Result<()> {
        self.to.sync_all()
    }
}

impl DownloadLane<'_> {
    fn set_metadata(&self, dir: &Dir<'_>, op: &Op) -> Result<Done> {
        let dest_dir = self.to.dest_dir(dir)?;
        if let Some(old) = &op.dest {
            self.to.must_be_still(dir, op, old)?;
            self.to.set_listed(dir, op, old)?;
        }
        Ok(Done { applied: Applied::Metadata, made: if self.to.keep.times { stat_at(dest_dir.as_fd(), &op.name).ok() } else { None } })
    }
}

/// Removes the object if it is still what was copied.
pub fn remove_source(from: &CloudEndpoint, key: &[u8], op: &Op) -> Result<()> {
    let fail = |error| from.at(error, "remove the source", key);
    match from.head(key)? {
        Some(head) if meta_of_head(&head).same_state(&op.source) => {
            let whole = from.key_of(key);
            let tag = Some(head.tag.as_str()).filter(|tag| !tag.is_empty());
            let removed = from.store().delete(&[Removal { key: &whole, tag }]).into_iter().collect::<Result<()>>();
            removed.map_err(|error| match error.kind {
                ErrorKind::Conflict => fail(SyncError::new(ErrorKind::SourceChanged, "it changed since it was copied")),
                _ => fail(error),
            })
        }
        Some(_) => Err(fail(SyncError::new(ErrorKind::SourceChanged, "it changed since it was copied"))),
        None => Ok(()),
    }
}
