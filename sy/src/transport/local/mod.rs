//! Local file systems. Everything is relative to open directories and follows no link that it did not make.

mod arrival;
mod aside;
mod attributes;
mod data;
mod lane;
mod list;
mod pages;
mod place;
mod reader;
mod remove;
mod root;
mod temp;
mod writer;
mod xattrs;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

pub use arrival::{hash_of, read_at, write_at};
pub use aside::{Aside, backup_stamp};
pub use attributes::{Keep, same_time};
pub use data::{Limiter, check_room};
pub use lane::LocalLane;
pub(super) use list::ABANDONED;
pub use list::plain_names as names;
pub use pages::Pages;
pub(super) use place::Refusal;
pub use reader::{Reader, changed};
pub use root::{Follow, stat_at, stat_fd};
pub(super) use temp::{Ours, TempNames, ours};
pub use temp::{fits, is_ours, part_name};
pub(super) use writer::{RESUMABLE, replaced_file};
pub use writer::{Temp, Writer};
pub use xattrs::Attributes;

pub(crate) use super::child_key;
use root::Root;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{Capabilities, Endpoint, Found, Listing, Meta};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Control;

/// An open local directory.
#[derive(Debug)]
pub struct LocalEndpoint {
    root: Root,
    capabilities: Capabilities,
    /// Ends a long listing.
    cancelled: Arc<AtomicBool>,
}

impl LocalEndpoint {
    /// Opens the directory at `path`, following links up to and including its last component: the user named it.
    pub fn open(path: &Path, follow: Follow, control: &Control) -> Result<Self, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let capabilities = Capabilities {
            mtime_precision: list::mtime_precision(fd.as_fd()),
            xattrs: xattrs::keeps_xattrs(fd.as_fd()),
            acls: xattrs::keeps_acls(fd.as_fd()),
            owner: true,
            hard_links: true,
            devices: true,
            links: true,
            trash: true,
            any_name: false,
        };
        Ok(Self { root: Root::new(fd, path, follow), capabilities, cancelled: control.cancel_flag() })
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// An open handle on the root, for locks and for `syncfs`.
    pub fn handle(&self) -> std::os::fd::BorrowedFd<'_> {
        self.root.fd()
    }

    /// The device of the root's file system.
    pub fn device(&self) -> Option<u64> {
        stat_fd(self.root.fd()).ok().map(|meta| meta.dev)
    }

    /// How writes through memory maps can be made to show.
    pub fn pages(&self) -> Pages {
        Pages::of(self.root.fd())
    }

    /// The path without links.
    pub fn real_path(&self) -> &[u8] {
        self.root.real()
    }

    /// The temporary files that earlier runs left in the root itself.
    pub fn leftovers(&self) -> Vec<Box<[u8]>> {
        list::leftovers(&self.root, b"")
    }

    /// The directory `name` in the root, without links.
    pub fn real_path_of(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.root.open_dir(name).ok().and_then(|dir| root::real_path(dir.as_fd()).ok())
    }

    fn open_file(&self, key: &[u8]) -> Result<OwnedFd, Errno> {
        self.root.open(key, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::NOFOLLOW)
    }
}

impl Endpoint for LocalEndpoint {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn identity(&self) -> Vec<u8> {
        self.real_path().to_vec()
    }

    fn root_meta(&self) -> Result<Meta> {
        stat_fd(self.root.fd()).map_err(|errno| SyncError::os(errno, "read", self.path_of(b"")))
    }

    fn list(&self, key: &[u8]) -> Result<Listing> {
        list::list(&self.root, key, &self.cancelled)
    }

    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let handle = match self.root.open_dir(dir) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(SyncError::os(errno, "read", self.path_of(dir))),
        };
        match list::stat(&self.root, dir, handle.as_fd(), name) {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// At most 16 MiB of a regular file.
    fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        use std::io::Read;
        const MOST: u64 = 16 << 20;
        let fail = |errno| SyncError::os(errno, "read", self.path_of(key));
        let fd = self.open_file(key).map_err(fail)?;
        let meta = stat_fd(fd.as_fd()).map_err(fail)?;
        if meta.kind != super::Kind::File || meta.size > MOST {
            return Err(SyncError::new(ErrorKind::Io, "not a regular file of at most 16 MiB").at("read rules from", self.path_of(key)));
        }
        let mut content = Vec::with_capacity(meta.size as usize);
        std::fs::File::from(fd)
            .take(MOST)
            .read_to_end(&mut content)
            .map_err(|error| SyncError::io(&error, "read", Path::new(std::ffi::OsStr::new(&crate::error::Printable(key).to_string()))))?;
        Ok(content)
    }

    fn path_of(&self, key: &[u8]) -> Vec<u8> {
        self.root.path_of(key)
    }
}
