//! The source's side: sends contents.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use super::queue::Queue;
use super::{Out, answer, fail};
use crate::delta::Key;
use crate::error::{Result, SyncError};
use crate::sync::{Control, Dir, Finisher, Reason};
use crate::transport::local::{Attributes, Keep, LocalEndpoint, Reader, changed, hash_of, names, read_at, stat_fd};
use crate::transport::ssh::accounts;
use crate::transport::ssh::difference::{How, Search, common_part, from_start, put_whole, search};
use crate::transport::ssh::extents::Extents;
use crate::transport::ssh::piece::read_piece;
use crate::transport::ssh::wire::attributes::{get_wish, put_attributes, sendable};
use crate::transport::ssh::wire::{Frame, Get, Kind, PIECE, Put, body, body_len, body_of, garbled};
use crate::transport::{Kind as FileKind, Known, Meta, Op, Time, What};

/// Small files go together in messages of about this size.
const TOGETHER: usize = 256 << 10;
/// Bytes of attributes that come along with a small file, at most.
pub const FEW: usize = 4 << 10;

pub struct Sources<'s> {
    reader: Reader<'s>,
    control: &'s Control,
    out: &'s Out,
    /// What may be sent of each large file.
    credits: Mutex<HashMap<u32, u64>>,
    /// Where signatures for those go.
    signatures: Mutex<HashMap<u32, mpsc::Sender<Frame>>>,
    more: Condvar,
}

/// Nobody is to be told.
#[derive(Debug)]
pub struct Silent;

impl Finisher for Silent {
    fn finish(&self, _: &Dir<'_>) {}
}

/// An operation that only says which file is meant.
pub fn named(name: &[u8]) -> Op {
    let source = Meta {
        kind: FileKind::File,
        size: 0,
        mtime: Time::default(),
        ctime: Time::default(),
        mode: 0,
        uid: 0,
        gid: 0,
        nlink: 1,
        ino: 0,
        dev: 0,
        rdev: 0,
        allocated: 0,
        mount: false,
        tagged: false,
        known: Known::NOTHING,
    };
    Op {
        name: name.into(),
        source_name: None,
        source,
        target: None,
        dest: None,
        dest_target: None,
        what: What::Copy,
        reason: Reason::New,
        write_out: false,
    }
}

impl<'s> Sources<'s> {
    pub fn new(endpoint: &'s LocalEndpoint, control: &'s Control, out: &'s Out) -> Self {
        Self { reader: Reader::new(endpoint), control, out, credits: Mutex::default(), signatures: Mutex::default(), more: Condvar::new() }
    }

    fn credits(&self) -> MutexGuard<'_, HashMap<u32, u64>> {
        self.credits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signatures(&self) -> MutexGuard<'_, HashMap<u32, mpsc::Sender<Frame>>> {
        self.signatures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn close(&self) {
        self.credits().clear();
        self.signatures().clear();
        self.more.notify_all();
    }

    pub fn take<'scope, 'env: 'scope>(&'env self, frame: Frame, queue: &Queue<'env>, threads: &'scope Scope<'scope, 'env>) -> Result<()> {
        if frame.kind == Kind::Signature {
            let receiver = self.signatures().get(&frame.id).cloned();
            if let Some(receiver) = receiver {
                let _ = receiver.send(frame);
            }
            return Ok(());
        }
        let Frame { kind, id, body, .. } = frame;
        match kind {
            Kind::Fetch => queue.push(body.len(), Box::new(move || drop(self.fetch(id, &body)))),
            Kind::Attributes | Kind::AllAttributes => {
                queue.push(body.len(), Box::new(move || drop(answer(self.out, id, self.attributes(&body, kind == Kind::AllAttributes)))))
            }
            Kind::DirAttributes => queue.push(body.len(), Box::new(move || drop(answer(self.out, id, self.dir_attributes(&body))))),
            Kind::Accounts => queue.push(body.len(), Box::new(move || drop(answer(self.out, id, accounts::answer(&body))))),
            Kind::Hashes => queue.push(body.len(), Box::new(move || drop(answer(self.out, id, self.hashes(&body))))),
            Kind::RemoveSource => queue.push(body.len(), Box::new(move || drop(answer(self.out, id, self.remove(&body))))),
            Kind::FetchFile => {
                let granted = Get(&body).u64()?;
                self.credits().insert(id, granted);
                let (sender, signature) = mpsc::channel();
                self.signatures().insert(id, sender);
                threads.spawn(move || {
                    let sent = self.fetch_file(id, &body, &signature);
                    self.credits().remove(&id);
                    self.signatures().remove(&id);
                    if let Err(error) = sent {
                        let _ = fail(self.out, id, &error);
                    }
                });
            }
            Kind::Credit => {
                let more = Get(&body).u64()?;
                if let Some(credit) = self.credits().get_mut(&id) {
                    *credit = credit.saturating_add(more);
                }
                self.more.notify_all();
            }
            // Without credits nothing more is sent.
            _ => {
                self.credits().remove(&id);
                self.signatures().remove(&id);
                self.more.notify_all();
            }
        }
        Ok(())
    }

    /// Small files of one directory: name after name, as many in a message as fit.
    fn fetch(&self, id: u32, request: &[u8]) -> Result<()> {
        let sent = (|| {
            let mut get = Get(request);
            let dir = Dir::new(get.key()?, None, None, None, &Silent);
            let keep = get_wish(&mut get)?;
            let mut part = body();
            let mut content = Vec::new();
            while !get.is_empty() {
                let (op, size) = (named(get.name()?), get.usize()?.min(TOGETHER * 2));
                content.clear();
                match self.small(&dir, &op, size, keep, &mut content) {
                    Ok((meta, attributes)) => {
                        if body_len(&part) + content.len() > TOGETHER && body_len(&part) > 0 {
                            self.out.send(Kind::Content, id, std::mem::replace(&mut part, body()).0)?;
                        }
                        part.u8(1).meta(&meta, None).bytes(&content);
                        // More than nearly all files have; the other side has to make room for those that have it.
                        let few = attributes.as_ref().is_none_or(|all| all.size() <= FEW);
                        part.bool(few);
                        if few {
                            put_attributes(&mut part, attributes.as_ref());
                        }
                    }
                    Err(error) => {
                        part.u8(0).error(&error);
                    }
                }
            }
            self.out.send(Kind::Content, id, part.0)
        })();
        match sent {
            Ok(()) => self.out.send(Kind::Done, id, body().0),
            Err(error) => fail(self.out, id, &error),
        }
    }

    /// The content and the state after it was read. `size` is what the other side has room for.
    fn small(&self, dir: &Dir<'_>, op: &Op, size: usize, keep: Keep, content: &mut Vec<u8>) -> Result<(Meta, Option<Attributes>)> {
        let file = self.reader.open(dir, op)?;
        let fail = |errno| SyncError::os(errno, "read", self.reader.path(dir, op));
        content.resize(size + 1, 0);
        let n = read_at(file.as_fd(), content, 0).map_err(fail)?;
        content.truncate(n);
        let attributes = self.reader.attributes_of(dir, op, file.as_fd(), keep)?;
        let meta = stat_fd(file.as_fd()).map_err(fail)?;
        if meta.kind != FileKind::File || n as u64 != meta.size {
            return Err(changed(self.reader.path(dir, op)));
        }
        Ok((meta, attributes))
    }

    /// The attributes of entries of a directory, as many as fit into a message: of those that are named, or of all after a name.
    fn attributes(&self, request: &[u8], all: bool) -> Result<Put> {
        let mut get = Get(request);
        let dir = Dir::new(get.key()?, None, None, None, &Silent);
        let keep = get_wish(&mut get)?;
        let mut answer = body();
        answer.bool(rustix::process::geteuid().is_root());
        let names = if all { self.names_after(&dir, get.bytes()?)? } else { Vec::new() };
        let mut listed = names.iter();
        while body_len(&answer) < TOGETHER {
            let op = match (all, listed.next()) {
                (true, Some(name)) => named(name),
                (false, _) if !get.is_empty() => named(get.name()?),
                _ => break,
            };
            if all {
                answer.bytes(&op.name);
            }
            let found = self.reader.attributes(&dir, &op, keep);
            match found.and_then(|found| found.map(|found| sendable(found, || self.reader.path(&dir, &op))).transpose()) {
                Ok(attributes) => {
                    answer.u8(1);
                    put_attributes(&mut answer, attributes.as_ref());
                }
                Err(error) => {
                    answer.u8(0).error(&error);
                }
            }
        }
        Ok(answer)
    }

    fn names_after(&self, dir: &Dir<'_>, after: &[u8]) -> Result<Vec<Vec<u8>>> {
        let handle = self.reader.dir(dir)?;
        let mut names = names(handle.as_fd()).map_err(|errno| SyncError::os(errno, "list", self.reader.root.path_of(&dir.key)))?;
        names.retain(|name| name.as_slice() > after);
        names.sort_unstable();
        Ok(names)
    }

    fn dir_attributes(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = Dir::new(get.key()?, None, None, None, &Silent);
        let own = self.reader.dir_attributes(&dir, get_wish(&mut get)?)?;
        let mut answer = body();
        answer.bool(rustix::process::geteuid().is_root());
        put_attributes(&mut answer, Some(&sendable(own, || self.reader.root.path_of(&dir.key))?));
        Ok(answer)
    }

    /// Waits until something may be sent of a large file; takes what there is, `most` of it.
    fn credit(&self, id: u32, most: u64) -> Result<u64> {
        let mut credits = self.credits();
        loop {
            let credit = credits.get_mut(&id).ok_or_else(SyncError::cancelled)?;
            if *credit > 0 {
                let taken = most.min(*credit);
                *credit -= taken;
                return Ok(taken);
            }
            credits = self.more.wait(credits).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A large file or a range of it in pieces, then the state after it was read and its hash.
    fn fetch_file(&self, id: u32, request: &[u8], signature: &Receiver<Frame>) -> Result<()> {
        let mut get = Get(request);
        get.u64()?;
        let dir = Dir::new(get.key()?, None, None, None, &Silent);
        let op = named(get.name()?);
        let (keep, holes) = (get_wish(&mut get)?, get.bool()?);
        let (how, from, to) = (How::of(get.u8()?)?, get.u64()?, get.u64()?);
        let key = Key::new(get.0.try_into().map_err(|_| garbled("no secret"))?);
        let file = self.reader.open(&dir, &op)?;
        let path = self.reader.path(&dir, &op);
        let read_error = |errno| SyncError::os(errno, "read", &path);
        let before = stat_fd(file.as_fd()).map_err(read_error)?;
        if before.kind != FileKind::File {
            return Err(changed(path));
        }
        let mut next = || signature.recv().map_err(|_| SyncError::cancelled());
        let mut end = body();
        let complete = match how {
            How::Difference => {
                let mut send = |kind, pieces: Put| {
                    self.credit(id, body_len(&pieces) as u64)?;
                    self.out.send(kind, id, pieces.0)
                };
                let found =
                    search(&key, Search { read: &mut from_start(file.as_fd()), next: &mut next, send: &mut send, seen: &mut |_| Ok(()) })
                        .map_err(|error| if error.path.is_none() { error.at("read", &path) } else { error })?;
                put_whole(&mut end, &found.whole);
                found.whole.size == before.size
            }
            How::Whole | How::Rest => {
                let end_at = to.min(before.size);
                let mut at = from.min(end_at);
                if how == How::Rest {
                    at = common_part(&key, &mut from_start(file.as_fd()), from.min(before.size), &mut next)?;
                    let mut start = body();
                    start.u64(at);
                    self.out.send(Kind::Credit, id, start.0)?;
                }
                let mut hash = blake3::Hasher::new();
                let mut data = Extents::new(file.as_fd(), &before);
                while at < end_at {
                    let hole = if holes { data.hole(at).map_err(read_error)?.min(end_at - at) } else { 0 };
                    if hole > 0 {
                        let mut piece = body();
                        piece.u64(hole);
                        self.credit(id, 1)?;
                        self.out.send(Kind::Hole, id, piece.0)?;
                        at += hole;
                        continue;
                    }
                    let stop = if holes { data.end(at).min(end_at) } else { end_at };
                    let want = self.credit(id, (stop - at).min(PIECE as u64))? as usize;
                    let piece = read_piece(file.as_fd(), at, want).map_err(read_error)?;
                    let n = body_len(&piece);
                    if n == 0 {
                        break;
                    }
                    hash.update(body_of(&piece));
                    self.out.send(Kind::Data, id, piece.0)?;
                    at += n as u64;
                }
                end.0.extend_from_slice(hash.finalize().as_bytes());
                at == end_at
            }
            How::Ranges => return Err(garbled("a way that is none of reading")),
        };
        let attributes = self.reader.attributes_of(&dir, &op, file.as_fd(), keep)?;
        let attributes = attributes.map(|found| sendable(found, || path.clone())).transpose()?;
        let after = stat_fd(file.as_fd()).map_err(read_error)?;
        if !complete || !after.same_state(&before) {
            return Err(changed(path));
        }
        let mut answer = body();
        answer.meta(&after, None);
        put_attributes(&mut answer, attributes.as_ref());
        answer.0.extend_from_slice(&end.0[body().0.len()..]);
        self.out.send(Kind::Done, id, answer.0)
    }

    /// The hashes of whole files, for a comparison of contents.
    fn hashes(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = Dir::new(get.key()?, None, None, None, &Silent);
        let mut answer = body();
        while !get.is_empty() {
            let op = named(get.name()?);
            let hashed = self.reader.open(&dir, &op).and_then(|file| {
                let hash = hash_of(file.as_fd(), self.control).map_err(|error| error.at("read", self.reader.path(&dir, &op)))?;
                Ok((stat_fd(file.as_fd()).map_err(|errno| SyncError::os(errno, "read", self.reader.path(&dir, &op)))?, hash))
            });
            match hashed {
                Ok((meta, hash)) => {
                    answer.u8(1).meta(&meta, None);
                    answer.0.extend_from_slice(hash.as_bytes());
                }
                Err(error) => {
                    answer.u8(0).error(&error);
                }
            }
        }
        Ok(answer)
    }

    /// Removes a file if it is still what was copied.
    fn remove(&self, request: &[u8]) -> Result<Put> {
        let mut get = Get(request);
        let dir = Dir::new(get.key()?, None, None, None, &Silent);
        let op = crate::transport::ssh::wire::message::get_op(&mut get)?;
        self.reader.remove(&dir, &op)?;
        Ok(body())
    }
}
