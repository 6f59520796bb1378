//! Writes objects, wherever their content comes from.
//!
//! An object is there whole or not at all: one `put`, or parts that become an object when the last has arrived.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::attributes::Attributes;
use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::http::{Body, Stream};
use super::spool::{hash, meta_of};
use super::store::{Features, If, Object, Origin, Part, Store};
use super::sums::{self, Kinds, Summer, Sums};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::state::Uploads;
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Keep, Limiter};
use crate::transport::{Applied, Endpoint, Kind, Meta, Op, Pace};

/// Up to this size content is read once, into memory.
const SMALL: u64 = 1 << 20;
/// From this size on an object is made from parts.
const LARGE: u64 = 32 << 20;
const PART: u64 = 16 << 20;
/// Parts of one object under way at a time.
const PARTS_AT_ONCE: usize = 8;
/// The same where they have to be held in memory.
const PARTS_IN_MEMORY: usize = 4;
const PIECE: usize = 256 << 10;
/// Small objects under way for each transfer that `parallel` allows: their time is spent on waiting.
const SMALL_ONES: u32 = 8;

/// What an object is made from.
pub trait Content: Sync {
    fn size(&self) -> u64;

    /// Reads a range of it; may be asked for the same one again.
    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>>;

    /// An error if it is not any more what it was when the transfer began.
    fn still(&self) -> Result<()>;

    /// Reading it twice costs more than holding a part of it in memory.
    fn is_distant(&self) -> bool;

    /// Where reading may go on, `wanted` or before it, so that what is read can still be checked as a whole.
    fn may_begin(&self, wanted: u64) -> u64 {
        wanted
    }

    /// Told from other content of the same key, for going on with an upload that was cut off.
    fn mark(&self) -> u64;
}

/// How many operations to have under way.
pub fn pace(options: &Options, connections: Option<u64>) -> Pace {
    let most = connections.map_or(128, |most| most.min(128) as u32);
    let wanted = options.parallel.map_or(64, |parallel| parallel.saturating_mul(SMALL_ONES));
    Pace { ops: 1, workers: Some(wanted.clamp(1, most.max(1))) }
}

/// The destination of a run.
pub struct CloudWriter<'r> {
    pub at: &'r CloudEndpoint,
    pub(super) store: &'r dyn Store,
    pub(super) features: Features,
    pub keep: Keep,
    /// Key that replaced and deleted objects go below.
    backup: Option<Vec<u8>>,
    verify: bool,
    resume: bool,
    part_size: Option<u64>,
    parts_at_once: usize,
    limiter: Option<Limiter>,
    uploads: Uploads,
    pub control: &'r Control,
    pub tally: &'r Tally,
}

impl<'r> CloudWriter<'r> {
    pub fn new(at: &'r CloudEndpoint, options: &Options, control: &'r Control, tally: &'r Tally) -> Self {
        let store = at.store();
        let backup = options.backup_dir.as_ref().map(|dir| {
            let stamp = crate::transport::local::backup_stamp();
            [plain_key(dir).as_slice(), b"/", stamp.as_bytes(), b"/"].concat()
        });
        Self {
            at,
            store,
            features: store.features(),
            keep: Keep::new(options),
            backup,
            verify: options.verify,
            resume: options.resume,
            part_size: store.part_size(),
            parts_at_once: options.parallel.map_or(PARTS_AT_ONCE, |parallel| PARTS_AT_ONCE.min(parallel as usize)).max(1),
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            uploads: Uploads::open(&at.identity()),
            control,
            tally,
        }
    }

    pub fn key(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        dir.key_of(&op.name)
    }

    /// The tag of what was listed there, which is what may be replaced; `None` if nothing was.
    fn listed_tag(&self, key: &[u8], op: &Op) -> Result<Option<String>> {
        let tag = || op.dest_target.as_deref().and_then(|tag| std::str::from_utf8(tag).ok()).map(str::to_owned);
        match &op.dest {
            None => Ok(None),
            // Of a link it is known where it leads, but not the tag.
            Some(old) if old.kind == Kind::Symlink => match self.at.head(key)? {
                Some(head) if hash(&head.tag) == old.ino => Ok(Some(head.tag)),
                _ => {
                    let error = SyncError::new(ErrorKind::Conflict, "it changed since it was listed");
                    Err(self.at.at(error.hint("nothing was overwritten; the next run will look again"), "write", key))
                }
            },
            Some(_) => Ok(tag()),
        }
    }

    /// Under which condition the object may be written: only over what was listed there.
    fn when<'t>(&self, op: &Op, tag: Option<&'t str>) -> If<'t> {
        match (&op.dest, tag) {
            _ if !self.features.conditions => If::Always,
            (None, _) => If::Absent,
            // It is no object, or not this one.
            (Some(old), _) if old.kind == Kind::Dir => If::Absent,
            (Some(_), Some(tag)) => If::Tag(tag),
            (Some(_), None) => If::Always,
        }
    }

    pub fn attributes(&self, op: &Op) -> Attributes {
        if !self.features.attributes {
            return Attributes::default();
        }
        Attributes::of(&op.source, &op.name, self.keep.times, self.keep.permissions, self.keep.owner)
    }

    /// Not every key can be had. A symbolic link is an object whose attributes say so; without attributes it would become a
    /// file.
    pub fn can_hold(&self, dir: &Dir<'_>, op: &Op) -> Result<()> {
        let key = self.key(dir, op);
        let links = || if op.source.kind == Kind::Symlink { self.can_hold_links() } else { Ok(()) };
        self.store.admits(&self.at.key_of(&key)).and_then(|()| links()).map_err(|error| self.at.at(error, "write", &key))
    }

    fn can_hold_links(&self) -> Result<()> {
        if self.features.attributes {
            return Ok(());
        }
        Err(SyncError::unsupported("the destination can't hold symbolic links")
            .hint("links=\"skip\" (--links skip) leaves them out, links=\"follow\" copies what they lead to"))
    }

    /// Makes the object. Returns what stands there then, if it can be told from what others put there.
    pub fn send(&self, dir: &Dir<'_>, op: &Op, content: &dyn Content, attributes: &Attributes) -> Result<Option<Meta>> {
        let key = self.key(dir, op);
        let fail = |error| self.at.at(error, "write", &key);
        self.can_hold(dir, op)?;
        if attributes.is_link() {
            self.can_hold_links().map_err(fail)?;
        }
        let listed = self.listed_tag(&key, op)?;
        if let Some(old) = &op.dest {
            self.keep_aside(&key, old, listed.as_deref())?;
            self.clear_way(&key, old)?;
        }
        let whole = self.at.key_of(&key);
        let (size, when) = (content.size(), self.when(op, listed.as_deref()));
        let large = self.features.parts && size >= self.part_size.map_or(LARGE, |part| part.max(self.features.min_part) + 1);
        if size > self.features.max_put && !large {
            return Err(fail(SyncError::unsupported("it is larger than an object may be there")));
        }
        let tag = if large {
            self.in_parts(&whole, content, attributes, when).map_err(fail)?
        } else {
            self.at_once(&whole, content, attributes, when).map_err(fail)?
        };
        dir.touch();
        self.check(&key, &tag, size)?;
        Ok(made(&tag, size))
    }

    fn at_once(&self, key: &[u8], content: &dyn Content, attributes: &Attributes, when: If<'_>) -> Result<String> {
        let size = content.size();
        if size <= SMALL || content.is_distant() && size < LARGE {
            let (bytes, sums) = self.in_memory(content, 0..size, self.store.wants())?;
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
        let (mut summer, mut reader) = (Summer::new(kinds), content.open(range)?);
        let mut piece = vec![0; PIECE];
        loop {
            if self.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            match reader.read(&mut piece).map_err(|error| read_error(&error))? {
                0 => return Ok(summer.finish()),
                n => summer.update(&piece[..n]),
            }
        }
    }

    fn in_parts(&self, key: &[u8], content: &dyn Content, attributes: &Attributes, when: If<'_>) -> Result<String> {
        let size = content.size();
        // Objects of any size fit into the parts that there may be, with room to spare.
        let least = self.part_size.unwrap_or(PART).max(self.features.min_part);
        let part_size = least.max(size.div_ceil(self.features.max_parts.saturating_sub(100).max(1)).next_multiple_of(1 << 20));
        // An upload has its metadata from the beginning, so with others it is another one.
        let mark = hash(&format!("{} {attributes:?} {}", content.mark(), self.store.manner()));
        let begun = self.uploads.find(key, mark, part_size).filter(|_| self.resume);
        let kept = match &begun {
            Some(upload) => self.store.parts(key, upload)?.map(|parts| (upload.clone(), parts)),
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

    /// Sends the parts that are not there yet, several at a time. Returns all of them, and the sums of the whole.
    fn send_parts(&self, key: &[u8], content: &dyn Content, part_size: u64, upload: &str, kept: &[Part]) -> Result<(Vec<Part>, Sums)> {
        let (size, kinds) = (content.size(), self.store.wants());
        let count = size.div_ceil(part_size) as u32;
        let (next, failed) = (AtomicU32::new(0), Mutex::new(None::<SyncError>));
        let parts: Mutex<Vec<Option<Part>>> = Mutex::new(vec![None; count as usize]);
        let work = || {
            while failed.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
                let n = next.fetch_add(1, Relaxed);
                if n >= count {
                    break;
                }
                let range = u64::from(n) * part_size..size.min((u64::from(n) + 1) * part_size);
                match self.send_part(key, content, range, upload, n + 1, kept, kinds) {
                    Ok(part) => parts.lock().unwrap_or_else(PoisonError::into_inner)[n as usize] = Some(part),
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                    }
                }
            }
        };
        let most = if content.is_distant() { self.parts_at_once.min(PARTS_IN_MEMORY) } else { self.parts_at_once };
        std::thread::scope(|threads| {
            for _ in 1..most.min(count as usize) {
                // With fewer threads it only takes longer.
                let _ = std::thread::Builder::new().name("sypy-part".into()).spawn_scoped(threads, work);
            }
            work();
        });
        if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(error);
        }
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
            return there(&sums).map_or_else(|| self.store.put_part(key, upload, number, Body::Bytes(&bytes), &sums), Ok);
        }
        let sums = self.sum(content, range.clone(), kinds)?;
        if let Some(part) = there(&sums) {
            self.control.bytes.fetch_add(part.size, Relaxed);
            return Ok(part);
        }
        self.store.put_part(key, upload, number, Body::Stream(&Flow::new(self, content, range)), &sums)
    }

    /// `verify`: asks the store what it has.
    fn check(&self, key: &[u8], tag: &str, size: u64) -> Result<()> {
        if !self.verify {
            return Ok(());
        }
        let there = self.at.head(key)?;
        if there.is_some_and(|head| head.size == size && (tag.is_empty() || head.tag == tag)) {
            self.tally.files_verified.fetch_add(1, Relaxed);
            return Ok(());
        }
        self.tally.verification_failures.fetch_add(1, Relaxed);
        let error = SyncError::new(ErrorKind::Verification, "what the store has is not what was sent").retryable();
        Err(self.at.at(error, "verify", key))
    }

    /// Completes what is known of the object that is there.
    pub fn ask(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if op.dest.is_some_and(|old| !old.known.all) {
            let key = self.key(dir, op);
            (op.dest, op.dest_target) = look(self.at, &key)?;
        }
        Ok(())
    }

    /// Sets the attributes of an object without sending its content again.
    pub fn set_attributes(&self, dir: &Dir<'_>, op: &Op, attributes: &Attributes) -> Result<Option<Meta>> {
        let key = self.key(dir, op);
        let fail = |error| self.at.at(error, "set the metadata of", &key);
        let Some(old) = &op.dest else { return Ok(None) };
        // Of a link it is known where it leads, but not the tag.
        let tag = match &op.dest_target {
            Some(tag) if old.kind == Kind::File => std::str::from_utf8(tag).ok().map(str::to_owned),
            _ => self.at.head(&key)?.map(|head| head.tag),
        };
        let Some(tag) = tag else { return Ok(None) };
        let whole = self.at.key_of(&key);
        let from = Origin { bucket: self.store.bucket(), key: &whole, tag: &tag, size: old.size };
        let tag = self.store.copy(&from, &whole, Some(attributes), If::Always).map_err(fail)?;
        Ok(made(&tag, old.size))
    }

    pub fn can_set_attributes(&self) -> bool {
        self.features.sets_attributes
    }

    /// Does the service need to be told the attributes of an object that it copies?
    pub fn must_tell_attributes(&self, size: u64) -> bool {
        size > self.features.copies_attributes
    }

    /// Has the service copy an object, with its own attributes unless others are given.
    pub fn copy(&self, dir: &Dir<'_>, op: &Op, from: &Origin<'_>, attributes: Option<&Attributes>) -> Result<Option<Meta>> {
        let key = self.key(dir, op);
        let listed = self.listed_tag(&key, op)?;
        if let Some(old) = &op.dest {
            self.keep_aside(&key, old, listed.as_deref())?;
            self.clear_way(&key, old)?;
        }
        let copied = self.store.copy(from, &self.at.key_of(&key), attributes, self.when(op, listed.as_deref()));
        let tag = copied.map_err(|error| self.at.at(error, "write", &key))?;
        self.control.bytes.fetch_add(from.size, Relaxed);
        dir.touch();
        Ok(made(&tag, from.size))
    }

    /// The object that stands for an empty directory makes way for what takes its place, or both would be there.
    fn clear_way(&self, key: &[u8], old: &Meta) -> Result<()> {
        if old.kind != Kind::Dir || old.nlink == 0 || self.features.directories {
            return Ok(());
        }
        let marker = [&self.at.key_of(key), &b"/"[..]].concat();
        self.store.delete(&[&marker]).into_iter().collect::<Result<()>>().map_err(|error| self.at.at(error, "replace", key))
    }

    /// `backup_dir`: copies what will be replaced or removed below it.
    pub(super) fn keep_aside(&self, key: &[u8], old: &Meta, tag: Option<&str>) -> Result<()> {
        let Some(backup) = &self.backup else { return Ok(()) };
        let whole = self.at.key_of(key);
        let known = tag.filter(|_| !self.must_tell_attributes(old.size));
        let (tag, attributes) = match known {
            Some(tag) => (tag.to_owned(), None),
            None => match self.at.head(key)? {
                // It is not what was to be replaced or removed.
                Some(head) if self.features.conditions && old.kind != Kind::Dir && hash(&head.tag) != old.ino => {
                    return Err(self.at.at(SyncError::new(ErrorKind::Conflict, "it changed since it was listed"), "back up", key));
                }
                Some(head) => (head.tag, Some(head.attributes).filter(|_| self.must_tell_attributes(old.size))),
                None => return Ok(()),
            },
        };
        let from = Origin { bucket: self.store.bucket(), key: &whole, tag: &tag, size: old.size };
        let to = self.at.key_of(&[backup, key].concat());
        self.store.copy(&from, &to, attributes.as_ref(), If::Always).map(drop).map_err(|error| self.at.at(error, "back up", key))
    }

    /// A directory is there once something is in it. What stands in its way goes.
    pub fn make_dir(&self, parent: &Dir<'_>, name: &[u8], replaced: Option<&Meta>) -> Result<()> {
        let Some(old) = replaced else { return Ok(()) };
        let key = parent.key_of(name);
        self.keep_aside(&key, old, None)?;
        parent.touch();
        let whole = self.at.key_of(&key);
        self.store.delete(&[&whole]).into_iter().collect::<Result<()>>().map_err(|error| self.at.at(error, "replace", &key))
    }

    /// A directory in which nothing is gets an object of its own, so that it is there too.
    pub fn finish_dir(&self, dir: &Dir<'_>) -> Result<()> {
        if self.control.should_stop() {
            return Ok(());
        }
        let copied = dir.like.is_some_and(|like| like.tagged && like.nlink > 0) && dir.had.is_none_or(|had| had.nlink == 0);
        let empty = dir.had.is_none() && !dir.is_touched();
        if !dir.key.is_empty() && dir.like.is_some() && (copied || empty) {
            self.put_marker(&dir.key)?;
            dir.touch();
        }
        if dir.is_touched()
            && let Some(parent) = dir.parent()
        {
            parent.touch();
        }
        Ok(())
    }

    fn put_marker(&self, key: &[u8]) -> Result<()> {
        let whole = [&self.at.key_of(key), &b"/"[..]].concat();
        let attributes = Attributes { content_type: Some("application/x-directory".into()), ..Attributes::default() };
        let sums = sums::of(b"", self.store.wants());
        let when = if self.features.conditions { If::Absent } else { If::Always };
        match self.store.put(&whole, Body::Bytes(b""), &attributes, &sums, when) {
            // Whatever has that key makes the directory be there. It may have content, which is somebody's.
            Err(error) if error.kind == ErrorKind::Conflict => Ok(()),
            put => put.map(drop).map_err(|error| self.at.at(error, "create", key)),
        }
    }

    /// After deletions a directory that the source has may be gone with its last object.
    pub fn restore_dir(&self, key: &[u8]) -> Result<()> {
        if key.is_empty() || self.at.holds_anything(key)? { Ok(()) } else { self.put_marker(key) }
    }

    /// Uploads that an earlier run began and nobody went on with are given up.
    pub fn end(&self, only: Option<&[u8]>) {
        let own = only.map(|name| self.at.key_of(name));
        let is_own = |key: &[u8]| {
            own.as_deref().is_none_or(|own| key.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/")))
        };
        for (key, upload) in self.uploads.stale().into_iter().filter(|(key, _)| is_own(key)) {
            self.store.abort(&key, &upload);
            self.uploads.forget(&key);
        }
    }

    pub fn outcome(&self, op: &Op) -> Applied {
        if op.dest.is_some() { Applied::Updated } else { Applied::Created }
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

/// A relative path as a key: one slash between names, none at the end.
pub fn plain_key(path: &std::path::Path) -> Vec<u8> {
    path.components().collect::<std::path::PathBuf>().into_os_string().into_encoded_bytes()
}

pub fn nothing() -> Object {
    Object { key: Vec::new(), size: 0, modified: crate::transport::Time::default(), tag: String::new(), attributes: None }
}

/// What stands at the destination after a write that returned `tag`.
fn made(tag: &str, size: u64) -> Option<Meta> {
    (!tag.is_empty()).then(|| Meta { ino: hash(tag), ..meta_of(&Object { size, ..nothing() }) })
}

/// What is there, if anything is, and its target or tag.
pub type Looked = (Option<Meta>, Option<Box<[u8]>>);

/// All that there is to know of an object; a link with its target.
pub fn look(at: &CloudEndpoint, key: &[u8]) -> Result<Looked> {
    let Some(head) = at.head(key)? else { return Ok((None, None)) };
    let meta = meta_of_head(&head);
    let target = if meta.kind == Kind::Symlink { at.read(key)?.into_boxed_slice() } else { tag_of(&head) };
    Ok((Some(meta), Some(target)))
}

pub fn read_error(error: &std::io::Error) -> SyncError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<SyncError>()) {
        Some(own) => own.clone(),
        None => SyncError::new(ErrorKind::Network, format!("the connection failed: {error}")).retryable(),
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
