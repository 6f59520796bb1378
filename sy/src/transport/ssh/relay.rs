//! To a host from anywhere but here: contents pass through this machine, as much of them as fits a window.

use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;

use super::SshEndpoint;
use super::attributes::Seen;
use super::batch::{Batch, Sent};
use super::difference::{How, Search, common_part, is_worthwhile, search, secret};
use super::finish::Finishing;
use super::push::SMALL;
use super::session::Reply;
use super::window::Window;
use super::wire::attributes::put_attributes;
use super::wire::message::{get_applied, put_op};
use super::wire::{Get, Kind, PIECE, Put, body, body_len, garbled};
use super::writer::{SshWriter, outcome};
use crate::cli::Options;
use crate::delta::{Key, Shape};
use crate::error::{Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::cloud::{Content, read_error};
use crate::transport::local::{Attributes, Keep, Limiter, changed, fits};
use crate::transport::source::become_link;
use crate::transport::{Applied, Done, Doomed, Held, Kind as FileKind, Lane, Meta, Op, Pace, Settled, Source, Time, What, not_in_place};

/// Bytes of a message of several operations.
const TOGETHER: usize = 256 << 10;
/// Bytes of attributes that are asked for ahead of being sent.
const GATHERED: usize = 4 << 20;

pub struct RelayLane<'r, S> {
    pub(super) from: S,
    pub(super) to: SshWriter<'r>,
    limiter: Option<Limiter>,
    pub(super) control: &'r Control,
    pub(super) tally: &'r Tally,
    pace: Pace,
    /// The attributes that may be wanted at the other side.
    all: Keep,
    finishing: Finishing,
    /// Of directories that a dry run looks at, on both sides.
    seen: (Seen, Seen),
    /// What the contents and signatures under way may take of the memory.
    pub(super) window: Window,
}

impl<S> std::fmt::Debug for RelayLane<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RelayLane").field("to", &self.to).finish_non_exhaustive()
    }
}

/// Where small files come one by one, each worker gathers a few of them.
pub fn pace(options: &Options, connections: Option<u64>) -> Pace {
    const WORKERS: u32 = 32;
    let most = connections.map_or(WORKERS, |most| most.clamp(1, WORKERS.into()) as u32);
    Pace { ops: 8, workers: Some(options.parallel.map_or(WORKERS, |parallel| parallel.saturating_mul(4)).clamp(1, most)) }
}

/// Attributes by the places of what has them.
type Gathered = HashMap<usize, Result<Attributes>>;

impl<'r, S: Source> RelayLane<'r, S> {
    pub fn new(
        from: S,
        dest: &'r SshEndpoint,
        options: &Options,
        precision: u64,
        pace: Pace,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Self {
        Self {
            from,
            to: SshWriter::new(dest, options, precision),
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            control,
            tally,
            pace,
            all: Keep::to_send(options.preserve_xattrs, options.preserve_acls),
            finishing: Finishing::default(),
            seen: Default::default(),
            window: Window::default(),
        }
    }

    /// Waits until so many bytes may go.
    pub(super) fn allow(&self, bytes: u64) -> Result<()> {
        Limiter::allow(self.limiter.as_ref(), bytes, self.control)
    }

    /// What the source says of the attributes of operations, as far as memory is worth it.
    fn gather(&self, dir: &Dir<'_>, ops: &[Op], which: &[usize]) -> Gathered {
        let mut gathered = Gathered::new();
        let asked: Vec<usize> = which.iter().copied().filter(|&n| self.has_attributes(&ops[n])).collect();
        if let (Some(from), false) = (self.from.agent(), asked.is_empty()) {
            let names: Vec<&[u8]> = asked.iter().map(|&n| ops[n].source_name()).collect();
            let mut left = GATHERED;
            from.attributes(&dir.key, &names, self.all, &mut |at, found| {
                let size = found.as_ref().map_or(0, Attributes::size);
                if left >= size {
                    left -= size;
                    gathered.insert(asked[at], found);
                }
            });
        }
        gathered
    }

    /// Those of one operation.
    fn attributes(&self, dir: &Dir<'_>, n: usize, op: &Op, gathered: &mut Gathered) -> Result<Option<Attributes>> {
        match (gathered.remove(&n), self.from.agent()) {
            (Some(found), _) => found.map(Some),
            (None, Some(from)) if self.has_attributes(op) => {
                let mut one = Err(garbled("no attributes"));
                from.attributes(&dir.key, &[op.source_name()], self.all, &mut |_, found| one = found);
                one.map(Some)
            }
            (None, _) => Ok(None),
        }
    }

    fn has_attributes(&self, op: &Op) -> bool {
        self.all.reads_attributes(op.source.kind) && !matches!(op.what, What::Nothing | What::Ask)
    }

    /// Sets the metadata of a directory, once the source said what attributes it has.
    fn finish(&self, dir: &Dir<'_>, from: &SshEndpoint, answer: Result<Vec<u8>>) -> Result<bool> {
        let theirs = from.dir_attributes(answer)?;
        self.to.finish_dir(dir, &|| Ok(theirs.all.clone()))
    }

    /// Adds an operation with its content or hash; sends what has become large enough.
    #[expect(clippy::too_many_arguments, reason = "one operation on its way")]
    fn add(
        &self,
        dir: &Dir<'_>,
        n: usize,
        op: &Op,
        with: Option<&[u8]>,
        attributes: Option<&Attributes>,
        batch: &mut Batch,
        sent: &mut Sent,
    ) {
        put_op(&mut batch.request, op);
        batch.request.option(with);
        put_attributes(&mut batch.request, attributes);
        batch.ops.push(n);
        if body_len(&batch.request) >= TOGETHER {
            self.to.send(std::mem::replace(batch, Batch::new(dir)), sent);
        }
    }

    /// Reads small files, and adds them.
    #[expect(clippy::too_many_arguments, reason = "operations on their way")]
    fn add_small(
        &self,
        dir: &Dir<'_>,
        ops: &mut [Op],
        which: &[usize],
        gathered: &mut Gathered,
        batch: &mut Batch,
        sent: &mut Sent,
        report: &mut dyn FnMut(&mut Op, Result<Done>),
    ) {
        let wanted: Vec<Op> = which.iter().map(|&n| ops[n].clone()).collect();
        self.from.read_small(dir, &wanted, &mut |n, read| {
            let op = &mut ops[which[n]];
            let added = read.and_then(|(now, bytes)| {
                if now.kind == FileKind::Symlink {
                    become_link(op, now, bytes).map_err(|error| error.at("create", self.from.path(dir, op)))?;
                    self.add(dir, which[n], op, None, None, batch, sent);
                    return Ok(());
                }
                if bytes.len() as u64 != now.size || now.size > SMALL * 2 {
                    return Err(changed(self.from.path(dir, op)));
                }
                let attributes = self.attributes(dir, which[n], op, gathered)?;
                // What is there now is as good as what was listed. An agent's owner is the one that it has at the destination.
                op.source = match self.from.agent() {
                    Some(_) => Meta { uid: op.source.uid, gid: op.source.gid, ..now },
                    None => now,
                };
                self.allow(now.size)?;
                self.control.bytes.fetch_add(now.size, Relaxed);
                self.add(dir, which[n], op, Some(bytes), attributes.as_ref(), batch, sent);
                Ok(())
            });
            if let Err(error) = added {
                report(op, Err(error));
            }
        });
    }

    /// A large file: what the other side does not have of it.
    fn put(&self, dir: &Dir<'_>, op: &mut Op, attributes: Option<&Attributes>) -> Result<Done> {
        let put = match self.from.agent() {
            Some(from) => self.pass(dir, op, attributes, from),
            None => self.put_content(dir, op),
        };
        if put.as_ref().is_err_and(|error| error.retryable) {
            self.to.note_part(dir, op);
        }
        put.map(|applied| self.to.made(op, applied, self.tally)).map_err(|error| self.to.at.at(error))
    }

    /// How a large file goes best.
    pub(super) fn how(&self, dir: &Dir<'_>, op: &Op) -> (How, u64) {
        match op.dest.filter(|old| is_worthwhile(&op.source, old)) {
            Some(old) => (How::Difference, Shape::of(old.size).blocks() * 24),
            None if self.to.has_part(dir, op) => (How::Rest, 0),
            None => (How::Whole, 0),
        }
    }

    fn put_content(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Applied> {
        let (now, content) = self.from.open(dir, op)?;
        if now.kind == FileKind::Symlink {
            let target = crate::transport::source::read_whole(&*content)?;
            become_link(op, now, &target).map_err(|error| error.at("create", self.from.path(dir, op)))?;
            return self.one(dir, op);
        }
        // What is open now is as good as what was listed.
        op.source = now;
        let (how, taken) = self.how(dir, op);
        if !self.window.take(taken, self.to.at.stop()) {
            return Err(SyncError::cancelled());
        }
        let sent = self.send_file(dir, op, &*content, how);
        self.window.give_back(taken);
        sent
    }

    fn send_file(&self, dir: &Dir<'_>, op: &Op, content: &dyn Content, how: How) -> Result<Applied> {
        let secret = secret()?;
        let key = Key::new(&secret);
        let mut reply = self.to.at.session_for_large()?.ask(Kind::Put, SshWriter::put_request(dir, op, None, how, &secret))?;
        let end = match how {
            How::Difference => self.send_difference(dir, op, content, &key, &mut reply)?,
            How::Whole | How::Rest => self.send_content(dir, op, content, how == How::Rest, &key, &mut reply)?,
            How::Ranges => return Err(garbled("a way that is not taken between hosts")),
        };
        content.still()?;
        reply.tell(Kind::End, end)?;
        SshWriter::put_is_done(&mut reply, self.tally)
    }

    fn send_difference(&self, dir: &Dir<'_>, op: &Op, content: &dyn Content, key: &Key, reply: &mut Reply) -> Result<Put> {
        let mut reader = content.open(0..op.source.size)?;
        let mut read = |buffer: &mut [u8]| reader.read(buffer).map_err(|error| read_error(&error));
        let replies = std::cell::RefCell::new(reply);
        let mut next = || replies.borrow_mut().next();
        let mut send = |kind, pieces: Put| {
            self.allow(body_len(&pieces) as u64)?;
            replies.borrow().tell(kind, pieces)
        };
        let mut seen = |bytes| {
            self.control.bytes.fetch_add(bytes, Relaxed);
            if self.control.should_stop() { Err(SyncError::cancelled()) } else { Ok(()) }
        };
        let found = search(key, Search { read: &mut read, next: &mut next, send: &mut send, seen: &mut seen })?;
        if found.whole.size != op.source.size {
            return Err(changed(self.from.path(dir, op)));
        }
        Ok(SshWriter::end_of_difference(op, &found, self.tally))
    }

    fn send_content(&self, dir: &Dir<'_>, op: &Op, content: &dyn Content, rest: bool, key: &Key, reply: &mut Reply) -> Result<Put> {
        let size = op.source.size;
        let mut at = 0;
        if rest {
            let have = Get(&reply.next()?.body).u64()?.min(size);
            let mut reader = content.open(0..have)?;
            let mut read = |buffer: &mut [u8]| reader.read(buffer).map_err(|error| read_error(&error));
            at = content.may_begin(common_part(key, &mut read, have, &mut || reply.next())?);
            let mut from = body();
            from.u64(at);
            reply.tell(Kind::Hole, from)?;
            self.control.bytes.fetch_add(at, Relaxed);
        }
        let (mut hash, mut reader) = (blake3::Hasher::new(), content.open(at..size)?);
        while at < size {
            let want = (size - at).min(PIECE as u64) as usize;
            let mut piece = body();
            let head = piece.0.len();
            piece.0.resize(head + want, 0);
            let n = reader.read(&mut piece.0[head..]).map_err(|error| read_error(&error))?;
            if n == 0 {
                return Err(changed(self.from.path(dir, op)));
            }
            self.allow(n as u64)?;
            piece.0.truncate(head + n);
            hash.update(&piece.0[head..]);
            reply.tell(Kind::Data, piece)?;
            at += n as u64;
            self.control.bytes.fetch_add(n as u64, Relaxed);
            // It may have failed there already.
            reply.try_next()?;
        }
        let mut end = body();
        end.0.extend_from_slice(hash.finalize().as_bytes());
        Ok(end)
    }

    /// One operation by itself that needs no content.
    fn one(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let mut batch = Batch::new(dir);
        put_op(&mut batch.request, op);
        batch.request.option(None);
        put_attributes(&mut batch.request, None);
        let answer = self.to.at.ask(Kind::Ops, batch.request)?;
        let mut get = Get(&answer);
        outcome(&mut get)?;
        get_applied(&mut get)
    }

    /// Hashes of files at the destination, for a dry run.
    fn same_content(&self, dir: &Dir<'_>, op: &Op) -> Result<bool> {
        if op.source.kind != FileKind::File {
            return Ok(true);
        }
        let own = self.from.hashes(dir, std::slice::from_ref(op)).pop().unwrap_or_else(|| Err(garbled("no hash")))?;
        self.to.has_content(dir, op, &own)
    }
}

impl<S: Source> Lane for RelayLane<'_, S> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn takes_several(&self) -> bool {
        true
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.ask(dir, op)
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (self.from.hold(dir), None)
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let mut done = Ok(Applied::Same.into());
        self.apply_all(dir, std::slice::from_mut(op), &mut |_, outcome| done = outcome);
        done
    }

    fn apply_all(&self, dir: &Dir<'_>, ops: &mut [Op], report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        let mut queue: Vec<usize> = (0..ops.len()).collect();
        while !queue.is_empty() {
            let (mut batch, mut sent) = (Batch::new(dir), Sent::new());
            let (mut small, mut large, mut compared) = (Vec::new(), Vec::new(), Vec::new());
            let queued = std::mem::take(&mut queue);
            let mut gathered = self.gather(dir, ops, &queued);
            for n in queued {
                let op = &mut ops[n];
                match (op.what, op.source.kind) {
                    _ if self.control.should_stop() => report(op, Err(SyncError::cancelled())),
                    (What::Nothing | What::Ask, _) => report(op, Ok(Applied::Same.into())),
                    _ if fits(&op.name).is_err() => {
                        let error = fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)));
                        report(op, error.map(|()| Applied::Same.into()));
                    }
                    (What::Copy, FileKind::File) if op.source.size > SMALL => large.push(n),
                    (What::Copy, FileKind::File) => small.push(n),
                    (What::CopyIfDifferent, FileKind::File) => compared.push(n),
                    _ => match self.attributes(dir, n, op, &mut gathered) {
                        Ok(attributes) => self.add(dir, n, op, None, attributes.as_ref(), &mut batch, &mut sent),
                        Err(error) => report(op, Err(error)),
                    },
                }
            }
            if !small.is_empty() {
                self.add_small(dir, ops, &small, &mut gathered, &mut batch, &mut sent, report);
            }
            if !compared.is_empty() {
                let wanted: Vec<Op> = compared.iter().map(|&n| ops[n].clone()).collect();
                for (n, hash) in compared.into_iter().zip(self.from.hashes(dir, &wanted)) {
                    match hash.and_then(|hash| Ok((hash, self.attributes(dir, n, &ops[n], &mut gathered)?))) {
                        Ok((hash, attributes)) => self.add(dir, n, &ops[n], Some(&hash), attributes.as_ref(), &mut batch, &mut sent),
                        Err(error) => report(&mut ops[n], Err(error)),
                    }
                }
            }
            self.to.send(batch, &mut sent);
            for n in large {
                let done = match self.attributes(dir, n, &ops[n], &mut gathered) {
                    _ if self.control.should_stop() => Err(SyncError::cancelled()),
                    Ok(attributes) => self.put(dir, &mut ops[n], attributes.as_ref()),
                    Err(error) => Err(error),
                };
                dir.touch();
                report(&mut ops[n], done);
            }
            self.to.conclude(dir, ops, sent, self.tally, &mut queue, report);
        }
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let differs = || -> Result<bool> {
            match &op.dest {
                Some(old) if self.to.keep.differs(&op.source, old, self.to.precision) => Ok(true),
                Some(_) if self.has_attributes(op) => {
                    let Some(from) = self.from.agent() else { return Ok(false) };
                    let own = self.seen.0.get(from, &dir.key, op.source_name(), self.all)?;
                    let theirs = self.seen.1.get(self.to.at, &dir.key, &op.name, self.all)?;
                    Ok(theirs.differ(&own.all, self.to.keep))
                }
                _ => Ok(false),
            }
        };
        if matches!(op.what, What::Copy | What::CopyIfDifferent) {
            fits(&op.name).map_err(|error| error.at("create", self.from.path(dir, op)))?;
        }
        self.to.examined(op, || self.same_content(dir, op), differs)
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)?;
        self.to.refresh(dir, op)
    }

    fn examine_make_dir(&self, parent: &Dir<'_>, name: &[u8]) -> Result<()> {
        fits(name).map_err(|error| error.at("create", self.to.path(&parent.key_of(name))))
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.examine_make_dir(parent, name)?;
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        let nothing = || Err(garbled("no attributes"));
        let Some(from) = self.from.agent().filter(|_| self.all.reads_attributes(FileKind::Dir) && dir.like.is_some()) else {
            return self.to.finish_dir(dir, &nothing);
        };
        if self.control.should_stop() {
            return Ok(false);
        }
        let reply = from.ask_dir_attributes(&dir.key, self.all)?;
        self.finishing.add(dir, reply, &|dir, answer| self.finish(dir, from, answer));
        Ok(false)
    }

    fn examine_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        let Some(from) = self.from.agent().filter(|_| self.all.reads_attributes(FileKind::Dir) && dir.like.is_some()) else {
            return Ok(false);
        };
        let own = from.dir_attributes(from.ask_dir_attributes(&dir.key, self.all)?.done())?;
        let theirs = self.to.at.dir_attributes(self.to.at.ask_dir_attributes(&dir.key, self.all)?.done())?;
        Ok(theirs.differ(&own.all, self.to.keep))
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
        // Of a directory that is none in a bucket no time is known.
        if mtime == Time::default() { Ok(()) } else { self.to.touch_dir(key, mtime) }
    }

    fn clean_up(&self, dir: &Dir<'_>, leftovers: &[Box<[u8]>], wanted: &[Op]) {
        self.to.clean_up(dir, leftovers, wanted);
    }

    fn settle(&self, report: &mut dyn FnMut(Settled)) {
        if let Some(from) = self.from.agent() {
            self.finishing.settle(&|dir, answer| self.finish(dir, from, answer), report);
        }
        self.to.settle(report);
    }

    fn sync_all(&self) -> Result<()> {
        self.to.sync_all()
    }
}
