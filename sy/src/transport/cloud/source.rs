//! A bucket as the source of a lane that takes any.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::download::remove_source;
use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::spool::hash;
use super::store::{Head, Store};
use super::writer::{Content, look};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Dir, Tally};
use crate::transport::{Endpoint, Known, Meta, Op, Source};

/// The source of a run.
#[derive(Debug)]
pub struct ObjectSource<'r> {
    at: &'r CloudEndpoint,
    /// Who may run as somebody else is for an owner to say, not for a bucket.
    keeps_owner: bool,
    tally: &'r Tally,
}

impl<'r> ObjectSource<'r> {
    pub fn new(at: &'r CloudEndpoint, options: &Options, tally: &'r Tally) -> Self {
        Self { at, keeps_owner: options.preserve_owner, tally }
    }

    fn key(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(op.source_name())
    }

    fn gone(&self, key: &[u8]) -> SyncError {
        self.at.at(SyncError::new(ErrorKind::NotFound, "there is no such object"), "read", key)
    }

    fn head(&self, key: &[u8]) -> Result<Head> {
        self.at.head(key)?.ok_or_else(|| self.gone(key))
    }

    fn allowed(&self, meta: Meta) -> Meta {
        Meta { mode: if self.keeps_owner { meta.mode } else { meta.mode & 0o777 }, ..meta }
    }
}

impl Source for ObjectSource<'_> {
    fn open<'s>(&'s self, dir: &Dir<'_>, op: &Op) -> Result<(Meta, Box<dyn Content + 's>)> {
        let key = self.key(dir, op);
        let head = self.head(&key)?;
        let meta = self.allowed(meta_of_head(&head));
        // Where the time of the file is not known, that of the upload is the nearest to it.
        let meta = Meta { known: Known { mtime: true, ..meta.known }, ..meta };
        let object = Object { store: self.at.store(), key: self.at.key_of(&key), head };
        Ok((meta, Box::new(Counted { object, at: self.at, key, tally: self.tally })))
    }

    fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if op.source.known.all {
            return Ok(());
        }
        let key = self.key(dir, op);
        let (meta, target) = look(self.at, &key)?;
        (op.source, op.target) = (self.allowed(meta.ok_or_else(|| self.gone(&key))?), target);
        Ok(())
    }

    fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        let head = self.head(&self.key(dir, op))?;
        let meta = meta_of_head(&head);
        // The name of a kept part depends on what was listed.
        if (meta.ino, meta.size) != (op.source.ino, op.source.size) {
            (op.source, op.target) = (self.allowed(meta), Some(tag_of(&head)));
        }
        Ok(())
    }

    fn remove(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        remove_source(self.at, &self.key(dir, op), op)
    }

    fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.at.path_of(&self.key(dir, op))
    }
}

/// An object whose bytes are counted.
struct Counted<'o> {
    object: Object<'o>,
    at: &'o CloudEndpoint,
    key: Vec<u8>,
    tally: &'o Tally,
}

impl Content for Counted<'_> {
    fn size(&self) -> u64 {
        self.object.size()
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let body = self.object.open(range).map_err(|error| self.at.at(error, "read", &self.key))?;
        Ok(Box::new(Counting { body, tally: self.tally }))
    }

    fn still(&self) -> Result<()> {
        self.object.still()
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn mark(&self) -> u64 {
        self.object.mark()
    }
}

struct Counting<'c> {
    body: Box<dyn Read + 'c>,
    tally: &'c Tally,
}

impl Read for Counting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.body.read(buffer)?;
        self.tally.bytes_read.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}

/// An object as content.
struct Object<'o> {
    store: &'o dyn Store,
    key: Vec<u8>,
    head: Head,
}

impl Content for Object<'_> {
    fn size(&self) -> u64 {
        self.head.size
    }

    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>> {
        let tag = Some(self.head.tag.as_str()).filter(|tag| !tag.is_empty());
        let whole = range == (0..self.head.size);
        let length = range.end - range.start;
        if length == 0 {
            return Ok(Box::new(std::io::empty()));
        }
        let content = self.store.get(&self.key, if whole { None } else { Some(range) }, tag)?;
        Ok(Box::new(content.body.take(length)))
    }

    fn still(&self) -> Result<()> {
        // Every range was asked for under the condition that it is still this object.
        Ok(())
    }

    fn is_distant(&self) -> bool {
        true
    }

    fn mark(&self) -> u64 {
        hash(&format!("{} {}", self.head.tag, self.head.size))
    }
}
