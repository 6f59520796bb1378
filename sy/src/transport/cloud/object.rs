//! A bucket as a source for lanes that do not care where contents come from. What passes by is summed, and compared with
//! what the store has.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::download::remove_source;
use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::fetch::{cut_off, wrong};
use super::spool::hash;
use super::store::Head;
use super::sums::{self, Kinds, Summer};
use super::writer::{Content, look, read_error};
use crate::cli::{Links, Options};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::same_time;
use crate::transport::source::Held;
use crate::transport::{Endpoint, Kind, Known, Meta, Op, Source};

/// Objects up to this size come with one request, into memory.
const SMALL: u64 = 256 << 10;
/// Tries for a body that was cut off.
const TRIES: u32 = 4;

pub struct ObjectSource<'r> {
    from: &'r CloudEndpoint,
    links: Links,
    /// Set-id bits are kept.
    owner: bool,
    precision: u64,
    control: &'r Control,
    tally: &'r Tally,
}

impl std::fmt::Debug for ObjectSource<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectSource").field("from", &self.from).finish_non_exhaustive()
    }
}

impl<'r> ObjectSource<'r> {
    pub fn new(from: &'r CloudEndpoint, options: &Options, precision: u64, control: &'r Control, tally: &'r Tally) -> Self {
        Self { from, links: options.links, owner: options.preserve_owner, precision, control, tally }
    }

    fn key(dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    fn head(&self, key: &[u8]) -> Result<Head> {
        self.from.head(key)?.ok_or_else(|| self.gone(key))
    }

    fn gone(&self, key: &[u8]) -> SyncError {
        self.from.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", key)
    }

    /// Who may run as somebody else is for an owner to say, not for a bucket.
    fn allowed(&self, meta: Meta) -> Meta {
        Meta { mode: if self.owner { meta.mode } else { meta.mode & 0o777 }, ..meta }
    }

    /// What is made from it. Where the time of the file is not known, that of the upload is the nearest to it.
    fn known(&self, head: &Head, key: &[u8]) -> Result<Meta> {
        let meta = self.allowed(meta_of_head(head));
        if meta.kind == Kind::Symlink && self.links == Links::Skip {
            // It was none when it was asked for, and as it is not copied it must not count as such.
            return Err(self.from.at(SyncError::new(ErrorKind::SourceChanged, "it became a symbolic link"), "read", key));
        }
        Ok(Meta { known: Known { mtime: true, ..meta.known }, ..meta })
    }

    /// A small object: one request. `None` if it is not small.
    fn at_once(&self, key: &[u8]) -> Result<Option<(Head, Vec<u8>)>> {
        let fail = |error| self.from.at(error, "read", key);
        let whole = self.from.key_of(key);
        let mut tries = 0;
        loop {
            tries += 1;
            if self.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            let content = self.from.store().get(&whole, None, None).map_err(fail)?;
            let head = content.head;
            if head.size > 2 * SMALL {
                return Ok(None);
            }
            let mut bytes = Vec::with_capacity(head.size as usize + 1);
            // The end has to be met, or the connection can't be used again.
            let read = content.body.take(head.size + 1).read_to_end(&mut bytes).map_err(|error| read_error(&error));
            self.tally.bytes_read.fetch_add(bytes.len() as u64, Relaxed);
            let error = match read {
                Ok(_) if bytes.len() as u64 != head.size => cut_off(),
                Ok(_) if sums::of(&bytes, head.sums.best()).agree(&head.sums) == Some(false) => {
                    self.tally.verification_failures.fetch_add(1, Relaxed);
                    wrong()
                }
                Ok(_) => return Ok(Some((head, bytes))),
                Err(error) => error,
            };
            if !error.retryable || tries >= TRIES {
                return Err(fail(error));
            }
        }
    }
}

impl Source for ObjectSource<'_> {
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)> {
        let key = Self::key(dir, op);
        if op.source.size <= SMALL
            && let Some((head, bytes)) = self.at_once(&key)?
        {
            let mark = mark(&head);
            return Ok((self.known(&head, &key)?, Box::new(Held { bytes, mark })));
        }
        let head = self.head(&key)?;
        let meta = self.known(&head, &key)?;
        Ok((meta, Box::new(Object { source: self, whole: self.from.key_of(&key), key, head, passed: Mutex::default() })))
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if op.source.known.all {
            return Ok(());
        }
        let key = Self::key(dir, op);
        let (meta, target) = look(self.from, &key)?;
        let meta = self.allowed(meta.ok_or_else(|| self.gone(&key))?);
        // A copy that has the time of the upload was made from it.
        let same = op.dest.is_some_and(|dest| dest.kind == meta.kind && dest.known.mtime && same_time(&meta, &dest, self.precision));
        op.source = Meta { known: Known { mtime: meta.known.mtime || same, ..meta.known }, ..meta };
        op.target = target;
        Ok(())
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let key = Self::key(dir, op);
        let head = self.head(&key)?;
        let meta = meta_of_head(&head);
        if (meta.ino, meta.size) != (op.source.ino, op.source.size) {
            (op.source, op.target) = (self.allowed(meta), Some(tag_of(&head)));
        }
        Ok(())
    }

    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        remove_source(self.from, &Self::key(dir, op), op)
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.from.path_of(&Self::key(dir, op))
    }
}

fn mark(head: &Head) -> u64 {
    hash(&format!("{} {}", head.tag, head.size))
}

/// A large object.
struct Object<'o> {
    source: &'o ObjectSource<'o>,
    key: Vec<u8>,
    whole: Vec<u8>,
    head: Head,
    /// What was summed from the beginning on, and how far.
    passed: Mutex<Option<(u64, Summer)>>,
}

impl Object<'_> {
    fn passed(&self) -> MutexGuard<'_, Option<(u64, Summer)>> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: SyncError) -> SyncError {
        self.source.from.at(error, "read", &self.key)
    }
}

impl Content for Object<'_> {
    fn size(&self) -> u64 {
        self.head.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let kinds = self.head.sums.best();
        let summer = match &*self.passed() {
            _ if kinds == Kinds::NONE => None,
            _ if range.start == 0 => Some(Summer::new(kinds)),
            Some((at, summer)) if *at == range.start => Some(summer.clone()),
            _ => None,
        };
        Ok(Box::new(Body { object: self, left: range, body: None, summer, tries: 0 }))
    }

    fn still(&self) -> Result<()> {
        // Every range was asked for under the condition that it is still this object.
        Ok(())
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn may_begin(&self, wanted: u64) -> u64 {
        let known = self.head.sums.best() == Kinds::NONE || self.passed().as_ref().is_some_and(|(at, _)| *at == wanted);
        if known { wanted } else { 0 }
    }

    fn mark(&self) -> u64 {
        mark(&self.head)
    }
}

/// A range of an object on its way. What is cut off is asked for again from there on.
struct Body<'o> {
    object: &'o Object<'o>,
    left: Range<u64>,
    body: Option<Box<dyn Read + 'o>>,
    summer: Option<Summer>,
    tries: u32,
}

impl Body<'_> {
    fn some(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let Object { source, whole, head, .. } = self.object;
        if self.body.is_none() {
            let tag = Some(head.tag.as_str()).filter(|tag| !tag.is_empty());
            let range = Some(self.left.clone()).filter(|range| *range != (0..head.size));
            self.body = Some(source.from.store().get(whole, range, tag)?.body);
        }
        let Some(body) = &mut self.body else { return Ok(0) };
        let want = (self.left.end - self.left.start).min(buffer.len() as u64) as usize;
        let n = loop {
            match body.read(&mut buffer[..want]) {
                Ok(0) => return Err(cut_off()),
                Ok(n) => break n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(read_error(&error)),
            }
        };
        self.left.start += n as u64;
        source.tally.bytes_read.fetch_add(n as u64, Relaxed);
        if self.left.start == self.left.end {
            // The end has to be met, or the connection can't be used again.
            let _ = body.read(&mut [0]);
        }
        Ok(n)
    }

    /// Counts what came. The last piece is not handed out if the whole is not what the store has.
    fn sum(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(summer) = &mut self.summer else { return Ok(()) };
        summer.update(bytes);
        if self.left.start < self.left.end {
            return Ok(());
        }
        let Object { source, head, .. } = self.object;
        if self.left.start == head.size && summer.clone().finish().agree(&head.sums) == Some(false) {
            source.tally.verification_failures.fetch_add(1, Relaxed);
            return Err(wrong());
        }
        *self.object.passed() = Some((self.left.start, summer.clone()));
        Ok(())
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.left.is_empty() || buffer.is_empty() {
            return Ok(0);
        }
        let fail = |error| std::io::Error::other(self.object.fail(error));
        loop {
            if self.object.source.control.should_stop() {
                return Err(fail(SyncError::cancelled()));
            }
            match self.some(buffer) {
                Ok(n) => {
                    self.sum(&buffer[..n]).map_err(fail)?;
                    return Ok(n);
                }
                Err(error) if error.retryable && self.tries + 1 < TRIES => {
                    self.tries += 1;
                    self.body = None;
                }
                Err(error) => return Err(fail(error)),
            }
        }
    }
}
