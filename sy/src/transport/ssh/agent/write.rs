//! The destination's side: carries changes out.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use rustix::fs::{Mode, OFlags};

use super::queue::Queue;
use super::read::Silent;
use super::{Out, answer, fail};
use crate::cli::Options;
use crate::delta::{Key, Shape};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir};
use crate::transport::local::{Attributes, LocalEndpoint, Temp, Writer, check_room, hash_of, is_ours, stat_at, stat_fd, write_at};
use crate::transport::ssh::difference::{Basis, How, is_whole, rebuild, sum_part};
use crate::transport::ssh::wire::attributes::get_attributes;
use crate::transport::ssh::wire::message::{get_doomed, get_op, get_optional_meta, put_applied};
use crate::transport::ssh::wire::{Frame, Get, Kind, Put, body, garbled, not_what_was_sent};
use crate::transport::{Applied, Kind as FileKind, Op, What, child_key};

/// Pieces of a large file that wait to be written.
const PIECES: usize = 16;
/// Before a file of this size is begun, the file system is asked whether it has room.
const LARGE: u64 = 64 << 20;

pub struct Changes<'s> {
    writer: Writer<'s>,
    out: &'s Out,
    control: &'s Control,
    /// Directories that something was written into, until they are finished.
    dirs: Mutex<HashMap<Vec<u8>, Arc<Dir<'static>>>>,
    /// Directories that could not be made, and why.
    unmade: Mutex<HashMap<Vec<u8>, SyncError>>,
    /// Large files on their way.
    files: Mutex<HashMap<u32, SyncSender<Frame>>>,
}

/// For a directory that only this side knows of.
pub static SILENT: Silent = Silent;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn cut_off() -> SyncError {
    SyncError::new(ErrorKind::Network, "the transfer was cut off").retryable()
}

/// Under which name a file is being made.
fn named(temp: &Temp) -> Put {
    let mut name = body();
    name.bytes(temp.name());
    name
}

impl<'s> Changes<'s> {
    pub fn new(endpoint: &'s LocalEndpoint, options: &Options, precision: u64, control: &'s Control, out: &'s Out) -> Result<Self> {
        let writer = Writer::new(endpoint, options, precision, control)?;
        Ok(Self { writer, out, control, dirs: Mutex::default(), unmade: Mutex::default(), files: Mutex::default() })
    }

    pub fn close(&self) {
        lock(&self.files).clear();
    }

    /// A large file is given up.
    pub fn forget(&self, id: u32) {
        lock(&self.files).remove(&id);
    }

    fn dir(&self, key: &[u8]) -> Arc<Dir<'static>> {
        let mut dirs = lock(&self.dirs);
        Arc::clone(dirs.entry(key.to_vec()).or_insert_with(|| Arc::new(Dir::new(key, None, None, None, &SILENT))))
    }

    fn made(&self, key: &[u8]) -> Result<Arc<Dir<'static>>> {
        self.must_be_made(key)?;
        Ok(self.dir(key))
    }

    /// Not if a directory, or one that it is in, could not be made: the other side does not wait to be told so.
    fn must_be_made(&self, key: &[u8]) -> Result<()> {
        let unmade = lock(&self.unmade);
        if !unmade.is_empty() {
            let ends = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end).chain([key.len()]);
            if let Some(why) = ends.into_iter().find_map(|end| unmade.get(&key[..end])) {
                let message = format!("its directory could not be made: {}", why.message);
                return Err(SyncError { message, path: None, action: "", ..why.clone() });
            }
        }
        Ok(())
    }

    pub fn take<'scope, 'env: 'scope>(&'env self, frame: Frame, queue: &Queue<'env>, threads: &'scope Scope<'scope, 'env>) -> Result<()> {
        let id = frame.id;
        match frame.kind {
            // These come in an order that has to be kept, and are quickly done.
            Kind::MakeDir => answer(self.out, id, self.make_dir(&frame.body)),
            Kind::FinishDir => answer(self.out, id, self.finish_dir(&frame.body)),
            Kind::TouchDir => answer(self.out, id, self.touch_dir(&frame.body)),
            Kind::CleanUp => answer(self.out, id, self.clean_up(&frame.body)),
            Kind::Ops | Kind::Remove | Kind::HardLink | Kind::SyncAll => {
                queue.push(
                    frame.body.len(),
                    Box::new(move || {
                        let done = match frame.kind {
                            Kind::Ops => self.ops(&frame.body),
                            Kind::Remove => self.remove(&frame.body),
                            Kind::HardLink => self.hard_link(&frame.body),
                            _ => self.writer.sync_all().map(|()| body()),
                        };
                        let _ = answer(self.out, id, done);
                    }),
                );
                Ok(())
            }
            Kind::Put | Kind::PutRange => {
                let (sender, pieces) = mpsc::sync_channel(PIECES);
                lock(&self.files).insert(id, sender);
                threads.spawn(move || {
                    let done =
                        if frame.kind == Kind::Put { self.put(id, &frame.body, &pieces) } else { self.put_range(&frame.body, &pieces) };
                    lock(&self.files).remove(&id);
                    let _ = answer(self.out, id, done);
                });
                Ok(())
            }
            Kind::Data | Kind::Hole | Kind::Copy | Kind::End => {
                let file = lock(&self.files).get(&id).cloned();
                // One that failed has no use for the rest.
                if let Some(file) = file {
                    let _ = file.send(frame);
                }
                Ok(())
            }
            _ => fail(self.out, id, &garbled("a request that there is not")),
        }
    }

    fn make_dir(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let (key, name) = (get.key()?, get.name()?);
        let source = get.meta(None)?;
        let replaced = get_optional_meta(&mut get, Some(&source))?;
        // Whether that was made is not known: the connection was cut.
        let again = get.bool()?;
        let is_there = |parent: &Dir<'_>| -> Result<bool> {
            let found = stat_at(self.writer.dest_dir(parent)?.as_fd(), name);
            Ok(found.is_ok_and(|found| found.kind == FileKind::Dir))
        };
        let made = self.made(key).and_then(|parent| match again && is_there(&parent)? {
            true => Ok(()),
            false => self.writer.make_dir(&parent, name, &source, replaced.as_ref()),
        });
        made.map(|()| body()).inspect_err(|error| {
            lock(&self.unmade).insert(child_key(key, name), error.clone());
        })
    }

    fn finish_dir(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let key = get.key()?;
        let like = get_optional_meta(&mut get, None)?;
        let had = get_optional_meta(&mut get, like.as_ref())?;
        let touched = get.bool()?;
        let known = lock(&self.dirs).remove(key);
        if self.must_be_made(key).is_err() {
            // That has been said.
            let mut answer = body();
            answer.bool(false);
            return Ok(answer);
        }
        let dir = Dir::new(key, None, like, had, &SILENT);
        if let Some(known) = &known {
            if let Some(&mode) = known.lifted.get() {
                let _ = dir.lifted.set(mode);
            }
            if known.is_touched() {
                dir.touch();
            }
        }
        if touched {
            dir.touch();
        }
        let mut sent = self.attributes(&mut get)?;
        let mut wanted = || sent.take().ok_or_else(|| garbled("a directory without its attributes"));
        let differed = self.writer.finish_dir(&dir, &mut wanted)?;
        let mut answer = body();
        answer.bool(differed);
        Ok(answer)
    }

    /// What came of attributes, as far as this side has a use for them.
    fn attributes(&self, get: &mut Get<'_>) -> Result<Option<Attributes>> {
        Ok(get_attributes(get)?.map(|sent| self.writer.keep.of_those(sent)))
    }

    fn touch_dir(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        self.writer.touch_dir(get.key()?, get.time()?)?;
        Ok(body())
    }

    fn clean_up(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = self.dir(get.key()?);
        let mut leftovers: Vec<Box<[u8]>> = Vec::new();
        for _ in 0..get.usize()? {
            leftovers.push(get.name()?.into());
        }
        let mut wanted = Vec::new();
        while !get.is_empty() {
            wanted.push(get_op(&mut get)?);
        }
        // Whatever the other side calls a leftover, only what has such a name is removed.
        leftovers.retain(|name| is_ours(name));
        self.writer.clean_up(&dir, &leftovers, &wanted);
        Ok(body())
    }

    fn remove(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = get.key()?.to_vec();
        let mut doomed = Vec::new();
        while !get.is_empty() {
            doomed.push(get_doomed(&mut get, &dir)?);
        }
        let mut answer = body();
        self.writer.remove(&dir, &doomed, &mut |_, outcome| {
            match outcome {
                Ok(()) => answer.u8(1),
                Err(error) => answer.u8(0).error(&error),
            };
        });
        Ok(answer)
    }

    /// Operations of one directory, each with what it needs, one answer for all.
    fn ops(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = self.made(get.key()?)?;
        let _held = self.writer.dest_dir(&dir);
        let mut answer = body();
        while !get.is_empty() {
            let op = get_op(&mut get)?;
            let content = get.option()?;
            let wanted = self.attributes(&mut get)?;
            if self.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            match self.one(&dir, &op, content, wanted.as_ref()) {
                Ok((applied, made)) => {
                    answer.u8(1);
                    put_applied(&mut answer, applied);
                    answer.bool(made);
                }
                Err(error) => {
                    answer.u8(0).error(&error);
                }
            }
        }
        Ok(answer)
    }

    /// What was done, and whether the content is the one that was sent.
    fn one(&self, dir: &Dir<'_>, op: &Op, content: Option<&[u8]>, wanted: Option<&Attributes>) -> Result<(Applied, bool)> {
        match (op.what, op.source.kind, content) {
            (What::Copy, FileKind::File, Some(content)) => {
                if content.len() as u64 != op.source.size {
                    return Err(garbled("a file that is not as long as it is said to be"));
                }
                self.writer.write_small(dir, op, content, wanted).map(|applied| (applied, true))
            }
            (What::Copy | What::CopyIfDifferent, FileKind::File, None) => Err(garbled("a file without content")),
            (What::CopyIfDifferent, FileKind::File, Some(hash)) => {
                if !self.has_content(dir, op, hash)? || self.writer.shares_metadata(op) {
                    return Ok((Applied::Same, false));
                }
                self.writer.set_metadata(dir, op, wanted).map(|applied| (applied, true))
            }
            (What::Copy | What::CopyIfDifferent, _, _) => self.writer.make_other(dir, op, wanted).map(|applied| (applied, true)),
            (What::Metadata | What::Attributes, _, _) => self.writer.set_metadata(dir, op, wanted).map(|applied| (applied, true)),
            (What::Nothing | What::Ask, _, _) => Ok((Applied::Same, true)),
        }
    }

    fn has_content(&self, dir: &Dir<'_>, op: &Op, hash: &[u8]) -> Result<bool> {
        let Some(old) = &op.dest else { return Ok(false) };
        if old.kind != FileKind::File || old.size != op.source.size {
            return Ok(false);
        }
        let file = self.writer.open_dest(dir, op)?;
        let own = hash_of(file.as_fd(), self.control).map_err(|error| error.at("read", self.writer.dest_path(dir, op)))?;
        Ok(own.as_bytes()[..] == *hash)
    }

    /// A large file, whose content comes in pieces.
    fn put(&self, id: u32, request: &[u8], pieces: &Receiver<Frame>) -> Result<Put> {
        let mut get = Get(request);
        let dir = self.made(get.key()?)?;
        let op = get_op(&mut get)?;
        let wanted = self.attributes(&mut get)?;
        let how = How::of(get.u8()?)?;
        let key = Key::new(get.0.try_into().map_err(|_| garbled("no secret"))?);
        let dest_dir = self.writer.dest_dir(&dir)?;
        let temp = self.writer.create(&dir, &op, &op.source, dest_dir.as_fd())?;
        let filled = match how {
            How::Difference => self.patch(id, &dir, &op, &key, &temp, pieces),
            How::Whole | How::Rest => self.fill(id, &dir, &op, how, &key, &temp, pieces),
            How::Ranges => self
                .fill(id, &dir, &op, how, &key, &temp, pieces)
                .and_then(|()| self.out.send(Kind::Credit, id, named(&temp).0))
                .and_then(|()| self.await_ranges(&dir, &op, &temp, pieces)),
        };
        let filled = filled.and_then(|()| {
            // Nobody but this side has the hash of a file that was put together; read back, it is compared with what was written.
            let hash = if self.writer.verify { Some(hash_of(temp.fd.as_fd(), self.control)?) } else { None };
            self.writer.complete(&dir, &op, wanted.as_ref(), &temp, dest_dir.as_fd(), || hash.unwrap_or_else(|| blake3::hash(b"")))
        });
        let applied = self.writer.settle(&dir, &op, temp, dest_dir.as_fd(), filled)?;
        let mut answer = body();
        put_applied(&mut answer, applied);
        Ok(answer)
    }

    /// Content as it is, or what of it is not here yet; if the rest comes in ranges, what was here of it.
    #[expect(clippy::too_many_arguments, reason = "one file on its way")]
    fn fill(&self, id: u32, dir: &Dir<'_>, op: &Op, how: How, key: &Key, temp: &Temp, pieces: &Receiver<Frame>) -> Result<()> {
        let write_error = |errno| SyncError::os(errno, "write", self.writer.dest_path(dir, op));
        let rest = how != How::Whole;
        let have = if rest { temp.have.min(op.source.size) } else { 0 };
        let (mut at, size) = (0_u64, if how == How::Ranges { have } else { op.source.size });
        if rest {
            let mut first = body();
            first.u64(have);
            self.out.send(Kind::Credit, id, first.0)?;
            sum_part(key, temp.fd.as_fd(), have, &mut |kind, sums| self.out.send(kind, id, sums.0))?;
        }
        let mut hash = blake3::Hasher::new();
        let (mut begun, mut told) = (false, !rest);
        for frame in pieces {
            match frame.kind {
                Kind::Hole if !told => {
                    // From here on it has to be sent.
                    told = true;
                    at = Get(&frame.body).u64()?;
                    if at > have {
                        return Err(garbled("a part that is not here"));
                    }
                    continue;
                }
                Kind::Data | Kind::Hole | Kind::End if !begun => {
                    begun = true;
                    if temp.have > at {
                        rustix::fs::ftruncate(&temp.fd, at).map_err(write_error)?;
                    }
                    if op.source.size >= LARGE {
                        check_room(temp.fd.as_fd(), self.writer.room_for(op).saturating_sub(at)).map_err(write_error)?;
                    }
                }
                _ => {}
            }
            match frame.kind {
                Kind::Data => {
                    if frame.body.len() as u64 > size - at {
                        return Err(garbled("a file that is longer than it is said to be"));
                    }
                    write_at(temp.fd.as_fd(), &frame.body, at).map_err(write_error)?;
                    hash.update(&frame.body);
                    at += frame.body.len() as u64;
                }
                Kind::Hole => {
                    let length = Get(&frame.body).u64()?;
                    if length > size - at {
                        return Err(garbled("a file that is longer than it is said to be"));
                    }
                    self.writer.write_hole(temp.fd.as_fd(), at, length).map_err(write_error)?;
                    at += length;
                }
                Kind::End if at != size => return Err(garbled("a file that is shorter than it is said to be")),
                Kind::End if frame.body != hash.finalize().as_bytes() => return Err(self.wrong(dir, op)),
                Kind::End => return Ok(()),
                _ => return Err(garbled("a piece of another kind")),
            }
        }
        Err(cut_off())
    }

    /// What differs from the file that is to be replaced.
    fn patch(&self, id: u32, dir: &Dir<'_>, op: &Op, key: &Key, temp: &Temp, pieces: &Receiver<Frame>) -> Result<()> {
        let write_error = |errno| SyncError::os(errno, "write", self.writer.dest_path(dir, op));
        let old = op.dest.as_ref().ok_or_else(|| garbled("a difference from nothing"))?;
        let basis = self.writer.open_dest(dir, op)?;
        let now = stat_fd(basis.as_fd()).map_err(|errno| SyncError::os(errno, "read", self.writer.dest_path(dir, op)))?;
        if (now.kind, now.ino, now.size, now.mtime) != (old.kind, old.ino, old.size, old.mtime) {
            return Err(SyncError::new(ErrorKind::Conflict, "it changed since it was listed").at("replace", self.writer.dest_path(dir, op)));
        }
        if temp.have > 0 {
            rustix::fs::ftruncate(&temp.fd, 0).map_err(write_error)?;
        }
        if op.source.size >= LARGE {
            check_room(temp.fd.as_fd(), self.writer.room_for(op)).map_err(write_error)?;
        }
        let moved = AtomicBool::new(false);
        let keep = |bytes: &[u8], at| self.writer.write_piece(temp.fd.as_fd(), op, bytes, at).map_err(write_error);
        let basis = Basis { file: basis.as_fd(), shape: Shape::of(old.size), keep: &keep, moved: &moved };
        let send = |kind, records: Put| self.out.send(kind, id, records.0);
        let (end, whole) = rebuild(key, &basis, op.source.size, &send, &mut || pieces.recv().map_err(|_| cut_off()), &mut |_, _| Ok(()))?;
        if end.kind != Kind::End || whole.size != op.source.size || !is_whole(&end.body, &whole) {
            return Err(self.wrong(dir, op));
        }
        rustix::fs::ftruncate(&temp.fd, whole.size).map_err(write_error)
    }

    fn wrong(&self, dir: &Dir<'_>, op: &Op) -> SyncError {
        not_what_was_sent().at("write", self.writer.dest_path(dir, op))
    }

    /// Waits while the rest of a file is written by way of other connections.
    fn await_ranges(&self, dir: &Dir<'_>, op: &Op, temp: &Temp, pieces: &Receiver<Frame>) -> Result<()> {
        match pieces.recv() {
            Ok(Frame { kind: Kind::End, .. }) => rustix::fs::ftruncate(&temp.fd, op.source.size)
                .map_err(|errno| SyncError::os(errno, "write", self.writer.dest_path(dir, op))),
            Ok(_) => Err(garbled("a piece of another kind")),
            Err(_) => Err(cut_off()),
        }
    }

    /// A range of a file that another request, maybe to another process, puts in place.
    fn put_range(&self, request: &[u8], pieces: &Receiver<Frame>) -> Result<Put> {
        let mut get = Get(request);
        let (dir, name) = (self.made(get.key()?)?, get.name()?);
        let (mut at, end) = (get.u64()?, get.u64()?);
        get.end()?;
        let path = || self.writer.root.path_of(&dir.key);
        let fail = |errno| SyncError::os(errno, "write", path());
        let dest_dir = self.writer.dest_dir(&dir)?;
        let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dest_dir.as_fd(), name, flags, Mode::empty()).map_err(fail)?;
        let state = stat_fd(file.as_fd()).map_err(fail)?;
        let own = state.kind == FileKind::File && state.nlink == 1 && state.uid == rustix::process::geteuid().as_raw();
        if !own || !is_ours(name) {
            return Err(garbled("a range of a file that is not being made"));
        }
        let mut hash = blake3::Hasher::new();
        for frame in pieces {
            match frame.kind {
                Kind::Data if frame.body.len() as u64 > end.saturating_sub(at) => return Err(garbled("more than a range")),
                Kind::Data => {
                    write_at(file.as_fd(), &frame.body, at).map_err(fail)?;
                    hash.update(&frame.body);
                    at += frame.body.len() as u64;
                }
                Kind::End if at != end => return Err(garbled("less than a range")),
                Kind::End if frame.body != hash.finalize().as_bytes() => return Err(not_what_was_sent().at("write", path())),
                Kind::End => return Ok(body()),
                _ => return Err(garbled("a piece of another kind")),
            }
        }
        Err(cut_off())
    }

    /// Makes an entry another name of `leader`; the answer says if that could not be.
    fn hard_link(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let (dir, leader) = (self.made(get.key()?)?, get.key()?);
        let op = get_op(&mut get)?;
        let mut answer = body();
        match self.writer.hard_link(&dir, &op, leader)? {
            Some(applied) => {
                answer.bool(true);
                put_applied(&mut answer, applied);
            }
            None => {
                answer.bool(false);
            }
        }
        Ok(answer)
    }
}
