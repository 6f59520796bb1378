//! What a path on a host means: absolute, below the home directory, or below somebody else's.

use std::sync::Arc;

use super::client::{Again, Client};
use super::endpoint::SftpEndpoint;
use super::failure::{Failure, Result as Answer};
use super::session::Session;
use super::wire::{Attrs, LSTAT, MKDIR, REALPATH, Request, STAT, code};
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::SyncPath;
use crate::sync::Stop;
use crate::transport::Kind;
use crate::transport::ssh::SshConfig;
use crate::transport::ssh::connect::Target;

/// A location on a host, before it is known what stands there.
#[derive(Debug)]
pub struct Place {
    pub client: Arc<Client>,
    target: Target,
    config: SshConfig,
    named: SyncPath,
    /// Absolute, but not yet without links.
    path: Vec<u8>,
}

impl Place {
    /// Connects. `path` must be on a host.
    pub fn connect(path: &SyncPath, config: &SshConfig, again: Again, stop: &Stop) -> Result<Self> {
        let target = Target::of(path).ok_or_else(|| SyncError::config("not on an SSH host").at("open", path.to_bytes()))?;
        let config = config.clone();
        let client = Arc::new(Client::new(target.clone(), &config, again, stop));
        let connected = client.session().and_then(|session| absolute(&session, &path.path));
        let absolute = connected.map_err(|failure| failure.at("open", path.to_bytes()))?;
        let mut named = path.clone();
        // A URL has a slash after the host; with nothing else that would name another place.
        if named.path.is_empty() && named.to_bytes().ends_with(b"/") {
            named.path = b"/~".to_vec();
        }
        Ok(Self { client, target, config, named, path: absolute })
    }

    /// What tells the host from others, as far as its name does.
    pub fn host(&self) -> String {
        self.target.id(&self.config)
    }

    /// The same location one level up, and the name there; `None` for what has no name.
    pub fn parent(&self) -> Option<(Self, Vec<u8>)> {
        let name = self.named.name();
        if matches!(name, b"" | b"." | b".." | b"~") || name.starts_with(b"~") && !self.named.path.contains(&b'/') {
            return None;
        }
        let path = match self.path.iter().rposition(|&b| b == b'/') {
            Some(0) | None => b"/".to_vec(),
            Some(slash) => self.path[..slash].to_vec(),
        };
        let up = Self {
            client: Arc::clone(&self.client),
            target: self.target.clone(),
            config: self.config.clone(),
            named: self.named.parent(),
            path,
        };
        Some((up, name.to_vec()))
    }

    /// The kind of what stands there, following links.
    pub fn kind(&self) -> Answer<Option<Kind>> {
        match self.client.session()?.ask(Request::path(STAT, &self.path))?.attrs() {
            Ok(attrs) => Ok(Some(attrs.kind().unwrap_or(Kind::File))),
            Err(Failure::Status(code::NO_SUCH_FILE)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Opens the directory, following links up to and including its last component: the user named it.
    pub fn open(&self, writes: bool) -> Answer<SftpEndpoint> {
        let session = self.client.session()?;
        match self.kind()? {
            Some(Kind::Dir) => {}
            Some(_) => return Err(Failure::Session(SyncError::os(rustix::io::Errno::NOTDIR, "open", self.named.to_bytes()))),
            None => return Err(Failure::Status(code::NO_SUCH_FILE)),
        }
        let root = session.ask(Request::path(REALPATH, &self.path))?.name()?;
        if !root.starts_with(b"/") {
            let error = SyncError::new(ErrorKind::Io, "the server gives no absolute path").at("open", self.named.to_bytes());
            return Err(Failure::Session(error));
        }
        Ok(SftpEndpoint::new(self, self.named.clone(), root, &session, writes))
    }

    /// What `open` would give, of a place where nothing is yet: for the capabilities.
    pub fn imagine(&self) -> Answer<SftpEndpoint> {
        Ok(SftpEndpoint::new(self, self.named.clone(), self.path.clone(), &*self.client.session()?, true))
    }

    /// Makes the directory, and those above it.
    pub fn make(&self) -> Answer<()> {
        let session = self.client.session()?;
        let ends = self.path.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).chain([self.path.len()]);
        // From the inside out, what is there already is found soonest.
        let ends: Vec<usize> = ends.collect();
        let mut first = ends.len();
        while first > 0
            && session.ask(Request::path(LSTAT, &self.path[..ends[first - 1]]))?.attrs().is_err_and(|f| f.is(code::NO_SUCH_FILE))
        {
            first -= 1;
        }
        for &end in &ends[first..] {
            session.ask(Request::path(MKDIR, &self.path[..end]).attrs(&Attrs::default()))?.done()?;
        }
        Ok(())
    }
}

/// The absolute path of what a user names: relative ones begin at home, and so does `~`, also as `ssh://host/~/dir`.
fn absolute(session: &Session, path: &[u8]) -> Answer<Vec<u8>> {
    let path = match path.strip_prefix(b"/") {
        Some(rest) if rest == b"~" || rest.starts_with(b"~/") => rest,
        _ => path,
    };
    if path.starts_with(b"/") {
        return Ok(plain(path));
    }
    let (start, rest) = match path.first() {
        Some(b'~') => match path.iter().position(|&b| b == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (path, &b""[..]),
        },
        _ => (&b"."[..], path),
    };
    let home = match start {
        b"." => session.ask(Request::path(REALPATH, b"."))?.name()?,
        _ if session.server.expand_path => session.ask(Request::extended("expand-path@openssh.com").text(start))?.name()?,
        b"~" => session.ask(Request::path(REALPATH, b"."))?.name()?,
        _ => return Err(Failure::Session(SyncError::unsupported("the server does not tell the home directories of others"))),
    };
    if !home.starts_with(b"/") {
        return Err(Failure::Session(SyncError::new(ErrorKind::Io, "the server gives no absolute path")));
    }
    Ok(plain(&[&home, &b"/"[..], rest].concat()))
}

/// Without what means nothing: doubled slashes, dots, a slash at the end. Two dots may follow a link, and stay.
fn plain(path: &[u8]) -> Vec<u8> {
    let parts: Vec<&[u8]> = path.split(|&b| b == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    [b"/", parts.join(&b'/').as_slice()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lose_what_means_nothing() {
        for (path, expected) in [("/", "/"), ("//a/./b//", "/a/b"), ("/a/../b", "/a/../b"), ("/.", "/")] {
            assert_eq!(plain(path.as_bytes()), expected.as_bytes(), "{path}");
        }
    }
}
