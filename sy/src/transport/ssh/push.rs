//! Local to a host: small files go together, large ones in pieces.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::SshEndpoint;
use super::attributes::Seen;
use super::batch::{Batch, Sent};
use super::difference::{How, Search, common_part, from_start, is_worthwhile, search, secret};
use super::extents::Extents;
use super::piece::read_piece;
use super::session::Reply;
use super::split::{self, Ranges};
use super::window::Window;
use super::wire::attributes::{put_attributes, sendable};
use super::wire::message::put_op;
use super::wire::{Get, Kind, PIECE, Put, body, body_len, body_of};
use super::writer::SshWriter;
use crate::cli::Options;
use crate::delta::{Key, Shape};
use crate::error::{Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Attributes, Keep, Limiter, LocalEndpoint, Reader, changed, hash_of, read_at, stat_fd};
use crate::transport::{Applied, Done, Doomed, Held, Kind as FileKind, Lane, Meta, Op, Pace, Settled, Time, What, not_in_place};

/// Files up to this size go together with others.
pub const SMALL: u64 = 128 << 10;
/// Bytes of a message of several.
const TOGETHER: usize = 256 << 10;
/// Bytes of the first one; each is twice as long as the one before.
const FIRST: usize = 16 << 10;
/// Transfers wait for answers from far away, so there are more of them than cores.
pub const WORKERS: u32 = 32;

pub struct PushLane<'r> {
    from: Reader<'r>,
    to: SshWriter<'r>,
    /// The attributes that may be wanted at the other side.
    all: Keep,
    limiter: Option<Limiter>,
    control: &'r Control,
    tally: &'r Tally,
    pace: Pace,
    /// Of a directory that a dry run looks at.
    seen: Seen,
    /// What the signatures under way may take of the memory.
    signatures: Window,
    /// Messages of several sent so far.
    messages: AtomicU32,
}

impl std::fmt::Debug for PushLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PushLane").field("to", &self.to).finish_non_exhaustive()
    }
}

/// How a lane over SSH wants its work.
pub fn pace(options: &Options) -> Pace {
    Pace { ops: 256, workers: Some(options.parallel.map_or(WORKERS, |parallel| parallel.saturating_mul(4)).clamp(1, WORKERS)) }
}

impl<'r> PushLane<'r> {
    pub fn new(
        source: &'r LocalEndpoint,
        dest: &'r SshEndpoint,
        options: &Options,
        precision: u64,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Self {
        let limiter = options.bwlimit.map(|rate| Limiter::new(rate.0));
        Self {
            from: Reader::new(source),
            to: SshWriter::new(dest, options, precision),
            all: Keep::to_send(options.preserve_xattrs, options.preserve_acls),
            limiter,
            control,
            tally,
            pace: pace(options),
            seen: Seen::default(),
            signatures: Window::default(),
            messages: AtomicU32::new(0),
        }
    }

    /// How long a message is to be. The first ones are short, so that the wire does not wait for them.
    fn together(&self) -> usize {
        (FIRST << self.messages.load(Relaxed).min(8)).min(TOGETHER)
    }

    fn send(&self, batch: Batch, sent: &mut Sent) {
        self.messages.fetch_add(1, Relaxed);
        self.to.send(batch, sent);
    }

    /// Waits until so many bytes may go.
    fn allow(&self, bytes: u64) -> Result<()> {
        Limiter::allow(self.limiter.as_ref(), bytes, self.control)
    }

    /// Opens the source's file; `op` then says what it is now.
    fn open(&self, dir: &Dir<'_>, op: &mut Op) -> Result<OwnedFd> {
        let file = self.from.open(dir, op)?;
        let now = stat_fd(file.as_fd()).map_err(|errno| SyncError::os(errno, "read", self.from.path(dir, op)))?;
        if now.kind != FileKind::File {
            return Err(changed(self.from.path(dir, op)));
        }
        // The owner is the one that it has on the other side.
        op.source = Meta { uid: op.source.uid, gid: op.source.gid, ..now };
        Ok(file)
    }

    fn still(&self, file: &OwnedFd, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let now = stat_fd(file.as_fd()).map_err(|errno| SyncError::os(errno, "read", self.from.path(dir, op)))?;
        if now.same_state(&op.source) { Ok(()) } else { Err(changed(self.from.path(dir, op))) }
    }

    /// Adds one operation with what it needs.
    fn add(&self, dir: &Dir<'_>, op: &mut Op, content: &mut Vec<u8>, request: &mut Put) -> Result<()> {
        match op.what {
            What::Copy if op.source.kind == FileKind::File => {
                let file = self.from.open(dir, op)?;
                let fail = |errno| SyncError::os(errno, "read", self.from.path(dir, op));
                content.resize(op.source.size as usize + 1, 0);
                let n = read_at(file.as_fd(), content, 0).map_err(fail)?;
                content.truncate(n);
                let attributes = self.attributes_of(dir, op, &file)?;
                let now = stat_fd(file.as_fd()).map_err(fail)?;
                if !now.same_state(&op.source) || n as u64 != now.size {
                    return Err(changed(self.from.path(dir, op)));
                }
                self.tally.bytes_read.fetch_add(n as u64, Relaxed);
                self.allow(n as u64)?;
                self.control.bytes.fetch_add(n as u64, Relaxed);
                put_op(request, op);
                request.option(Some(content));
                put_attributes(request, attributes.as_ref());
            }
            What::CopyIfDifferent if op.source.kind == FileKind::File => {
                let file = self.open(dir, op)?;
                let hash = hash_of(file.as_fd(), self.control).map_err(|error| error.at("read", self.from.path(dir, op)))?;
                self.tally.bytes_read.fetch_add(op.source.size, Relaxed);
                let attributes = self.attributes_of(dir, op, &file)?;
                self.still(&file, dir, op)?;
                put_op(request, op);
                request.option(Some(hash.as_bytes()));
                put_attributes(request, attributes.as_ref());
            }
            _ => {
                let attributes = self.attributes(dir, op)?;
                put_op(request, op);
                request.option(None);
                put_attributes(request, attributes.as_ref());
            }
        }
        Ok(())
    }

    /// What the other side may want of an entry's attributes; it decides.
    fn attributes(&self, dir: &Dir<'_>, op: &Op) -> Result<Option<Attributes>> {
        let found = self.from.attributes(dir, op, self.all)?;
        found.map(|found| sendable(found, || self.from.path(dir, op))).transpose()
    }

    fn attributes_of(&self, dir: &Dir<'_>, op: &Op, file: &OwnedFd) -> Result<Option<Attributes>> {
        let found = self.from.attributes_of(dir, op, file.as_fd(), self.all)?;
        found.map(|found| sendable(found, || self.from.path(dir, op))).transpose()
    }

    fn dir_attributes(&self, dir: &Dir<'_>) -> Result<Attributes> {
        sendable(self.from.dir_attributes(dir, self.all)?, || self.from.root.path_of(&dir.key))
    }

    /// A large file: what the other side does not have of it.
    fn put(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let file = self.open(dir, op)?;
        let old = op.dest.filter(|old| is_worthwhile(&op.source, old));
        let how = match old {
            Some(_) => How::Difference,
            None if split::is_worthwhile(&op.source, op.source.size, self.to.at.connections()) => How::Ranges,
            None if self.to.has_part(dir, op) => How::Rest,
            None => How::Whole,
        };
        let secret = secret()?;
        let key = Key::new(&secret);
        let request = SshWriter::put_request(dir, op, self.attributes_of(dir, op, &file)?.as_ref(), how, &secret);
        let taken = old.map_or(0, |old| Shape::of(old.size).blocks() * 24);
        if !self.signatures.take(taken, self.to.at.stop()) {
            return Err(SyncError::cancelled());
        }
        let sent = self.to.at.session_for_large().and_then(|session| session.ask(Kind::Put, request)).and_then(|mut reply| {
            let end = match how {
                How::Difference => self.send_difference(dir, op, &file, &key, &mut reply)?,
                How::Whole | How::Rest => self.send_content(dir, op, &file, how == How::Rest, &key, &mut reply)?,
                How::Ranges => self.send_ranges(dir, op, &file, &key, &mut reply)?,
            };
            self.still(&file, dir, op)?;
            reply.tell(Kind::End, end)?;
            SshWriter::put_is_done(&mut reply, self.tally)
        });
        self.signatures.give_back(taken);
        if sent.as_ref().is_err_and(|error| error.retryable) {
            self.to.note_part(dir, op);
        }
        sent.map(|applied| self.to.made(op, applied, self.tally)).map_err(|error| self.to.at.at(error))
    }

    fn send_difference(&self, dir: &Dir<'_>, op: &Op, file: &OwnedFd, key: &Key, reply: &mut Reply) -> Result<Put> {
        let replies = std::cell::RefCell::new(reply);
        let mut next = || replies.borrow_mut().next();
        let mut send = |kind, pieces: Put| {
            self.allow(body_len(&pieces) as u64)?;
            replies.borrow().tell(kind, pieces)
        };
        let mut seen = |bytes| {
            self.control.bytes.fetch_add(bytes, Relaxed);
            self.tally.bytes_read.fetch_add(bytes, Relaxed);
            if self.control.should_stop() { Err(SyncError::cancelled()) } else { Ok(()) }
        };
        let found = search(key, Search { read: &mut from_start(file.as_fd()), next: &mut next, send: &mut send, seen: &mut seen })
            .map_err(
                |error| {
                    if error.path.is_none() && error.errno.is_some() { error.at("read", self.from.path(dir, op)) } else { error }
                },
            )?;
        if found.whole.size != op.source.size {
            return Err(changed(self.from.path(dir, op)));
        }
        Ok(SshWriter::end_of_difference(op, &found, self.tally))
    }

    fn send_content(&self, dir: &Dir<'_>, op: &Op, file: &OwnedFd, rest: bool, key: &Key, reply: &mut Reply) -> Result<Put> {
        let at = if rest { self.find_rest(op, file, key, reply)?.0 } else { 0 };
        self.send_range(dir, op, file, (at, op.source.size), reply)
    }

    /// Where the content and what is there of it part, and how much is there.
    fn find_rest(&self, op: &Op, file: &OwnedFd, key: &Key, reply: &mut Reply) -> Result<(u64, u64)> {
        let have = Get(&reply.next()?.body).u64()?.min(op.source.size);
        let at = common_part(key, &mut from_start(file.as_fd()), have, &mut || reply.next())?;
        let mut from = body();
        from.u64(at);
        reply.tell(Kind::Hole, from)?;
        self.control.bytes.fetch_add(at, Relaxed);
        Ok((at, have))
    }

    /// First what is there is made right, then all connections carry the rest.
    fn send_ranges(&self, dir: &Dir<'_>, op: &Op, file: &OwnedFd, key: &Key, reply: &mut Reply) -> Result<Put> {
        let (at, have) = self.find_rest(op, file, key, reply)?;
        let end = self.send_range(dir, op, file, (at, have), reply)?;
        reply.tell(Kind::End, end)?;
        let place = reply.next()?;
        let mut name = Get(&place.body);
        let name = name.name()?;
        let ranges = Ranges::new(have, op.source.size, self.to.at.connections());
        split::over_all(self.to.at, &ranges, &|session, (from, to)| {
            let mut request = body();
            request.bytes(&dir.key).bytes(name).u64(from).u64(to);
            let mut reply = session.ask(Kind::PutRange, request)?;
            let end = self.send_range(dir, op, file, (from, to), &mut reply)?;
            reply.tell(Kind::End, end)?;
            reply.done()?;
            reply.tally(0, self.tally);
            Ok(())
        })?;
        Ok(body())
    }

    /// Returns the hash of it.
    fn send_range(&self, dir: &Dir<'_>, op: &Op, file: &OwnedFd, (from, to): (u64, u64), reply: &mut Reply) -> Result<Put> {
        let read_error = |errno| SyncError::os(errno, "read", self.from.path(dir, op));
        let mut at = from;
        let mut hash = blake3::Hasher::new();
        let mut data = Extents::new(file.as_fd(), &op.source);
        while at < to {
            let hole = data.hole(at).map_err(read_error)?.min(to - at);
            if hole > 0 {
                let mut piece = body();
                piece.u64(hole);
                reply.tell(Kind::Hole, piece)?;
                self.control.bytes.fetch_add(hole, Relaxed);
                at += hole;
                continue;
            }
            let want = (data.end(at).min(to) - at).min(PIECE as u64) as usize;
            self.allow(want as u64)?;
            let piece = read_piece(file.as_fd(), at, want).map_err(read_error)?;
            let n = body_len(&piece);
            if n == 0 {
                return Err(changed(self.from.path(dir, op)));
            }
            hash.update(body_of(&piece));
            reply.tell(Kind::Data, piece)?;
            at += n as u64;
            self.control.bytes.fetch_add(n as u64, Relaxed);
            self.tally.bytes_read.fetch_add(n as u64, Relaxed);
            // It may have failed there already.
            reply.try_next()?;
        }
        let mut end = body();
        end.0.extend_from_slice(hash.finalize().as_bytes());
        Ok(end)
    }

    /// Hashes of files at the destination, for a dry run.
    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        let mut op = op.clone();
        let file = self.open(dir, &mut op)?;
        let own = hash_of(file.as_fd(), self.control).map_err(|error| error.at("read", self.from.path(dir, &op)))?;
        self.to.has_content(dir, &op, own.as_bytes())
    }
}

impl Lane for PushLane<'_> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn takes_several(&self) -> bool {
        true
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.from.dir(dir).ok(), None)
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let mut done = Ok(Applied::Same.into());
        self.apply_all(dir, std::slice::from_mut(op), &mut |_, outcome| done = outcome);
        done
    }

    fn apply_all(&self, dir: &Dir<'_>, ops: &mut [Op], report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        let mut content = Vec::new();
        let mut queue: Vec<usize> = (0..ops.len()).collect();
        while !queue.is_empty() {
            let (mut batch, mut sent) = (Batch::new(dir), Sent::new());
            for n in std::mem::take(&mut queue) {
                let op = &mut ops[n];
                if self.control.should_stop() {
                    report(op, Err(SyncError::cancelled()));
                    continue;
                }
                if matches!(op.what, What::Nothing | What::Ask) {
                    report(op, Ok(Applied::Same.into()));
                    continue;
                }
                if op.what == What::Copy && op.source.kind == FileKind::File && op.source.size > SMALL {
                    let done = self.put(dir, op);
                    dir.touch();
                    report(op, done);
                    continue;
                }
                let mark = batch.request.0.len();
                match self.add(dir, op, &mut content, &mut batch.request) {
                    Ok(()) => batch.ops.push(n),
                    Err(error) => {
                        batch.request.0.truncate(mark);
                        report(op, Err(error));
                    }
                }
                if body_len(&batch.request) >= self.together() {
                    self.send(std::mem::replace(&mut batch, Batch::new(dir)), &mut sent);
                }
            }
            self.send(batch, &mut sent);
            self.to.conclude(dir, ops, sent, self.tally, &mut queue, report);
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let differs = || match &op.dest {
            Some(old) if self.to.keep.differs(&op.source, old, self.to.precision) => Ok(true),
            Some(_) => match self.attributes(dir, op)? {
                Some(own) => self.seen.get(self.to.at, &dir.key, &op.name, self.all).map(|theirs| theirs.differ(&own, self.to.keep)),
                None => Ok(false),
            },
            None => Ok(false),
        };
        self.to.examined(op, || self.same_content(dir, op), differs)
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)?;
        self.to.refresh(dir, op)
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.to.finish_dir(dir, &|| self.dir_attributes(dir))
    }

    fn examine_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        if !self.to.keep.reads_attributes(FileKind::Dir) || dir.like.is_none() {
            return Ok(false);
        }
        let theirs = self.to.at.dir_attributes(self.to.at.ask_dir_attributes(&dir.key, self.all)?.done())?;
        Ok(theirs.differ(&self.dir_attributes(dir)?, self.to.keep))
    }

    fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        self.to.is_linked(op, leader)
    }

    fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        self.to.hard_link(dir, op, leader)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        match self.to.stat(dir, &op.name)? {
            Some((copy, _)) if copy.looks_like(&op.source) => self.from.remove(dir, op),
            _ => Err(not_in_place(self.from.path(dir, op))),
        }
    }

    fn remove(&self, dir_key: &[u8], doomed: &[Doomed], report: &mut dyn FnMut(&Doomed, Result<()>)) {
        self.to.remove(dir_key, doomed, report);
    }

    fn touch_dir(&self, key: &[u8], mtime: Time) -> Result<()> {
        self.to.touch_dir(key, mtime)
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        self.to.clean_up(dir, leftovers, wanted);
    }

    fn settle(&self, report: &mut dyn FnMut(Settled)) {
        self.to.settle(report);
    }

    fn sync_all(&self) -> Result<()> {
        self.to.sync_all()
    }
}
