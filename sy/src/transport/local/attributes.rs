//! Metadata beyond the listing: owners, modes, times, extended attributes and access lists.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::root::proc_path;
use crate::cli::Options;
use crate::transport::{Kind, Known, Meta, NO_ID, Time};

/// Which metadata a run carries over.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    pub times: bool,
    pub permissions: bool,
    pub owner: bool,
    pub xattrs: bool,
    pub acls: bool,
    root: bool,
}

const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

impl Keep {
    pub fn new(options: &Options) -> Self {
        let root = rustix::process::geteuid().is_root();
        Self {
            times: options.preserve_times,
            permissions: options.preserve_permissions,
            owner: options.preserve_owner,
            xattrs: options.preserve_xattrs,
            acls: options.preserve_acls,
            root,
        }
    }

    /// All attributes that this process may set, for copies that are to be complete.
    pub fn everything() -> Self {
        Self { times: true, permissions: true, owner: true, xattrs: true, acls: true, root: rustix::process::geteuid().is_root() }
    }

    /// Must attributes be read to know whether two entries are alike?
    pub fn reads_attributes(self, kind: Kind) -> bool {
        (self.xattrs || self.acls) && kind != Kind::Symlink
    }

    /// Do the parts differ that a listing shows, and that both sides know?
    pub fn differs(self, source: &Meta, dest: &Meta, precision: u64) -> bool {
        let both = |known: fn(&Known) -> bool| known(&source.known) && known(&dest.known);
        (self.times && both(|known| known.mtime) && !same_time(source, dest, precision))
            || (self.permissions && source.kind != Kind::Symlink && both(|known| known.mode) && source.mode != dest.mode)
            || (self.owner && both(|known| known.owner) && !owned_alike(source, (dest.uid, dest.gid)))
    }

    /// Carries over what has been asked for, from an open file to an open file whose state is `now`.
    pub fn transfer(self, source: BorrowedFd<'_>, meta: &Meta, dest: BorrowedFd<'_>, now: Now) -> Result<(), Errno> {
        if self.owner && meta.known.owner && now.owner.is_none_or(|now| !owned_alike(meta, now)) {
            chown(dest, meta)?;
        }
        let attributes = if self.reads_attributes(meta.kind) { self.attributes(source)? } else { Attributes::new() };
        let attributes_differ = self.reads_attributes(meta.kind) && self.attributes(dest)? != attributes;
        if attributes_differ {
            // Before the mode, which may forbid it; access lists after it, since they decide part of it.
            let writable = now.mode.unwrap_or(0o600) | 0o200;
            if now.mode.is_some_and(|mode| mode != writable) && !self.root {
                rustix::fs::fchmod(dest, Mode::from_raw_mode(writable))?;
            }
            self.set_attributes(&attributes, dest, false)?;
        }
        if self.permissions && meta.known.mode && (self.owner || attributes_differ || now.mode != Some(meta.mode)) {
            rustix::fs::fchmod(dest, Mode::from_raw_mode(meta.mode))?;
        }
        if attributes_differ {
            self.set_attributes(&attributes, dest, true)?;
        }
        if self.times && meta.known.mtime {
            rustix::fs::futimens(dest, &times(meta.mtime))?;
        }
        Ok(())
    }

    /// Gives one entry the attributes of another; both may be open as mere paths.
    pub fn copy_attributes(self, source: BorrowedFd<'_>, dest: BorrowedFd<'_>) -> Result<(), Errno> {
        let wanted = self.attributes(source)?;
        self.set_attributes(&wanted, dest, false)?;
        self.set_attributes(&wanted, dest, true)
    }

    /// Do attributes differ between two open files?
    pub fn attributes_differ(self, source: BorrowedFd<'_>, dest: BorrowedFd<'_>) -> Result<bool, Errno> {
        Ok(self.attributes(source)? != self.attributes(dest)?)
    }

    /// The attributes that this run carries over, sorted by name.
    fn attributes(self, fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
        let mut all = Attributes::new();
        for name in names(fd)?.split(|&b| b == 0).filter(|name| self.wants(name)) {
            match value(fd, name) {
                Ok(value) => all.push((name.to_vec(), value)),
                Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        if self.acls {
            // Some file systems do not list access lists.
            for name in [ACL_ACCESS, ACL_DEFAULT] {
                if !all.iter().any(|(known, _)| known == name) {
                    match value(fd, name) {
                        Ok(value) => all.push((name.to_vec(), value)),
                        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::INVAL) => {}
                        Err(errno) => return Err(errno),
                    }
                }
            }
        }
        all.sort_unstable();
        Ok(all)
    }

    fn wants(self, name: &[u8]) -> bool {
        match name {
            b"" => false,
            ACL_ACCESS | ACL_DEFAULT => self.acls,
            _ if name.starts_with(b"system.") => false,
            _ if name.starts_with(b"user.") => self.xattrs,
            // Security and trusted attributes are for the superuser to set.
            _ => self.xattrs && self.root,
        }
    }

    /// Sets the access lists, or all others.
    fn set_attributes(self, wanted: &Attributes, dest: BorrowedFd<'_>, acls: bool) -> Result<(), Errno> {
        let has = self.attributes(dest)?;
        let path = proc_path(dest);
        let now = |name: &[u8]| matches!(name, ACL_ACCESS | ACL_DEFAULT) == acls;
        for (name, _) in has.iter().filter(|(name, _)| now(name) && !wanted.iter().any(|(other, _)| other == name)) {
            match rustix::fs::removexattr(path.as_str(), name.as_slice()) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno) => return Err(errno),
            }
        }
        for (name, value) in wanted.iter().filter(|pair| now(&pair.0) && !has.contains(pair)) {
            rustix::fs::setxattr(path.as_str(), name.as_slice(), value, XattrFlags::empty())?;
        }
        Ok(())
    }
}

/// What is known of a file that was just made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Now {
    pub mode: Option<u32>,
    pub owner: Option<(u32, u32)>,
}

impl Now {
    pub fn of(meta: &Meta) -> Self {
        Self { mode: Some(meta.mode), owner: Some((meta.uid, meta.gid)) }
    }
}

/// Are two modification times the same, as exactly as the coarser side can tell?
pub fn same_time(source: &Meta, dest: &Meta, precision: u64) -> bool {
    let (a, b) = (source.mtime, dest.mtime);
    if a == b {
        return true;
    }
    if precision > 1 {
        return (a.total_nanos() - b.total_nanos()).abs() < i128::from(precision);
    }
    // A file system that keeps whole seconds shows none in the change time either.
    let whole = |meta: &Meta| meta.mtime.nanos == 0 && meta.ctime.nanos == 0;
    a.seconds == b.seconds && (whole(source) || whole(dest))
}

pub fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanos.into() },
    }
}

/// Sets the time of a name itself, also of a link.
pub fn set_time_at(dir: BorrowedFd<'_>, name: &[u8], mtime: Time) -> Result<(), Errno> {
    rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Has a file the owner that `wanted` has, as far as that is known?
pub fn owned_alike(wanted: &Meta, (uid, gid): (u32, u32)) -> bool {
    (wanted.uid == NO_ID || wanted.uid == uid) && (wanted.gid == NO_ID || wanted.gid == gid)
}

/// What is not known stays as it is.
fn owner(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    let known = |id: u32| Some(id).filter(|&id| id != NO_ID);
    (known(meta.uid).map(Uid::from_raw), known(meta.gid).map(Gid::from_raw))
}

fn chown(fd: BorrowedFd<'_>, meta: &Meta) -> Result<(), Errno> {
    let (uid, gid) = owner(meta);
    rustix::fs::fchown(fd, uid, gid)
}

pub fn chown_at(dir: BorrowedFd<'_>, name: &[u8], meta: &Meta) -> Result<(), Errno> {
    let (uid, gid) = owner(meta);
    rustix::fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets the mode of a name that is not a link, never following one that took its place.
pub fn chmod_at(dir: BorrowedFd<'_>, name: &[u8], mode: u32) -> Result<(), Errno> {
    let held = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if super::root::stat_fd(held.as_fd())?.kind == Kind::Symlink {
        return Err(Errno::LOOP);
    }
    rustix::fs::chmodat(CWD, proc_path(held.as_fd()), Mode::from_raw_mode(mode), AtFlags::empty())
}

/// Does the file system keep extended attributes?
pub fn keeps_xattrs(dir: BorrowedFd<'_>) -> bool {
    value(dir, b"user.sypy") != Err(Errno::OPNOTSUPP)
}

/// Does the file system keep access control lists?
pub fn keeps_acls(dir: BorrowedFd<'_>) -> bool {
    value(dir, ACL_ACCESS) != Err(Errno::OPNOTSUPP)
}

/// Does the directory hand an access list down to new files? Then the kernel does not apply the umask.
pub fn has_default_acl(dir: BorrowedFd<'_>) -> bool {
    value(dir, ACL_DEFAULT).is_ok()
}

/// Through `/proc`, since a descriptor opened as a mere path takes no attribute calls.
fn names(fd: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd);
    match grow(|buffer| rustix::fs::listxattr(path.as_str(), buffer)) {
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        other => other,
    }
}

fn value(fd: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    let path = proc_path(fd);
    grow(|buffer| rustix::fs::getxattr(path.as_str(), name, buffer))
}

/// Calls with a larger buffer until the answer fits; 64 KiB is the most that Linux gives.
fn grow(call: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; 512];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 64 << 10 => buffer.resize(64 << 10, 0),
            Err(errno) => return Err(errno),
        }
    }
}
