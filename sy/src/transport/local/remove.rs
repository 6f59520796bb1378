//! Removes entries from the destination, or moves them aside.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Mode};
use rustix::io::Errno;

use super::aside::Aside;
use super::data::Copier;
use super::root::{Root, stat_at, stat_fd};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Control;
use crate::transport::{Doomed, Kind, split_key};

/// Removes entries of one directory; `report` hears of each.
pub fn remove(
    root: &Root,
    aside: Option<&Aside>,
    copier: &Copier,
    control: &Control,
    dir_key: &[u8],
    doomed: &[Doomed],
    report: &mut dyn FnMut(&Doomed, Result<()>),
) {
    let away = |dir: BorrowedFd<'_>, name: &[u8], key: &[u8]| match aside {
        Some(aside) => aside.take(dir, key, copier, control),
        None => match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(SyncError::os(errno, "delete", root.path_of(key))),
        },
    };
    match root.open_dir(dir_key) {
        Ok(dir) => {
            for one in doomed {
                report(one, remove_one(root, &away, dir.as_fd(), one));
            }
        }
        Err(errno) => {
            for one in doomed {
                report(one, Err(SyncError::os(errno, "delete", root.path_of(&one.key))));
            }
        }
    }
}

/// Gets a file, link or special file out of the way: directory, name in it, key.
type Away<'a> = dyn Fn(BorrowedFd<'_>, &[u8], &[u8]) -> Result<()> + 'a;

fn remove_one(root: &Root, away: &Away<'_>, dir: BorrowedFd<'_>, one: &Doomed) -> Result<()> {
    let (_, name) = split_key(&one.key);
    let path = || root.path_of(&one.key);
    let fail = |errno| SyncError::os(errno, "delete", path());
    if one.kind == Kind::Dir {
        return match make_writable(dir, || rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR), |&errno| errno == Errno::ACCESS) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::NOTEMPTY | Errno::EXIST) => {
                Err(SyncError::new(ErrorKind::Conflict, "the directory is not empty").at("delete", path()))
            }
            Err(errno) => Err(fail(errno)),
        };
    }
    let now = match stat_at(dir, name) {
        Ok(now) => now,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(errno)),
    };
    if (now.kind, now.ino, now.size, now.mtime) != (one.kind, one.ino, one.size, one.mtime) {
        return Err(SyncError::new(ErrorKind::Conflict, "it changed since it was listed").at("delete", path()));
    }
    make_writable(dir, || away(dir, name, &one.key), |error| error.errno == Some(Errno::ACCESS.raw_os_error()))
}

/// A directory of ours without write permission gets it for the time being.
fn make_writable<E>(dir: BorrowedFd<'_>, call: impl Fn() -> Result<(), E>, denied: impl Fn(&E) -> bool) -> Result<(), E> {
    let first = call();
    if !first.as_ref().is_err_and(denied) {
        return first;
    }
    match lift(dir) {
        Some(mode) => {
            let done = call();
            let _ = rustix::fs::fchmod(dir, Mode::from_raw_mode(mode));
            done
        }
        None => first,
    }
}

/// Lets the owner change a directory. Returns the mode that stood in the way; `None` if none did or it is not ours.
pub fn lift(dir: BorrowedFd<'_>) -> Option<u32> {
    let mode = stat_fd(dir).ok()?.mode;
    (mode & 0o300 != 0o300 && rustix::fs::fchmod(dir, Mode::from_raw_mode(mode | 0o300)).is_ok()).then_some(mode)
}
