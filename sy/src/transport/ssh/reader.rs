//! Reads from a directory tree on a host through the agent there, wherever the content goes.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::SshEndpoint;
use super::difference::{How, secret};
use super::push::SMALL;
use super::session::Reply;
use super::window::{AHEAD, Credit, Window};
use super::wire::attributes::{get_attributes, put_wish};
use super::wire::message::put_op;
use super::wire::{Frame, Get, Kind, PIECE, body, garbled, not_what_was_sent};
use super::writer::outcome;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Dir, Tally};
use crate::transport::cloud::Content;
use crate::transport::local::{Keep, changed};
use crate::transport::source::{Held, Take};
use crate::transport::{Endpoint, Kind as FileKind, Meta, Op, Source};

/// Bytes of contents that are asked for together.
const TOGETHER: u64 = 512 << 10;
/// Files that are asked for together.
const FILES: usize = 256;

/// The source of a run.
pub struct SshReader<'r> {
    at: &'r SshEndpoint,
    window: Window,
    tally: &'r Tally,
}

impl std::fmt::Debug for SshReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SshReader").field("at", &self.at).finish_non_exhaustive()
    }
}

/// What is asked of a source, whichever way its contents go.
impl SshEndpoint {
    /// States and hashes of files of a directory, in the order of their names.
    pub fn hashes(&self, dir: &[u8], names: &[&[u8]]) -> Vec<Result<(Meta, [u8; 32])>> {
        let mut request = body();
        request.bytes(dir);
        for name in names {
            request.bytes(name);
        }
        let answer = match self.ask(Kind::Hashes, request) {
            Ok(answer) => answer,
            Err(error) => return names.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut get = Get(&answer);
        let one = |_| {
            outcome(&mut get).map_err(|error| self.at(error))?;
            Ok((get.meta(None)?, get.hash()?))
        };
        names.iter().map(one).collect()
    }

    /// Looks up anew what an operation is about.
    pub fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let path = || self.path_of(&dir.key_of(op.source_name()));
        let gone = || SyncError::os(rustix::io::Errno::NOENT, "read", path());
        let (meta, target) = self.stat(&dir.key, op.source_name())?.ok_or_else(gone)?;
        if meta.kind != op.source.kind {
            return Err(SyncError { retryable: false, ..changed(path()) });
        }
        (op.source, op.target) = (meta, target);
        Ok(())
    }

    pub fn remove_source(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let mut request = body();
        request.bytes(&dir.key);
        put_op(&mut request, &Op { name: op.source_name().into(), source_name: None, ..op.clone() });
        self.ask(Kind::RemoveSource, request).map(drop)
    }
}

impl<'r> SshReader<'r> {
    pub fn new(at: &'r SshEndpoint, tally: &'r Tally) -> Self {
        Self { at, window: Window::default(), tally }
    }

    fn key(dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    /// Asks for small files.
    fn fetch(&self, dir: &Dir<'_>, ops: &[Op]) -> Result<Reply> {
        let mut request = body();
        request.bytes(&dir.key);
        put_wish(&mut request, Keep::to_send(false, false));
        for op in ops {
            request.bytes(op.source_name()).u64(op.source.size);
        }
        self.at.session()?.ask(Kind::Fetch, request)
    }

    /// Hands on what was asked for; `first` is the place of the first of `ops`.
    fn receive(&self, dir: &Dir<'_>, ops: &[Op], first: usize, reply: Result<Reply>, take: &mut Take<'_>) {
        let mut left = ops.iter().enumerate();
        let failed = match reply {
            Ok(mut reply) => loop {
                match reply.next() {
                    Ok(Frame { kind: Kind::Content, body, .. }) => {
                        let mut get = Get(&body);
                        while !get.is_empty() {
                            let Some((n, op)) = left.next() else { break };
                            take(first + n, self.one(dir, op, &mut get));
                        }
                    }
                    Ok(Frame { kind: Kind::Done, .. }) => break SyncError::new(ErrorKind::Network, "it did not come").retryable(),
                    Ok(_) => break garbled("another answer than was asked for"),
                    Err(error) => break self.at.at(error),
                }
            },
            Err(error) => self.at.at(error),
        };
        for (n, _) in left {
            take(first + n, Err(failed.clone()));
        }
    }

    fn one<'g>(&self, dir: &Dir<'_>, op: &Op, get: &mut Get<'g>) -> Result<(Meta, &'g [u8])> {
        outcome(get).map_err(|error| self.at.at(error))?;
        let (now, content) = (get.meta(None)?, get.bytes()?);
        get.bool()?;
        get_attributes(get)?;
        if !now.same_state(&op.source) || content.len() as u64 != op.source.size {
            return Err(changed(self.path(dir, op)));
        }
        self.tally.bytes_read.fetch_add(now.size, Relaxed);
        Ok((now, content))
    }
}

impl Source for SshReader<'_> {
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)> {
        if op.source.kind != FileKind::File {
            return Err(changed(self.path(dir, op)));
        }
        let mark = mark(&op.source);
        if op.source.size > SMALL {
            let large = Large { reader: self, dir: dir.key.to_vec(), name: op.source_name().to_vec(), listed: op.source, mark };
            return Ok((op.source, Box::new(large)));
        }
        let mut read = Err(SyncError::new(ErrorKind::Network, "it did not come").retryable());
        let ops = std::slice::from_ref(op);
        self.receive(dir, ops, 0, self.fetch(dir, ops), &mut |_, one| read = one.map(|(now, bytes)| (now, bytes.to_vec())));
        let (now, bytes) = read?;
        Ok((now, Box::new(Held { bytes, mark })))
    }

    fn read_small(&self, dir: &Dir<'_>, ops: &[Op], take: &mut Take<'_>) {
        // The next are on their way while those before are handed on.
        let mut coming = VecDeque::new();
        let mut at = 0;
        while at < ops.len() {
            let (mut end, mut bytes) = (at, 0);
            while end < ops.len() && end - at < FILES && (end == at || bytes + ops[end].source.size <= TOGETHER) {
                bytes += ops[end].source.size;
                end += 1;
            }
            coming.push_back((at..end, self.fetch(dir, &ops[at..end])));
            at = end;
            if coming.len() > 1
                && let Some((range, reply)) = coming.pop_front()
            {
                self.receive(dir, &ops[range.clone()], range.start, reply, take);
            }
        }
        for (range, reply) in coming {
            self.receive(dir, &ops[range.clone()], range.start, reply, take);
        }
    }

    fn hashes(&self, dir: &Dir<'_>, ops: &[Op]) -> Vec<Result<[u8; 32]>> {
        let mut all = Vec::with_capacity(ops.len());
        for some in ops.chunks(64) {
            let names: Vec<&[u8]> = some.iter().map(Op::source_name).collect();
            all.extend(some.iter().zip(self.at.hashes(&dir.key, &names)).map(|(op, theirs)| {
                let (now, hash) = theirs?;
                if !now.same_state(&op.source) {
                    return Err(changed(self.path(dir, op)));
                }
                self.tally.bytes_read.fetch_add(now.size, Relaxed);
                Ok(hash)
            }));
        }
        all
    }

    fn agent(&self) -> Option<&SshEndpoint> {
        Some(self.at)
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        self.at.refresh(dir, op)
    }

    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        self.at.remove_source(dir, op)
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.at.path_of(&Self::key(dir, op))
    }
}

/// Tells a state of a file from others.
fn mark(meta: &Meta) -> u64 {
    let mut short = [0; 8];
    let whole = format!("{} {} {:?} {:?} {}", meta.dev, meta.ino, meta.mtime, meta.ctime, meta.size);
    short.copy_from_slice(&blake3::hash(whole.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(short)
}

/// A large file, of which ranges are asked for. Each is checked to be of the file as it was listed.
struct Large<'r> {
    reader: &'r SshReader<'r>,
    dir: Vec<u8>,
    name: Vec<u8>,
    listed: Meta,
    mark: u64,
}

impl Large<'_> {
    fn path(&self) -> Vec<u8> {
        self.reader.at.path_of(&crate::transport::child_key(&self.dir, &self.name))
    }
}

impl Content for Large<'_> {
    fn size(&self) -> u64 {
        self.listed.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let SshReader { at, window, .. } = self.reader;
        let length = range.end - range.start;
        if length == 0 {
            return Ok(Box::new(std::io::empty()));
        }
        let room = AHEAD.min(length.max(PIECE as u64));
        if !window.take(room, at.stop()) {
            return Err(SyncError::cancelled());
        }
        let asked = (|| {
            let mut request = body();
            request.u64(room).bytes(&self.dir).bytes(&self.name);
            put_wish(&mut request, Keep::to_send(false, false));
            request.bool(false).u8(How::Whole as u8).u64(range.start).u64(range.end);
            request.0.extend_from_slice(&secret()?);
            at.session_for_large()?.ask(Kind::FetchFile, request)
        })();
        match asked {
            Ok(reply) => {
                let hash = blake3::Hasher::new();
                Ok(Box::new(Stream {
                    file: self,
                    reply,
                    room,
                    credit: Credit::new(room),
                    left: length,
                    hash,
                    piece: Vec::new(),
                    used: 0,
                    ended: false,
                }))
            }
            Err(error) => {
                window.give_back(room);
                Err(at.at(error))
            }
        }
    }

    fn still(&self) -> Result<()> {
        match self.reader.at.stat(&self.dir, &self.name)? {
            Some((now, _)) if now.same_state(&self.listed) => Ok(()),
            _ => Err(changed(self.path())),
        }
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn mark(&self) -> u64 {
        self.mark
    }
}

/// A range of a file on its way here.
struct Stream<'f> {
    file: &'f Large<'f>,
    reply: Reply,
    room: u64,
    credit: Credit,
    left: u64,
    hash: blake3::Hasher,
    piece: Vec<u8>,
    used: usize,
    ended: bool,
}

impl Stream<'_> {
    /// Waits for more. The end is met before the last piece is handed out, so that nobody takes what is wrong.
    fn fill(&mut self) -> Result<()> {
        let at = self.file.reader.at;
        let frame = self.reply.next().map_err(|error| at.at(error))?;
        if frame.kind != Kind::Data || frame.body.is_empty() || frame.body.len() as u64 > self.left {
            return Err(if frame.kind == Kind::Done { changed(self.file.path()) } else { garbled("another answer than was asked for") });
        }
        self.hash.update(&frame.body);
        self.left -= frame.body.len() as u64;
        let bytes = frame.body.len() as u64;
        self.file.reader.tally.bytes_read.fetch_add(bytes, Relaxed);
        (self.piece, self.used) = (frame.body, 0);
        if self.left > 0 {
            return self.credit.took(&self.reply, bytes);
        }
        let frame = self.reply.next().map_err(|error| at.at(error))?;
        if frame.kind != Kind::Done {
            return Err(garbled("another answer than was asked for"));
        }
        self.ended = true;
        let mut get = Get(&frame.body);
        if !get.meta(None)?.same_state(&self.file.listed) {
            return Err(changed(self.file.path()));
        }
        get_attributes(&mut get)?;
        if get.0 != self.hash.finalize().as_bytes() {
            self.file.reader.tally.verification_failures.fetch_add(1, Relaxed);
            return Err(not_what_was_sent().at("read", self.file.path()));
        }
        Ok(())
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.used == self.piece.len() {
            if self.ended || buffer.is_empty() {
                return Ok(0);
            }
            self.fill().map_err(std::io::Error::other)?;
        }
        let n = buffer.len().min(self.piece.len() - self.used);
        buffer[..n].copy_from_slice(&self.piece[self.used..self.used + n]);
        self.used += n;
        Ok(n)
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.file.reader.window.give_back(self.room);
    }
}
