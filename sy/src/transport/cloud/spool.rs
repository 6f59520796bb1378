//! Makes listings of directories from a store's one flat list of keys, with memory that does not grow with their number.
//!
//! Keys come in order, so all that is below a directory is one unbroken run. Its children are gathered while the run
//! passes, and written out as one block when it ends; its own entry, with the place of that block, goes to the children of
//! the directory above. What does not fit in memory goes to a file without a name.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use super::blocks::{Block, Blocks, Entry, Reader, fits_a_block, write_dir, write_object};
use super::pages::pages;
use super::store::{Object, Page, Store};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::{Kind, Known, Listing, Meta, Time};

/// The keys below one prefix, as directories.
#[derive(Debug)]
pub struct Spool {
    blocks: Blocks,
    root: Block,
    /// An object stands for the root itself: it is there, even if it is empty.
    marker: bool,
    /// The size of that object.
    own: u64,
    /// Directories whose parent was listed and that were not yet themselves.
    places: Mutex<HashMap<Vec<u8>, Block>>,
}

impl Spool {
    /// Lists all that begins with `prefix`.
    pub fn read(store: &dyn Store, prefix: &[u8], stop: &Stop) -> Result<Self> {
        if store.features().ordered {
            match Self::in_order(store, prefix, stop) {
                // Some services order keys in a way of their own.
                Err(Trouble::Order) => {}
                Err(Trouble::Other(error)) => return Err(error),
                Ok(spool) => return Ok(spool),
            }
        }
        let mut all = Vec::new();
        pages(store, prefix, stop, false, &mut |page| {
            all.extend(page.objects);
            Ok(())
        })
        .map_err(Trouble::into_error)?;
        all.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        let mut builder = Builder::new(prefix);
        for object in &all {
            builder.push(object).map_err(Trouble::into_error)?;
        }
        builder.finish().map_err(Trouble::into_error)
    }

    fn in_order(store: &dyn Store, prefix: &[u8], stop: &Stop) -> Result<Self, Trouble> {
        let mut builder = Builder::new(prefix);
        pages(store, prefix, stop, true, &mut |page| page.objects.iter().try_for_each(|object| builder.push(object)))?;
        builder.finish()
    }

    /// The directory at `key`, relative to the prefix, without a slash at the end.
    pub fn list(&self, key: &[u8]) -> Result<Listing> {
        let place = if key.is_empty() { Some(self.root) } else { self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(key) };
        let block = match place {
            Some(block) => block,
            None => self.find(key)?.ok_or_else(|| SyncError::new(ErrorKind::NotFound, "there is no such directory"))?,
        };
        let bytes = self.blocks.read(block).map_err(spool_error)?;
        let mut listing = Listing::with_capacity(block.entries as usize, bytes.len() / 4);
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let mut reader = Reader(&bytes);
        listing.own = if key.is_empty() { self.own } else { 0 };
        while let Some(entry) = reader.entry() {
            match entry {
                Entry::Dir { name, block, marker } => {
                    places.insert(crate::transport::child_key(key, name), block);
                    listing.push(name, dir_meta(marker), None);
                }
                Entry::Object { name, object } => {
                    let tag = object.tag.clone().into_bytes().into_boxed_slice();
                    listing.push(name, as_listed(meta_of(&object)), Some(tag));
                }
            }
        }
        Ok(listing)
    }

    /// Goes down to a directory from the root; `None` if it is not there.
    fn find(&self, key: &[u8]) -> Result<Option<Block>> {
        let mut block = self.root;
        for wanted in key.split(|&b| b == b'/') {
            let bytes = self.blocks.read(block).map_err(spool_error)?;
            let mut reader = Reader(&bytes);
            let below = std::iter::from_fn(|| reader.entry()).find_map(|entry| match entry {
                Entry::Dir { name, block, .. } if name == wanted => Some(block),
                _ => None,
            });
            match below {
                Some(below) => block = below,
                None => return Ok(None),
            }
        }
        Ok(Some(block))
    }

    /// Nothing says that it is there.
    pub fn is_empty(&self) -> bool {
        self.root.entries == 0 && !self.marker
    }
}

pub enum Trouble {
    /// Keys are not in the order of their bytes.
    Order,
    Other(SyncError),
}

impl From<SyncError> for Trouble {
    fn from(error: SyncError) -> Self {
        Self::Other(error)
    }
}

impl Trouble {
    fn into_error(self) -> SyncError {
        match self {
            Self::Order => SyncError::new(ErrorKind::Io, "the service listed a key twice"),
            Self::Other(error) => error,
        }
    }
}

fn spool_error(error: std::io::Error) -> SyncError {
    SyncError::io(&error, "keep a listing in", std::env::temp_dir())
}

/// Pages of a list that wait for their turn.
#[derive(Debug, Default)]
pub struct Kept {
    blocks: Blocks,
    pages: Vec<Block>,
}

impl Kept {
    pub fn push(&mut self, page: &Page) -> Result<()> {
        let mut bytes = Vec::new();
        for object in &page.objects {
            fits_a_block(object)?;
            write_object(&mut bytes, &object.key, object);
        }
        let at = self.blocks.push(&bytes).map_err(spool_error)?;
        self.pages.push(Block { at, length: bytes.len() as u64, entries: page.objects.len() as u64 });
        Ok(())
    }

    pub fn each(self, mut take: impl FnMut(Page) -> Result<(), Trouble>) -> Result<(), Trouble> {
        for block in &self.pages {
            let bytes = self.blocks.read(*block).map_err(spool_error)?;
            let mut reader = Reader(&bytes);
            let mut objects = Vec::with_capacity(block.entries as usize);
            while let Some(Entry::Object { name, object }) = reader.entry() {
                objects.push(Object { key: name.to_vec(), ..object });
            }
            take(Page { objects, ..Page::default() })?;
        }
        Ok(())
    }
}

/// A directory: known by what is in it.
pub fn dir_meta(marker: bool) -> Meta {
    Meta {
        kind: Kind::Dir,
        mode: 0o755,
        // Whether an object stands for the directory itself.
        nlink: u32::from(marker),
        ino: u64::from(marker),
        known: Known { all: true, ..Known::NOTHING },
        ..blank()
    }
}

/// An object, as far as a listing tells.
pub fn meta_of(object: &Object) -> Meta {
    let meta = Meta {
        size: object.size,
        allocated: object.size,
        mtime: object.modified,
        ctime: object.modified,
        ino: hash(&object.tag),
        ..blank()
    };
    object.attributes.as_ref().map_or(meta, |attributes| attributes.complete(&meta))
}

/// What counts of it without another look. Where a link leads is its content, which is not told, and who may run as somebody
/// else is judged where it is asked for.
pub fn as_listed(meta: Meta) -> Meta {
    let open = meta.kind == Kind::Symlink || meta.mode & 0o7000 != 0;
    Meta { known: if open { Known::NOTHING } else { meta.known }, ..meta }
}

fn blank() -> Meta {
    Meta {
        kind: Kind::File,
        size: 0,
        mtime: Time::default(),
        ctime: Time::default(),
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        ino: 0,
        dev: 0,
        rdev: 0,
        allocated: 0,
        mount: false,
        tagged: true,
        known: Known::NOTHING,
    }
}

/// A tag as a number.
pub fn hash(tag: &str) -> u64 {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(tag.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(short)
}

/// A directory whose run of keys has not ended.
struct Level {
    name: Vec<u8>,
    children: Vec<u8>,
    entries: u64,
    marker: bool,
}

struct Builder<'p> {
    prefix: &'p [u8],
    blocks: Blocks,
    open: Vec<Level>,
    last: Vec<u8>,
    own: u64,
}

impl<'p> Builder<'p> {
    fn new(prefix: &'p [u8]) -> Self {
        let root = Level { name: Vec::new(), children: Vec::new(), entries: 0, marker: false };
        Self { prefix, blocks: Blocks::default(), open: vec![root], last: Vec::new(), own: 0 }
    }

    fn push(&mut self, object: &Object) -> Result<(), Trouble> {
        if !self.last.is_empty() && object.key <= self.last {
            return Err(Trouble::Order);
        }
        let Some(key) = object.key.strip_prefix(self.prefix) else {
            return Err(SyncError::new(ErrorKind::Io, "the service listed a key that was not asked for").into());
        };
        fits_a_block(object)?;
        self.last.clone_from(&object.key);
        let (dirs, rest) = components(key, object.size);
        let depth = self.open.iter().skip(1).zip(&dirs).take_while(|(level, dir)| level.name == **dir).count();
        while self.open.len() > depth + 1 {
            self.close()?;
        }
        for dir in &dirs[depth..] {
            self.open.push(Level { name: dir.to_vec(), children: Vec::new(), entries: 0, marker: false });
        }
        let Some(level) = self.open.last_mut() else { return Ok(()) };
        if rest.is_empty() {
            level.marker = true;
            // With content, it can only be that of the root.
            self.own = self.own.max(object.size);
        } else {
            write_object(&mut level.children, rest, object);
            level.entries += 1;
        }
        Ok(())
    }

    /// The run of the innermost directory is over.
    fn close(&mut self) -> Result<(), Trouble> {
        let Some(level) = self.open.pop() else { return Ok(()) };
        let block = self.block(&level)?;
        if let Some(parent) = self.open.last_mut() {
            write_dir(&mut parent.children, &level.name, block, level.marker);
            parent.entries += 1;
        }
        Ok(())
    }

    fn block(&mut self, level: &Level) -> Result<Block, Trouble> {
        let at = self.blocks.push(&level.children).map_err(spool_error)?;
        Ok(Block { at, length: level.children.len() as u64, entries: level.entries })
    }

    fn finish(mut self) -> Result<Spool, Trouble> {
        while self.open.len() > 1 {
            self.close()?;
        }
        let (root, marker) = match self.open.pop() {
            Some(level) => (self.block(&level)?, level.marker),
            None => (Block { at: 0, length: 0, entries: 0 }, false),
        };
        Ok(Spool { blocks: self.blocks, root, marker, own: self.own, places: Mutex::default() })
    }
}

/// The directories that a key names, and the name in the last one: empty for an object that stands for the directory.
/// From an empty component on, which no directory has, the key is one name; so is a directory's own object with content.
pub fn components(key: &[u8], size: u64) -> (Vec<&[u8]>, &[u8]) {
    let mut dirs = Vec::new();
    let mut rest = key;
    while let Some(slash) = rest.iter().position(|&b| b == b'/') {
        let own = slash + 1 == rest.len();
        if slash == 0 || own && size > 0 {
            break;
        }
        dirs.push(&rest[..slash]);
        rest = &rest[slash + 1..];
    }
    (dirs, rest)
}

#[cfg(test)]
mod tests {
    use super::super::attributes::Attributes;
    use super::*;
    use crate::transport::key_order;

    fn object(key: &str, size: u64) -> Object {
        Object { key: key.into(), size, modified: Time::default(), tag: format!("tag of {key}"), attributes: None }
    }

    fn spool(keys: &[(&str, u64)]) -> Spool {
        let mut sorted: Vec<_> = keys.iter().map(|(key, size)| object(key, *size)).collect();
        sorted.sort_by(|a, b| a.key.cmp(&b.key));
        let mut builder = Builder::new(b"p/");
        for object in &sorted {
            assert!(builder.push(object).is_ok());
        }
        builder.finish().ok().expect("in order")
    }

    /// Every object's key, found by walking the directories.
    fn walked(spool: &Spool, key: &[u8], found: &mut Vec<String>) {
        let listing = spool.list(key).expect("a directory");
        let order = |n: usize| key_order(listing.name(n - 1), listing.item(n - 1).meta.kind, listing.name(n), listing.item(n).meta.kind);
        assert!((1..listing.len()).all(|n| order(n).is_lt()), "listings are in the order in which they are joined");
        for n in 0..listing.len() {
            let child = crate::transport::child_key(key, listing.name(n));
            if listing.item(n).meta.kind == Kind::Dir {
                if listing.item(n).meta.nlink == 1 {
                    found.push(format!("p/{}/", String::from_utf8_lossy(&child)));
                }
                walked(spool, &child, found);
            } else {
                found.push(format!("p/{}", String::from_utf8_lossy(&child)));
            }
        }
    }

    #[test]
    fn what_a_listing_tells_is_all_there_is_but_for_links_and_special_modes() {
        let known = |mode: Option<u32>| {
            let mut builder = Builder::new(b"p/");
            let attributes = Some(Attributes { mode, ..Attributes::default() });
            assert!(builder.push(&Object { attributes, ..object("p/a", 1) }).is_ok());
            let listing = builder.finish().ok().and_then(|spool| spool.list(b"").ok()).expect("one object");
            listing.item(0).meta.known
        };
        assert!(known(None).all && known(Some(0o100_644)).mode);
        assert_eq!((known(Some(0o120_777)), known(Some(0o104_755))), (Known::NOTHING, Known::NOTHING));
    }

    #[test]
    fn directories_come_from_flat_keys() {
        let spool =
            spool(&[("p/a", 1), ("p/a-b", 1), ("p/a/x", 1), ("p/a/y/z", 2), ("p/b/", 0), ("p/c/", 5), ("p//odd", 1), ("p/d//e", 1)]);
        let listing = spool.list(b"").expect("the root");
        let names: Vec<String> =
            (0..listing.len()).map(|n| format!("{:?} {}", listing.item(n).meta.kind, String::from_utf8_lossy(listing.name(n)))).collect();
        assert_eq!(names, ["File /odd", "File a", "File a-b", "Dir a", "Dir b", "File c/", "Dir d"]);
        assert!(listing.find(b"a", true).is_some() && listing.find(b"a", false).is_some());
        assert_eq!(spool.list(b"a/y").expect("twice, and out of turn").len(), 1);
        assert_eq!(spool.list(b"a/y").expect("twice, and out of turn").len(), 1);
        assert!(spool.list(b"a/n").is_err());
        assert_eq!(listing.item(1).target.as_deref(), Some(&b"tag of p/a"[..]));
    }

    #[test]
    fn many_keys_go_to_disk_and_come_back() {
        let keys: Vec<String> = (0..120_000).map(|n| format!("p/{:04}/{n:06}", n / 100)).collect();
        let spool = spool(&keys.iter().map(|key| (key.as_str(), 1)).collect::<Vec<_>>());
        assert!(spool.blocks.file.is_some());
        let mut found = Vec::new();
        walked(&spool, b"", &mut found);
        assert!(found == keys);
    }

    #[test]
    fn what_no_block_can_hold_is_refused() {
        let mut builder = Builder::new(b"");
        assert!(builder.push(&object(&"a".repeat(70_000), 1)).is_err());
        assert!(builder.push(&Object { tag: "t".repeat(70_000), ..object("a", 1) }).is_err());
    }

    #[test]
    fn what_is_out_of_order_is_noticed() {
        let mut builder = Builder::new(b"");
        assert!(builder.push(&object("b", 1)).is_ok());
        assert!(builder.push(&object("a", 1)).is_err() && builder.push(&object("b", 1)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_key_gets_lost(keys in proptest::collection::btree_map("p/[ab./-]{0,6}", 0u64..2, 1..20)) {
            let keys: Vec<(&str, u64)> = keys.iter().map(|(key, size)| (key.as_str(), *size)).collect();
            let mut found = Vec::new();
            walked(&spool(&keys), b"", &mut found);
            found.sort();
            let mut expected: Vec<&str> = keys.iter().map(|(key, _)| *key).filter(|key| *key != "p/").collect();
            expected.sort_unstable();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
