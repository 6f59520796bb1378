//! Writes objects, wherever their content comes from.
//!
//! An object is there whole or not at all: one `put`, or parts that become an object when the last has arrived.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::attributes::Attributes;
use super::endpoint::{CloudEndpoint, meta_of_head, tag_of};
use super::http::Body;
use super::removal::is_changed;
use super::slots::Slots;
use super::spool::{hash, meta_of};
use super::store::{Features, If, Object, Origin, Removal, Store};
use super::sums;
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::state::Uploads;
use crate::sync::{Control, Dir, Tally};
use crate::transport::local::{Keep, Limiter};
use crate::transport::{Applied, Endpoint, Kind, Meta, Op, Pace};

/// From this size on an object is made from parts.
pub const LARGE: u64 = 32 << 20;
/// Small objects under way for each transfer that `parallel` allows: their time is spent on waiting.
const SMALL_ONES: u32 = 8;

/// What an object is made from.
pub trait Content: Sync {
    fn size(&self) -> u64;

    /// Reads a range of it; may be asked for the same one again.
    fn open(&self, range: Range<u64>) -> Result<Box<dyn Read + '_>>;

    /// It passed by: what begins at `start`, of all of it in any order. May wait for what comes before; `gone` says that nothing
    /// will.
    fn passed(&self, _start: u64, _bytes: &[u8], _gone: &dyn Fn() -> bool) -> Result<()> {
        Ok(())
    }

    /// An error if it is not any more what it was when the transfer began, or what passed by was not what it should have been.
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

/// The large transfers of a lane, between whichever of these.
pub fn slots<'r>(options: &Options, control: &'r Control, sides: &[&'r CloudEndpoint]) -> Slots<'r> {
    let most = sides.iter().filter_map(|side| side.connections()).chain(options.parallel.map(u64::from)).min();
    let stores: Vec<&dyn Store> = sides.iter().map(|side| side.store()).collect();
    Slots::new(control, most, move || stores.iter().map(|store| store.throttled()).sum())
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
    pub(super) resume: bool,
    pub(super) part_size: Option<u64>,
    pub slots: Slots<'r>,
    pub(super) limiter: Option<Limiter>,
    pub(super) uploads: Uploads,
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
            slots: slots(options, control, &[at]),
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
        let removal = Removal { key: &marker, tag: None };
        self.store.delete(&[removal]).into_iter().collect::<Result<()>>().map_err(|error| self.at.at(error, "replace", key))
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
        let Some(head) = self.at.head(&key)? else { return Ok(()) };
        let whole = self.at.key_of(&key);
        let removal = Removal { key: &whole, tag: Some(head.tag.as_str()).filter(|tag| !tag.is_empty()) };
        let removed = if hash(&head.tag) == old.ino || old.kind == Kind::Dir {
            self.store.delete(&[removal]).into_iter().collect()
        } else {
            Err(is_changed())
        };
        removed.map_err(|error: SyncError| self.at.at(error, "replace", &key))
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
