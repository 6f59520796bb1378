//! Where replaced and deleted files go instead of being lost: a dated backup folder, or the desktop's trash.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::root::{stat_at, stat_fd};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::{Kind, split_key};

/// A place that takes files out of the way.
#[derive(Debug)]
pub enum Aside {
    /// `DIR/2026-01-31T23-59-59Z/key`.
    Backup { folder: PathBuf },
    /// By the freedesktop.org Trash specification 1.0.
    Trash { dir: PathBuf, root: Vec<u8> },
}

impl Aside {
    /// A backup folder of its own for this run, below `dir`.
    pub fn backup(dir: &Path) -> Self {
        let stamp = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string().replace(':', "-");
        let mut folder = dir.join(&stamp);
        let mut n = 1;
        while folder.exists() {
            n += 1;
            folder = dir.join(format!("{stamp}.{n}"));
        }
        Self::Backup { folder }
    }

    /// The user's trash if the destination is on its file system, else the one at the top of the destination's.
    pub fn trash(dest: BorrowedFd<'_>, real: &[u8]) -> Result<Self> {
        let device = stat_fd(dest).map_err(|errno| SyncError::os(errno, "read", real))?.dev;
        let uid = rustix::process::geteuid().as_raw();
        let home = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
        if let Some(dir) = home.map(|data| data.join("Trash")) {
            if let Some(data) = dir.parent() {
                let _ = std::fs::create_dir_all(data);
            }
            if make_private(&dir).is_ok() && device_of(&dir) == Some(device) {
                return Ok(Self::Trash { dir, root: real.to_vec() });
            }
        }
        let mut top = Path::new(OsStr::from_bytes(real));
        while let Some(parent) = top.parent().filter(|parent| device_of(parent) == Some(device)) {
            top = parent;
        }
        Ok(Self::Trash { dir: top.join(format!(".Trash-{uid}")), root: real.to_vec() })
    }

    /// Moves what is called `name` in `dir` away.
    pub fn take(&self, dir: BorrowedFd<'_>, key: &[u8]) -> Result<()> {
        let (_, name) = split_key(key);
        match self {
            Self::Backup { folder } => {
                let (to, as_name) = backup_slot(folder, key)?;
                match rustix::fs::renameat_with(dir, name, &to, as_name, RenameFlags::NOREPLACE) {
                    Ok(()) => Ok(()),
                    Err(Errno::XDEV) => {
                        copy_over(dir, name, to.as_fd(), as_name).map_err(|errno| SyncError::os(errno, "back up", key))?;
                        rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(|errno| SyncError::os(errno, "delete", key))
                    }
                    Err(errno) => Err(SyncError::os(errno, "back up", key)),
                }
            }
            Self::Trash { dir: trash, root } => throw_away(dir, name, trash, &super::child_key(root, key)),
        }
    }

    /// Keeps what is called `name` in `dir`, which is about to be replaced. The trash takes deletions only.
    pub fn keep(&self, dir: BorrowedFd<'_>, key: &[u8]) -> Result<()> {
        let Self::Backup { folder } = self else { return Ok(()) };
        let (_, name) = split_key(key);
        let (to, as_name) = backup_slot(folder, key)?;
        match rustix::fs::linkat(dir, name, &to, as_name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            Err(Errno::XDEV | Errno::MLINK | Errno::OPNOTSUPP | Errno::PERM) => {
                copy_over(dir, name, to.as_fd(), as_name).map_err(|errno| SyncError::os(errno, "back up", key))
            }
            Err(errno) => Err(SyncError::os(errno, "back up", key)),
        }
    }
}

fn make_private(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).map_err(|error| SyncError::io(&error, "make the trash folder", dir))
}

fn device_of(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|s| s.st_dev)
}

/// Opens, making it, the folder for `key`; returns it with the name to use in it.
fn backup_slot<'k>(folder: &Path, key: &'k [u8]) -> Result<(OwnedFd, &'k [u8])> {
    let (parent, name) = split_key(key);
    let fail = |errno| SyncError::os(errno, "make the backup folder for", key);
    std::fs::create_dir_all(folder).map_err(|error| SyncError::io(&error, "make the backup folder", folder))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, folder, flags, Mode::empty()).map_err(fail)?;
    for part in parent.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
        match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(fail(errno)),
        }
        at = rustix::fs::openat(&at, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(fail)?;
    }
    Ok((at, name))
}

/// Copies one entry to another file system, with its mode, owner where possible, and time.
fn copy_over(from: BorrowedFd<'_>, name: &[u8], to: BorrowedFd<'_>, as_name: &[u8]) -> Result<(), Errno> {
    let meta = stat_at(from, name)?;
    match meta.kind {
        Kind::File => {
            let input =
                rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let output = rustix::fs::openat(to, as_name, flags, Mode::from_raw_mode(0o600))?;
            let done = (|| {
                std::io::copy(&mut std::fs::File::from(input), &mut std::fs::File::from(output.try_clone().map_err(os)?)).map_err(os)?;
                rustix::fs::fchmod(&output, Mode::from_raw_mode(meta.mode))?;
                rustix::fs::futimens(&output, &super::attributes::times(meta.mtime))
            })();
            if done.is_err() {
                let _ = rustix::fs::unlinkat(to, as_name, AtFlags::empty());
            }
            done?;
        }
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            rustix::fs::symlinkat(target, to, as_name)?;
        }
        _ => rustix::fs::mknodat(to, as_name, super::lane::file_type(meta.kind), Mode::from_raw_mode(meta.mode), meta.rdev)?,
    }
    let _ = super::attributes::chown_at(to, as_name, &meta);
    Ok(())
}

fn os(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn throw_away(from: BorrowedFd<'_>, name: &[u8], trash: &Path, original: &[u8]) -> Result<()> {
    let fail = |errno| SyncError::os(errno, "move to the trash", original);
    let (files, info) = (trash.join("files"), trash.join("info"));
    for dir in [trash, &files, &info] {
        make_private(dir)?;
    }
    let date = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    let mut text = String::from("[Trash Info]\nPath=");
    for &byte in original {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            text.push(byte as char);
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    let _ = writeln!(text, "\nDeletionDate={}", date.trim_end_matches('Z'));
    // Room for a number and ".trashinfo" in 255 bytes.
    let stem = &name[..name.len().min(230)];
    for n in 0..100_000_u32 {
        let unique = if n == 0 { stem.to_vec() } else { [stem, format!(".{n}").as_bytes()].concat() };
        let info_path = info.join(OsStr::from_bytes(&[&unique, &b".trashinfo"[..]].concat()));
        match std::fs::OpenOptions::new().write(true).create_new(true).open(&info_path) {
            Ok(mut file) => {
                let written =
                    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| SyncError::io(&error, "write", &info_path));
                let target = files.join(OsStr::from_bytes(&unique));
                let moved =
                    written.and_then(|()| rustix::fs::renameat_with(from, name, CWD, &target, RenameFlags::NOREPLACE).map_err(fail));
                match moved {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        let _ = std::fs::remove_file(&info_path);
                        if error.kind != ErrorKind::AlreadyExists {
                            return Err(error);
                        }
                    }
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(SyncError::io(&error, "write", &info_path)),
        }
    }
    Err(SyncError::new(ErrorKind::AlreadyExists, "the trash holds too many files of that name").at("move to the trash", original))
}
