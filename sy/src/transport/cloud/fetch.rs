//! Brings the content of one object into a file: at once, or in ranges, several at a time.

use std::io::Read;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use rustix::io::Errno;

use super::composite::{Check, PartSummer, Whose};
use super::download::{DownloadLane, LARGE};
use super::ranges::{Ranges, step, write_at};
use super::send::SMALL;
use super::store::{Content, Head};
use super::sums::{self, Kinds, Summer, Sums};
use super::writer::read_error;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{Temp, check_room};
use crate::transport::{Done, Kind, Meta, Op};

const PIECE: usize = 256 << 10;
/// Tries for a body that was cut off.
const TRIES: u32 = 4;

impl DownloadLane<'_> {
    /// A small object: one request.
    pub(super) fn at_once(&self, dir: &Dir<'_>, op: &mut Op, key: &[u8]) -> Result<Done> {
        let fail = |error| self.from.at(error, "read", key);
        let whole = self.from.key_of(key);
        let _room = if op.source.size > SMALL { Some(self.slots.hold(op.source.size)?) } else { None };
        let mut tries = 0;
        let (head, bytes, check) = loop {
            tries += 1;
            let Content { head, body } = self.store.get(&whole, None, None).map_err(fail)?;
            if head.size >= LARGE {
                // It grew since it was listed.
                op.source = self.known(&head);
                return self.in_ranges(dir, op, key);
            }
            let mut bytes = Vec::with_capacity(head.size as usize);
            let (read, mut left) = (&mut bytes, head.size);
            let drained = self.drain(body, head.sums.best(), 0, &[head.size], &mut left, &mut |piece| {
                read.extend_from_slice(piece);
                Ok(())
            });
            let judged = match drained {
                Ok(_) if left > 0 => Err(cut_off()),
                Ok(sums) => self.judge_bytes(&whole, &head, &bytes, &sums),
                Err(error) => Err(error),
            };
            match judged {
                Ok(check) => break (head, bytes, check),
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
        self.finish(dir, op, temp, dest_dir.as_fd(), written.map(|()| check))
    }

    /// Is what has arrived what the store has? `sums` are of the whole. Returns what it was checked against.
    fn judge_bytes(&self, key: &[u8], head: &Head, bytes: &[u8], sums: &[Sums]) -> Result<Check> {
        let mut check = Check::of(self.store, key, head)?;
        let right = match &check {
            Check::Whole(stored) => sums.first().and_then(|sums| sums.agree(stored)),
            _ => check.judge(&Whose { store: self.store, key, head }, None, &|range, kinds| {
                Ok(sums::of(&bytes[range.start as usize..range.end as usize], kinds))
            })?,
        };
        if right == Some(false) { Err(wrong()) } else { Ok(check) }
    }

    /// A large object: ranges, several at a time, into a file that the next run can go on with.
    pub(super) fn in_ranges(&self, dir: &Dir<'_>, op: &mut Op, key: &[u8]) -> Result<Done> {
        let fail = |error| self.from.at(error, "read", key);
        let head = self.from.head(key)?.ok_or_else(|| fail(SyncError::new(ErrorKind::NotFound, "there is no such object")))?;
        let check = Check::of(self.store, &self.from.key_of(key), &head).map_err(fail)?;
        let dest_dir = self.to.dest_dir(dir)?;
        let listed = Meta { size: head.size, allocated: head.size, ..op.source };
        let temp = self.to.create(dir, op, &listed, dest_dir.as_fd())?;
        self.learn(op, &head);
        let check = self.fetch(&temp, &head, key, &self.to.dest_path(dir, op), check);
        self.finish(dir, op, temp, dest_dir.as_fd(), check)
    }

    /// Returns what the content was checked against.
    fn fetch(&self, temp: &Temp, head: &Head, key: &[u8], path: &[u8], mut check: Check) -> Result<Check> {
        let write_error = |errno| SyncError::os(errno, "write", path);
        let fd = temp.fd.as_fd();
        let cut = check.cut(head.size, step(head.size));
        let ranges = Ranges::new(fd, head, cut, temp.part && check != Check::Nothing, temp.have).map_err(write_error)?;
        if temp.have == 0 {
            check_room(fd, head.size).map_err(write_error)?;
        }
        let parts = check.ends();
        // What can't be put together afterwards is summed then.
        let passing = if parts.is_some() || matches!(check, Check::Whole(_)) { check.kinds() } else { Kinds::NONE };
        let sums: Mutex<Vec<Vec<Sums>>> = Mutex::new(vec![Vec::new(); ranges.count() as usize]);
        let whole = self.from.key_of(key);
        let fetched = self.slots.each(ranges.count(), 0, step(head.size), &|n, _| {
            let range = ranges.range(n);
            let end = [range.end];
            let ends = parts.unwrap_or(&end);
            let one = if ranges.has(n) {
                self.sum_range(fd, range, passing, ends).map_err(read_error_of(path))?
            } else {
                self.fetch_range(&whole, fd, range, head, passing, ends, path)?
            };
            ranges.note(n).map_err(write_error)?;
            sums.lock().unwrap_or_else(PoisonError::into_inner)[n as usize] = one;
            Ok(())
        });
        fetched.map_err(|error| self.from.at(error, "read", key))?;
        rustix::fs::ftruncate(fd, head.size).map_err(write_error)?;
        let sums: Vec<Sums> = sums.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect();
        let right = match &check {
            Check::Whole(stored) if passing.combine() => {
                let lengths = (0..ranges.count()).map(|n| ranges.range(n).end - ranges.range(n).start);
                let joined = sums.into_iter().zip(lengths).reduce(|(a, n), (b, m)| (a.followed_by(&b, m), n + m));
                joined.and_then(|(sums, _)| sums.agree(stored))
            }
            _ => {
                let have = check.ends().is_some().then_some(sums.as_slice());
                let sum = |range, kinds| self.sum_one(fd, range, kinds).map_err(read_error_of(path));
                let at = Whose { store: self.store, key: &whole, head };
                check.judge(&at, have, &sum).map_err(|error| self.from.at(error, "read", key))?
            }
        };
        if right == Some(false) {
            self.tally.verification_failures.fetch_add(1, Relaxed);
            return Err(self.from.at(wrong(), "read", key));
        }
        Ok(check)
    }

    #[expect(clippy::too_many_arguments, reason = "one range of a download is known by all of these")]
    fn fetch_range(
        &self,
        whole: &[u8],
        fd: BorrowedFd<'_>,
        range: Range<u64>,
        head: &Head,
        kinds: Kinds,
        ends: &[u64],
        path: &[u8],
    ) -> Result<Vec<Sums>> {
        let mut tries = 0;
        loop {
            tries += 1;
            if self.to.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            let content = self.store.get(whole, Some(range.clone()), Some(&head.tag).filter(|tag| !tag.is_empty()).map(String::as_str))?;
            let (mut at, mut left) = (range.start, range.end - range.start);
            let drained = self.drain(content.body, kinds, range.start, ends, &mut left, &mut |piece| {
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

    /// Reads a body, at most `left` bytes of it; what is missing then was cut off. It begins at `start` of the object, and what
    /// lies between `ends` is summed each for itself.
    fn drain(
        &self,
        mut body: Box<dyn Read>,
        kinds: Kinds,
        start: u64,
        ends: &[u64],
        left: &mut u64,
        take: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<Vec<Sums>> {
        thread_local! {
            static PIECES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        PIECES.with_borrow_mut(|piece| {
            piece.resize(PIECE, 0);
            let mut summer = PartSummer::new(kinds, ends, start);
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

    /// Sums what is in the file, each part for itself.
    fn sum_range(&self, fd: BorrowedFd<'_>, range: Range<u64>, kinds: Kinds, ends: &[u64]) -> Result<Vec<Sums>, Errno> {
        let mut summer = PartSummer::new(kinds, ends, range.start);
        read_range(fd, range, &mut |piece| summer.update(piece))?;
        Ok(summer.finish())
    }

    pub(super) fn sum_one(&self, fd: BorrowedFd<'_>, range: Range<u64>, kinds: Kinds) -> Result<Sums, Errno> {
        let mut summer = Summer::new(kinds);
        read_range(fd, range, &mut |piece| summer.update(piece))?;
        Ok(summer.finish())
    }
}

fn read_range(fd: BorrowedFd<'_>, range: Range<u64>, take: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
    let mut piece = vec![0; PIECE];
    let mut at = range.start;
    while at < range.end {
        let want = (range.end - at).min(PIECE as u64) as usize;
        match rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut piece[..want], at))? {
            0 => break,
            n => {
                take(&piece[..n]);
                at += n as u64;
            }
        }
    }
    Ok(())
}

pub fn read_error_of(path: &[u8]) -> impl Fn(Errno) -> SyncError + '_ {
    move |errno| SyncError::os(errno, "read", path)
}

pub fn wrong() -> SyncError {
    SyncError::new(ErrorKind::Verification, "what arrived is not what the store has").retryable()
}

pub fn cut_off() -> SyncError {
    SyncError::new(ErrorKind::Network, "the content was cut off on its way").retryable()
}
