//! Lists a location: one directory or all that is below it, in key order, with memory that does not grow with the number of entries.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::sync::{Control, Kind};
use crate::transport::access::Access;
use crate::transport::cloud::{Seen, walk};
use crate::transport::local::{Follow, LocalEndpoint};
use crate::transport::ssh::sftp;
use crate::transport::{Endpoint, Listing, Meta, Time, child_key, open};

/// Entries handed on together, or fewer where listing takes long.
const BATCH: usize = 512;
const WAIT: Duration = Duration::from_millis(50);

/// What to list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Want {
    pub recursive: bool,
    /// With `recursive`: not deeper than this; 1 is the directory itself.
    pub max_depth: Option<u32>,
    pub files_only: bool,
    pub dirs_only: bool,
}

impl Want {
    /// Refuses what makes no sense together.
    pub fn check(&self) -> Result<()> {
        if self.max_depth == Some(0) {
            return Err(SyncError::config("max_depth must be 1 or more"));
        }
        if self.max_depth.is_some() && !self.recursive {
            return Err(SyncError::config("max_depth does nothing without recursive"));
        }
        if self.files_only && self.dirs_only {
            return Err(SyncError::config("files_only and dirs_only exclude each other"));
        }
        Ok(())
    }

    /// How many levels of directories are opened; `None`: all.
    fn depth(&self) -> Option<u32> {
        if self.recursive { self.max_depth } else { Some(1) }
    }

    fn takes(&self, kind: Kind) -> bool {
        if kind == Kind::Dir { !self.files_only } else { !self.dirs_only }
    }
}

/// What is at a location. The path is relative to it; a location that is a file has its own name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub path: Vec<u8>,
    pub meta: Meta,
    /// Where a symbolic link points.
    pub target: Option<Box<[u8]>>,
}

impl Entry {
    /// When it was changed, where that is known: nobody notes it of a directory in an object store.
    pub fn time(&self) -> Option<Time> {
        (!(self.meta.tagged && self.meta.kind == Kind::Dir)).then_some(self.meta.mtime)
    }
}

/// Who is told what is there, in batches, and which directories could not be listed.
pub trait Audience {
    fn entries(&mut self, entries: Vec<Entry>);
    /// The listing goes on without it.
    fn failed(&mut self, error: SyncError);
}

/// Lists what is at `path`. Blocks until done; `control` cancels.
pub fn list(path: &SyncPath, want: &Want, access: &Access, control: &Control, audience: &mut dyn Audience) -> Result<()> {
    want.check()?;
    open::check(path)?;
    let mut sink = Sink { want, audience, batch: Vec::new(), last: Instant::now() };
    let listed = match path.as_local() {
        Some(local) => list_local(local, path, want, control, &mut sink),
        None if matches!(path.scheme, Scheme::Ssh { .. }) => list_host(path, want, access, control, &mut sink),
        None => list_cloud(path, want, access, control, &mut sink),
    };
    sink.flush();
    listed
}

struct Sink<'a> {
    want: &'a Want,
    audience: &'a mut dyn Audience,
    batch: Vec<Entry>,
    last: Instant,
}

impl Sink<'_> {
    fn push(&mut self, path: Vec<u8>, meta: Meta, target: Option<Box<[u8]>>) {
        if self.want.takes(meta.kind) {
            self.batch.push(Entry { path, meta, target });
            if self.batch.len() >= BATCH {
                self.flush();
            }
        }
    }

    /// What there is need not wait for what takes long.
    fn tick(&mut self) {
        if self.last.elapsed() >= WAIT {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.batch.is_empty() {
            self.audience.entries(std::mem::take(&mut self.batch));
        }
        self.last = Instant::now();
    }
}

/// A directory that is being gone through.
struct Level {
    key: Vec<u8>,
    listing: Listing,
    next: usize,
}

fn list_local(path: &Path, whole: &SyncPath, want: &Want, control: &Control, sink: &mut Sink<'_>) -> Result<()> {
    let endpoint = match LocalEndpoint::open(path, Follow::Never, control) {
        Ok(endpoint) => endpoint,
        Err(errno) => return list_one(path, whole, errno, control, sink),
    };
    list_tree(&endpoint, want, control, sink)
}

fn list_host(path: &SyncPath, want: &Want, access: &Access, control: &Control, sink: &mut Sink<'_>) -> Result<()> {
    let options = Options::default();
    let again = sftp::Again { times: options.retry, delay: options.retry_delay.0 };
    let place = sftp::Place::connect(path, &access.ssh.clone().unwrap_or_default(), again, &control.stop())?;
    let failed = |failure: sftp::Failure| failure.at("list", path.to_bytes());
    if place.kind().map_err(failed)?.is_some_and(|kind| kind != Kind::Dir)
        && let (Some((parent, name)), false) = (place.parent(), path.has_trailing_slash())
        && let Some((meta, target)) = parent.open(false).map_err(failed)?.stat(b"", &name)?
    {
        sink.push(name, meta, target);
        return Ok(());
    }
    list_tree(&place.open(false).map_err(failed)?, want, control, sink)
}

fn list_tree(endpoint: &dyn Endpoint, want: &Want, control: &Control, sink: &mut Sink<'_>) -> Result<()> {
    let depth = want.depth().map_or(usize::MAX, |depth| depth as usize);
    let mut levels = vec![level(endpoint, Vec::new(), sink)?];
    while let Some(at) = levels.last_mut() {
        if control.should_stop() {
            return Err(SyncError::cancelled());
        }
        if at.next == at.listing.len() {
            levels.pop();
            sink.tick();
            continue;
        }
        let (name, item) = (at.listing.name(at.next), at.listing.item(at.next));
        at.next += 1;
        let key = child_key(&at.key, name);
        let below = item.meta.kind == Kind::Dir;
        sink.push(key.clone(), item.meta, item.target.clone());
        if below && levels.len() < depth {
            match level(endpoint, key, sink) {
                Ok(level) => levels.push(level),
                Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
                Err(error) => sink.audience.failed(error),
            }
        }
    }
    Ok(())
}

fn level(endpoint: &dyn Endpoint, key: Vec<u8>, sink: &mut Sink<'_>) -> Result<Level> {
    let mut listing = endpoint.list(&key)?;
    // One open directory for each level of a deep tree would be too many.
    listing.handle = None;
    for (_, error) in std::mem::take(&mut listing.unknown) {
        sink.audience.failed(error);
    }
    Ok(Level { key, listing, next: 0 })
}

/// A location that is no directory lists itself.
fn list_one(path: &Path, whole: &SyncPath, errno: Errno, control: &Control, sink: &mut Sink<'_>) -> Result<()> {
    let failed = |errno| SyncError::os(errno, "list", whole.to_bytes());
    let name = match path.components().next_back() {
        Some(Component::Normal(name)) if !whole.has_trailing_slash() => name.as_bytes().to_vec(),
        _ => return Err(failed(errno)),
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_path_buf);
    let endpoint = LocalEndpoint::open(&parent, Follow::Never, control).map_err(failed)?;
    match endpoint.stat(b"", &name)? {
        Some((meta, target)) if meta.kind != Kind::Dir => {
            sink.push(OsStr::from_bytes(&name).as_bytes().to_vec(), meta, target);
            Ok(())
        }
        _ => Err(failed(errno)),
    }
}

fn list_cloud(path: &SyncPath, want: &Want, access: &Access, control: &Control, sink: &mut Sink<'_>) -> Result<()> {
    let stop = control.stop();
    let store = open::store(path, access, &stop)?;
    let failed = |error: SyncError| match error {
        error if error.kind == ErrorKind::Cancelled || error.path.is_some() => error,
        error => error.at("list", path.to_bytes()),
    };
    let key = path.path.as_slice();
    if !key.is_empty()
        && !path.has_trailing_slash()
        && let Some(meta) = walk::single(&*store, key).map_err(failed)?
    {
        sink.push(path.name().to_vec(), meta, None);
        return Ok(());
    }
    let mut prefix = key.to_vec();
    if !prefix.is_empty() && !path.has_trailing_slash() {
        prefix.push(b'/');
    }
    let mut take = |seen: Seen| match seen {
        Seen::Entry(key, meta) => sink.push(key, meta, None),
        Seen::Page => sink.tick(),
    };
    let any = walk::walk(&*store, &prefix, want.depth(), &stop, &mut take).map_err(failed)?;
    // A bucket may be empty; of a prefix there is nothing then.
    if any || prefix.is_empty() { Ok(()) } else { Err(failed(SyncError::new(ErrorKind::NotFound, "nothing is there"))) }
}
