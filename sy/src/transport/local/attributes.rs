//! Metadata beyond the listing: owners, modes, times, extended attributes and access lists.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

use super::root::proc_path;
use super::xattrs::{Attributes, is_acl};
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

    /// All that somebody else might want, who decides on his own what to set.
    pub fn to_send(xattrs: bool, acls: bool) -> Self {
        Self { times: false, permissions: false, owner: false, xattrs, acls, root: true }
    }

    /// All but who owns it.
    #[must_use]
    pub fn but_owner(self) -> Self {
        Self { owner: false, ..self }
    }

    /// For a side of which is known whether it is the superuser's.
    #[must_use]
    pub fn as_root(self, root: bool) -> Self {
        Self { root, ..self }
    }

    /// Must attributes be read to know whether two entries are alike?
    pub fn reads_attributes(self, kind: Kind) -> bool {
        (self.xattrs || self.acls) && kind != Kind::Symlink
    }

    /// Does `dest` have other names, and metadata that are not the source's? They can't be set for one name alone, so the file
    /// has to become one of its own.
    pub fn shares_metadata(self, source: &Meta, dest: &Meta, precision: u64) -> bool {
        source.nlink == 1 && dest.nlink > 1 && self.differs(source, dest, precision)
    }

    /// Do the parts differ that a listing shows, and that both sides know?
    pub fn differs(self, source: &Meta, dest: &Meta, precision: u64) -> bool {
        let both = |known: fn(&Known) -> bool| known(&source.known) && known(&dest.known);
        (self.times && both(|known| known.mtime) && !same_time(source, dest, precision))
            || (self.permissions && source.kind != Kind::Symlink && both(|known| known.mode) && source.mode != dest.mode)
            || (self.owner && both(|known| known.owner) && !owned_alike(source, (dest.uid, dest.gid)))
    }

    /// Gives an open file, whose state is `now`, what has been asked for. `wanted`: the attributes it is to have, if any are kept.
    pub fn transfer(self, wanted: Option<&Attributes>, meta: &Meta, dest: BorrowedFd<'_>, now: Now) -> Result<(), Errno> {
        if self.owner && meta.known.owner && now.owner.is_none_or(|now| !owned_alike(meta, now)) {
            chown(dest, meta)?;
        }
        let has = wanted.map(|_| self.attributes(dest)).transpose()?;
        let change = wanted.zip(has.as_ref()).filter(|(wanted, has)| wanted != has);
        if let Some((wanted, has)) = change {
            // Before the mode, which may forbid it; access lists after it, since they decide part of it.
            let writable = now.mode.unwrap_or(0o600) | 0o200;
            if now.mode.is_some_and(|mode| mode != writable) && !self.root {
                rustix::fs::fchmod(dest, Mode::from_raw_mode(writable))?;
            }
            wanted.set(has, dest, false)?;
        }
        if self.permissions && meta.known.mode && (self.owner || change.is_some() || now.mode != Some(meta.mode)) {
            rustix::fs::fchmod(dest, Mode::from_raw_mode(meta.mode))?;
        }
        if let Some((wanted, _)) = change {
            wanted.set(&self.attributes(dest)?, dest, true)?;
        }
        if self.times && meta.known.mtime {
            rustix::fs::futimens(dest, &times(meta.mtime))?;
        }
        Ok(())
    }

    /// Gives an entry, which may be open as a mere path, these attributes.
    pub fn give(self, wanted: &Attributes, dest: BorrowedFd<'_>) -> Result<(), Errno> {
        wanted.set(&self.attributes(dest)?, dest, false)?;
        wanted.set(&self.attributes(dest)?, dest, true)
    }

    /// The attributes that this run carries over.
    pub fn attributes(self, fd: BorrowedFd<'_>) -> Result<Attributes, Errno> {
        Attributes::read(fd, |name| self.wants(name), self.acls)
    }

    /// What this run carries over of attributes that came from elsewhere.
    pub fn of_those(self, sent: Attributes) -> Attributes {
        sent.only(|name| self.wants(name))
    }

    fn wants(self, name: &[u8]) -> bool {
        match name {
            _ if is_acl(name) => self.acls,
            _ if name.starts_with(b"user.") => self.xattrs,
            // These are for the superuser to set. What other names there are belongs to one file system and fits no other.
            _ if name.starts_with(b"security.") || name.starts_with(b"trusted.") => self.xattrs && self.root,
            _ => false,
        }
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
        // What is coarse leaves out what it can't hold.
        let held = |time: Time| time.total_nanos().div_euclid(precision.into());
        return held(a) == held(b);
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
