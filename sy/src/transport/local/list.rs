//! Lists one directory: names and metadata, in key order, with two system calls an entry at most.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;

use super::root::{Follow, Root, stat_at, stat_fd};
use super::temp::{Ours, ours};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::{Found, Kind, Listing, Time};

const BUFFER: usize = 64 << 10;
/// Seconds after which a temporary file that was made elsewhere is taken to be left behind.
pub const ABANDONED: i64 = 24 * 3600;

/// Lists the directory at `key`. The first error ends it: a listing is whole or it is none.
pub fn list(root: &Root, key: &[u8], cancelled: &AtomicBool) -> Result<Listing> {
    let fail = |errno| SyncError::os(errno, "list", root.path_of(key));
    let dir = root.open_dir(key).map_err(fail)?;
    let Names { mut entries, arena, leftovers } = names(dir.as_fd()).map_err(fail)?;
    // Inode order is the order on disk: a cold cache is read in one sweep.
    entries.sort_unstable();
    let mut listing = Listing::with_capacity(entries.len(), arena.len());
    listing.leftovers = leftovers;
    for (n, (_, start, length)) in entries.into_iter().enumerate() {
        if n % 1024 == 1023 && cancelled.load(Relaxed) {
            return Err(SyncError::cancelled());
        }
        let name = &arena[start as usize..][..length as usize];
        match stat(root, key, dir.as_fd(), name) {
            Ok((meta, target)) => listing.push(name, meta, target),
            // It went away since its name was read: it is not here.
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => {}
            Err(error) => listing.unknown.push((name.into(), error)),
        }
    }
    listing.sort();
    listing.handle = Some(Arc::new(dir));
    Ok(listing)
}

/// The temporary files that earlier runs left in the directory at `key`.
pub fn leftovers(root: &Root, key: &[u8]) -> Vec<Box<[u8]>> {
    root.open_dir(key).and_then(|dir| names(dir.as_fd())).map_or_else(|_| Vec::new(), |names| names.leftovers)
}

/// All names in a directory but temporary ones of ours, in no order.
pub fn plain_names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let Names { entries, arena, .. } = names(dir)?;
    Ok(entries.into_iter().map(|(_, start, length)| arena[start as usize..][..length as usize].to_vec()).collect())
}

/// The names in a directory, with their inode numbers, as places in `arena`.
struct Names {
    entries: Vec<(u64, u32, u32)>,
    arena: Vec<u8>,
    leftovers: Vec<Box<[u8]>>,
}

fn names(dir: BorrowedFd<'_>) -> Result<Names, Errno> {
    let mut names = Names { entries: Vec::new(), arena: Vec::new(), leftovers: Vec::new() };
    let mut buffer = [const { MaybeUninit::uninit() }; BUFFER];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match ours(name) {
            Some(Ours::InUse) => {}
            Some(Ours::Foreign) => {
                if stat_at(dir, name).is_ok_and(|meta| meta.ctime.seconds < Time::now().seconds - ABANDONED) {
                    names.leftovers.push(name.into());
                }
            }
            Some(Ours::Leftover | Ours::Part) => names.leftovers.push(name.into()),
            None => {
                names.entries.push((entry.ino(), names.arena.len() as u32, name.len() as u32));
                names.arena.extend_from_slice(name);
            }
        }
    }
    Ok(names)
}

/// The metadata of one name, and the target of a link that is not followed.
pub fn stat(root: &Root, dir_key: &[u8], dir: BorrowedFd<'_>, name: &[u8]) -> Result<Found> {
    let fail = |errno| SyncError::os(errno, "read", root.path_of(&super::child_key(dir_key, name)));
    let meta = stat_at(dir, name).map_err(fail)?;
    if meta.kind != Kind::Symlink {
        return Ok((meta, None));
    }
    if root.follow() == Follow::Never {
        let target = rustix::fs::readlinkat(dir, name, Vec::new()).map_err(fail)?;
        return Ok((meta, Some(target.into_bytes().into_boxed_slice())));
    }
    let key = super::child_key(dir_key, name);
    let followed = root.open(&key, OFlags::PATH | OFlags::CLOEXEC).and_then(|fd| stat_fd(fd.as_fd()));
    match followed {
        Ok(meta) => Ok((meta, None)),
        Err(Errno::XDEV) => Err(SyncError::new(ErrorKind::PermissionDenied, "the symbolic link leads out of the source")
            .at("follow", root.path_of(&key))
            .hint("unsafe_links (--unsafe-links) allows that")),
        Err(Errno::NOENT) => Err(fail(Errno::NOENT).hint("the symbolic link points to nothing")),
        Err(Errno::LOOP) => Err(SyncError::new(ErrorKind::Io, "the symbolic link leads to itself").at("follow", root.path_of(&key))),
        Err(errno) => Err(fail(errno)),
    }
}

/// How exactly the file system keeps modification times, in nanoseconds.
pub fn mtime_precision(dir: BorrowedFd<'_>) -> u64 {
    const MSDOS: u64 = 0x4d44;
    const EXFAT: u64 = 0x2011_bab0;
    const NTFS: [u64; 2] = [0x5346_544e, 0x7366_746e];
    const SMB: [u64; 2] = [0xfe53_4d42, 0xff53_4d42];
    const UDF: u64 = 0x1501_3346;
    match rustix::fs::fstatfs(dir).map(|s| s.f_type as u64 & 0xffff_ffff) {
        Ok(MSDOS | EXFAT) => 2_000_000_000,
        Ok(UDF) => 1000,
        Ok(magic) if NTFS.contains(&magic) || SMB.contains(&magic) => 100,
        _ => 1,
    }
}
