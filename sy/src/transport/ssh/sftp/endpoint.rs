//! A directory on a host, as an endpoint.
//!
//! SFTP knows paths only, no open directories to start from. Each directory on the way is looked at before it is used, and
//! again every now and then: a link is never followed on purpose. Somebody who swaps a directory for a link in the very
//! moment between look and use can lead a request astray; only the host could prevent that.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::client::Client;
use super::failure::{Failure, Result as Answer};
use super::home::Place;
use super::session::{Session, Ticket};
use super::wire::{Attrs, CLOSE, LSTAT, OPEN, READ, READLINK, Request, code, open};
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::SyncPath;
use crate::transport::{Capabilities, Endpoint, Found, Kind, Known, Listing, Meta, Time, child_key};

/// How long a directory that was looked at counts as one.
const FRESH: Duration = Duration::from_secs(2);
/// Directories that are remembered, at most.
const REMEMBERED: usize = 4096;

#[derive(Debug)]
pub struct SftpEndpoint {
    pub client: Arc<Client>,
    /// Absolute, without links, and without a slash at the end but for the root of all.
    root: Vec<u8>,
    /// As the user would write it.
    named: SyncPath,
    /// What tells the host from others.
    host: String,
    dev: u64,
    capabilities: Capabilities,
    lsetstat: bool,
    fsync: bool,
    entered: Mutex<HashMap<Vec<u8>, Instant>>,
}

/// Directories that are being looked at.
#[derive(Debug)]
pub struct Entering(Vec<(Vec<u8>, Ticket)>);

impl SftpEndpoint {
    /// `root` is a path without links. `writes`: it is a destination.
    pub fn new(place: &Place, named: SyncPath, root: Vec<u8>, session: &Session, writes: bool) -> Self {
        let server = session.server;
        let host = place.host();
        let capabilities = Capabilities {
            mtime_precision: 1_000_000_000,
            xattrs: false,
            acls: false,
            owner: true,
            // They can be made, but not be seen.
            hard_links: writes && server.hardlink,
            devices: false,
            links: !writes || server.symlinks,
            trash: false,
            any_name: false,
        };
        Self {
            client: Arc::clone(&place.client),
            dev: hash(&(&host, &root)),
            root,
            named,
            host,
            capabilities,
            lsetstat: server.lsetstat || !writes,
            fsync: server.fsync,
            entered: Mutex::default(),
        }
    }

    /// What tells the host from others, and the path there without links.
    pub fn place(&self) -> (&str, &[u8]) {
        (&self.host, &self.root)
    }

    /// Can a file be had on disk there?
    pub fn can_sync(&self) -> bool {
        self.fsync
    }

    /// The path on the host.
    pub fn path(&self, key: &[u8]) -> Vec<u8> {
        if key.is_empty() {
            return self.root.clone();
        }
        let mut path = self.root.clone();
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(key);
        path
    }

    /// What a listing says of an entry, as far as the server tells. `None` if it does not even tell the kind.
    pub fn meta(&self, key: &[u8], attrs: &Attrs, links: u32) -> Option<Meta> {
        let kind = attrs.kind()?;
        let mtime = Time { seconds: attrs.times.map_or(0, |(_, change)| change.into()), nanos: 0 };
        let size = if kind == Kind::File || kind == Kind::Symlink { attrs.size? } else { attrs.size.unwrap_or(0) };
        let owner = attrs.owner.unwrap_or_default();
        Some(Meta {
            kind,
            size,
            mtime,
            ctime: mtime,
            mode: attrs.mode.unwrap_or(0) & 0o7777,
            uid: owner.0,
            gid: owner.1,
            nlink: if kind == Kind::Dir { 1 } else { links },
            // Nobody tells what a file is by itself, so its path has to do.
            ino: hash(&key) | 1,
            dev: self.dev,
            rdev: 0,
            allocated: size,
            mount: false,
            tagged: false,
            known: Known {
                all: true,
                mtime: attrs.times.is_some() && (kind != Kind::Symlink || self.lsetstat),
                mode: true,
                owner: attrs.owner.is_some(),
            },
        })
    }

    /// What stands at `key`; `None` if nothing does.
    pub fn look(&self, session: &Session, key: &[u8]) -> Answer<Option<Meta>> {
        self.looked(key, session.ask(Request::path(LSTAT, &self.path(key)))?)
    }

    /// Takes the answer to `LSTAT`.
    pub fn looked(&self, key: &[u8], ticket: Ticket) -> Answer<Option<Meta>> {
        match ticket.attrs() {
            Ok(attrs) => self.meta(key, &attrs, 1).map(Some).ok_or_else(|| Failure::Session(tells_nothing())),
            Err(Failure::Status(code::NO_SUCH_FILE)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Begins to look whether the directory at `key` can be reached without following a link.
    pub fn begin_enter(&self, session: &Session, key: &[u8]) -> Answer<Entering> {
        let mut entering = Vec::new();
        let entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([key.len()]).filter(|&end| end > 0);
        let unknown: Vec<&[u8]> =
            ends.map(|end| &key[..end]).filter(|up| entered.get(*up).is_none_or(|when| when.elapsed() > FRESH)).collect();
        drop(entered);
        for up in unknown {
            entering.push((up.to_vec(), session.ask(Request::path(LSTAT, &self.path(up)))?));
        }
        Ok(Entering(entering))
    }

    pub fn enter(&self, session: &Session, key: &[u8]) -> Answer<()> {
        let entering = self.begin_enter(session, key)?;
        self.end_enter(entering)
    }

    pub fn end_enter(&self, entering: Entering) -> Answer<()> {
        for (key, ticket) in entering.0 {
            match self.looked(&key, ticket)? {
                Some(meta) if meta.kind == Kind::Dir => self.remember(key),
                found => {
                    let errno = found.map_or(Errno::NOENT, |meta| if meta.kind == Kind::Symlink { Errno::LOOP } else { Errno::NOTDIR });
                    return Err(Failure::Session(SyncError::os(errno, "enter", self.path_of(&key))));
                }
            }
        }
        Ok(())
    }

    /// It is a directory: it was seen, or made, just now.
    pub fn remember(&self, key: Vec<u8>) {
        let mut entered = self.entered.lock().unwrap_or_else(PoisonError::into_inner);
        if entered.len() >= REMEMBERED {
            entered.clear();
        }
        entered.insert(key, Instant::now());
    }

    /// It is not any more.
    pub fn forget(&self, key: &[u8]) {
        self.entered.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    pub fn link_target(&self, session: &Session, key: &[u8]) -> Answer<Box<[u8]>> {
        session.ask(Request::path(READLINK, &self.path(key)))?.name().map(Vec::into_boxed_slice)
    }
}

/// For what is one thing and not another, as far as its path tells.
fn hash(of: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

pub fn tells_nothing() -> SyncError {
    SyncError::unsupported("the server does not tell what it is")
}

impl Endpoint for SftpEndpoint {
    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    fn identity(&self) -> Vec<u8> {
        [b"sftp://", self.host.as_bytes(), &self.root].concat()
    }

    fn root_meta(&self) -> Result<Meta> {
        let meta = self.client.repeat(|session| self.look(session, b"")).map_err(|failure| failure.at("read", self.path_of(b"")))?;
        meta.ok_or_else(|| SyncError::os(Errno::NOENT, "read", self.path_of(b"")))
    }

    fn list(&self, key: &[u8]) -> Result<Listing> {
        self.client.repeat(|session| super::list::list(self, session, key)).map_err(|failure| failure.at("list", self.path_of(key)))
    }

    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let key = child_key(dir, name);
        let found = self.client.repeat(|session| {
            let entering = self.begin_enter(session, dir)?;
            let ticket = session.ask(Request::path(LSTAT, &self.path(&key)))?;
            match self.end_enter(entering) {
                Err(Failure::Session(error)) if error.kind == ErrorKind::NotFound => return Ok(None),
                entered => entered?,
            }
            Ok(match self.looked(&key, ticket)? {
                Some(meta) if meta.kind == Kind::Symlink => Some((meta, Some(self.link_target(session, &key)?))),
                Some(meta) => Some((meta, None)),
                None => None,
            })
        });
        found.map_err(|failure| failure.at("read", self.path_of(&key)))
    }

    /// At most 16 MiB of a regular file.
    fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        const MOST: u64 = 16 << 20;
        let read = self.client.repeat(|session| {
            let (dir, _) = crate::transport::split_key(key);
            self.enter(session, dir)?;
            let meta = self.look(session, key)?.ok_or(Failure::Status(code::NO_SUCH_FILE))?;
            if meta.kind != Kind::File || meta.size > MOST {
                return Err(Failure::Session(SyncError::new(ErrorKind::Io, "not a regular file of at most 16 MiB")));
            }
            let handle = session.ask(Request::path(OPEN, &self.path(key)).u32(open::READ).attrs(&Attrs::default()))?.handle()?;
            let mut content = Vec::with_capacity(meta.size as usize);
            while content.len() as u64 <= MOST {
                let most = session.server.read;
                let data = session.ask(Request::new(READ).text(&handle).u64(content.len() as u64).u32(most))?.data(most as usize)?;
                if data.is_empty() {
                    break;
                }
                content.extend_from_slice(&data);
            }
            let _ = session.ask(Request::path(CLOSE, &handle));
            Ok(content)
        });
        read.map_err(|failure| failure.at("read rules from", self.path_of(key)))
    }

    fn path_of(&self, key: &[u8]) -> Vec<u8> {
        if key.is_empty() { self.named.to_bytes() } else { self.named.join(key).to_bytes() }
    }
}
