//! A directory on a host, through the agent there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::SshConfig;
use super::connect::{Start, Target, connect};
use super::deploy;
use super::session::Session;
use super::walk::{Found as Walked, Part, get_rest};
use super::wire::message::{get_capabilities, get_found, get_listing, get_optional_meta, get_options, put_capabilities, put_options};
use super::wire::{Get, Kind, Put, body, garbled};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::sync::Stop;
use crate::transport::local::Follow;
use crate::transport::{Capabilities, Endpoint, Found, Listing, Meta};

/// Connections made anew in place of one that was cut, one after another.
const TRIES: u32 = 3;

/// What the run is about there.
#[derive(Debug, Clone)]
enum Role {
    Source { follow: Follow },
    Dest { is_dir: bool, one: Option<Vec<u8>>, capabilities: Capabilities, options: Box<Options>, apart: Option<Apart> },
}

/// A tree that the destination must not be, hold, or lie within: the machine that it is on, if that is known, and the path there.
pub type Apart = (Vec<u8>, Vec<u8>);

/// How to get to a root, again and again.
#[derive(Debug)]
struct Way {
    target: Target,
    config: SshConfig,
    path: Vec<u8>,
    role: Role,
    stop: Stop,
}

/// An open root on a host.
#[derive(Debug)]
pub struct SshEndpoint {
    way: Way,
    session: Mutex<Arc<Session>>,
    known: Known,
    /// Comes before a path on the host, in messages.
    prefix: Vec<u8>,
    /// The root as the user wrote it.
    root: Vec<u8>,
    /// Directory and name of parts of files that earlier transfers left.
    parts: Mutex<HashSet<(Vec<u8>, Vec<u8>)>>,
}

/// What the agent said of the root.
#[derive(Debug)]
struct Known {
    capabilities: Capabilities,
    real: Vec<u8>,
    machine: Vec<u8>,
    meta: Meta,
    one: Option<Vec<u8>>,
    is_dir: bool,
    dest: Option<DestKnown>,
}

/// What it said besides of a destination.
#[derive(Debug)]
pub struct DestKnown {
    pub made: bool,
    pub as_name: Option<Vec<u8>>,
    /// As far as that host can honour them.
    pub options: Options,
    pub spared: Vec<Vec<u8>>,
    pub leftovers: Vec<Box<[u8]>>,
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SshEndpoint {
    /// Opens a source.
    pub fn source(path: &SyncPath, config: &SshConfig, follow: Follow, stop: &Stop) -> Result<Self> {
        Self::open(path, config, Role::Source { follow }, stop)
    }

    /// Opens a destination, making it if need be. `None`: a dry run found nothing there.
    #[expect(clippy::too_many_arguments, reason = "what a destination has to know")]
    pub fn dest(
        path: &SyncPath,
        config: &SshConfig,
        is_dir: bool,
        one: Option<&[u8]>,
        source: Capabilities,
        apart: Option<Apart>,
        options: &Options,
        stop: &Stop,
    ) -> Result<Option<Self>> {
        let role = Role::Dest { is_dir, one: one.map(<[u8]>::to_vec), capabilities: source, options: Box::new(options.clone()), apart };
        match Self::open(path, config, role, stop) {
            Err(error) if error.kind == ErrorKind::NotFound && options.dry_run => Ok(None),
            other => other.map(Some),
        }
    }

    fn open(path: &SyncPath, config: &SshConfig, role: Role, stop: &Stop) -> Result<Self> {
        let target = Target::of(path).ok_or_else(|| SyncError::config("not a location on a host"))?;
        let prefix = prefix(path);
        let way = Way { target, config: config.clone(), path: path.path.clone(), role, stop: stop.clone() };
        let (session, known) = match way.go() {
            // What makes it an absence is that it is about no path.
            Err(error) if deploy::is_absence(&error) => return Err(error),
            other => other.map_err(|error| on_host(error, &prefix))?,
        };
        let mut root = path.path.clone();
        let inside = known.one.is_some() || known.dest.as_ref().is_some_and(|dest| dest.as_name.is_some());
        if inside {
            root = path.parent().path;
        }
        Ok(Self { way, session: Mutex::new(Arc::new(session)), known, prefix, root, parts: Mutex::default() })
    }

    /// The connection; a new one where the last was cut.
    pub fn session(&self) -> Result<Arc<Session>> {
        let mut session = lock(&self.session);
        if !session.is_dead() {
            return Ok(Arc::clone(&session));
        }
        let mut wait = Duration::from_millis(250);
        for left in (0..TRIES).rev() {
            match self.way.go() {
                Ok((fresh, known)) if (known.meta.dev, known.meta.ino) == (self.known.meta.dev, self.known.meta.ino) => {
                    *session = Arc::new(fresh);
                    return Ok(Arc::clone(&session));
                }
                Ok(_) => return Err(SyncError::new(ErrorKind::Conflict, "it is another directory now").at("open", self.path_of(b""))),
                Err(error) if !error.retryable || left == 0 || self.way.stop.is_set() => return Err(self.at(error)),
                Err(_) => {}
            }
            std::thread::sleep(wait);
            wait *= 4;
        }
        Err(super::wire::cut_off())
    }

    /// Sends a request and waits for the one message that answers it.
    pub fn ask(&self, kind: Kind, body: Put) -> Result<Vec<u8>> {
        self.session()?.ask(kind, body)?.done().map_err(|error| self.at(error))
    }

    /// An error of the other side, with its paths as the user would write them.
    pub fn at(&self, error: SyncError) -> SyncError {
        on_host(error, &self.prefix)
    }

    /// One entry of the root, if the location names one.
    pub fn one(&self) -> Option<&[u8]> {
        self.known.one.as_deref()
    }

    /// The machine that it is on, and its path there without links.
    pub fn place(&self) -> (&[u8], &[u8]) {
        (&self.known.machine, &self.known.real)
    }

    pub fn is_dir(&self) -> bool {
        self.known.is_dir
    }

    pub fn dest_known(&self) -> Option<&DestKnown> {
        self.known.dest.as_ref()
    }

    pub fn stop(&self) -> &Stop {
        &self.way.stop
    }
}

impl Way {
    /// Connects to an agent, wherever there is one, and opens the root.
    fn go(&self) -> Result<(Session, Known)> {
        let mut absent = None;
        for command in deploy::commands(&self.target, &self.config) {
            match self.go_with(&command) {
                Err(error) if deploy::is_absence(&error) => absent = absent.or(Some(error)),
                Err(error) => return Err(error),
                Ok(there) => {
                    deploy::remember(&self.target, &self.config, &command);
                    return Ok(there);
                }
            }
        }
        let absent = absent.unwrap_or_else(|| SyncError::unsupported("no sy answered on the host"));
        if self.config.agent_path.is_some() {
            return Err(absent);
        }
        let command = match deploy::install(&self.target, &self.config, &self.stop) {
            Ok(command) => command,
            Err(error) if error.kind == ErrorKind::Cancelled => return Err(error),
            Err(error) => {
                return Err(SyncError {
                    message: format!("{}; it could not be copied there: {}", absent.message, error.message),
                    ..absent
                });
            }
        };
        let there = self.go_with(&command)?;
        deploy::remember(&self.target, &self.config, &command);
        Ok(there)
    }

    fn go_with(&self, command: &str) -> Result<(Session, Known)> {
        let session = Session::new(connect(&self.target, &self.config, Start::Command(command), &self.stop)?, &self.stop);
        let mut request = body();
        // Both sides are on their way to list everything before the first answer has come.
        let id = session.next_id();
        request.u32(id).u64(session.walk().begin(id)).bytes(&self.path);
        let answer = match &self.role {
            Role::Source { follow } => {
                request.u8(match follow {
                    Follow::Never => 0,
                    Follow::Within => 1,
                    Follow::Anywhere => 2,
                });
                session.ask(Kind::OpenSource, request)?.done()?
            }
            Role::Dest { is_dir, one, capabilities, options, apart } => {
                request.bool(*is_dir).option(one.as_deref());
                put_capabilities(&mut request, capabilities);
                put_options(&mut request, options);
                request.option(apart.as_ref().map(|(machine, _)| &machine[..]));
                request.bytes(apart.as_ref().map_or(b"", |(_, real)| real));
                session.ask(Kind::OpenDest, request)?.done()?
            }
        };
        let known = Known::read(&mut Get(&answer), &self.role)?;
        Ok((session, known))
    }
}

impl Known {
    fn read(get: &mut Get<'_>, role: &Role) -> Result<Self> {
        let of_dest = matches!(role, Role::Dest { .. });
        let options = if of_dest {
            get.bool()?;
            Some(get_options(get)?)
        } else {
            None
        };
        let capabilities = get_capabilities(get)?;
        let (real, machine) = (get.bytes()?.to_vec(), get.bytes()?.to_vec());
        let meta = get_optional_meta(get, None)?.ok_or_else(|| garbled("a root of which nothing is known"))?;
        let Some(options) = options else {
            let one = get.option()?.map(<[u8]>::to_vec);
            let is_dir = get.bool()?;
            get.end()?;
            return Ok(Self { capabilities, real, machine, meta, one, is_dir, dest: None });
        };
        let (made, as_name) = (get.bool()?, get.option()?.map(<[u8]>::to_vec));
        let mut spared = Vec::new();
        for _ in 0..get.usize()? {
            spared.push(get.key()?.to_vec());
        }
        let mut leftovers = Vec::new();
        for _ in 0..get.usize()? {
            leftovers.push(get.name()?.into());
        }
        get.end()?;
        let dest = Some(DestKnown { made, as_name, options, spared, leftovers });
        Ok(Self { capabilities, real, machine, meta, one: None, is_dir: true, dest })
    }
}

impl Endpoint for SshEndpoint {
    fn capabilities(&self) -> Capabilities {
        self.known.capabilities
    }

    fn identity(&self) -> Vec<u8> {
        [b"ssh://", self.way.target.id(&self.way.config).as_bytes(), &self.known.real].concat()
    }

    fn root_meta(&self) -> Result<Meta> {
        Ok(self.known.meta)
    }

    fn lists_ahead(&self) -> bool {
        true
    }

    fn list(&self, key: &[u8]) -> Result<Listing> {
        for _ in 0..=TRIES {
            let session = self.session()?;
            let gave_up = || {
                if self.way.stop.is_set() { Some(SyncError::cancelled()) } else { session.death().cloned() }
            };
            match session.walk().find(key, &|bytes| session.grant(bytes), &gave_up) {
                Walked::Here(Ok(listing)) => {
                    listing.leftovers.iter().for_each(|name| self.note_leftover(key, name));
                    return Ok(listing);
                }
                Walked::Here(Err(error)) if session.is_dead() && error.retryable => {
                    self.session()?.begin_walk(key)?;
                }
                Walked::Here(Err(error)) => return Err(self.at(error)),
                Walked::Far => session.begin_walk(key)?,
                Walked::Absent => match self.list_alone(&session, key) {
                    Err(error) if session.is_dead() && error.retryable => {}
                    other => return other.map_err(|error| self.at(error)),
                },
            }
        }
        Err(super::wire::cut_off())
    }

    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>> {
        let mut request = body();
        request.bytes(dir).bytes(name);
        get_found(&mut Get(&self.ask(Kind::Stat, request)?))
    }

    fn read(&self, key: &[u8]) -> Result<Vec<u8>> {
        let mut request = body();
        request.bytes(key);
        let answer = self.ask(Kind::Read, request)?;
        Ok(Get(&answer).bytes()?.to_vec())
    }

    fn path_of(&self, key: &[u8]) -> Vec<u8> {
        let mut path = [&*self.prefix, &*self.root].concat();
        if !key.is_empty() {
            if !self.root.is_empty() && path.last() != Some(&b'/') {
                path.push(b'/');
            }
            path.extend_from_slice(key);
        }
        path
    }
}

impl SshEndpoint {
    pub fn has_leftover(&self, dir: &[u8], name: &[u8]) -> bool {
        let parts = lock(&self.parts);
        !parts.is_empty() && parts.contains(&(dir.to_vec(), name.to_vec()))
    }

    pub fn note_leftover(&self, dir: &[u8], name: &[u8]) {
        lock(&self.parts).insert((dir.to_vec(), name.to_vec()));
    }

    fn list_alone(&self, session: &Session, key: &[u8]) -> Result<Listing> {
        let mut request = body();
        request.bytes(key);
        let mut reply = session.ask(Kind::List, request)?;
        let mut listing = Listing::default();
        loop {
            let frame = reply.next()?;
            if frame.kind == Kind::Done {
                return Ok(listing);
            }
            let mut get = Get(&frame.body);
            match Part::read(&mut get)? {
                Part::Entries(_, last) => {
                    get_listing(&mut get, &mut listing)?;
                    if last {
                        get_rest(&mut get, &mut listing)?;
                    }
                }
                Part::Failed(_, error) => return Err(error),
                Part::End => return Err(garbled("a directory that is none")),
            }
        }
    }
}

/// What a location on that host begins with, as the user wrote this one.
fn prefix(path: &SyncPath) -> Vec<u8> {
    let root = SyncPath { scheme: path.scheme.clone(), path: Vec::new() };
    match &path.scheme {
        Scheme::Ssh { .. } => root.to_bytes(),
        _ => Vec::new(),
    }
}

fn on_host(error: SyncError, prefix: &[u8]) -> SyncError {
    match &error.path {
        Some(path) if !path.starts_with(prefix) => {
            let path = Some([prefix, path].concat());
            SyncError { path, ..error }
        }
        _ => error,
    }
}
