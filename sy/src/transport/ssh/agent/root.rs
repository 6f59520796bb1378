//! The one root that an agent serves, for reading or for writing, and the requests about it.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::read::Sources;
use super::walk::{self, Walker};
use super::write::Changes;
use super::{Out, answer, fail};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::state::Lock;
use crate::sync::Control;
use crate::sync::preflight::{LocalDest, LocalSource, Needs, open_local_dest, open_local_source, spared};
use crate::transport::local::{Follow, LocalEndpoint};
use crate::transport::ssh::here::{boot, is_here};
use crate::transport::ssh::wire::message::{
    get_capabilities, get_optional_meta, get_options, put_capabilities, put_found, put_optional_meta, put_options,
};
use crate::transport::ssh::wire::{Frame, Get, Incoming, Kind, Put, body};
use crate::transport::{Endpoint, Kind as FileKind};

/// Bytes of work that wait for a thread, at most.
const WAITING: usize = 8 << 20;
/// How long to wait for another run to let go: one whose connection was cut takes a moment to notice.
const LOCK_WAIT: Duration = Duration::from_secs(2);

pub struct Root<'c> {
    endpoint: LocalEndpoint,
    control: &'c Control,
    /// How it may be written to; `None` for a source.
    options: Option<Options>,
    precision: u64,
    _lock: Option<Lock>,
}

/// Where a path begins that is not absolute: where the login does, in the home directory. `ssh://host/~/dir` names that as well.
fn local_path(path: &[u8]) -> Result<PathBuf> {
    let home = |path: &[u8]| path == b"~" || path.starts_with(b"~/");
    let path = path.strip_prefix(b"/").filter(|rest| home(rest)).unwrap_or(path);
    let below = if home(path) { path.get(2..).unwrap_or_default() } else { path };
    if below.starts_with(b"~") && below.len() == path.len() {
        let error = SyncError::config("only the login's own home directory can be named so").at("open", path);
        return Err(error.hint("give the whole path, or ./~ for what has such a name"));
    }
    let path = if below.is_empty() { b"." } else { below };
    Ok(PathBuf::from(OsStr::from_bytes(path)))
}

/// The source of the run, where that is on this machine, too: its root, and the path of what is meant.
fn source_here(get: &mut Get<'_>, control: &Control) -> Result<Option<(LocalEndpoint, PathBuf)>> {
    if !get.bool()? {
        return Ok(None);
    }
    let (boot, root, whole) = (get.bytes()?, get.bytes()?, get.bytes()?);
    let meta = get_optional_meta(get, None)?;
    // Where nothing is told of the root, both have one address.
    if meta.is_some_and(|meta| !is_here(boot, root, &meta)) {
        return Ok(None);
    }
    let opened = LocalEndpoint::open(Path::new(OsStr::from_bytes(root)), Follow::Never, control).ok();
    Ok(opened.map(|endpoint| (endpoint, PathBuf::from(OsStr::from_bytes(whole)))))
}

/// A walk begun along with the opening.
fn begin_walk(get: &mut Get<'_>) -> Result<Option<(u32, u64)>> {
    let (id, granted) = (get.u32()?, get.u64()?);
    Ok((id > 0).then_some((id, granted)))
}

impl<'c> Root<'c> {
    /// Opens what the message names. Returns the answer as well.
    pub fn open(frame: &Frame, control: &'c Control) -> Result<(Self, Put)> {
        let mut get = Get(&frame.body);
        begin_walk(&mut get)?;
        if frame.kind == Kind::OpenSource { Self::open_source(&mut get, control) } else { Self::open_dest(&mut get, control) }
    }

    fn open_source(get: &mut Get<'_>, control: &'c Control) -> Result<(Self, Put)> {
        let path = get.bytes()?;
        let follow = match get.u8()? {
            0 => Follow::Never,
            1 => Follow::Within,
            _ => Follow::Anywhere,
        };
        get.end()?;
        let LocalSource { opened, one, what, .. } = open_local_source(&local_path(path)?, path.ends_with(b"/"), follow, control)?;
        let mut answer = body();
        describe(&mut answer, &opened)?;
        answer.option(one.as_deref()).bool(what == FileKind::Dir);
        let precision = opened.capabilities().mtime_precision;
        Ok((Self { endpoint: opened, control, options: None, precision, _lock: None }, answer))
    }

    fn open_dest(get: &mut Get<'_>, control: &'c Control) -> Result<(Self, Put)> {
        let path = get.bytes()?;
        let (beside, is_dir, one) = (get.bool()?, get.bool()?, get.option()?);
        let (capabilities, mut options) = (get_capabilities(get)?, get_options(get)?);
        let twin = source_here(get, control)?;
        get.end()?;
        if options.archive {
            // What may be preserved is for the side to say that does it.
            let root = rustix::process::geteuid().is_root();
            (options.preserve_owner, options.preserve_devices) = (root, root);
        }
        let needs = Needs {
            what: if is_dir { FileKind::Dir } else { FileKind::File },
            one,
            local: twin.as_ref().map(|(endpoint, real)| (endpoint, real.as_path())),
            capabilities: Some(capabilities),
            holds_something: &|| Ok(()),
        };
        let named = SyncPath { scheme: Scheme::Local, path: path.to_vec() };
        let LocalDest { opened, made, as_name } = open_local_dest(&local_path(path)?, &named, &needs, &mut options, control)?;
        let mut answer = body();
        answer.bool(opened.is_some());
        put_options(&mut answer, &options);
        let Some(endpoint) = opened else {
            // Only a dry run finds nothing and goes on.
            return Err(nothing_there(answer));
        };
        // Another connection of the same run holds the lock.
        let lock = if options.dry_run || beside { None } else { lock(&endpoint, as_name.as_deref().or(one))? };
        describe(&mut answer, &endpoint)?;
        answer.bool(made).option(as_name.as_deref());
        let spared = spared(&endpoint, &options);
        answer.u64(spared.len() as u64);
        for key in spared {
            answer.bytes(&key);
        }
        let leftovers = if one.is_some() { endpoint.leftovers() } else { Vec::new() };
        answer.u64(leftovers.len() as u64);
        for name in &leftovers {
            answer.bytes(name);
        }
        let precision = capabilities.mtime_precision.max(endpoint.capabilities().mtime_precision);
        Ok((Self { endpoint, control, options: Some(options), precision, _lock: lock }, answer))
    }

    /// Answers requests until one that is not about this root, which is returned, or the end.
    pub fn serve(&self, opening: &Frame, incoming: &mut Incoming<File>, out: &Out) -> Result<Option<Frame>> {
        let walker = Walker::default();
        if let Some((id, granted)) = begin_walk(&mut Get(&opening.body))? {
            walker.begin(id, b"", granted);
        }
        let sources = Sources::new(&self.endpoint, self.control, out);
        let changes = match &self.options {
            Some(options) => Some(Changes::new(&self.endpoint, options, self.precision, self.control, out)?),
            None => None,
        };
        // Shared, not borrowed: what waits in it borrows as long as the threads may run.
        let queue = Arc::new(Queue::new(WAITING));
        std::thread::scope(|threads| {
            let _closer =
                Closer { walker: &walker, queue: Arc::clone(&queue), control: self.control, sources: &sources, changes: changes.as_ref() };
            threads.spawn(|| walker.run(&self.endpoint, out));
            let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
            for _ in 0..workers {
                let queue = Arc::clone(&queue);
                threads.spawn(move || queue.work());
            }
            while let Some(frame) = incoming.next()? {
                let (kind, id) = (frame.kind, frame.id);
                let mut get = Get(&frame.body);
                match kind {
                    Kind::OpenSource | Kind::OpenDest | Kind::Close => return Ok(Some(frame)),
                    Kind::Walk => {
                        let (from, granted) = (get.key()?.to_vec(), get.u64()?);
                        walker.begin(id, &from, granted);
                    }
                    Kind::Ping => super::ping(&frame, out)?,
                    Kind::More => walker.grant(get.u64()?),
                    Kind::List => {
                        let key = get.key()?.to_vec();
                        let endpoint = &self.endpoint;
                        queue.push(key.len(), Box::new(move || drop(walk::list(endpoint, out, id, &key))));
                    }
                    Kind::Stat => {
                        let (dir, name) = (get.key()?, get.name()?);
                        let found = self.endpoint.stat(dir, name).map(|found| {
                            let mut answer = body();
                            put_found(&mut answer, found.as_ref());
                            answer
                        });
                        answer(out, id, found)?;
                    }
                    Kind::Read => {
                        let content = self.endpoint.read(get.key()?).and_then(|content| {
                            let mut answer = body();
                            answer.bytes(&content);
                            // Rules longer than a message have never been seen.
                            if content.len() > crate::transport::ssh::wire::frame::MOST / 2 {
                                return Err(SyncError::new(ErrorKind::Io, "the file is too large to hold rules"));
                            }
                            Ok(answer)
                        });
                        answer(out, id, content)?;
                    }
                    Kind::Fetch
                    | Kind::FetchFile
                    | Kind::Credit
                    | Kind::Signature
                    | Kind::Attributes
                    | Kind::DirAttributes
                    | Kind::AllAttributes
                    | Kind::Accounts
                    | Kind::Hashes
                    | Kind::Forget
                    | Kind::RemoveSource => {
                        if kind == Kind::Forget
                            && let Some(changes) = &changes
                        {
                            changes.forget(id);
                        }
                        sources.take(frame, &queue, threads)?;
                    }
                    _ => match &changes {
                        Some(changes) => changes.take(frame, &queue, threads)?,
                        None => fail(out, id, &SyncError::config("this root is not open for writing"))?,
                    },
                }
            }
            Ok(None)
        })
    }
}

/// Ends what runs beside the reading of requests, however that ends.
struct Closer<'s, 'q> {
    walker: &'s Walker,
    queue: Arc<Queue<'q>>,
    control: &'s Control,
    sources: &'s Sources<'s>,
    changes: Option<&'s Changes<'s>>,
}

impl Drop for Closer<'_, '_> {
    fn drop(&mut self) {
        self.control.cancel();
        self.walker.close();
        self.queue.close();
        self.sources.close();
        if let Some(changes) = self.changes {
            changes.close();
        }
    }
}

/// What the other side has to know of an open root.
fn describe(answer: &mut Put, endpoint: &LocalEndpoint) -> Result<()> {
    put_capabilities(answer, &endpoint.capabilities());
    answer.bytes(endpoint.real_path()).bytes(&boot());
    put_optional_meta(answer, Some(&endpoint.root_meta()?), None);
    Ok(())
}

fn nothing_there(_: Put) -> SyncError {
    SyncError::new(ErrorKind::NotFound, "nothing is there")
}

fn lock(endpoint: &LocalEndpoint, only: Option<&[u8]>) -> Result<Option<Lock>> {
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match crate::state::lock_tree(Path::new(OsStr::from_bytes(endpoint.real_path())), only) {
            Err(error) if error.kind == ErrorKind::Locked && Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
}
