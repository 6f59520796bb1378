//! Where replaced and deleted files go instead of being lost: a dated backup folder, or the desktop's trash.

use std::ffi::OsStr;
use std::fmt::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attributes::Keep;
use super::data::{Copier, Failure, Target};
use super::root::{stat_at, stat_fd};
use super::temp::TempNames;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Control;
use crate::transport::{Kind, split_key};

/// A place that takes files out of the way.
#[derive(Debug)]
pub enum Aside {
    /// `DIR/2026-01-31T23-59-59Z/key`. The dated folder is made when the first file goes there.
    Backup { dir: PathBuf, folder: Mutex<Option<PathBuf>> },
    /// By the freedesktop.org Trash specification 1.0.
    Trash { dir: PathBuf, root: Vec<u8> },
}

impl Aside {
    /// A backup folder of its own for this run, below `dir`.
    pub fn backup(dir: PathBuf) -> Self {
        Self::Backup { dir, folder: Mutex::default() }
    }

    /// Has what was put aside on disk.
    pub fn sync_all(&self) -> Result<()> {
        let dir = match self {
            Self::Backup { folder, .. } => match &*folder.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(folder) => folder.clone(),
                None => return Ok(()),
            },
            Self::Trash { dir, .. } => dir.clone(),
        };
        match rustix::fs::open(&dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).and_then(rustix::fs::syncfs) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(SyncError::os(errno, "write", dir.as_os_str().as_bytes())),
        }
    }

    /// The user's trash if the destination is on its file system, else the one at the top of the destination's.
    pub fn trash(dest: BorrowedFd<'_>, real: &[u8]) -> Result<Self> {
        Ok(Self::Trash { dir: Self::trash_dir(dest, real, true)?, root: real.to_vec() })
    }

    /// Where the trash for a destination is; made if `make`.
    pub fn trash_dir(dest: BorrowedFd<'_>, real: &[u8], make: bool) -> Result<PathBuf> {
        let device = stat_fd(dest).map_err(|errno| SyncError::os(errno, "read", real))?.dev;
        let uid = rustix::process::geteuid().as_raw();
        let home = std::env::var_os("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share")));
        if let Some(dir) = home.map(|data| data.join("Trash")) {
            if let Some(data) = dir.parent().filter(|_| make) {
                let _ = std::fs::create_dir_all(data);
            }
            if (!make || make_private(&dir).is_ok()) && device_of(&dir) == Some(device) {
                return Ok(dir);
            }
        }
        let mut top = Path::new(OsStr::from_bytes(real));
        while let Some(parent) = top.parent().filter(|parent| device_of(parent) == Some(device)) {
            top = parent;
        }
        Ok(top.join(format!(".Trash-{uid}")))
    }

    /// Moves what is called `name` in `dir` away.
    pub fn take(&self, dir: BorrowedFd<'_>, key: &[u8], copier: &Copier, control: &Control) -> Result<()> {
        let (_, name) = split_key(key);
        match self {
            Self::Backup { .. } => {
                let (to, as_name) = self.slot(key)?;
                match rustix::fs::renameat_with(dir, name, &to, as_name, RenameFlags::NOREPLACE) {
                    Ok(()) => Ok(()),
                    Err(Errno::XDEV) => {
                        copy_over(dir, key, to.as_fd(), as_name, copier, control)?;
                        rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(|errno| SyncError::os(errno, "delete", key))
                    }
                    Err(errno) => Err(SyncError::os(errno, "back up", key)),
                }
            }
            Self::Trash { dir: trash, root } => throw_away(dir, name, trash, &super::child_key(root, key)),
        }
    }

    /// Keeps what is called `name` in `dir`, which is about to be replaced. The trash takes deletions only.
    pub fn keep(&self, dir: BorrowedFd<'_>, key: &[u8], copier: &Copier, control: &Control) -> Result<()> {
        if matches!(self, Self::Trash { .. }) {
            return Ok(());
        }
        let (_, name) = split_key(key);
        let (to, as_name) = self.slot(key)?;
        match rustix::fs::linkat(dir, name, &to, as_name, AtFlags::empty()) {
            Ok(()) => Ok(()),
            // An attempt before this one kept it, and failed later.
            Err(Errno::EXIST) if same_file(dir, name, to.as_fd(), as_name) => Ok(()),
            Err(Errno::XDEV | Errno::MLINK | Errno::OPNOTSUPP | Errno::PERM | Errno::EXIST) => {
                copy_over(dir, key, to.as_fd(), as_name, copier, control)
            }
            Err(errno) => Err(SyncError::os(errno, "back up", key)),
        }
    }

    /// Opens, making it, the folder for `key`; returns it with the name to use in it.
    fn slot<'k>(&self, key: &'k [u8]) -> Result<(OwnedFd, &'k [u8])> {
        let (parent, name) = split_key(key);
        let fail = |errno| SyncError::os(errno, "make the backup folder for", key);
        let folder = self.folder()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let mut at = rustix::fs::openat(CWD, &folder, flags, Mode::empty()).map_err(fail)?;
        for part in parent.split(|&b| b == b'/').filter(|part| !part.is_empty()) {
            match rustix::fs::mkdirat(&at, part, Mode::from_raw_mode(0o700)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(fail(errno)),
            }
            at = rustix::fs::openat(&at, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(fail)?;
        }
        Ok((at, name))
    }

    /// The dated folder of this run. Making it decides whose it is, should two runs begin in one second.
    fn folder(&self) -> Result<PathBuf> {
        let Self::Backup { dir, folder } = self else { return Ok(PathBuf::new()) };
        let mut folder = folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*folder {
            return Ok(made.clone());
        }
        let fail = |error: &std::io::Error, path: &Path| SyncError::io(error, "make the backup folder", path);
        std::fs::create_dir_all(dir).map_err(|error| fail(&error, dir))?;
        let stamp = backup_stamp();
        for n in 1..10_000_u32 {
            let path = dir.join(if n == 1 { stamp.clone() } else { format!("{stamp}.{n}") });
            match std::fs::create_dir(&path) {
                Ok(()) => return Ok(folder.insert(path).clone()),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(fail(&error, &path)),
            }
        }
        Err(SyncError::new(ErrorKind::AlreadyExists, "too many backup folders of this second")
            .at("make a folder in", dir.as_os_str().as_bytes()))
    }
}

fn same_file(a: BorrowedFd<'_>, name: &[u8], b: BorrowedFd<'_>, other: &[u8]) -> bool {
    matches!((stat_at(a, name), stat_at(b, other)), (Ok(x), Ok(y)) if x.identity() == y.identity())
}

fn make_private(dir: &Path) -> Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).map_err(|error| SyncError::io(&error, "make the trash folder", dir))
}

fn device_of(path: &Path) -> Option<u64> {
    rustix::fs::stat(path).ok().map(|s| s.st_dev)
}

/// Copies one entry to another file system, under a temporary name first, with its mode, time, attributes and, where
/// possible, owner.
fn copy_over(from: BorrowedFd<'_>, key: &[u8], to: BorrowedFd<'_>, as_name: &[u8], copier: &Copier, control: &Control) -> Result<()> {
    let (_, name) = split_key(key);
    let temp = TempNames::new().next();
    let fail = |errno| SyncError::os(errno, "back up", key);
    let copied = (|| {
        let meta = stat_at(from, name)?;
        match meta.kind {
            Kind::File => {
                let input =
                    rustix::fs::openat(from, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let output = rustix::fs::openat(to, &*temp, flags, Mode::from_raw_mode(0o600))?;
                let dev = stat_fd(output.as_fd())?.dev;
                if meta.size > 0 {
                    copier.copy(input.as_fd(), &meta, &Target::new(output.as_fd()), dev, 0, control).map_err(|failure| match failure {
                        Failure::Read(errno) | Failure::Write(errno) => errno,
                        Failure::Cancelled => Errno::CANCELED,
                    })?;
                }
                let _ = super::attributes::chown_at(to, &temp, &meta);
                let keep = Keep::everything();
                let _ = keep.attributes(input.as_fd()).and_then(|wanted| keep.give(&wanted, output.as_fd()));
                rustix::fs::fchmod(&output, Mode::from_raw_mode(meta.mode))?;
                rustix::fs::futimens(&output, &super::attributes::times(meta.mtime))?;
            }
            Kind::Symlink => {
                let target = rustix::fs::readlinkat(from, name, Vec::new())?;
                rustix::fs::symlinkat(target, to, &*temp)?;
                let _ = super::attributes::chown_at(to, &temp, &meta);
            }
            kind => {
                let kind = super::writer::file_type(kind).ok_or(Errno::INVAL)?;
                rustix::fs::mknodat(to, &*temp, kind, Mode::from_raw_mode(meta.mode), meta.rdev)?;
                let _ = super::attributes::chown_at(to, &temp, &meta);
            }
        }
        rustix::fs::renameat(to, &*temp, to, as_name)
    })();
    copied.map_err(|errno| {
        let _ = rustix::fs::unlinkat(to, &*temp, AtFlags::empty());
        if errno == Errno::CANCELED { SyncError::cancelled() } else { fail(errno) }
    })
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

/// Names the folder of one run below `backup_dir`.
pub fn backup_stamp() -> String {
    humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string().replace(':', "-")
}
