//! What a scan finds: kinds, times, metadata, and one directory's worth of it.

use std::cmp::Ordering;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::error::SyncError;

/// What kind of thing an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    File,
    Dir,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Dir => "directory",
            Self::Symlink => "symlink",
            Self::Fifo => "fifo",
            Self::Socket => "socket",
            Self::CharDevice => "character device",
            Self::BlockDevice => "block device",
        }
    }

    pub fn is_special(self) -> bool {
        matches!(self, Self::Fifo | Self::Socket | Self::CharDevice | Self::BlockDevice)
    }
}

/// A point in time, nanoseconds exact, also before 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time {
    pub seconds: i64,
    pub nanos: u32,
}

impl Time {
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        Self { seconds: now.tv_sec, nanos: now.tv_nsec as u32 }
    }

    pub fn total_nanos(self) -> i128 {
        i128::from(self.seconds) * 1_000_000_000 + i128::from(self.nanos)
    }

    /// Without the fraction of a second.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { nanos: 0, ..self }
    }

    /// `2026-11-24T10:00:00.123456789Z`; no fraction where there is none.
    pub fn to_rfc3339(self) -> String {
        let (year, month, day) = super::cloud::civil(self.seconds.div_euclid(86_400));
        let second = self.seconds.rem_euclid(86_400);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        let fraction = if self.nanos == 0 { String::new() } else { format!(".{:09}", self.nanos) };
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
    }
}

/// What of a `Meta` its storage really knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Otherwise the storage has to be asked for the rest: a listing of objects does not tell their metadata, nor
    /// whether one stands for a symbolic link.
    pub all: bool,
    pub mtime: bool,
    pub mode: bool,
    pub owner: bool,
}

impl Known {
    pub const EVERYTHING: Self = Self { all: true, mtime: true, mode: true, owner: true };
    pub const NOTHING: Self = Self { all: false, mtime: false, mode: false, owner: false };
}

/// What a storage says of an entry without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    pub kind: Kind,
    pub size: u64,
    pub mtime: Time,
    pub ctime: Time,
    /// Permission bits, with set-id and sticky: 0o7777 at most.
    pub mode: u32,
    /// `NO_ID` where only one of the two is known.
    pub uid: u32,
    pub gid: u32,
    pub nlink: u32,
    pub ino: u64,
    pub dev: u64,
    /// Device number of a device file.
    pub rdev: u64,
    /// Bytes that the storage gives to it; less than `size` where it has holes.
    pub allocated: u64,
    /// Another file system, or another part of this one, is mounted here.
    pub mount: bool,
    /// `ino` is a hash of a tag that changes with the content, such as an ETag; inode, device and times tell nothing.
    pub tagged: bool,
    pub known: Known,
}

impl Meta {
    /// Is this the same state of the same file? Any write to it in between would show. Another name that came or went
    /// changes the file's change time as well, but not the file.
    pub fn same_state(&self, other: &Self) -> bool {
        if self.tagged {
            return other.tagged && (self.ino, self.size) == (other.ino, other.size);
        }
        (self.kind, self.ino, self.dev, self.size, self.mtime) == (other.kind, other.ino, other.dev, other.size, other.mtime)
            && (self.ctime == other.ctime || self.nlink != other.nlink)
    }

    /// Does this look like a copy of `source`, as far as kind and size tell?
    pub fn looks_like(&self, source: &Self) -> bool {
        self.kind == source.kind && (self.kind != Kind::File || self.size == source.size)
    }

    /// The file by itself, whatever it is called.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// An entry by itself: its metadata, and its target or tag, as in `Item`.
pub type Found = (Meta, Option<Box<[u8]>>);

/// One entry of a listing; its name stands in the listing.
#[derive(Debug)]
pub struct Item {
    start: u32,
    length: u16,
    pub meta: Meta,
    /// Where a symbolic link points; the tag of an object.
    pub target: Option<Box<[u8]>>,
}

/// An owner or group that is not known, and is left as it is.
pub const NO_ID: u32 = u32::MAX;

/// One directory, complete and in key order: byte order, a directory sorting as `name/`.
#[derive(Debug, Default)]
pub struct Listing {
    names: Vec<u8>,
    items: Vec<Item>,
    /// An open handle on the directory, where the storage has such.
    pub handle: Option<Arc<OwnedFd>>,
    /// Names that are there but whose metadata could not be had.
    pub unknown: Vec<(Box<[u8]>, SyncError)>,
    /// Temporary files that an earlier run left behind.
    pub leftovers: Vec<Box<[u8]>>,
    /// Bytes in an object that stands for the directory itself, and so has no name in it.
    pub own: u64,
}

impl Listing {
    pub fn with_capacity(items: usize, name_bytes: usize) -> Self {
        Self { names: Vec::with_capacity(name_bytes), items: Vec::with_capacity(items), ..Self::default() }
    }

    pub fn push(&mut self, name: &[u8], meta: Meta, target: Option<Box<[u8]>>) {
        let (start, length) = (self.names.len() as u32, name.len() as u16);
        self.names.extend_from_slice(name);
        self.items.push(Item { start, length, meta, target });
    }

    pub fn sort(&mut self) {
        let names = &self.names;
        let name = |item: &Item| &names[item.start as usize..][..item.length as usize];
        self.items.sort_unstable_by(|a, b| key_order(name(a), a.meta.kind, name(b), b.meta.kind));
    }

    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    pub fn item(&self, index: usize) -> &Item {
        &self.items[index]
    }

    pub fn metas_mut(&mut self) -> impl Iterator<Item = &mut Meta> {
        self.items.iter_mut().map(|item| &mut item.meta)
    }

    pub fn name(&self, index: usize) -> &[u8] {
        let item = &self.items[index];
        &self.names[item.start as usize..][..item.length as usize]
    }

    /// The entry called `name` that is, or is not, a directory.
    pub fn find(&self, name: &[u8], is_dir: bool) -> Option<usize> {
        let kind = if is_dir { Kind::Dir } else { Kind::File };
        let (mut low, mut high) = (0, self.items.len());
        while low < high {
            let middle = low.midpoint(high);
            match key_order(self.name(middle), self.items[middle].meta.kind, name, kind) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

/// The one global order of keys, for two names in one directory.
pub fn key_order(a: &[u8], a_kind: Kind, b: &[u8], b_kind: Kind) -> Ordering {
    let common = a.len().min(b.len());
    match a[..common].cmp(&b[..common]) {
        Ordering::Equal => {
            let next = |name: &[u8], kind| name.get(common).copied().or((kind == Kind::Dir).then_some(b'/'));
            // In an object store a name may end in a slash, as no directory's does: it is listed before what is below.
            next(a, a_kind).cmp(&next(b, b_kind)).then(b.len().cmp(&a.len()))
        }
        order => order,
    }
}

/// A file for tests.
#[cfg(test)]
pub(crate) fn sample(size: u64, mtime: Time) -> Meta {
    Meta {
        kind: Kind::File,
        size,
        mtime,
        ctime: mtime,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        ino: 1,
        dev: 1,
        rdev: 0,
        allocated: size.next_multiple_of(512),
        mount: false,
        tagged: false,
        known: Known::EVERYTHING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_sorts_as_its_name_with_a_slash() {
        let mut keys =
            [("a0", Kind::File), ("a", Kind::Dir), ("a.txt", Kind::File), ("a-b", Kind::Dir), ("a", Kind::File), ("b", Kind::File)];
        keys.sort_by(|a, b| key_order(a.0.as_bytes(), a.1, b.0.as_bytes(), b.1));
        let written: Vec<String> = keys.iter().map(|(n, k)| if *k == Kind::Dir { format!("{n}/") } else { (*n).to_string() }).collect();
        assert_eq!(written, ["a", "a-b/", "a.txt", "a/", "a0", "b"]);
        let mut sorted = written.clone();
        sorted.sort();
        assert_eq!(written, sorted);
    }

    #[test]
    fn a_name_that_ends_in_a_slash_comes_before_the_directory() {
        assert_eq!(key_order(b"c/", Kind::File, b"c", Kind::Dir), Ordering::Less);
        assert_eq!(key_order(b"c", Kind::Dir, b"c/", Kind::File), Ordering::Greater);
        assert_eq!(key_order(b"c", Kind::Dir, b"c", Kind::Dir), Ordering::Equal);
    }

    proptest::proptest! {
        #[test]
        fn the_order_is_that_of_the_written_keys(a in "[a.\\-/0]{1,4}", b in "[a.\\-/0]{1,4}", x: bool, y: bool) {
            let kind = |dir| if dir { Kind::Dir } else { Kind::File };
            let (a, b) = (a.replace('/', "b"), b.replace('/', "b"));
            let written = |name: &str, dir| if dir { format!("{name}/") } else { name.to_owned() };
            proptest::prop_assert_eq!(
                key_order(a.as_bytes(), kind(x), b.as_bytes(), kind(y)),
                written(&a, x).cmp(&written(&b, y))
            );
        }
    }
}
