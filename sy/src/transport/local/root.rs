//! An open root on a local file system. Everything is done relative to it and never leaves it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use crate::transport::{Kind, Known, Meta, Time};

/// May symbolic links below the root be followed?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    Never,
    /// As long as they end within the root.
    Within,
    Anywhere,
}

#[derive(Debug)]
pub struct Root {
    fd: OwnedFd,
    /// The path as the user wrote it, for messages.
    named: Vec<u8>,
    /// The path without links, for links that name it.
    real: Vec<u8>,
    follow: Follow,
}

/// Paths are opened in pieces shorter than the system's PATH_MAX.
const PIECE: usize = 4000;
const DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Kernels before 5.6 and some sandboxes have no `openat2`; then paths are opened component by component.
static NO_OPENAT2: AtomicBool = AtomicBool::new(false);

impl Root {
    pub fn new(fd: OwnedFd, path: &Path, follow: Follow) -> Self {
        let real = real_path(fd.as_fd()).unwrap_or_default();
        Self { fd, named: path.as_os_str().as_bytes().to_vec(), real, follow }
    }

    pub fn real(&self) -> &[u8] {
        &self.real
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub fn follow(&self) -> Follow {
        self.follow
    }

    /// The path of `key` as the user would write it.
    pub fn path_of(&self, key: &[u8]) -> Vec<u8> {
        let mut path = self.named.clone();
        if key.is_empty() {
            return path;
        }
        if !path.is_empty() && path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(key);
        path
    }

    /// Opens a directory below the root, by a key without a trailing slash; "" is the root.
    pub fn open_dir(&self, key: &[u8]) -> Result<OwnedFd, Errno> {
        self.open(key, DIR)
    }

    /// Opens what stands at `key`.
    pub fn open(&self, key: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        if key.is_empty() {
            return rustix::fs::openat(&self.fd, ".", flags, Mode::empty());
        }
        match self.follow {
            Follow::Never => open_beneath(self.fd(), key, flags, false),
            Follow::Anywhere => open_long(self.fd(), key, flags),
            Follow::Within => match open_beneath(self.fd(), key, flags, true) {
                // An absolute link may still end within the root: see where it leads, holding it.
                Err(Errno::XDEV) => self.open_checked(key, flags),
                other => other,
            },
        }
    }

    fn open_checked(&self, key: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let held = open_long(self.fd(), key, OFlags::PATH | OFlags::CLOEXEC)?;
        let real = real_path(held.as_fd())?;
        let inside =
            real.strip_prefix(self.real.as_slice()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/") || self.real == b"/");
        if !inside {
            return Err(Errno::XDEV);
        }
        if flags.contains(OFlags::PATH) {
            return Ok(held);
        }
        rustix::fs::openat(CWD, proc_path(held.as_fd()), flags - OFlags::NOFOLLOW, Mode::empty())
    }
}

/// `/proc/self/fd/N`: the one way to name an open object again without its path.
pub fn proc_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Where an open object is now, without links.
pub fn real_path(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    rustix::fs::readlinkat(CWD, proc_path(fd), Vec::new()).map(std::ffi::CString::into_bytes)
}

/// Opens below `dir` without ever leaving it; links on the way are refused unless `links`.
fn open_beneath(dir: BorrowedFd<'_>, key: &[u8], flags: OFlags, links: bool) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = key;
    // Beyond PATH_MAX a path is opened in long pieces, each from the one before. A link may lead up across a piece's
    // beginning, so where links are followed such a path is refused.
    while rest.len() > PIECE {
        if links {
            return Err(Errno::XDEV);
        }
        let cut = rest[..PIECE].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
        let here = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(open_piece(here, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, links)?);
        rest = &rest[cut + 1..];
    }
    open_piece(at.as_ref().map_or(dir, AsFd::as_fd), rest, flags, links)
}

fn open_piece(dir: BorrowedFd<'_>, key: &[u8], flags: OFlags, links: bool) -> Result<OwnedFd, Errno> {
    if !NO_OPENAT2.load(Relaxed) {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let resolve = if links { resolve } else { resolve | ResolveFlags::NO_SYMLINKS };
        loop {
            match rustix::fs::openat2(dir, key, flags, Mode::empty(), resolve) {
                // The kernel asks to try again where a rename ran across the look-up.
                Err(Errno::AGAIN) => {}
                Err(Errno::NOSYS) => break NO_OPENAT2.store(true, Relaxed),
                // Some sandboxes say this of calls that they don't know.
                Err(Errno::PERM) => break,
                other => return other,
            }
        }
    }
    if links {
        // Without the kernel's help a link can't be followed safely.
        return Err(Errno::XDEV);
    }
    let mut parts = key.split(|&b| b == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        let here = at.as_ref().map_or(dir, AsFd::as_fd);
        if part == b".." {
            return Err(Errno::XDEV);
        }
        let flags = if parts.peek().is_some() { OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC } else { flags };
        at = Some(rustix::fs::openat(here, part, flags | OFlags::NOFOLLOW, Mode::empty())?);
    }
    at.ok_or(Errno::NOENT)
}

/// Opens a path of any length, following links.
fn open_long(dir: BorrowedFd<'_>, key: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut at: Option<OwnedFd> = None;
    let mut rest = key;
    while rest.len() > PIECE {
        let cut = rest[..PIECE].iter().rposition(|&b| b == b'/').ok_or(Errno::NAMETOOLONG)?;
        let here = at.as_ref().map_or(dir, AsFd::as_fd);
        at = Some(rustix::fs::openat(here, &rest[..cut], OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        rest = &rest[cut + 1..];
    }
    rustix::fs::openat(at.as_ref().map_or(dir, AsFd::as_fd), rest, flags, Mode::empty())
}

/// The metadata of a name in a directory, of a link itself.
pub fn stat_at(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Meta, Errno> {
    rustix::fs::statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS).map(|s| meta(&s))
}

/// The metadata of what is open.
pub fn stat_fd(fd: BorrowedFd<'_>) -> Result<Meta, Errno> {
    rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).map(|s| meta(&s))
}

fn meta(s: &Statx) -> Meta {
    let time = |t: &rustix::fs::StatxTimestamp| Time { seconds: t.tv_sec, nanos: t.tv_nsec };
    let device = |major, minor| rustix::fs::makedev(major, minor);
    Meta {
        tagged: false,
        known: Known::EVERYTHING,
        kind: match u32::from(s.stx_mode) & 0o170_000 {
            0o040_000 => Kind::Dir,
            0o120_000 => Kind::Symlink,
            0o010_000 => Kind::Fifo,
            0o140_000 => Kind::Socket,
            0o020_000 => Kind::CharDevice,
            0o060_000 => Kind::BlockDevice,
            _ => Kind::File,
        },
        size: s.stx_size,
        mtime: time(&s.stx_mtime),
        ctime: time(&s.stx_ctime),
        mode: u32::from(s.stx_mode) & 0o7777,
        uid: s.stx_uid,
        gid: s.stx_gid,
        nlink: s.stx_nlink,
        ino: s.stx_ino,
        dev: device(s.stx_dev_major, s.stx_dev_minor),
        rdev: device(s.stx_rdev_major, s.stx_rdev_minor),
        allocated: s.stx_blocks * 512,
        mount: s.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT),
    }
}
