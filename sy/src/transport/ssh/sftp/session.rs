//! One connection to an SFTP server: many requests under way, their answers in any order.
//!
//! Whoever asks sends the packet itself. One thread reads the answers, and blocks on nothing else.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::failure::{Failure, Result, ended, nonsense, not_begun};
use super::incoming::{End, Incoming};
use super::server::Server;
use super::wire::{self, Attrs, Malformed, Name, Reply, Request};
use crate::error::{ErrorKind, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::connect::{Link, Stream};

/// How often one who waits looks whether the run goes on.
const LOOK: Duration = Duration::from_millis(100);
/// What is cleaned up after the run was stopped has this long.
const LAST: Duration = Duration::from_millis(400);
/// Without a limit of one's own, a server that says nothing at all is given up after this.
const GREETING: Duration = Duration::from_secs(120);

/// Who is asked and says nothing at all for this long, about anything, is taken to be gone. To have a large file on disk
/// may take minutes.
const SILENCE: Duration = Duration::from_secs(300);

/// How long to wait for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// As long as the run goes on.
    Run,
    /// A moment longer: something has to be put back or away.
    CleanUp,
}

#[derive(Debug)]
pub struct Session {
    inner: Arc<Inner>,
    write: Mutex<OwnedFd>,
    next: AtomicU32,
    reader: Option<JoinHandle<()>>,
    pub server: Server,
    /// Bytes that were asked for and have not been taken yet, over all files.
    pub reading: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    waiting: Mutex<Waiting>,
    /// Ends the reader.
    wake: OwnedFd,
    stop: Stop,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: HashMap<u32, Arc<Slot>>,
    ended: Option<SyncError>,
    answers: u64,
    last: Option<Instant>,
}

/// Where an answer is put.
#[derive(Debug, Default)]
struct Slot {
    answer: Mutex<Option<Result<Vec<u8>>>>,
    ready: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unblock(fd: &OwnedFd) -> Result<(), Errno> {
    let flags = rustix::fs::fcntl_getfl(fd)?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK)
}

fn poll_for(fds: &mut [PollFd<'_>], most: Option<Duration>) {
    let most = most.map(|most| Timespec { tv_sec: most.as_secs() as i64, tv_nsec: most.subsec_nanos().into() });
    let _ = poll(fds, most.as_ref());
}

impl Session {
    /// Greets the server at the other end of `stream`. `most`: how long that may take.
    pub fn begin(stream: Stream, most: Option<Duration>, stop: &Stop) -> Result<Self, SyncError> {
        let Stream { read, write, mut link } = stream;
        let io = |errno| SyncError::os(errno, "use the connection of", b"ssh");
        unblock(&read).and_then(|()| unblock(&write)).map_err(io)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(io)?;
        let inner = Arc::new(Inner { waiting: Mutex::default(), wake, stop: stop.clone() });
        let deadline = Instant::now() + most.unwrap_or(GREETING);
        let mut incoming = Incoming::new(read);
        // Should this fail, the end of what is read will tell why.
        let _ = rustix::io::write(&write, &wire::init());
        let greeting = incoming.packet(&mut |fd| {
            poll_for(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], Some(LOOK));
            !stop.is_set() && Instant::now() < deadline
        });
        let greeting = match greeting {
            Ok(packet) => packet,
            Err(End::Unwanted) if stop.is_set() => return Err(SyncError::cancelled()),
            Err(End::Unwanted) => return Err(SyncError::new(ErrorKind::Timeout, "the SFTP server does not answer").retryable()),
            Err(end) => return Err(not_begun(end, &mut *link)),
        };
        let server = match wire::version(&greeting) {
            Ok((3.., extensions)) => Server::new(&extensions),
            Ok((version, _)) => return Err(SyncError::unsupported(format!("the server speaks version {version} of SFTP, not 3"))),
            Err(Malformed) => return Err(nonsense()),
        };
        let reader = {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new().name("sypy-sftp".into()).spawn(move || inner.read(incoming, link))
        };
        let reader = reader.map_err(|error| SyncError::new(ErrorKind::Io, format!("can't start a thread: {error}")))?;
        let mut session =
            Self { inner, write: Mutex::new(write), next: AtomicU32::new(1), reader: Some(reader), server, reading: AtomicU64::new(0) };
        session.ask_limits().map_err(Failure::into_error)?;
        Ok(session)
    }

    fn ask_limits(&mut self) -> Result<()> {
        if self.server.limits {
            match self.ask(Request::extended("limits@openssh.com"))?.extended() {
                Ok(limits) => self.server.limit(&limits),
                Err(Failure::Status(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Why it is of no use any more, if it is not.
    pub fn ended(&self) -> Option<SyncError> {
        lock(&self.inner.waiting).ended.clone()
    }

    /// Answers so far.
    pub fn answers(&self) -> u64 {
        lock(&self.inner.waiting).answers
    }

    /// Sends a request; its answer can be waited for later, or never.
    pub fn ask(&self, request: Request) -> Result<Ticket> {
        self.ask_with(request, Patience::Run)
    }

    pub fn ask_with(&self, mut request: Request, patience: Patience) -> Result<Ticket> {
        let deadline = match patience {
            Patience::Run if self.inner.stop.is_set() => return Err(Failure::Session(SyncError::cancelled())),
            Patience::Run => None,
            Patience::CleanUp => Some(Instant::now() + LAST),
        };
        let slot = Arc::new(Slot::default());
        let id = self.next.fetch_add(1, Relaxed);
        {
            let mut waiting = lock(&self.inner.waiting);
            if let Some(error) = &waiting.ended {
                return Err(Failure::Session(error.clone()));
            }
            waiting.slots.insert(id, Arc::clone(&slot));
        }
        let write = lock(&self.write);
        let mut rest = request.sealed(id);
        while !rest.is_empty() {
            match rustix::io::write(&*write, rest) {
                Ok(n) => rest = &rest[n..],
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    poll_for(&mut [PollFd::from_borrowed_fd(write.as_fd(), PollFlags::OUT)], Some(LOOK));
                    let late = deadline.map_or_else(|| self.inner.stop.is_set(), |deadline| Instant::now() > deadline);
                    let ended = lock(&self.inner.waiting).ended.clone();
                    if let Some(error) = ended.or_else(|| late.then(SyncError::cancelled)) {
                        // What was begun to be sent can't be taken back.
                        self.inner.end(&error);
                        return Err(Failure::Session(error));
                    }
                }
                // The reader finds out why.
                Err(_) => break,
            }
        }
        drop(write);
        Ok(Ticket { slot, inner: Arc::clone(&self.inner), deadline })
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.inner.end(&SyncError::cancelled());
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Inner {
    /// Gives answers to those who wait, until the stream ends.
    fn read(&self, mut incoming: Incoming, mut link: Box<dyn Link>) {
        let mut wait = |fd: BorrowedFd<'_>| {
            poll_for(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN), PollFd::new(&self.wake, PollFlags::IN)], None);
            lock(&self.waiting).ended.is_none()
        };
        loop {
            match incoming.packet(&mut wait) {
                Ok(packet) => {
                    let slot = wire::id_of(&packet).ok().and_then(|id| {
                        let mut waiting = lock(&self.waiting);
                        waiting.answers += 1;
                        waiting.last = Some(Instant::now());
                        waiting.slots.remove(&id)
                    });
                    match slot {
                        Some(slot) => slot.put(Ok(packet)),
                        None => return self.end(&nonsense()),
                    }
                }
                Err(End::Unwanted) => return,
                Err(end) => return self.end(&ended(end, &mut *link)),
            }
        }
    }

    fn end_if_silent(&self) {
        if lock(&self.waiting).last.is_none_or(|last| last.elapsed() > SILENCE) {
            let error = SyncError::new(ErrorKind::Timeout, format!("the SFTP server said nothing for {} s", SILENCE.as_secs()));
            self.end(&error.retryable());
        }
    }

    /// Nothing more will be answered.
    fn end(&self, error: &SyncError) {
        let slots = {
            let mut waiting = lock(&self.waiting);
            waiting.ended.get_or_insert_with(|| error.clone());
            std::mem::take(&mut waiting.slots)
        };
        for slot in slots.into_values() {
            slot.put(Err(Failure::Session(error.clone())));
        }
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Slot {
    fn put(&self, answer: Result<Vec<u8>>) {
        *lock(&self.answer) = Some(answer);
        self.ready.notify_one();
    }
}

/// A request that is under way.
#[derive(Debug)]
pub struct Ticket {
    slot: Arc<Slot>,
    inner: Arc<Inner>,
    deadline: Option<Instant>,
}

impl Ticket {
    fn wait(&self) -> Result<Vec<u8>> {
        let (mut answer, asked) = (lock(&self.slot.answer), Instant::now());
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            let late = self.deadline.map_or_else(|| self.inner.stop.is_set(), |deadline| Instant::now() > deadline);
            if late {
                return Err(Failure::Session(SyncError::cancelled()));
            }
            if asked.elapsed() > SILENCE {
                drop(answer);
                self.inner.end_if_silent();
                answer = lock(&self.slot.answer);
                if answer.is_some() {
                    continue;
                }
            }
            answer = self.slot.ready.wait_timeout(answer, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the answer apart. What makes no sense here ends the session: nobody knows what the rest would mean.
    fn reply<T>(&self, take: impl FnOnce(Reply<'_>) -> Result<T, Malformed>) -> Result<T> {
        let packet = self.wait()?;
        let taken = match wire::reply(&packet) {
            Ok(Reply::Status(code)) if code != wire::code::OK => return Err(Failure::Status(code)),
            Ok(reply) => take(reply),
            Err(Malformed) => Err(Malformed),
        };
        taken.map_err(|Malformed| {
            let error = nonsense();
            self.inner.end(&error);
            Failure::Session(error)
        })
    }

    pub fn done(self) -> Result<()> {
        self.reply(|reply| if matches!(reply, Reply::Status(_)) { Ok(()) } else { Err(Malformed) })
    }

    pub fn handle(self) -> Result<Vec<u8>> {
        self.reply(|reply| if let Reply::Handle(handle) = reply { Ok(handle.to_vec()) } else { Err(Malformed) })
    }

    pub fn attrs(self) -> Result<Attrs> {
        self.reply(|reply| if let Reply::Attrs(attrs) = reply { Ok(attrs) } else { Err(Malformed) })
    }

    pub fn extended(self) -> Result<Vec<u8>> {
        self.reply(|reply| if let Reply::Extended(bytes) = reply { Ok(bytes.to_vec()) } else { Err(Malformed) })
    }

    /// At most `most` bytes of a file; none at its end.
    pub fn data(self, most: usize) -> Result<Data> {
        let packet = self.wait()?;
        let length = match wire::reply(&packet) {
            Ok(Reply::Data(data)) if data.len() <= most && !data.is_empty() => Some(data.len()),
            Ok(Reply::Status(wire::code::EOF)) => Some(0),
            Ok(Reply::Status(code)) if code != wire::code::OK => return Err(Failure::Status(code)),
            _ => None,
        };
        let Some(length) = length else {
            let error = nonsense();
            self.inner.end(&error);
            return Err(Failure::Session(error));
        };
        Ok(if length == 0 { Data::default() } else { Data { packet, length } })
    }

    /// Some names of a listing; `false` at its end.
    pub fn names(self, mut visit: impl FnMut(&Name<'_>)) -> Result<bool> {
        let visited = self.reply(|reply| match reply {
            Reply::Names(names) => {
                names.iter().for_each(&mut visit);
                Ok(())
            }
            _ => Err(Malformed),
        });
        match visited {
            Ok(()) => Ok(true),
            Err(Failure::Status(wire::code::EOF)) => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    /// The one name of an answer, such as a link's target.
    pub fn name(self) -> Result<Vec<u8>> {
        self.reply(|reply| match reply {
            Reply::Names(names) if names.len() == 1 && !names[0].name.is_empty() && !names[0].name.contains(&0) => {
                Ok(names[0].name.to_vec())
            }
            _ => Err(Malformed),
        })
    }
}

/// Content, where it stands in its packet.
#[derive(Debug, Default)]
pub struct Data {
    packet: Vec<u8>,
    length: usize,
}

impl std::ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // Kind, id and length come first.
        self.packet.get(9..9 + self.length).unwrap_or_default()
    }
}
