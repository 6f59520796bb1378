//! Sends the content of one object: in one request, or in parts, several at a time.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::attributes::Attributes;
use super::http::{Body, Stream};
use super::slots::{Failed, MEMORY, part_size};
use super::spool::hash;
use super::store::{If, Part};
use super::sums::{self, Kinds, Summer, Sums};
use super::writer::{CloudWriter, Content, LARGE, read_error};
use crate::error::{ErrorKind, Result, SyncError};

/// Up to this size content is read once, into memory.
pub const SMALL: u64 = 1 << 20;
const PART: u64 = 16 << 20;
/// Parts are not made larger than that for the sake of speed.
const LARGEST_PART: u64 = 64 << 20;
const PIECE: usize = 256 << 10;

impl CloudWriter<'_> {
    pub(super) fn at_once(&self, key: &[u8], content: &dyn Content, attributes: &Attributes, when: If<'_>) -> Result<String> {
        let size = content.size();
        if size <= SMALL || content.is_distant() && size < LARGE {
            let _room = if size > SMALL { Some(self.slots.hold(size)?) } else { None };
            let (bytes, sums) = self.in_memory(content, 0..size, self.store.wants())?;
            content.passed(0, &bytes, &|| self.control.should_stop())?;
            content.still()?;
            return self.store.put(key, Body::Bytes(&bytes), attributes, &sums, when);
        }
        let sums = self.sum(content, 0..size, self.store.wants())?;
        content.still()?;
        // What is read now has to be what was summed, or the store refuses it.
        self.store.put(key, Body::Stream(&Flow::new(self, content, 0..size)), attributes, &sums, when)
    }

    fn in_memory(&self, content: &dyn Content, range: Range<u64>, kinds: Kinds) -> Result<(Vec<u8>, Sums)> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        Flow::new(self, content, range.clone()).open()?.read_to_end(&mut bytes).map_err(|error| read_error(&error))?;
        if bytes.len() as u64 != range.end - range.start {
            content.still()?;
            return Err(SyncError::new(ErrorKind::SourceChanged, "it changed while it was read").retryable());
        }
        let sums = sums::of(&bytes, kinds);
        Ok((bytes, sums))
    }

    /// Sums a range without sending it.
    pub fn sum(&self, content: &dyn Content, range: Range<u64>, kinds: Kinds) -> Result<Sums> {
        let mut at = range.start;
        let (mut summer, mut reader) = (Summer::new(kinds), content.open(range)?);
        let mut piece = vec![0; PIECE];
        loop {
            if self.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            match reader.read(&mut piece).map_err(|error| read_error(&error))? {
                0 => return Ok(summer.finish()),
                n => {
                    summer.update(&piece[..n]);
                    content.passed(at, &piece[..n], &|| self.control.should_stop())?;
                    at += n as u64;
                }
            }
        }
    }

    pub(super) fn in_parts(&self, key: &[u8], content: &dyn Content, attributes: &Attributes, when: If<'_>) -> Result<String> {
        let size = content.size();
        // An upload has its metadata from the beginning, so with others it is another one.
        let mark = hash(&format!("{} {attributes:?} {}", content.mark(), self.store.manner()));
        let begun = self.uploads.find(key, mark).filter(|_| self.resume);
        let part_size = begun.as_ref().map_or_else(|| self.part_size_for(content), |(_, part_size)| *part_size);
        let kept = match &begun {
            Some((upload, _)) => self.store.parts(key, upload)?.map(|parts| (upload.clone(), parts)),
            None => None,
        };
        let (upload, kept) = match kept {
            Some(kept) => kept,
            None => {
                // One of other content, which the note would be lost of.
                if let Some(old) = self.uploads.of(key) {
                    self.store.abort(key, &old);
                }
                match self.store.begin(key, attributes) {
                    // What stands in for a service may know no parts.
                    Err(error) if error.kind == ErrorKind::Unsupported && size <= self.features.max_put => {
                        return self.at_once(key, content, attributes, when);
                    }
                    begun => (begun?, Vec::new()),
                }
            }
        };
        self.uploads.note(key, mark, part_size, &upload);
        let sent = self.send_parts(key, content, part_size, &upload, &kept).and_then(|(parts, sums)| {
            content.still()?;
            self.store.complete(key, &upload, &parts, attributes, &sums, when)
        });
        match &sent {
            Ok(_) => self.uploads.forget(key),
            // The next run may go on with what has arrived.
            Err(error) if self.resume && error.retryable && error.kind != ErrorKind::SourceChanged => {}
            Err(_) => {
                self.store.abort(key, &upload);
                self.uploads.forget(key);
            }
        }
        sent
    }

    fn part_size_for(&self, content: &dyn Content) -> u64 {
        let size = content.size();
        // Objects of any size fit into the parts that there may be, with room to spare.
        let fits = size.div_ceil(self.features.max_parts.saturating_sub(100).max(1)).next_multiple_of(1 << 20);
        let (at_once, per_connection) = self.slots.pace();
        let most = if content.is_distant() { MEMORY / 4 } else { LARGEST_PART };
        let wanted = self.part_size.unwrap_or_else(|| part_size(PART, size, per_connection, at_once, most));
        wanted.max(self.features.min_part).max(fits)
    }

    /// Sends the parts that are not there yet, several at a time. Returns all of them, and the sums of the whole.
    fn send_parts(&self, key: &[u8], content: &dyn Content, part_size: u64, upload: &str, kept: &[Part]) -> Result<(Vec<Part>, Sums)> {
        let (size, kinds) = (content.size(), self.store.wants());
        let count = size.div_ceil(part_size) as u32;
        let parts: Mutex<Vec<Option<Part>>> = Mutex::new(vec![None; count as usize]);
        let memory = if content.is_distant() { part_size.min(size) } else { 0 };
        self.slots.each(count, memory, part_size, &|n, failed| {
            let range = u64::from(n) * part_size..size.min((u64::from(n) + 1) * part_size);
            let part = self.send_part(key, content, range, upload, n + 1, kept, kinds, failed)?;
            parts.lock().unwrap_or_else(PoisonError::into_inner)[n as usize] = Some(part);
            Ok(())
        })?;
        let parts: Vec<Part> = parts.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect();
        let sums = if kinds.combine() {
            parts.iter().map(|part| (part.sums, part.size)).reduce(|(a, n), (b, m)| (a.followed_by(&b, m), n + m))
        } else {
            None
        };
        Ok((parts, sums.map(|(sums, _)| sums).unwrap_or_default()))
    }

    #[expect(clippy::too_many_arguments, reason = "one part of an upload is known by all of these")]
    fn send_part(
        &self,
        key: &[u8],
        content: &dyn Content,
        range: Range<u64>,
        upload: &str,
        number: u32,
        kept: &[Part],
        kinds: Kinds,
        failed: &Failed,
    ) -> Result<Part> {
        if self.control.should_stop() {
            return Err(SyncError::cancelled());
        }
        let old = kept.iter().find(|part| part.number == number && part.size == range.end - range.start);
        // A part that is there is known by whichever sum the store tells of it.
        let kinds = old.map_or(kinds, |old| kinds.and(old.sums.best()));
        let there = |sums: &Sums| {
            let old = old.filter(|old| old.sums.agree(sums) == Some(true))?;
            Some(Part { sums: *sums, ..old.clone() })
        };
        if content.is_distant() {
            let (bytes, sums) = self.in_memory(content, range.clone(), kinds)?;
            content.passed(range.start, &bytes, &|| failed.is_set() || self.control.should_stop())?;
            return there(&sums).map_or_else(|| self.store.put_part(key, upload, number, Body::Bytes(&bytes), &sums), Ok);
        }
        let sums = self.sum(content, range.clone(), kinds)?;
        if let Some(part) = there(&sums) {
            self.control.bytes.fetch_add(part.size, Relaxed);
            return Ok(part);
        }
        self.store.put_part(key, upload, number, Body::Stream(&Flow::new(self, content, range)), &sums)
    }

    fn allowance(&self, want: usize) -> Result<usize> {
        if self.control.should_stop() {
            return Err(SyncError::cancelled());
        }
        match &self.limiter {
            Some(limiter) => limiter.take(want as u64, self.control).map(|n| n as usize).map_err(|_| SyncError::cancelled()),
            None => Ok(want),
        }
    }
}

/// A range of content on its way: counted, and not faster than it may be. A try that is begun anew counts anew.
struct Flow<'f> {
    writer: &'f CloudWriter<'f>,
    content: &'f dyn Content,
    range: Range<u64>,
    counted: AtomicU64,
}

impl std::fmt::Debug for Flow<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flow({:?})", self.range)
    }
}

impl<'f> Flow<'f> {
    fn new(writer: &'f CloudWriter<'_>, content: &'f dyn Content, range: Range<u64>) -> Self {
        Self { writer, content, range, counted: AtomicU64::new(0) }
    }
}

impl Stream for Flow<'_> {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }

    fn open(&self) -> Result<Box<dyn Read + '_>> {
        self.writer.control.bytes.fetch_sub(self.counted.swap(0, Relaxed), Relaxed);
        Ok(Box::new(Counted { flow: self, reader: self.content.open(self.range.clone())? }))
    }
}

struct Counted<'f> {
    flow: &'f Flow<'f>,
    reader: Box<dyn Read + 'f>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let want = self.flow.writer.allowance(buffer.len().min(PIECE)).map_err(std::io::Error::other)?;
        let n = self.reader.read(&mut buffer[..want])?;
        self.flow.counted.fetch_add(n as u64, Relaxed);
        self.flow.writer.control.bytes.fetch_add(n as u64, Relaxed);
        Ok(n)
    }
}
