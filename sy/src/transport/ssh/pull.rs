//! A host to local: small files come together, large ones in pieces.

mod metadata;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::SshEndpoint;
use super::agent::FEW;
use super::attributes::Seen;
use super::difference::{Basis, How, is_whole, is_worthwhile, rebuild, secret, sum_part};
use super::finish::Finishing;
use super::push::{SMALL, pace};
use super::session::{Reply, Session};
use super::split::{self, Ranges};
use super::window::{AHEAD, Credit, MOST, Window};
use super::wire::attributes::{get_attributes, put_wish};
use super::wire::{Frame, Get, Kind, PIECE, Put, body, garbled, not_what_was_sent};
use super::writer::outcome;
use crate::cli::Options;
use crate::delta::{Key, Shape};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{
    Attributes, Limiter, LocalEndpoint, Temp, Writer, changed, check_room, fits, hash_of, stat_at, stat_fd, write_at,
};
use crate::transport::{Applied, Done, Doomed, Endpoint, Held, Kind as FileKind, Lane, Meta, Op, Pace, Settled, Time, What, not_in_place};

/// Bytes of contents that are asked for together.
const TOGETHER: u64 = 512 << 10;
/// Before a file of this size is begun, the file system is asked whether it has room.
const LARGE: u64 = 64 << 20;

pub struct PullLane<'r> {
    from: &'r SshEndpoint,
    to: Writer<'r>,
    window: Window,
    finishing: Finishing,
    /// Of a directory that a dry run looks at.
    seen: Seen,
    limiter: Option<Limiter>,
    control: &'r Control,
    tally: &'r Tally,
    pace: Pace,
}

impl std::fmt::Debug for PullLane<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullLane").field("from", &self.from).finish_non_exhaustive()
    }
}

/// What could not be asked for, and the places of what waits for it.
type Lost = (SyncError, Vec<usize>);

/// How an operation is carried out.
enum Way {
    Done(Result<Done>),
    /// A small file, which comes with others.
    Small,
    /// Only by metadata.
    Describe,
}

/// Small files that are on their way.
struct Coming {
    reply: Reply,
    /// How many were asked for.
    count: usize,
    ops: std::vec::IntoIter<usize>,
    /// What they take of the window.
    room: u64,
}

impl<'r> PullLane<'r> {
    pub fn new(
        source: &'r SshEndpoint,
        dest: &'r LocalEndpoint,
        options: &Options,
        precision: u64,
        control: &'r Control,
        tally: &'r Tally,
    ) -> Result<Self> {
        Ok(Self {
            from: source,
            to: Writer::new(dest, options, precision, control)?,
            window: Window::default(),
            finishing: Finishing::default(),
            seen: Seen::default(),
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            control,
            tally,
            pace: pace(options),
        })
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.from.path_of(&dir.key_of(op.source_name()))
    }

    fn allow(&self, bytes: u64) -> Result<()> {
        Limiter::allow(self.limiter.as_ref(), bytes, self.control)
    }

    /// Asks for small files; `ops` are sizes and places of those.
    fn fetch(&self, dir: &Dir<'_>, ops: &[Op], which: Vec<usize>, room: u64) -> Result<Coming, Box<Lost>> {
        let mut request = body();
        request.bytes(&dir.key);
        put_wish(&mut request, self.to.keep);
        for &n in &which {
            request.bytes(ops[n].source_name()).u64(ops[n].source.size);
        }
        match self.from.session().and_then(|session| session.ask(Kind::Fetch, request)) {
            Ok(reply) => Ok(Coming { reply, count: which.len(), ops: which.into_iter(), room }),
            Err(error) => {
                self.window.give_back(room);
                Err(Box::new((error, which)))
            }
        }
    }

    /// Writes what comes until all of a request is done.
    fn receive(&self, dir: &Dir<'_>, ops: &mut [Op], mut coming: Coming, report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        let failed = loop {
            match coming.reply.next() {
                Ok(Frame { kind: Kind::Content, body, .. }) => {
                    let mut get = Get(&body);
                    while !get.is_empty() {
                        let Some(n) = coming.ops.next() else { break };
                        let done = self.one(dir, &mut ops[n], &mut get);
                        report(&mut ops[n], done);
                    }
                    if !get.is_empty() {
                        break garbled("more than was asked for");
                    }
                }
                Ok(Frame { kind: Kind::Done, .. }) => break SyncError::new(ErrorKind::Network, "it did not come").retryable(),
                Ok(_) => break garbled("another answer than was asked for"),
                Err(error) => break self.from.at(error),
            }
        };
        coming.reply.tally((coming.count - coming.ops.len()) as u64, self.tally);
        for n in coming.ops {
            report(&mut ops[n], Err(failed.clone()));
        }
        self.window.give_back(coming.room);
    }

    fn one(&self, dir: &Dir<'_>, op: &mut Op, get: &mut Get<'_>) -> Result<Done> {
        outcome(get).map_err(|error| self.from.at(error))?;
        let (now, content) = (get.meta(None)?, get.bytes()?);
        let wanted = if get.bool()? { self.kept(get_attributes(get)?) } else { None };
        if !now.same_state(&op.source) || content.len() as u64 != op.source.size {
            return Err(changed(self.path(dir, op)));
        }
        self.allow(content.len() as u64)?;
        self.tally.bytes_read.fetch_add(content.len() as u64, Relaxed);
        let wanted = match wanted {
            None if self.to.keep.reads_attributes(FileKind::File) => Some(self.many_attributes(dir, op)?),
            wanted => wanted,
        };
        let applied = self.to.write_small(dir, op, content, wanted.as_ref())?;
        self.control.bytes.fetch_add(content.len() as u64, Relaxed);
        Ok(self.made(applied))
    }

    fn made(&self, applied: Applied) -> Done {
        if self.to.verify {
            self.tally.files_verified.fetch_add(1, Relaxed);
        }
        applied.into()
    }

    /// A large file: what is not here of it.
    fn get(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let dest_dir = self.to.dest_dir(dir)?;
        let temp = self.to.create(dir, op, &op.source, dest_dir.as_fd())?;
        let filled = self.fill(dir, op, &temp).and_then(|wanted| {
            // Nobody but this side has the hash of a file that was put together; read back, it is compared with what was written.
            let hash = if self.to.verify { Some(hash_of(temp.fd.as_fd(), self.control)?) } else { None };
            self.to.complete(dir, op, wanted.as_ref(), &temp, dest_dir.as_fd(), || hash.unwrap_or_else(|| blake3::hash(b"")))
        });
        Ok(self.made(self.to.settle(dir, op, temp, dest_dir.as_fd(), filled)?))
    }

    /// Returns the attributes it is to have.
    fn fill(&self, dir: &Dir<'_>, op: &Op, temp: &Temp) -> Result<Option<Attributes>> {
        let write_error = |errno| SyncError::os(errno, "write", self.to.dest_path(dir, op));
        let old = op.dest.filter(|old| is_worthwhile(&op.source, old));
        let basis = match old {
            Some(old) => {
                let file = self.to.open_dest(dir, op)?;
                let now = stat_fd(file.as_fd()).map_err(|errno| SyncError::os(errno, "read", self.to.dest_path(dir, op)))?;
                // What is there now is refused when it is to be replaced.
                (now.kind == FileKind::File && (now.ino, now.size, now.mtime) == (old.ino, old.size, old.mtime)).then_some((file, old.size))
            }
            None => None,
        };
        if op.source.size >= LARGE {
            check_room(temp.fd.as_fd(), self.to.room_for(op).saturating_sub(temp.have)).map_err(write_error)?;
        }
        let room = AHEAD.min(op.source.size.max(PIECE as u64));
        let taken = room + basis.as_ref().map_or(0, |(_, size)| Shape::of(*size).blocks() * 24);
        if !self.window.take(taken, self.from.stop()) {
            return Err(SyncError::cancelled());
        }
        let filled = self.receive_file(dir, op, temp, basis, room);
        self.window.give_back(taken);
        filled
    }

    fn receive_file(&self, dir: &Dir<'_>, op: &Op, temp: &Temp, basis: Option<(OwnedFd, u64)>, room: u64) -> Result<Option<Attributes>> {
        let write_error = |errno| SyncError::os(errno, "write", self.to.dest_path(dir, op));
        let have = if basis.is_some() { 0 } else { temp.have.min(op.source.size) };
        let how = match basis {
            Some(_) => How::Difference,
            None if have > 0 => How::Rest,
            None => How::Whole,
        };
        if temp.have > have {
            rustix::fs::ftruncate(&temp.fd, have).map_err(write_error)?;
        }
        let in_ranges = basis.is_none() && split::is_worthwhile(&op.source, op.source.size - have, self.from.connections());
        let secret = secret()?;
        if in_ranges && have == 0 {
            return self.receive_ranges(dir, op, temp, 0, &secret);
        }
        let key = Key::new(&secret);
        // First what is here is made right.
        let to = if in_ranges { have } else { op.source.size };
        let session = self.from.session_for_large()?;
        let reply = session.ask(Kind::FetchFile, self.fetch_request(dir, op, how, (have, to), room, &secret))?;
        let mut tell = |kind, body| session.tell(kind, reply.id, body);
        match &basis {
            None => {
                if how == How::Rest {
                    sum_part(&key, temp.fd.as_fd(), have, &mut tell)?;
                }
                let wanted = self.content(dir, op, temp, how, (0, to), room, reply)?;
                if in_ranges { self.receive_ranges(dir, op, temp, have, &secret) } else { Ok(wanted) }
            }
            Some((basis, size)) => self.patch(dir, op, temp, &key, Shape::of(*size), basis.as_fd(), room, (&session, reply)),
        }
    }

    fn fetch_request(&self, dir: &Dir<'_>, op: &Op, how: How, (from, to): (u64, u64), room: u64, secret: &[u8; 32]) -> Put {
        let mut request = body();
        request.u64(room).bytes(&dir.key).bytes(op.source_name());
        put_wish(&mut request, self.to.keep);
        request.bool(true).u8(how as u8).u64(from).u64(to).0.extend_from_slice(secret);
        request
    }

    /// What is not here yet, by way of all connections.
    fn receive_ranges(&self, dir: &Dir<'_>, op: &Op, temp: &Temp, have: u64, secret: &[u8; 32]) -> Result<Option<Attributes>> {
        let connections = self.from.connections();
        let room = (MOST / connections as u64).clamp(2 * PIECE as u64, AHEAD);
        let wanted = Mutex::new(None);
        split::over_all(self.from, &Ranges::new(have, op.source.size, connections), &|session, range| {
            let reply = session.ask(Kind::FetchFile, self.fetch_request(dir, op, How::Whole, range, room, secret))?;
            let found = self.content(dir, op, temp, How::Whole, range, room, reply)?;
            *wanted.lock().unwrap_or_else(PoisonError::into_inner) = found;
            Ok(())
        })?;
        Ok(wanted.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Content as it is: of a range, or of the part of it that is not here.
    #[expect(clippy::too_many_arguments, reason = "one file on its way")]
    fn content(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        temp: &Temp,
        how: How,
        (from, to): (u64, u64),
        room: u64,
        mut reply: Reply,
    ) -> Result<Option<Attributes>> {
        let write_error = |errno| SyncError::os(errno, "write", self.to.dest_path(dir, op));
        let mut hash = blake3::Hasher::new();
        let (mut at, mut credit) = (from, Credit::new(room));
        loop {
            let frame = reply.next().map_err(|error| self.from.at(error))?;
            match frame.kind {
                Kind::Credit if how == How::Rest && at == 0 => {
                    at = Get(&frame.body).u64()?;
                    if at > temp.have.min(op.source.size) {
                        return Err(garbled("a part that is not here"));
                    }
                    rustix::fs::ftruncate(&temp.fd, at).map_err(write_error)?;
                    self.control.bytes.fetch_add(at, Relaxed);
                }
                Kind::Data => {
                    let bytes = frame.body.len() as u64;
                    if bytes > to - at {
                        return Err(changed(self.path(dir, op)));
                    }
                    self.allow(bytes)?;
                    write_at(temp.fd.as_fd(), &frame.body, at).map_err(write_error)?;
                    hash.update(&frame.body);
                    at += bytes;
                    self.control.bytes.fetch_add(bytes, Relaxed);
                    self.tally.bytes_read.fetch_add(bytes, Relaxed);
                    credit.took(&reply, bytes)?;
                }
                Kind::Hole => {
                    let length = Get(&frame.body).u64()?;
                    if length > to - at {
                        return Err(changed(self.path(dir, op)));
                    }
                    self.to.write_hole(temp.fd.as_fd(), at, length).map_err(write_error)?;
                    at += length;
                    self.control.bytes.fetch_add(length, Relaxed);
                    credit.took(&reply, 1)?;
                }
                Kind::Done => {
                    let mut get = Get(&frame.body);
                    if at != to || !get.meta(None)?.same_state(&op.source) {
                        return Err(changed(self.path(dir, op)));
                    }
                    let wanted = self.kept(get_attributes(&mut get)?);
                    // Of a file in ranges the first one counts it.
                    reply.tally(u64::from(from == 0), self.tally);
                    return if get.0 == hash.finalize().as_bytes() { Ok(wanted) } else { Err(self.wrong(dir, op)) };
                }
                _ => return Err(garbled("another answer than was asked for")),
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one file on its way")]
    fn patch(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        temp: &Temp,
        key: &Key,
        shape: Shape,
        basis: BorrowedFd<'_>,
        room: u64,
        (session, reply): (&Session, Reply),
    ) -> Result<Option<Attributes>> {
        let write_error = |errno| SyncError::os(errno, "write", self.to.dest_path(dir, op));
        let moved = AtomicBool::new(false);
        let keep = |bytes: &[u8], at| self.to.write_piece(temp.fd.as_fd(), op, bytes, at).map_err(write_error);
        let basis = Basis { file: basis, shape, keep: &keep, moved: &moved };
        let id = reply.id;
        let replies = std::cell::RefCell::new(reply);
        let (mut credit, mut sent) = (Credit::new(room), 0);
        let mut made = |bytes: usize, made| {
            self.allow(bytes as u64)?;
            sent += bytes as u64;
            self.control.bytes.fetch_add(made, Relaxed);
            credit.took(&replies.borrow(), bytes as u64)
        };
        let mut next = || replies.borrow_mut().next().map_err(|error| self.from.at(error));
        let send = |kind, records| session.tell(kind, id, records);
        let (end, whole) = rebuild(key, &basis, op.source.size, &send, &mut next, &mut made)?;
        let mut get = Get(&end.body);
        if end.kind != Kind::Done {
            return Err(garbled("another answer than was asked for"));
        }
        replies.borrow().tally(1, self.tally);
        let now = get.meta(None)?;
        if whole.size != op.source.size || !now.same_state(&op.source) {
            return Err(changed(self.path(dir, op)));
        }
        let wanted = self.kept(get_attributes(&mut get)?);
        if !is_whole(get.0, &whole) {
            return Err(self.wrong(dir, op));
        }
        rustix::fs::ftruncate(&temp.fd, whole.size).map_err(write_error)?;
        self.tally.files_delta_synced.fetch_add(1, Relaxed);
        self.tally.delta_bytes_saved.fetch_add(op.source.size.saturating_sub(sent), Relaxed);
        Ok(wanted)
    }

    fn wrong(&self, dir: &Dir<'_>, op: &Op) -> SyncError {
        self.tally.verification_failures.fetch_add(1, Relaxed);
        not_what_was_sent().at("read", self.path(dir, op))
    }

    /// Which of these files have the content of their twins here.
    fn compare(&self, dir: &Dir<'_>, ops: &[Op], which: &[usize]) -> Vec<Result<bool>> {
        let names: Vec<&[u8]> = which.iter().map(|&n| ops[n].source_name()).collect();
        let one = |(&n, theirs): (&usize, Result<(Meta, [u8; 32])>)| {
            let (op, (now, theirs)) = (&ops[n], theirs?);
            if !now.same_state(&op.source) {
                return Err(changed(self.path(dir, op)));
            }
            let file = self.to.open_dest(dir, op)?;
            let ours = hash_of(file.as_fd(), self.control).map_err(|error| error.at("read", self.to.dest_path(dir, op)))?;
            self.tally.bytes_read.fetch_add(2 * now.size, Relaxed);
            Ok(*ours.as_bytes() == theirs)
        };
        which.iter().zip(self.from.hashes(&dir.key, &names)).map(one).collect()
    }

    fn differs(&self, op: &Op) -> bool {
        op.dest.is_some_and(|old| self.to.keep.differs(&op.source, &old, self.to.precision))
    }

    /// What is to be done about one.
    fn way(&self, dir: &Dir<'_>, op: &mut Op) -> Way {
        if self.control.should_stop() {
            return Way::Done(Err(SyncError::cancelled()));
        }
        match (op.what, op.source.kind) {
            (What::Copy, _) if fits(&op.name).is_err() => {
                Way::Done(fits(&op.name).map_err(|error| error.at("create", self.path(dir, op))).map(|()| Applied::Same.into()))
            }
            (What::Copy, FileKind::File) if op.source.size <= SMALL => Way::Small,
            (What::Copy, FileKind::File) => Way::Done(self.get(dir, op)),
            (What::Copy | What::CopyIfDifferent | What::Metadata | What::Attributes, _) => Way::Describe,
            (What::Nothing | What::Ask, _) => Way::Done(Ok(Applied::Same.into())),
        }
    }
}

impl Lane for PullLane<'_> {
    fn pace(&self) -> Pace {
        self.pace
    }

    fn takes_several(&self) -> bool {
        true
    }

    fn hold(&self, dir: &Dir<'_>) -> Held {
        (None, self.to.dest_dir(dir).ok())
    }

    fn apply(&self, dir: &Dir<'_>, op: &mut Op) -> Result<Done> {
        let mut done = Ok(Applied::Same.into());
        self.apply_all(dir, std::slice::from_mut(op), &mut |_, outcome| done = outcome);
        done
    }

    fn apply_all(&self, dir: &Dir<'_>, ops: &mut [Op], report: &mut dyn FnMut(&mut Op, Result<Done>)) {
        let compared: Vec<usize> =
            (0..ops.len()).filter(|&n| ops[n].what == What::CopyIfDifferent && ops[n].source.kind == FileKind::File).collect();
        let mut described = Vec::new();
        for which in compared.chunks(64) {
            let same = self.compare(dir, ops, which);
            for (&n, same) in which.iter().zip(same) {
                match same {
                    Ok(false) => ops[n].what = What::Copy,
                    Ok(true) if self.to.shares_metadata(&ops[n]) => ops[n].what = What::Copy,
                    Ok(true) => described.push(n),
                    Err(error) => {
                        report(&mut ops[n], Err(error));
                        ops[n].what = What::Ask;
                    }
                }
            }
        }
        let mut coming: std::collections::VecDeque<Coming> = std::collections::VecDeque::new();
        let mut wanted: Vec<usize> = Vec::new();
        let attributes = self.to.keep.reads_attributes(FileKind::File);
        let mut room = 0;
        for n in 0..ops.len() {
            if compared.binary_search(&n).is_ok() && ops[n].what != What::Copy {
                continue;
            }
            match self.way(dir, &mut ops[n]) {
                Way::Done(done) => {
                    report(&mut ops[n], done);
                    continue;
                }
                Way::Describe => {
                    described.push(n);
                    continue;
                }
                Way::Small => wanted.push(n),
            }
            room += ops[n].source.size + 64 + if attributes { FEW as u64 } else { 0 };
            let last = n + 1 == ops.len();
            if room >= TOGETHER || last {
                self.request(dir, ops, std::mem::take(&mut wanted), std::mem::take(&mut room), &mut coming, report);
            }
        }
        if !wanted.is_empty() {
            self.request(dir, ops, wanted, room, &mut coming, report);
        }
        while let Some(one) = coming.pop_front() {
            self.receive(dir, ops, one, report);
        }
        self.describe_all(dir, ops, &described, report);
    }

    fn examine(&self, dir: &Dir<'_>, op: &Op) -> Result<Applied> {
        let differs = || match self.to.keep.reads_attributes(op.source.kind) {
            _ if self.differs(op) => Ok(true),
            true if op.dest.is_some() => {
                let theirs = self.seen.get(self.from, &dir.key, op.source_name(), self.to.keep)?;
                self.to.attributes_differ(dir, op, &self.to.keep.of_those(theirs.all))
            }
            _ => Ok(false),
        };
        Ok(match op.what {
            What::CopyIfDifferent if op.source.kind == FileKind::File => {
                match self.compare(dir, std::slice::from_ref(op), &[0]).pop().unwrap_or(Ok(false))? {
                    false => Applied::Updated,
                    true if self.to.shares_metadata(op) => Applied::Updated,
                    true if differs()? => Applied::Metadata,
                    true => Applied::Same,
                }
            }
            What::Copy | What::CopyIfDifferent if op.dest.is_some() => Applied::Updated,
            What::Copy | What::CopyIfDifferent => {
                fits(&op.name).map_err(|error| error.at("create", self.path(dir, op)))?;
                Applied::Created
            }
            What::Metadata => Applied::Metadata,
            What::Attributes if differs()? => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.from.refresh(dir, op)
    }

    fn examine_make_dir(&self, parent: &Dir<'_>, name: &[u8]) -> Result<()> {
        fits(name).map_err(|error| error.at("create", self.from.path_of(&parent.key_of(name))))
    }

    fn make_dir(&self, parent: &Dir<'_>, name: &[u8], source: &Meta, replaced: Option<&Meta>) -> Result<()> {
        self.examine_make_dir(parent, name)?;
        self.to.make_dir(parent, name, source, replaced)
    }

    fn finish_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.finish_later(dir)
    }

    fn settle(&self, report: &mut dyn FnMut(Settled)) {
        self.finishing.settle(&|dir, answer| self.finish(dir, answer), report);
    }

    fn examine_dir(&self, dir: &Dir<'_>) -> Result<bool> {
        self.dir_attributes_differ(dir)
    }

    fn is_linked(&self, op: &Op, leader: &[u8]) -> bool {
        let (dir, name) = crate::transport::split_key(leader);
        let found = self.to.root.open_dir(dir).and_then(|dir| stat_at(dir.as_fd(), name));
        matches!((found, &op.dest), (Ok(leader), Some(own)) if leader.identity() == own.identity())
    }

    fn hard_link(&self, dir: &Dir<'_>, op: &Op, leader: &[u8]) -> Result<Option<Applied>> {
        self.to.hard_link(dir, op, leader)
    }

    fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let fail = |errno| SyncError::os(errno, "remove the source", self.path(dir, op));
        let copy = stat_at(self.to.dest_dir(dir)?.as_fd(), &op.name).map_err(fail)?;
        if !copy.looks_like(&op.source) {
            return Err(not_in_place(self.path(dir, op)));
        }
        self.from.remove_source(dir, op)
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

    fn sync_all(&self) -> Result<()> {
        self.to.sync_all()
    }
}

impl PullLane<'_> {
    /// Asks for some files, making room by writing what has been asked for before.
    fn request(
        &self,
        dir: &Dir<'_>,
        ops: &mut [Op],
        which: Vec<usize>,
        room: u64,
        coming: &mut std::collections::VecDeque<Coming>,
        report: &mut dyn FnMut(&mut Op, Result<Done>),
    ) {
        while !self.window.try_take(room) {
            match coming.pop_front() {
                Some(one) => self.receive(dir, ops, one, report),
                None if self.window.take(room, self.from.stop()) => break,
                None => {
                    which.into_iter().for_each(|n| report(&mut ops[n], Err(SyncError::cancelled())));
                    return;
                }
            }
        }
        match self.fetch(dir, ops, which, room) {
            Ok(one) => coming.push_back(one),
            Err(lost) => lost.1.iter().for_each(|&n| report(&mut ops[n], Err(lost.0.clone()))),
        }
    }
}
