//! Object store to local.

use std::io::Read;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::ranges::{RANGES_AT_ONCE, Ranges, write_at};
use super::store::{Head, Store};
use super::sums::{Kinds, Summer, Sums};
use super::writer::{look, pace, read_error};
use crate::cli::{Links, Options};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Limiter, LocalEndpoint, Temp, Writer, check_room, fits, stat_at};
use crate::transport::{Applied, Done, Doomed, Endpoint, Held, Kind, Known, Lane, Meta, Op, Pace, Time, What};

/// Larger objects come in ranges, several at a time.
const LARGE: u64 = 16 << 20;
const PIECE: usize = 256 << 10;
/// A target of a symbolic link is not longer.
const LONGEST_TARGET: u64 = 4096;
/// Tries for a body that was cut off.
const TRIES: u32 = 4;

pub struct DownloadLane<'r> {
    from: &'r CloudEndpoint,
    store: &'r dyn Store,
    to: Writer<'r>,
    links: Links,
    limiter: Option<Limiter>,
    ranges_at_once: usize,
    pace: Pace,
    tally: &'r Tally,
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
            ranges_at_once: options.parallel.map_or(RANGES_AT_ONCE, |parallel| RANGES_AT_ONCE.min(parallel as usize)).max(1),
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

    /// A small object: one request.
    fn at_once(&self, dir: &Dir<'_>, op: &mut Op, key: &[u8]) -> Result<Done> {
        let fail = |error| self.from.at(error, "read", key);
        let whole = self.from.key_of(key);
        let mut tries = 0;
        let (head, bytes) = loop {
            tries += 1;
            let content = self.store.get(&whole, None, None).map_err(fail)?;
            let head = content.head;
            if head.size >= LARGE {
                // It grew since it was listed.
                op.source = self.known(&head);
                return self.in_ranges(dir, op, key);
            }
            let mut bytes = Vec::with_capacity(head.size as usize);
            let (read, mut left) = (&mut bytes, head.size);
            match self.drain(content.body, head.sums.best(), &mut left, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            }) {
                Ok(sums) => match (left, sums.agree(&head.sums)) {
                    (0, None | Some(true)) => break (head, bytes),
                    (0, Some(false)) if tries >= TRIES => return Err(fail(wrong())),
                    (1.., _) if tries >= TRIES => return Err(fail(cut_off())),
                    _ => {}
                },
                Err(error) if error.retryable && tries < TRIES => {}
                Err(error) => return Err(fail(error)),
            }
            // What was counted is counted again.
            self.to.control.bytes.fetch_sub((head.size - left).min(head.size), Relaxed);
        };
        self.learn(op, &head);
        if op.source.kind == Kind::Symlink {
            return self.link(dir, op, bytes);
        }
        let dest_dir = self.to.dest_dir(dir)?;
        let temp = self.to.create(dir, op, &op.source, dest_dir.as_fd())?;
        let written = write_at(temp.fd.as_fd(), &bytes, 0).map_err(|errno| SyncError::os(errno, "write", self.to.dest_path(dir, op)));
        self.finish(dir, op, temp, dest_dir.as_fd(), written.map(|()| head.sums))
    }

    /// A large object: ranges, several at a time, into a file that the next run can go on with.
    fn in_ranges(&self, dir: &Dir<'_>, op: &mut Op, key: &[u8]) -> Result<Done> {
        let fail = |error| self.from.at(error, "read", key);
        let head = self.from.head(key)?.ok_or_else(|| fail(SyncError::new(ErrorKind::NotFound, "there is no such object")))?;
        let dest_dir = self.to.dest_dir(dir)?;
        let listed = Meta { size: head.size, allocated: head.size, ..op.source };
        let temp = self.to.create(dir, op, &listed, dest_dir.as_fd())?;
        self.learn(op, &head);
        let sums = self.fetch(op, &temp, &head, key, &self.to.dest_path(dir, op));
        self.finish(dir, op, temp, dest_dir.as_fd(), sums)
    }

    fn fetch(&self, op: &Op, temp: &Temp, head: &Head, key: &[u8], path: &[u8]) -> Result<Sums> {
        let write_error = |errno| SyncError::os(errno, "write", path);
        let fd = temp.fd.as_fd();
        let kinds = head.sums.best();
        let ranges = Ranges::new(fd, head, temp.part && kinds != Kinds::NONE, temp.have).map_err(write_error)?;
        if temp.have == 0 {
            check_room(fd, head.size).map_err(write_error)?;
        }
        let (next, failed) = (AtomicU32::new(0), Mutex::new(None::<SyncError>));
        let sums: Mutex<Vec<Sums>> = Mutex::new(vec![Sums::default(); ranges.count as usize]);
        let whole = self.from.key_of(key);
        let work = || {
            while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                let n = next.fetch_add(1, Relaxed);
                if n >= ranges.count {
                    break;
                }
                let done = if ranges.has(n) {
                    self.sum_range(fd, ranges.range(n), kinds).map_err(write_error_of(path))
                } else {
                    self.fetch_range(&whole, fd, ranges.range(n), head, kinds, path)
                };
                match done.and_then(|sums| ranges.note(n).map(|()| sums).map_err(write_error)) {
                    Ok(one) => sums.lock().unwrap_or_else(PoisonError::into_inner)[n as usize] = one,
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        std::thread::scope(|threads| {
            for _ in 1..self.ranges_at_once.min(ranges.count as usize) {
                // With fewer threads it only takes longer.
                let _ = std::thread::Builder::new().name("sypy-range".into()).spawn_scoped(threads, work);
            }
            work();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(self.from.at(error, "read", key));
        }
        rustix::fs::ftruncate(fd, head.size).map_err(write_error)?;
        let computed = if kinds.combine() {
            let sums = sums.into_inner().unwrap_or_else(PoisonError::into_inner);
            let sized = sums.into_iter().enumerate().map(|(n, sums)| (sums, ranges.length(n as u32)));
            sized.reduce(|(a, n), (b, m)| (a.followed_by(&b, m), n + m)).map(|(sums, _)| sums).unwrap_or_default()
        } else {
            self.sum_range(fd, 0..head.size, kinds).map_err(write_error_of(path))?
        };
        if computed.agree(&head.sums) == Some(false) {
            self.tally.verification_failures.fetch_add(1, Relaxed);
            return Err(self.from.at(wrong(), "read", &op.name));
        }
        Ok(computed)
    }

    fn fetch_range(&self, whole: &[u8], fd: BorrowedFd<'_>, range: Range<u64>, head: &Head, kinds: Kinds, path: &[u8]) -> Result<Sums> {
        let mut tries = 0;
        loop {
            tries += 1;
            if self.to.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            let content = self.store.get(whole, Some(range.clone()), Some(&head.tag).filter(|tag| !tag.is_empty()).map(String::as_str))?;
            let (mut at, mut left) = (range.start, range.end - range.start);
            let drained = self.drain(content.body, kinds, &mut left, &mut |piece| {
                write_at(fd, piece, at).map_err(|errno| SyncError::os(errno, "write", path))?;
                at += piece.len() as u64;
                Ok(())
            });
            match drained {
                Ok(sums) if left == 0 => return Ok(sums),
                Ok(_) if tries >= TRIES => return Err(cut_off()),
                Ok(_) => {}
                Err(error) if error.retryable && tries < TRIES => {}
                Err(error) => return Err(error),
            }
            self.to.control.bytes.fetch_sub(at - range.start, Relaxed);
        }
    }

    /// Reads a body, at most `left` bytes of it; what is missing then was cut off.
    fn drain(&self, mut body: Box<dyn Read>, kinds: Kinds, left: &mut u64, take: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<Sums> {
        thread_local! {
            static PIECES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        PIECES.with_borrow_mut(|piece| {
            piece.resize(PIECE, 0);
            let mut summer = Summer::new(kinds);
            while *left > 0 {
                if self.to.control.should_stop() {
                    return Err(SyncError::cancelled());
                }
                let want = (*left).min(PIECE as u64);
                let want = match &self.limiter {
                    Some(limiter) => limiter.take(want, self.to.control).map_err(|_| SyncError::cancelled())?,
                    None => want,
                };
                let n = match body.read(&mut piece[..want as usize]) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                    Err(_) if self.to.control.should_stop() => return Err(SyncError::cancelled()),
                    Err(error) => return Err(read_error(&error)),
                };
                summer.update(&piece[..n]);
                take(&piece[..n])?;
                *left -= n as u64;
                self.to.control.bytes.fetch_add(n as u64, Relaxed);
                self.tally.bytes_read.fetch_add(n as u64, Relaxed);
            }
            if *left == 0 {
                // The end has to be met, or the connection can't be used again.
                let _ = body.read(&mut piece[..1]);
            }
            Ok(summer.finish())
        })
    }

    fn sum_range(&self, fd: BorrowedFd<'_>, range: Range<u64>, kinds: Kinds) -> Result<Sums, Errno> {
        let mut summer = Summer::new(kinds);
        let mut piece = vec![0; PIECE];
        let mut at = range.start;
        while at < range.end {
            let want = (range.end - at).min(PIECE as u64) as usize;
            match rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut piece[..want], at))? {
                0 => break,
                n => {
                    summer.update(&piece[..n]);
                    at += n as u64;
                }
            }
        }
        Ok(summer.finish())
    }

    /// Puts the file in place if its content is right, and away if not.
    fn finish(&self, dir: &Dir<'_>, op: &Op, temp: Temp, dest_dir: BorrowedFd<'_>, content: Result<Sums>) -> Result<Done> {
        let path = || self.to.dest_path(dir, op);
        let done = content.and_then(|sums| {
            self.to.describe(dir, op, &op.source, None, &temp, dest_dir)?;
            if self.to.verify {
                self.verify(temp.fd.as_fd(), op.source.size, sums).map_err(|error| error.at("verify", path()))?;
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
    fn verify(&self, fd: BorrowedFd<'_>, size: u64, sums: Sums) -> Result<()> {
        if sums.kinds() == Kinds::NONE {
            return Err(SyncError::new(ErrorKind::Verification, "the store has no check sum to verify against"));
        }
        let read = (|| {
            rustix::fs::fdatasync(fd)?;
            let _ = rustix::fs::fadvise(fd, 0, None, rustix::fs::Advice::DontNeed);
            self.sum_range(fd, 0..size, sums.best())
        })();
        let same = read.map_err(|errno| SyncError::os(errno, "verify", b""))?.agree(&sums) == Some(true);
        let counter = if same { &self.tally.files_verified } else { &self.tally.verification_failures };
        counter.fetch_add(1, Relaxed);
        if same { Ok(()) } else { Err(wrong()) }
    }

    fn link(&self, dir: &Dir<'_>, op: &mut Op, target: Vec<u8>) -> Result<Done> {
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
    fn learn(&self, op: &mut Op, head: &Head) {
        op.source = self.known(head);
        op.target = Some(tag_of(head));
    }

    fn known(&self, head: &Head) -> Meta {
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
        let kinds = head.sums.best();
        let Some(old) = op.dest.filter(|old| old.kind == Kind::File && old.size == head.size && kinds != Kinds::NONE) else {
            return Ok(false);
        };
        let fd = self.to.open_dest(dir, op)?;
        let fail = |errno| SyncError::os(errno, "read", self.to.dest_path(dir, op));
        self.tally.bytes_read.fetch_add(old.size, Relaxed);
        Ok(self.sum_range(fd.as_fd(), 0..old.size, kinds).map_err(fail)?.agree(&head.sums) == Some(true))
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, self.to.precision))
    }
}

fn write_error_of(path: &[u8]) -> impl Fn(Errno) -> SyncError + '_ {
    move |errno| SyncError::os(errno, "read", path)
}

fn wrong() -> SyncError {
    SyncError::new(ErrorKind::Verification, "what arrived is not what the store has").retryable()
}

fn cut_off() -> SyncError {
    SyncError::new(ErrorKind::Network, "the content was cut off on its way").retryable()
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
            from.store().delete(&[&whole]).into_iter().collect::<Result<()>>().map_err(fail)
        }
        Some(_) => Err(fail(SyncError::new(ErrorKind::SourceChanged, "it changed since it was copied"))),
        None => Ok(()),
    }
}
