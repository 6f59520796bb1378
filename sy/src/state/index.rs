//! Remembers which pairs of files were found equal in content, so that the next comparison need not read them.
//!
//! One file for a pair of locations: records in key order, each a key and what both sides looked like then. A run goes
//! through it in step with its walk, so it costs neither memory nor random access. What workers find out of order is
//! sorted aside and merged in at the end. A record that does not fit any more is as good as none: the content is read.

use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::transport::{Meta, Time};

const MAGIC: &[u8] = b"sypy index 3\n";
/// New records are sorted in memory up to this many bytes, then set aside on disk.
const IN_MEMORY: usize = 8 << 20;
/// Clocks that stamp changes tick at least this often, nanoseconds: a later write shows.
const TICK: i128 = 20_000_000;

/// What a file and its twin look like from outside, hashed.
type Fingerprint = [u8; 16];

#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Record {
    key: Vec<u8>,
    looks: Fingerprint,
}

impl Record {
    fn weight(&self) -> usize {
        self.key.len() + 18
    }
}

#[derive(Debug)]
pub struct Index {
    path: PathBuf,
    header: Vec<u8>,
    old: Option<Records>,
    next: Option<Record>,
    /// Parts of the old file that still hold, as byte ranges.
    kept: Vec<Range<u64>>,
    dropped: bool,
    fresh: Mutex<Fresh>,
    opened: i128,
    /// The file systems, of the source and of the destination, outside which nothing is noted.
    only: (Option<u64>, Option<u64>),
}

#[derive(Debug, Default)]
struct Fresh {
    records: Vec<Record>,
    bytes: usize,
    runs: Vec<File>,
}

impl Index {
    /// The index for this pair of locations; `None` where no state can be kept. `meaning` tells apart what "equal" meant.
    pub fn open(source: &[u8], dest: &[u8], meaning: &[u8]) -> Option<Self> {
        let dir = super::directory()?.join("index");
        std::os::unix::fs::DirBuilderExt::mode(std::fs::DirBuilder::new().recursive(true), 0o700).create(&dir).ok()?;
        let length = |text: &[u8]| (text.len() as u32).to_le_bytes();
        let header = [MAGIC, &length(source), source, &length(dest), dest, &length(meaning), meaning].concat();
        let path = dir.join(&blake3::hash(&header).to_hex()[..32]);
        let mut index = Self {
            path,
            header,
            old: None,
            next: None,
            kept: Vec::new(),
            dropped: false,
            fresh: Mutex::default(),
            opened: Time::now().total_nanos(),
            only: (None, None),
        };
        index.old = Records::open(&index.path, &index.header);
        index.next = index.old.as_mut().and_then(Records::next);
        Some(index)
    }

    /// Only files on these devices are noted from now on, where one is named.
    pub fn note_only_on(&mut self, source: Option<u64>, dest: Option<u64>) {
        self.only = (source, dest);
    }

    /// Were these two found equal, and are they as they were? Keys must come in ascending order.
    pub fn equal(&mut self, key: &[u8], source: &Meta, dest: &Meta) -> bool {
        while let Some(record) = &self.next {
            let equal = match record.key.as_slice().cmp(key) {
                std::cmp::Ordering::Greater => return false,
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Equal => record.looks == fingerprint(source, dest),
            };
            let reached = record.key.as_slice() == key;
            self.pass(equal);
            if reached {
                return equal;
            }
        }
        false
    }

    /// Goes past the next old record, keeping it or not.
    fn pass(&mut self, keep: bool) {
        let (Some(old), Some(record)) = (&mut self.old, &mut self.next) else { return };
        let end = old.at;
        let start = end - record.weight() as u64;
        if keep {
            match self.kept.last_mut() {
                Some(range) if range.end == start => range.end = end,
                _ => self.kept.push(start..end),
            }
        } else {
            self.dropped = true;
        }
        if old.read(record).is_none() {
            self.next = None;
        }
    }

    /// The contents were read and are equal. Not noted when one of them is so new that a change could go unseen.
    pub fn note(&self, key: &[u8], source: &Meta, dest: &Meta) {
        if self.is_settled(dest) {
            self.note_made(key, source, dest);
        }
    }

    fn is_settled(&self, meta: &Meta) -> bool {
        let coarse = if meta.ctime.nanos == 0 { 2_000_000_000 } else { 0 };
        meta.tagged || meta.ctime.total_nanos() + TICK + coarse < self.opened
    }

    /// Another write to an object in the same second would not show.
    fn is_settled_source(&self, meta: &Meta) -> bool {
        const SECOND: i128 = 1_000_000_000;
        // A second more, as clocks differ.
        if meta.tagged { (i128::from(meta.ctime.seconds) + 2) * SECOND <= self.opened } else { self.is_settled(meta) }
    }

    /// The run itself made `dest` from `source`, in such a way that any later write to it shows.
    pub fn note_made(&self, key: &[u8], source: &Meta, dest: &Meta) {
        let elsewhere = |only: Option<u64>, meta: &Meta| only.is_some_and(|device| !meta.tagged && meta.dev != device);
        if elsewhere(self.only.0, source) || elsewhere(self.only.1, dest) {
            return;
        }
        if !self.is_settled_source(source) || key.len() > usize::from(u16::MAX) {
            return;
        }
        let record = Record { key: key.to_vec(), looks: fingerprint(source, dest) };
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.bytes += record.weight();
        fresh.records.push(record);
        if fresh.bytes > IN_MEMORY {
            fresh.set_aside();
        }
    }

    /// Writes the index anew if anything changed. After a run that was cut short, what it did not reach is kept.
    ///
    /// It is not forced to disk. Should the machine go down, parts of it may be missing or older: what a record says stays
    /// true for ever, and what is missing is read again.
    pub fn finish(mut self, complete: bool) -> std::io::Result<()> {
        while self.next.is_some() {
            self.pass(!complete);
        }
        let mut fresh = std::mem::take(&mut *self.fresh.lock().unwrap_or_else(PoisonError::into_inner));
        if !self.dropped && fresh.records.is_empty() && fresh.runs.is_empty() {
            return Ok(());
        }
        fresh.records.sort_unstable();
        let mut streams: Vec<Box<dyn Iterator<Item = Record>>> = vec![Box::new(fresh.records.into_iter())];
        for mut run in fresh.runs {
            run.seek(SeekFrom::Start(0))?;
            streams.push(Box::new(Records { reader: BufReader::new(run), at: 0 }));
        }
        for range in self.kept {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(range.start))?;
            let limited = Records { reader: BufReader::new(file.take(range.end - range.start)), at: 0 };
            streams.push(Box::new(limited));
        }
        let temp = self.path.with_extension(format!("{:x}", std::process::id()));
        let written = (|| {
            let mut out = BufWriter::new(File::create(&temp)?);
            out.write_all(&self.header)?;
            let mut heap: BinaryHeap<std::cmp::Reverse<(Record, usize)>> = BinaryHeap::new();
            for (n, stream) in streams.iter_mut().enumerate() {
                heap.extend(stream.next().map(|record| std::cmp::Reverse((record, n))));
            }
            while let Some(std::cmp::Reverse((record, n))) = heap.pop() {
                write(&mut out, &record)?;
                heap.extend(streams[n].next().map(|record| std::cmp::Reverse((record, n))));
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
            std::fs::rename(&temp, &self.path)
        })();
        if written.is_err() {
            let _ = std::fs::remove_file(&temp);
        }
        written
    }
}

impl Fresh {
    /// Where that fails the records are lost, and the files will be read again.
    fn set_aside(&mut self) {
        self.records.sort_unstable();
        let records = std::mem::take(&mut self.records);
        self.bytes = 0;
        let run = (|| {
            let mut out = BufWriter::new(super::unnamed_file()?);
            for record in &records {
                write(&mut out, record)?;
            }
            out.into_inner().map_err(std::io::IntoInnerError::into_error)
        })();
        self.runs.extend(run);
    }
}

fn write(out: &mut impl Write, record: &Record) -> std::io::Result<()> {
    out.write_all(&(record.key.len() as u16).to_le_bytes())?;
    out.write_all(&record.looks)?;
    out.write_all(&record.key)
}

/// Reads records until the end, or until something is not one.
#[derive(Debug)]
struct Records<R = BufReader<File>> {
    reader: R,
    at: u64,
}

impl Records {
    fn open(path: &Path, header: &[u8]) -> Option<Self> {
        let mut reader = BufReader::with_capacity(64 << 10, File::open(path).ok()?);
        let mut found = vec![0; header.len()];
        reader.read_exact(&mut found).ok()?;
        (found == header).then_some(Self { reader, at: header.len() as u64 })
    }
}

impl<R: Read> Records<R> {
    /// Puts the next record into `record`.
    fn read(&mut self, record: &mut Record) -> Option<()> {
        let mut length = [0; 2];
        self.reader.read_exact(&mut length).ok()?;
        self.reader.read_exact(&mut record.looks).ok()?;
        record.key.resize(usize::from(u16::from_le_bytes(length)), 0);
        self.reader.read_exact(&mut record.key).ok()?;
        self.at += record.weight() as u64;
        Some(())
    }
}

impl<R: Read> Iterator for Records<R> {
    type Item = Record;
    fn next(&mut self) -> Option<Record> {
        let mut record = Record::default();
        self.read(&mut record).map(|()| record)
    }
}

/// One block of the hash holds all there is to know of both.
fn fingerprint(source: &Meta, dest: &Meta) -> Fingerprint {
    let nanos = |time: Time| (time.seconds as u64).wrapping_mul(1_000_000_000).wrapping_add(u64::from(time.nanos));
    let parts = |meta: &Meta, of_source: bool| match meta.tagged {
        false => [meta.ino ^ meta.dev.rotate_left(32), meta.size, nanos(meta.mtime), nanos(meta.ctime)],
        // The times of an object are those of its upload, which not every answer tells. The side that is read does: new
        // metadata of an object leave its tag as it was, and only that time tells of them. In whole seconds, as headers have it.
        true => [meta.ino, meta.size, 0, if of_source { meta.ctime.seconds as u64 } else { 0 }],
    };
    let mut block = [0; 64];
    for (bytes, part) in block.chunks_exact_mut(8).zip(parts(source, true).into_iter().chain(parts(dest, false))) {
        bytes.copy_from_slice(&part.to_le_bytes());
    }
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(&block).as_bytes()[..16]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(ino: u64) -> Meta {
        let time = Time { seconds: 1_000_000_000, nanos: 5 };
        Meta { ino, ..crate::transport::sample(3, time) }
    }

    fn index(path: &Path) -> Index {
        let header = MAGIC.to_vec();
        let mut old = Records::open(path, &header);
        let next = old.as_mut().and_then(Records::next);
        let opened = Time::now().total_nanos();
        let path = path.to_path_buf();
        Index { path, header, old, next, kept: Vec::new(), dropped: false, fresh: Mutex::default(), opened, only: (None, None) }
    }

    fn key(n: u64) -> Vec<u8> {
        format!("{n:06}").into_bytes()
    }

    #[test]
    fn what_was_noted_in_any_order_is_known_the_next_time() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        let first = index(&path);
        for n in [5, 1, 3] {
            first.note(&key(n), &meta(n), &meta(n + 100));
        }
        first.finish(true).expect("written");
        let mut second = index(&path);
        assert!(second.equal(&key(1), &meta(1), &meta(101)));
        assert!(!second.equal(&key(2), &meta(2), &meta(102)));
        assert!(!second.equal(&key(3), &meta(4), &meta(103)), "the source is another file now");
        second.note(&key(2), &meta(2), &meta(102));
        second.finish(false).expect("written");
        let mut third = index(&path);
        for (n, known) in [(1, true), (2, true), (3, false), (5, true)] {
            assert_eq!(third.equal(&key(n), &meta(n), &meta(n + 100)), known, "{n}");
        }
    }

    #[test]
    fn what_has_just_changed_is_not_noted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        let first = index(&path);
        let fresh = Meta { ctime: Time::now(), ..meta(1) };
        first.note(b"a", &fresh, &meta(2));
        first.finish(true).expect("nothing to write");
        assert!(!path.exists());
    }

    #[test]
    fn what_is_on_another_device_is_not_noted() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        let mut first = index(&path);
        first.note_only_on(Some(1), None);
        first.note(b"a", &meta(1), &Meta { dev: 7, ..meta(2) });
        first.note(b"b", &Meta { dev: 7, ..meta(1) }, &meta(2));
        first.finish(true).expect("written");
        let mut second = index(&path);
        assert!(second.equal(b"a", &meta(1), &Meta { dev: 7, ..meta(2) }));
        assert!(!second.equal(b"b", &Meta { dev: 7, ..meta(1) }, &meta(2)));
    }

    #[test]
    fn every_change_of_either_side_shows() {
        let time = Time { seconds: -1, nanos: 999_999_999 };
        let changed = |change: fn(&mut Meta)| {
            let mut other = meta(1);
            change(&mut other);
            other
        };
        let others = [
            changed(|meta| meta.ino = 2),
            changed(|meta| meta.dev = 2),
            changed(|meta| meta.size += 1),
            changed(|meta| meta.mtime.nanos += 1),
            changed(|meta| meta.ctime.seconds += 1),
            Meta { mtime: time, ..meta(1) },
        ];
        let mut seen = vec![fingerprint(&meta(1), &meta(1))];
        for other in &others {
            seen.extend([fingerprint(other, &meta(1)), fingerprint(&meta(1), other)]);
        }
        let different: std::collections::BTreeSet<_> = seen.iter().collect();
        assert_eq!(different.len(), seen.len());
    }

    #[test]
    fn an_object_of_the_source_that_was_put_again_is_looked_at_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        let first = index(&path);
        let at = |seconds| Meta { tagged: true, ctime: Time { seconds, nanos: 0 }, ..meta(1) };
        first.note(b"a", &at(7), &meta(2));
        first.note(b"b", &at(Time::now().seconds), &meta(2));
        first.finish(true).expect("written");
        assert!(index(&path).equal(b"a", &at(7), &meta(2)));
        assert!(!index(&path).equal(b"a", &at(8), &meta(2)), "the same content, perhaps with other metadata");
        assert!(!index(&path).equal(b"b", &at(Time::now().seconds), &meta(2)), "it may have been put twice in that second");
    }

    #[test]
    fn many_records_are_merged_from_disk() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        let first = index(&path);
        for n in (0..5000).rev() {
            first.note(&[key(n), vec![b'x'; 4000]].concat(), &meta(n), &meta(n));
        }
        assert!(!first.fresh.lock().expect("not poisoned").runs.is_empty());
        first.finish(true).expect("written");
        let mut second = index(&path);
        assert!((0..5000).all(|n| second.equal(&[key(n), vec![b'x'; 4000]].concat(), &meta(n), &meta(n))));
        second.finish(true).expect("nothing to do");
    }

    #[test]
    fn a_damaged_index_is_no_index() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("index");
        std::fs::write(&path, [MAGIC, &[255, 255, 1, 2, 3]].concat()).expect("written");
        assert!(!index(&path).equal(b"a", &meta(1), &meta(1)));
    }
}
