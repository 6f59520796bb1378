//! A directory on a host, through the agent there.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::SshConfig;
use super::connect::{Start, Target, connect};
use super::deploy;
use super::here::is_here;
use super::kept;
use super::later::{About, Later};
use super::session::Session;
use super::walk::{Found as Walked, Part, get_rest};
use super::wire::message::{
    get_capabilities, get_found, get_listing, get_optional_meta, get_options, put_capabilities, put_optional_meta, put_options,
};
use super::wire::zip::When;
use super::wire::{Get, Kind, Put, body, garbled};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::sync::Stop;
use crate::transport::local::Follow;
use crate::transport::{Capabilities, Endpoint, Found, Listing, Meta};

/// For so long at least nobody tries again to reach a host that could not be reached.
const AWAY: Duration = Duration::from_secs(2);
/// Connections made anew in place of one that was cut, one after another.
const TRIES: u32 = 3;
/// Connections side by side, at most.
const MOST: u64 = 32;

/// What the run is about there.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "an endpoint has one")]
enum Role {
    Source { follow: Follow },
    Dest { is_dir: bool, one: Option<Vec<u8>>, capabilities: Capabilities, options: Box<Options>, here: Option<Here> },
}

/// Where a source is: its machine, its root, and the path of what is meant.
#[derive(Debug, Clone)]
pub struct Here {
    pub boot: Vec<u8>,
    pub root: Vec<u8>,
    pub whole: Vec<u8>,
    /// What the root is; `None` if it is known by its path at the same address only.
    pub meta: Option<Meta>,
}

fn put_here(put: &mut Put, here: Option<&Here>) {
    put.bool(here.is_some());
    if let Some(here) = here {
        put.bytes(&here.boot).bytes(&here.root).bytes(&here.whole);
        put_optional_meta(put, here.meta.as_ref(), None);
    }
}

/// How to get to a root, again and again.
#[derive(Debug)]
struct Way {
    target: Target,
    config: SshConfig,
    path: Vec<u8>,
    role: Role,
    /// Pack everything; otherwise only what it helps.
    compress: bool,
    /// Keep the connection for the next run.
    keep: bool,
    stop: Stop,
}

/// An open root on a host.
#[derive(Debug)]
pub struct SshEndpoint {
    way: Way,
    session: Mutex<Arc<Session>>,
    /// More connections, for large files.
    more: Vec<Mutex<Option<Arc<Session>>>>,
    turn: AtomicUsize,
    later: Later,
    /// Until when the host counts as away, and why.
    lost: Mutex<Option<(Instant, SyncError)>>,
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
    boot: Vec<u8>,
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
    pub fn source(path: &SyncPath, config: &SshConfig, follow: Follow, options: &Options, stop: &Stop) -> Result<Self> {
        Self::open(path, config, Role::Source { follow }, (options.compress, options.daemon_auto), stop)
    }

    /// Opens a destination, making it if need be. `None`: a dry run found nothing there.
    #[expect(clippy::too_many_arguments, reason = "what a destination has to know")]
    pub fn dest(
        path: &SyncPath,
        config: &SshConfig,
        is_dir: bool,
        one: Option<&[u8]>,
        source: Capabilities,
        options: &Options,
        here: Option<Here>,
        stop: &Stop,
    ) -> Result<Option<Self>> {
        let role = Role::Dest { is_dir, one: one.map(<[u8]>::to_vec), capabilities: source, options: Box::new(options.clone()), here };
        match Self::open(path, config, role, (options.compress, options.daemon_auto), stop) {
            Err(error) if error.kind == ErrorKind::NotFound && options.dry_run => Ok(None),
            other => other.map(Some),
        }
    }

    fn open(path: &SyncPath, config: &SshConfig, role: Role, (compress, keep): (bool, bool), stop: &Stop) -> Result<Self> {
        let target = Target::of(path).ok_or_else(|| SyncError::config("not a location on a host"))?;
        let prefix = prefix(path);
        let way = Way { target, config: config.clone(), path: path.path.clone(), role, compress, keep, stop: stop.clone() };
        let (session, known) = match way.go() {
            // What makes it an absence is that it is about no path.
            Err(error) if deploy::is_absence(&error) => return Err(error),
            other => other.map_err(|error| on_host(error, &prefix))?,
        };
        let named = path.name();
        if known.one.as_ref().is_some_and(|one| one != named && !matches!(named, b"" | b"." | b".." | b"~")) {
            return Err(garbled("another file than was asked for"));
        }
        let mut root = path.path.clone();
        let inside = known.one.is_some() || known.dest.as_ref().is_some_and(|dest| dest.as_name.is_some());
        if inside {
            root = path.parent().path;
        }
        let more = (1..config.pool_size.unwrap_or(1).clamp(1, MOST)).map(|_| Mutex::default()).collect();
        Ok(Self {
            way,
            session: Mutex::new(session),
            more,
            turn: AtomicUsize::new(0),
            later: Later::default(),
            lost: Mutex::default(),
            known,
            prefix,
            root,
            parts: Mutex::default(),
        })
    }

    /// The connection; a new one where the last was cut.
    pub fn session(&self) -> Result<Arc<Session>> {
        let mut session = lock(&self.session);
        if !session.is_dead() {
            return Ok(Arc::clone(&session));
        }
        let mut lost = lock(&self.lost);
        if let Some((until, error)) = &*lost
            && Instant::now() < *until
        {
            return Err(error.clone());
        }
        // A host that was away stays so for a while; each of many files need not find that out anew.
        let tries = if lost.is_some() { 1 } else { TRIES };
        let began = Instant::now();
        let mut wait = Duration::from_millis(250);
        for left in (0..tries).rev() {
            match self.way.go() {
                Ok((fresh, known)) if (known.meta.dev, known.meta.ino) == (self.known.meta.dev, self.known.meta.ino) => {
                    // Should it be cut already, that shows soon.
                    if self.later.send_again(&fresh).is_ok() || left == 0 {
                        *session = fresh;
                        *lost = None;
                        return Ok(Arc::clone(&session));
                    }
                }
                Ok(_) => return Err(SyncError::new(ErrorKind::Conflict, "it is another directory now").at("open", self.path_of(b""))),
                Err(error) if !error.retryable || left == 0 || self.way.stop.is_set() => {
                    // What was to be done there has its own path.
                    let error = self.at(error);
                    let error = SyncError { message: error.to_string(), path: None, action: "", hint: None, ..error };
                    *lost = Some((Instant::now() + began.elapsed().max(AWAY), error.clone()));
                    return Err(error);
                }
                Err(_) => {}
            }
            std::thread::sleep(wait);
            wait *= 4;
        }
        Err(super::wire::cut_off())
    }

    /// A connection for a large file: one after another of as many as `pool_size` says.
    pub fn session_for_large(&self) -> Result<Arc<Session>> {
        let turn = self.turn.fetch_add(1, Relaxed) % self.connections();
        match self.session_at(turn)? {
            Some(session) => Ok(session),
            None => self.session(),
        }
    }

    /// Connections that a run may have.
    pub fn connections(&self) -> usize {
        self.more.len() + 1
    }

    /// One of them; the first is the one that all else goes over. `None` if it could not be had.
    pub fn session_at(&self, place: usize) -> Result<Option<Arc<Session>>> {
        let first = self.session()?;
        let Some(beside) = place.checked_sub(1).and_then(|place| self.more.get(place)) else { return Ok(Some(first)) };
        let mut beside = lock(beside);
        if beside.as_ref().is_none_or(|session| session.is_dead()) {
            *beside = self.way.go_beside().ok();
        }
        let Some(session) = beside.clone() else { return Ok(None) };
        drop(beside);
        if self.known.dest.is_some() {
            // The directories that were asked for there have been made when this is answered.
            first.ask(Kind::Ping, body())?.done()?;
        }
        Ok(Some(session))
    }

    /// Sends a request and waits for the one message that answers it.
    pub fn ask(&self, kind: Kind, body: Put) -> Result<Vec<u8>> {
        self.session()?.ask(kind, body)?.done().map_err(|error| self.at(error))
    }

    /// Sends a request that nobody waits for, and that does not get lost with a connection.
    pub fn ask_later(&self, kind: Kind, body: &Put, about: &About) -> Result<()> {
        let session = self.session()?;
        match self.later.send(&session, kind, body, about) {
            Err(error) if error.retryable && session.is_dead() => self.later.send(&*self.session()?, kind, body, about),
            sent => sent,
        }
    }

    /// The next answer of those. Without `wait` only one that has come, unless the other side is far behind.
    pub fn answer(&self, wait: bool) -> Option<(About, Result<Vec<u8>>)> {
        self.later.next(wait, &|| self.session().map(drop))
    }

    /// An error of the other side, with its paths as the user would write them.
    pub fn at(&self, error: SyncError) -> SyncError {
        on_host(error, &self.prefix)
    }

    /// One entry of the root, if the location names one.
    pub fn one(&self) -> Option<&[u8]> {
        self.known.one.as_deref()
    }

    /// Where it is, for the other side of a run.
    pub fn place(&self) -> Here {
        let Known { boot, real, one, meta, .. } = &self.known;
        let whole = one.as_ref().map_or_else(|| real.clone(), |name| [real, &b"/"[..], name].concat());
        Here { boot: boot.clone(), root: real.clone(), whole, meta: Some(*meta) }
    }

    /// Its path, if it is on this machine.
    pub fn here(&self) -> Option<&[u8]> {
        is_here(&self.known.boot, &self.known.real, &self.known.meta).then_some(&*self.known.real)
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

impl Drop for SshEndpoint {
    fn drop(&mut self) {
        let session = Arc::clone(&lock(&self.session));
        if !self.way.keep || session.is_dead() || self.way.stop.is_set() {
            return;
        }
        if session.ask(Kind::Close, body()).and_then(|mut reply| reply.done()).is_ok() {
            kept::keep(&self.way.target, &self.way.config, session);
        }
    }
}

impl Way {
    /// Connects to an agent, wherever there is one, and opens the root.
    fn go(&self) -> Result<(Arc<Session>, Known)> {
        if let Some(session) = self.keep.then(|| kept::take(&self.target, &self.config, &self.stop)).flatten() {
            match self.open_root(&session, false) {
                Ok(known) => return Ok((session, known)),
                // It was cut meanwhile.
                Err(_) if session.is_dead() => {}
                Err(error) => return Err(error),
            }
        }
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

    /// One more connection to the same root, beside the one that holds it.
    fn go_beside(&self) -> Result<Arc<Session>> {
        let command = deploy::commands(&self.target, &self.config).into_iter().next().unwrap_or_default();
        let session = self.connect(&command)?;
        self.open_root(&session, true)?;
        Ok(session)
    }

    fn connect(&self, command: &str) -> Result<Arc<Session>> {
        let compress = if self.compress { When::Always } else { When::Yes };
        let stream = connect(&self.target, &self.config, Start::Command(command), &self.stop)?;
        Ok(Arc::new(Session::new(stream, compress, &self.stop)))
    }

    fn go_with(&self, command: &str) -> Result<(Arc<Session>, Known)> {
        let session = self.connect(command)?;
        self.open_root(&session, false).map(|known| (session, known))
    }

    fn open_root(&self, session: &Session, beside: bool) -> Result<Known> {
        let mut request = body();
        // Both sides are on their way to list everything before the first answer has come.
        let id = if beside { 0 } else { session.next_id() };
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
            Role::Dest { is_dir, one, capabilities, options, here } => {
                request.bool(beside).bool(*is_dir).option(one.as_deref());
                put_capabilities(&mut request, capabilities);
                put_options(&mut request, options);
                put_here(&mut request, here.as_ref());
                session.ask(Kind::OpenDest, request)?.done()?
            }
        };
        session.probe();
        Known::read(&mut Get(&answer), &self.role)
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
        let (real, boot) = (get.bytes()?.to_vec(), get.bytes()?.to_vec());
        let meta = get_optional_meta(get, None)?.ok_or_else(|| garbled("a root of which nothing is known"))?;
        let Some(options) = options else {
            let one = get_one(get)?;
            let is_dir = get.bool()?;
            get.end()?;
            return Ok(Self { capabilities, real, boot, meta, one, is_dir, dest: None });
        };
        let (made, as_name) = (get.bool()?, get_one(get)?);
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
        Ok(Self { capabilities, real, boot, meta, one: None, is_dir: true, dest })
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
                    Err(error) if error.path.is_none() => return Err(error.at("list", self.path_of(key))),
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

/// The name of one entry of the root, if there is one.
fn get_one(get: &mut Get<'_>) -> Result<Option<Vec<u8>>> {
    if get.bool()? { get.name().map(|name| Some(name.to_vec())) } else { Ok(None) }
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
        // What is wrong with the connection is not about a path there.
        Some(path) if !path.starts_with(prefix) && error.action != "connect to" => {
            let path = Some([prefix, path].concat());
            SyncError { path, ..error }
        }
        _ => error,
    }
}
