//! One connection to an agent: requests under way, and the thread that hands out the answers.
//!
//! That thread never waits for anything but the other side, so the agent can always send. What may arrive unasked for is
//! bounded by who asks: contents by their sizes, listings by what was granted.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::connect::{Failure, Link, Stream};
use super::kept::IDLE;
use super::walk::Walk;
use super::wire::message::{GREETING, VERSION};
use super::wire::zip::{FAR, When};
use super::wire::{Frame, Get, Incoming, Kind, Outgoing, Put, body, cut_off, garbled};
use crate::error::{ErrorKind, Printable, Result, SyncError};
use crate::sync::{Stop, Tally};

/// The agent says something at least every few seconds; after this much silence it or the way to it is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
/// How often the reader looks up from waiting.
const LOOK: Duration = Duration::from_millis(100);
/// How long a write may go on after the run was stopped.
const GRACE: Duration = Duration::from_millis(400);
/// Bytes of answers that nobody has looked at yet, at most. More is never asked for ahead.
const WAITING: u64 = 64 << 20;
/// What a login may print before the agent speaks.
const CHATTER: usize = 64 << 10;

/// A connection to an agent.
#[derive(Debug)]
pub struct Session {
    shared: Arc<Shared>,
    next: AtomicU32,
    reader: Option<std::thread::JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    out: Outgoing<File>,
    waiting: Mutex<HashMap<u32, mpsc::Sender<Frame>>>,
    pub walk: Walk,
    /// Why there is no connection any more.
    dead: OnceLock<SyncError>,
    link: Mutex<Option<Box<dyn Link>>>,
    /// Milliseconds since `started` at which a write under way began; 0 if none.
    writing: AtomicU64,
    started: Instant,
    greeted: AtomicBool,
    stop: Mutex<Stop>,
    sent: AtomicU64,
    /// Bytes of answers that have yet to be looked at.
    waits: AtomicU64,
    /// When the other side was asked something that takes it no time.
    probed: Mutex<Option<Instant>>,
    /// It is near by, and has yet to be told that packing does not pay.
    near: AtomicBool,
    /// Since when no run uses it.
    resting: Mutex<Option<Instant>>,
}

/// The number of that question.
const PROBE: u32 = u32::MAX;

impl Session {
    /// Takes a stream to what should be an agent. Does not wait for its first word.
    pub fn new(stream: Stream, compress: When, stop: &Stop) -> Self {
        let Stream { read, write, link } = stream;
        let shared = Arc::new(Shared {
            out: Outgoing::new(File::from(write)),
            waiting: Mutex::default(),
            walk: Walk::default(),
            dead: OnceLock::new(),
            link: Mutex::new(Some(link)),
            writing: AtomicU64::new(0),
            started: Instant::now(),
            greeted: AtomicBool::new(false),
            stop: Mutex::new(stop.clone()),
            sent: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            probed: Mutex::default(),
            near: AtomicBool::new(false),
            resting: Mutex::default(),
        });
        let mut hello = body();
        hello.u32(VERSION).u8(compress as u8);
        let _ = shared.send(Kind::Hello, 0, hello);
        shared.out.zip(compress);
        let own = Arc::clone(&shared);
        let reader = std::thread::Builder::new().name("sypy-ssh".into()).spawn(move || own.read(read)).ok();
        Self { shared, next: AtomicU32::new(1), reader }
    }

    /// For the next run over the same connection.
    pub fn belongs_to(&self, stop: &Stop) {
        *lock(&self.shared.stop) = stop.clone();
        *lock(&self.shared.resting) = None;
    }

    /// No run uses it; it ends by itself when none comes.
    pub fn rest(&self) {
        *lock(&self.shared.stop) = Stop::default();
        *lock(&self.shared.resting) = Some(Instant::now());
    }

    pub fn walk(&self) -> &Walk {
        &self.shared.walk
    }

    pub fn is_dead(&self) -> bool {
        self.shared.dead.get().is_some()
    }

    /// Did the other side prove to be an agent?
    pub fn is_greeted(&self) -> bool {
        self.shared.greeted.load(Relaxed)
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Relaxed)
    }

    /// Finds out how far away the other side is, without waiting for it.
    pub fn probe(&self) {
        *lock(&self.shared.probed) = Some(Instant::now());
        let _ = self.shared.send(Kind::Ping, PROBE, body());
    }

    /// Sends a request. The answer can be waited for, or not.
    pub fn ask(&self, kind: Kind, body: Put) -> Result<Reply> {
        if self.shared.near.swap(false, Relaxed) {
            let mut near = super::wire::body();
            near.u8(When::No as u8);
            self.shared.send(Kind::Ping, 0, near)?;
        }
        let id = self.next.fetch_add(1, Relaxed);
        let (sender, frames) = mpsc::channel();
        lock(&self.shared.waiting).insert(id, sender);
        let reply =
            Reply { shared: Arc::clone(&self.shared), id, frames, ended: false, packed: AtomicBool::new(false), saved: AtomicU64::new(0) };
        // Looked for after it was entered: whoever found the end meanwhile has not seen it.
        if let Some(error) = self.shared.dead.get() {
            return Err(error.clone());
        }
        reply.count(self.shared.send(kind, id, body)?);
        Ok(reply)
    }

    /// Sends more about a request, or what needs no answer.
    pub fn tell(&self, kind: Kind, id: u32, body: Put) -> Result<()> {
        self.shared.send(kind, id, body).map(drop)
    }

    /// Begins a new walk at `from`; what is left of an older one is passed over.
    pub fn begin_walk(&self, from: &[u8]) -> Result<()> {
        let id = self.next.fetch_add(1, Relaxed);
        let mut request = body();
        request.bytes(from).u64(self.shared.walk.begin(id));
        self.shared.send(Kind::Walk, id, request).map(drop)
    }

    /// Lets more of the walk come.
    pub fn grant(&self, bytes: u64) {
        if bytes > 0 {
            let mut more = body();
            more.u64(bytes);
            let _ = self.shared.send(Kind::More, 0, more);
        }
    }

    /// The number that a walk begun along with another request has.
    pub fn next_id(&self) -> u32 {
        self.next.fetch_add(1, Relaxed)
    }

    /// Why the connection ended, if it did.
    pub fn death(&self) -> Option<&SyncError> {
        self.shared.dead.get()
    }

    pub fn stop_is_set(&self) -> bool {
        lock(&self.shared.stop).is_set()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Without its link the stream ends, and with it the thread.
        let _ = self.shared.dead.set(cut_off());
        drop(lock(&self.shared.link).take());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

/// The way to the answer of a request.
#[derive(Debug)]
pub struct Reply {
    shared: Arc<Shared>,
    pub id: u32,
    frames: Receiver<Frame>,
    ended: bool,
    /// Something of it went or came packed, and what that has saved.
    packed: AtomicBool,
    saved: AtomicU64,
}

impl Reply {
    /// The next frame of the answer. A refusal by the other side is an error.
    pub fn next(&mut self) -> Result<Frame> {
        loop {
            match self.frames.recv_timeout(LOOK) {
                Ok(frame) => {
                    let frame = self.taken(frame)?;
                    // An agent that never stops talking must not keep a run going.
                    return if self.ended || !lock(&self.shared.stop).is_set() { Ok(frame) } else { Err(SyncError::cancelled()) };
                }
                Err(RecvTimeoutError::Timeout) if lock(&self.shared.stop).is_set() => return Err(SyncError::cancelled()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.shared.dead.get().cloned().unwrap_or_else(cut_off));
                }
            }
        }
    }

    fn count(&self, saved: Option<u64>) {
        if let Some(saved) = saved {
            self.packed.store(true, Relaxed);
            self.saved.fetch_add(saved, Relaxed);
        }
    }

    /// Counts packing that was about the content of so many files.
    pub fn tally(&self, files: u64, tally: &Tally) {
        if self.packed.load(Relaxed) {
            tally.files_compressed.fetch_add(files, Relaxed);
            tally.compression_bytes_saved.fetch_add(self.saved.load(Relaxed), Relaxed);
        }
    }

    fn taken(&mut self, frame: Frame) -> Result<Frame> {
        self.count(frame.saved);
        self.shared.waits.fetch_sub(weight(&frame), Relaxed);
        self.ended = matches!(frame.kind, Kind::Done | Kind::Failed);
        if frame.kind == Kind::Failed { Err(Get(&frame.body).error()?) } else { Ok(frame) }
    }

    /// A frame that is there already, if there is one.
    pub fn try_next(&mut self) -> Result<Option<Frame>> {
        match self.frames.try_recv() {
            Ok(frame) => self.taken(frame).map(Some),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(self.shared.dead.get().cloned().unwrap_or_else(cut_off)),
        }
    }

    /// Has the other side said all that it has to say?
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Is its run stopped?
    pub fn is_stopped(&self) -> bool {
        lock(&self.shared.stop).is_set()
    }

    /// The answer where it is a single frame.
    pub fn done(&mut self) -> Result<Vec<u8>> {
        let frame = self.next()?;
        if frame.kind == Kind::Done { Ok(frame.body) } else { Err(garbled("another answer than was asked for")) }
    }

    pub fn tell(&self, kind: Kind, body: Put) -> Result<()> {
        self.shared.send(kind, self.id, body).map(|saved| self.count(saved))
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        let waited_for = lock(&self.shared.waiting).remove(&self.id).is_some();
        while let Ok(frame) = self.frames.try_recv() {
            self.shared.waits.fetch_sub(weight(&frame), Relaxed);
        }
        if waited_for && !self.ended {
            let _ = self.shared.send(Kind::Forget, self.id, body());
        }
    }
}

impl Shared {
    fn send(&self, kind: Kind, id: u32, body: Put) -> Result<Option<u64>> {
        let now = || (self.started.elapsed().as_millis() as u64).max(1);
        self.sent.fetch_add(body.0.len() as u64, Relaxed);
        self.writing.store(now(), Relaxed);
        let sent = self.out.send_counted(kind, id, body.0);
        self.writing.store(0, Relaxed);
        // The end of the stream tells more than the failure to write.
        sent.map_err(|error| {
            let deadline = Instant::now() + Duration::from_secs(2);
            while self.dead.get().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(5));
            }
            self.dead.get().cloned().unwrap_or(error)
        })
    }

    /// What the reading thread does until the stream ends.
    fn read(&self, from: OwnedFd) {
        let why = self.read_all(from);
        let why = if self.dead.get().is_some() { cut_off() } else { self.explain(why) };
        let _ = self.dead.set(why);
        // Whoever waits sees its channel closed.
        lock(&self.waiting).clear();
        self.walk.wake();
        drop(lock(&self.link).take());
    }

    fn read_all(&self, from: OwnedFd) -> SyncError {
        let mut incoming = Incoming::new(Patient { from: File::from(from), shared: self });
        match incoming.skip_to(GREETING, CHATTER) {
            Ok(true) => {}
            Ok(false) => return SyncError::new(ErrorKind::Network, "no agent answered").retryable(),
            Err(error) => return error,
        }
        loop {
            let frame = match incoming.next() {
                Ok(Some(frame)) => frame,
                Ok(None) => return cut_off(),
                Err(error) => return error,
            };
            match frame.kind {
                Kind::Hello => match Get(&frame.body).u32() {
                    Ok(VERSION) => self.greeted.store(true, Relaxed),
                    Ok(other) => return other_version(other),
                    Err(error) => return error,
                },
                Kind::Ping => {}
                Kind::Listing => {
                    if let Err(error) = self.listing(frame) {
                        return error;
                    }
                }
                Kind::Done if frame.id == PROBE => {
                    let took = lock(&self.probed).take().map_or(Duration::MAX, |sent| sent.elapsed());
                    if took < FAR {
                        self.out.zip(When::No);
                        self.near.store(true, Relaxed);
                    }
                }
                _ => {
                    let mut waiting = lock(&self.waiting);
                    let ends = matches!(frame.kind, Kind::Done | Kind::Failed);
                    // One that nobody waits for was given up.
                    let left = if ends {
                        waiting.remove(&frame.id).map(|sender| self.leave(frame, &sender))
                    } else {
                        waiting.get(&frame.id).map(|sender| self.leave(frame, sender))
                    };
                    drop(waiting);
                    if let Some(Err(error)) = left {
                        return error;
                    }
                }
            }
        }
    }

    /// Leaves a frame for whoever asked for it.
    fn leave(&self, frame: Frame, to: &mpsc::Sender<Frame>) -> Result<()> {
        let weight = weight(&frame);
        if self.waits.fetch_add(weight, Relaxed) > WAITING {
            return Err(garbled("more than was asked for"));
        }
        if to.send(frame).is_err() {
            self.waits.fetch_sub(weight, Relaxed);
        }
        Ok(())
    }

    /// A part of a listing: of the walk, or asked for by itself.
    fn listing(&self, frame: Frame) -> Result<()> {
        let waiting = lock(&self.waiting);
        match waiting.get(&frame.id) {
            Some(sender) => {
                let _ = sender.send(frame);
                Ok(())
            }
            None => {
                drop(waiting);
                self.walk.take_in(&frame)
            }
        }
    }

    /// The best that is known about why the stream ended.
    fn explain(&self, why: SyncError) -> SyncError {
        if why.kind != ErrorKind::Network || !why.retryable {
            return why;
        }
        let Some(link) = &mut *lock(&self.link) else { return why };
        match link.failure() {
            // Whatever was under way when it broke is what the user has to hear of.
            Failure::Connection(error) if self.greeted.load(Relaxed) => SyncError { path: None, action: "", ..error },
            Failure::Connection(error) => error,
            Failure::Command { code, stderr } if !self.greeted.load(Relaxed) => no_agent(code, &stderr),
            Failure::Command { stderr, .. } => {
                let last = stderr.trim().lines().last().unwrap_or_default().to_owned();
                let last = Printable(last.as_bytes());
                let message = if last.0.is_empty() { why.message } else { format!("{}: {last}", why.message) };
                SyncError { message, ..cut_off() }
            }
        }
    }
}

/// What a frame takes of the memory. A directory comes whole, whatever its size.
fn weight(frame: &Frame) -> u64 {
    if frame.kind == Kind::Listing { 0 } else { frame.body.len() as u64 + 128 }
}

/// There is no agent where it was looked for.
fn no_agent(code: Option<i32>, stderr: &str) -> SyncError {
    let last = Printable(stderr.trim().lines().last().unwrap_or_default().as_bytes());
    let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    SyncError { errno: None, ..SyncError::unsupported(format!("no sy answered on the host; the command ended with {code}: {last}")) }
        .hint("install sypy there, or let agent_path name the program")
}

fn other_version(other: u32) -> SyncError {
    SyncError::unsupported(format!("the sy on the host speaks version {other} of the protocol, this one version {VERSION}"))
        .hint("install the same version of sypy on both sides")
}

/// Reads, but looks up now and then: the run may have been stopped, the other side fallen silent.
struct Patient<'s> {
    from: File,
    shared: &'s Shared,
}

impl std::io::Read for Patient<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let since = Instant::now();
        loop {
            let mut fds = [PollFd::new(&self.from, PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: LOOK.as_nanos() as i64 };
            match rustix::event::poll(&mut fds, Some(&timeout)) {
                Ok(0) => {}
                Ok(_) => return std::io::Read::read(&mut self.from, buffer),
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
            let shared = self.shared;
            if shared.dead.get().is_some() {
                return Ok(0);
            }
            if lock(&shared.resting).is_some_and(|since| since.elapsed() > IDLE) {
                let _ = shared.dead.set(cut_off());
                drop(lock(&shared.link).take());
                return Ok(0);
            }
            let writing = shared.writing.load(Relaxed);
            let stuck = writing > 0 && shared.started.elapsed().saturating_sub(Duration::from_millis(writing)) > GRACE;
            if stuck && lock(&shared.stop).is_set() {
                let _ = shared.dead.set(SyncError::cancelled());
                drop(lock(&shared.link).take());
                return Ok(0);
            }
            let waited_for = || !lock(&shared.waiting).is_empty() || shared.walk.is_waited_for();
            if since.elapsed() > SILENCE && waited_for() {
                let silent = SyncError::new(ErrorKind::Timeout, format!("nothing came from the host for {} s", SILENCE.as_secs()));
                let _ = shared.dead.set(silent.retryable());
                drop(lock(&shared.link).take());
                return Ok(0);
            }
        }
    }
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
