//! Writes files into a directory tree on a host, wherever the content comes from.
//!
//! Every file goes the same way: temporary name → data → metadata → close → rename. What belongs together is sent together,
//! so a small file takes three round trips.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;

use super::aside::Aside;
use super::endpoint::SftpEndpoint;
use super::failure::{Failure, Result as Answer};
use super::session::{Patience, Session, Ticket};
use super::stream::{Allow, Pieces, WINDOW};
use super::wire::{Attrs, CLOSE, Cursor, FSETSTAT, FSTAT, LSTAT, OPEN, REMOVE, Request, SETSTAT, code, open};
use crate::cli::Options;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::{Control, Dir, Tally};
use crate::transport::cloud::{Content, read_error};
use crate::transport::local::{Keep, Limiter, RESUMABLE, TempNames, changed, part_name, replaced_file};
use crate::transport::{Applied, Endpoint, Kind, Meta, Op, Time, child_key, split_key};

/// Before a file of this size is begun, the file system is asked whether it has room.
const LARGE: u64 = 64 << 20;

/// The destination of a run.
pub struct SftpWriter<'r> {
    pub at: &'r SftpEndpoint,
    pub keep: Keep,
    pub temp_names: TempNames,
    pub aside: Option<Aside>,
    pub precision: u64,
    pub limiter: Option<Limiter>,
    pub verify: bool,
    durable: bool,
    sparse: bool,
    pub resume: bool,
    /// Temporary files that could not be removed when the connection was cut.
    orphans: Mutex<Vec<Vec<u8>>>,
    pub control: &'r Control,
    pub tally: &'r Tally,
}

impl std::fmt::Debug for SftpWriter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SftpWriter").finish_non_exhaustive()
    }
}

/// A file that is being made, under its temporary name.
pub struct Temp {
    session: Arc<Session>,
    handle: Vec<u8>,
    key: Vec<u8>,
    part: bool,
    /// Bytes that an earlier run left in it.
    have: u64,
}

impl<'r> SftpWriter<'r> {
    pub fn new(at: &'r SftpEndpoint, options: &Options, precision: u64, control: &'r Control, tally: &'r Tally) -> Self {
        Self {
            at,
            keep: Keep::new(options),
            temp_names: TempNames::new(),
            aside: options.backup_dir.as_deref().map(Aside::new),
            precision,
            limiter: options.bwlimit.map(|rate| Limiter::new(rate.0)),
            verify: options.verify,
            durable: options.durable,
            sparse: options.sparse,
            resume: options.resume,
            orphans: Mutex::default(),
            control,
            tally,
        }
    }

    pub fn session(&self) -> Answer<Arc<Session>> {
        self.at.client.session()
    }

    pub fn path(&self, dir: &Dir<'_>, op: &Op) -> Vec<u8> {
        self.at.path_of(&dir.key_of(&op.name))
    }

    /// Brings a file over. `meta` is what the source is now.
    pub fn put(&self, dir: &Dir<'_>, op: &Op, meta: &Meta, content: &dyn Content) -> Result<Applied> {
        let shown = || self.path(dir, op);
        let session = self.session().map_err(|failure| failure.at("write", shown()))?;
        self.at.enter(&session, &dir.key).map_err(|failure| failure.at("write", shown()))?;
        let temp =
            self.create(&session, dir, op, meta).map_err(|failure| self.explain(&session, failure, &dir.key, 1, "write", shown()))?;
        let done = self.fill(dir, op, meta, content, &temp).and_then(|flight| self.settle(dir, op, meta, &temp, flight));
        let now = match done {
            Ok(now) => now,
            Err(error) => {
                // A cut-off transfer is kept; what can't be right is not.
                let kept = temp.part && !matches!(error.kind, ErrorKind::Verification | ErrorKind::SourceChanged);
                self.discard(&temp, kept);
                return Err(error);
            }
        };
        let placed = self.place(&session, dir, op, &temp.key, now.as_ref());
        if placed.is_err() {
            self.remove_temp(&session, &temp.key);
        }
        placed
    }

    /// A new temporary file, never more open than the file will be.
    fn create(&self, session: &Arc<Session>, dir: &Dir<'_>, op: &Op, meta: &Meta) -> Answer<Temp> {
        let mode = if meta.known.mode { meta.mode } else { 0o666 };
        let meta = &Meta { mode, ..*meta };
        let like = if self.keep.permissions { meta.mode } else { replaced_file(op).map_or(meta.mode, |old| old.mode) };
        let mode = if self.keep.owner { 0o600 } else { like & 0o777 };
        let temp = |key, handle, part, have| Temp { session: Arc::clone(session), handle, key, part, have };
        let resumable = self.resume && meta.size >= RESUMABLE;
        // What is there has to be read for some of it.
        let access = if self.verify || resumable { open::READ | open::WRITE } else { open::WRITE };
        if resumable {
            let key = child_key(&dir.key, &part_name(&op.name, meta));
            let path = self.at.path(&key);
            let there = self.at.look(session, &key)?;
            // Kept to the owner until it is whole.
            let (flags, attrs) = match there {
                None => (access | open::CREATE | open::EXCLUSIVE, Attrs::mode(0o600)),
                Some(_) => (access, Attrs::default()),
            };
            if there.is_none_or(|there| there.kind == Kind::File) {
                let opened = self.writable(session, dir, || session.ask(Request::path(OPEN, &path).u32(flags).attrs(&attrs))?.handle());
                match opened {
                    Ok(handle) => {
                        dir.touch();
                        return Ok(temp(key, handle, true, there.map_or(0, |there| there.size)));
                    }
                    // Somebody else's, perhaps.
                    Err(Failure::Status(_)) if there.is_some() => {}
                    Err(failure) => return Err(failure),
                }
            }
        }
        let key = child_key(&dir.key, &self.temp_names.next());
        let path = self.at.path(&key);
        let flags = access | open::CREATE | open::EXCLUSIVE;
        let ask = || session.ask(Request::path(OPEN, &path).u32(flags).attrs(&Attrs::mode(mode)))?.handle();
        let handle = self.writable(session, dir, ask).inspect_err(|failure| {
            if matches!(failure, Failure::Session(_)) {
                self.note_orphan(&key);
            }
        })?;
        dir.touch();
        Ok(temp(key, handle, false, 0))
    }

    /// Tries again with the directory made writable if only its mode stands in the way.
    pub fn writable<T>(&self, session: &Session, dir: &Dir<'_>, call: impl Fn() -> Answer<T>) -> Answer<T> {
        match call() {
            Err(Failure::Status(code::PERMISSION_DENIED)) if self.keep.permissions => {
                let mode = self.lift(session, &dir.key).ok_or(Failure::Status(code::PERMISSION_DENIED))?;
                let _ = dir.lifted.set(mode);
                dir.touch();
                call()
            }
            other => other,
        }
    }

    /// Lets the owner change a directory. Returns the mode that stood in the way; `None` if none did or it is not ours.
    pub fn lift(&self, session: &Session, key: &[u8]) -> Option<u32> {
        let meta = self.at.look(session, key).ok()??;
        let lifts = meta.kind == Kind::Dir && meta.mode & 0o300 != 0o300;
        (lifts && self.set(session, key, Kind::Dir, &Attrs::mode(meta.mode | 0o300)).is_ok()).then_some(meta.mode)
    }

    /// Sends all of the content. What is still under way then is in order before whatever is asked next of the file.
    fn fill(&self, dir: &Dir<'_>, op: &Op, meta: &Meta, content: &dyn Content, temp: &Temp) -> Result<Flight> {
        let (shown, size) = (self.path(dir, op), content.size());
        let fail = |failure, wanted| self.explain(&temp.session, failure, &dir.key, wanted, "write", shown.clone());
        let mut from = 0;
        if temp.have > 0 {
            // What is there is read, not trusted. It costs the way back what it spares the way there.
            let have = temp.have.min(size);
            let difference = self.first_difference(content, &temp.session, &temp.handle, have, &shown)?;
            from = content.may_begin(difference.unwrap_or(have));
            self.control.bytes.fetch_add(from, Relaxed);
            if temp.have > from {
                let cut = Attrs { size: Some(from), ..Attrs::default() };
                let set = temp.session.ask(Request::path(FSETSTAT, &temp.handle).attrs(&cut));
                set.and_then(Ticket::done).map_err(|failure| fail(failure, 1))?;
            }
        }
        if size - from >= LARGE && self.room(&temp.session, &dir.key).is_some_and(|room| room.bytes < size - from) {
            return Err(SyncError::os(Errno::NOSPC, "write", shown));
        }
        let sparse = self.sparse && meta.allocated < meta.size;
        let (end, mut flight) = self.send(content, temp, from, sparse, &fail)?;
        if end != size {
            return Err(changed(shown));
        }
        content.still()?;
        if self.verify {
            flight.land_all(self.control).map_err(|failure| fail(failure, 1))?;
            let difference = self.first_difference(content, &temp.session, &temp.handle, size, &shown)?;
            let counter = if difference.is_none() { &self.tally.files_verified } else { &self.tally.verification_failures };
            counter.fetch_add(1, Relaxed);
            if let Some(at) = difference {
                let error = SyncError::new(ErrorKind::Verification, format!("the copy differs from byte {at} on"));
                return Err(error.at("verify", shown).retryable());
            }
        }
        Ok(flight)
    }

    /// Sends the content from `from` on, many packets at a time. Returns where it ended.
    fn send(
        &self,
        content: &dyn Content,
        temp: &Temp,
        from: u64,
        sparse: bool,
        fail: &dyn Fn(Failure, u64) -> SyncError,
    ) -> Result<(u64, Flight)> {
        let (size, most) = (content.size(), u64::from(temp.session.server.write));
        let mut flight = Flight::default();
        if from == size {
            return Ok((from, flight));
        }
        let mut reader = content.open(from..size)?;
        let (mut at, mut hole) = (from, false);
        while at < size {
            let want = self.allowance((size - at).min(most))?;
            let filled = Request::write(&temp.handle, at, want as usize, |buffer| read_full(&mut reader, buffer));
            let Some(request) = filled.map_err(|error| read_error(&error))? else { break };
            let piece = request.content(&temp.handle);
            let length = piece.len() as u64;
            hole = sparse && piece.iter().all(|&b| b == 0);
            if hole {
                self.control.bytes.fetch_add(length, Relaxed);
            } else {
                let ticket = temp.session.ask(request).map_err(|failure| fail(failure, length))?;
                flight.push(ticket, length);
            }
            at += length;
            while flight.bytes > WINDOW {
                flight.land(self.control).map_err(|failure| fail(failure, most))?;
            }
        }
        if hole {
            let whole = Attrs { size: Some(at), ..Attrs::default() };
            let set = temp.session.ask(Request::path(FSETSTAT, &temp.handle).attrs(&whole));
            flight.push(set.map_err(|failure| fail(failure, 1))?, 0);
        }
        Ok((at, flight))
    }

    /// Where the content and an open file on the host first differ, up to `size`.
    pub fn first_difference(
        &self,
        content: &dyn Content,
        session: &Session,
        handle: &[u8],
        size: u64,
        shown: &[u8],
    ) -> Result<Option<u64>> {
        let allow = |want| self.allowance(want);
        let mut pieces = Pieces::new(session, handle, 0..size).limited(self.limiter.as_ref().map(|_| &allow as Allow<'_>));
        let mut reader = content.open(0..size)?;
        let (mut at, mut buffer) = (0, Vec::new());
        while let Some((_, data)) = pieces.next().map_err(|failure| failure.at("read", shown))? {
            if self.control.should_stop() {
                return Err(SyncError::cancelled());
            }
            buffer.resize(data.len(), 0);
            let n = read_full(&mut reader, &mut buffer).map_err(|error| read_error(&error))?;
            self.tally.bytes_read.fetch_add(data.len() as u64, Relaxed);
            if n < data.len() || buffer[..] != data[..] {
                let same = buffer[..n].iter().zip(&data[..]).take_while(|(a, b)| a == b).count();
                return Ok(Some(at + same as u64));
            }
            at += data.len() as u64;
        }
        Ok((at < size).then_some(at))
    }

    /// Metadata, and what is in memory only on disk if asked for; then closed. Returns what stands in the file's place now.
    fn settle(&self, dir: &Dir<'_>, op: &Op, meta: &Meta, temp: &Temp, mut flight: Flight) -> Result<Option<Meta>> {
        let (session, shown) = (&temp.session, || self.path(dir, op));
        let set = |attrs: Attrs| session.ask(Request::path(FSETSTAT, &temp.handle).attrs(&attrs));
        let settled: Answer<_> = (|| {
            let mut steps = Vec::new();
            if self.keep.owner && meta.known.owner {
                // First: it takes set-id bits away.
                steps.push(set(Attrs { owner: Some((meta.uid, meta.gid)), ..Attrs::default() })?);
            }
            let attrs = Attrs { mode: self.mode_of(op, meta, temp), times: self.times(meta), ..Attrs::default() };
            if attrs != Attrs::default() {
                steps.push(set(attrs)?);
            }
            if self.durable {
                steps.push(session.ask(Request::extended("fsync@openssh.com").text(&temp.handle))?);
            }
            let state = session.ask(Request::path(FSTAT, &temp.handle))?;
            steps.push(session.ask(Request::path(CLOSE, &temp.handle))?);
            let key = dir.key_of(&op.name);
            let look = session.ask(Request::path(LSTAT, &self.at.path(&key)))?;
            flight.land_all(self.control)?;
            for step in steps {
                step.done()?;
            }
            Ok((state.attrs()?, self.at.looked(&key, look)?))
        })();
        let (state, now) = settled.map_err(|failure| self.explain(session, failure, &dir.key, 1, "write", shown()))?;
        if state.size.is_some_and(|size| size != meta.size) {
            self.tally.verification_failures.fetch_add(1, Relaxed);
            return Err(SyncError::new(ErrorKind::Verification, "what arrived has another size").at("write", shown()).retryable());
        }
        Ok(now)
    }

    /// The mode to set on a finished temporary file; `None` if it has the right one from the beginning.
    fn mode_of(&self, op: &Op, meta: &Meta, temp: &Temp) -> Option<u32> {
        if self.keep.permissions && meta.known.mode {
            return Some(meta.mode);
        }
        match replaced_file(op) {
            Some(old) => Some(old.mode),
            // The server took its umask away; where the file was made private, what is usual has to do.
            None if self.keep.owner || temp.part => Some(if meta.known.mode { meta.mode } else { 0o666 } & 0o777 & !0o022),
            None => None,
        }
    }

    /// Both times go together; the time of access is now.
    pub fn times(&self, meta: &Meta) -> Option<(u32, u32)> {
        (self.keep.times && meta.known.mtime).then(|| times(meta.mtime))
    }

    /// Sets attributes of a name, in one go each; never follows a link where the server knows how not to.
    pub fn set(&self, session: &Session, key: &[u8], kind: Kind, attrs: &Attrs) -> Answer<()> {
        let path = self.at.path(key);
        let ask = |attrs: &Attrs| match session.server.lsetstat {
            true => session.ask(Request::extended("lsetstat@openssh.com").text(&path).attrs(attrs)),
            false => session.ask(Request::path(SETSTAT, &path).attrs(attrs)),
        };
        if kind == Kind::Symlink && !session.server.lsetstat {
            return Ok(());
        }
        let mut steps = Vec::new();
        if attrs.owner.is_some() {
            steps.push(ask(&Attrs { owner: attrs.owner, ..Attrs::default() })?);
        }
        let mode = attrs.mode.filter(|_| kind != Kind::Symlink).map(Attrs::mode);
        let moded = mode.map(|mode| ask(&mode).map(|ticket| (mode, ticket))).transpose()?;
        if let Some((mode, ticket)) = moded {
            match ticket.done() {
                // Systems that can't set a mode without following links say so also of what is none.
                Err(Failure::Status(code::FAILURE | code::UNSUPPORTED | code::BAD_MESSAGE)) if session.server.lsetstat => {
                    steps.push(session.ask(Request::path(SETSTAT, &path).attrs(&mode))?);
                }
                done => done?,
            }
        }
        if attrs.times.is_some() {
            steps.push(ask(&Attrs { times: attrs.times, ..Attrs::default() })?);
        }
        steps.into_iter().try_for_each(Ticket::done)
    }

    /// Waits until bytes may flow; returns how many.
    pub fn allowance(&self, want: u64) -> Result<u64> {
        if self.control.should_stop() {
            return Err(SyncError::cancelled());
        }
        match &self.limiter {
            Some(limiter) => limiter.take(want, self.control).map_err(|_| SyncError::cancelled()),
            None => Ok(want),
        }
    }

    /// A file that is not to be: closed and, unless it is `kept` for the next run, removed.
    fn discard(&self, temp: &Temp, kept: bool) {
        let _ = temp.session.ask_with(Request::path(CLOSE, &temp.handle), Patience::CleanUp);
        if !kept {
            self.remove_temp(&temp.session, &temp.key);
        }
    }

    pub fn remove_temp(&self, session: &Session, key: &[u8]) {
        let asked = session.ask_with(Request::path(REMOVE, &self.at.path(key)), Patience::CleanUp);
        if matches!(asked.and_then(Ticket::done), Err(Failure::Session(_))) {
            self.note_orphan(key);
        }
    }

    fn note_orphan(&self, key: &[u8]) {
        self.orphans.lock().unwrap_or_else(PoisonError::into_inner).push(key.to_vec());
    }

    /// The run is over: what could not be removed so far goes, if it can be now.
    pub fn end(&self) {
        self.remove_orphans(None);
    }

    /// Those in one directory, before that is finished; or all.
    pub fn remove_orphans(&self, dir: Option<&[u8]>) {
        let mut all = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut own, rest) =
            std::mem::take(&mut *all).into_iter().partition::<Vec<_>, _>(|key| dir.is_none_or(|dir| split_key(key).0 == dir));
        *all = rest;
        drop(all);
        // A run that was stopped does not wait long.
        let patience = if self.control.should_stop() { Patience::CleanUp } else { Patience::Run };
        while let Some(key) = own.pop() {
            let removed = self.session().and_then(|session| {
                if patience == Patience::Run {
                    self.at.enter(&session, split_key(&key).0)?;
                }
                session.ask_with(Request::path(REMOVE, &self.at.path(&key)), patience)?.done()
            });
            if let (Err(Failure::Session(_)), Some(_)) = (removed, dir) {
                self.note_orphan(&key);
            }
        }
    }

    /// Makes an error of what happened to `key`, in a directory.
    pub fn why(&self, failure: Failure, dir: &[u8], action: &'static str, key: &[u8]) -> SyncError {
        match self.session() {
            Ok(session) if matches!(failure, Failure::Status(_)) => self.explain(&session, failure, dir, 1, action, self.at.path_of(key)),
            _ => failure.at(action, self.at.path_of(key)),
        }
    }

    /// Makes an error of a failure. "Failure" alone tells nothing: the file system may tell more.
    pub fn explain(&self, session: &Session, failure: Failure, dir: &[u8], wanted: u64, action: &'static str, shown: Vec<u8>) -> SyncError {
        if !failure.is(code::FAILURE) {
            return failure.at(action, shown);
        }
        match self.room(session, dir) {
            Some(room) if room.read_only => SyncError::os(Errno::ROFS, action, shown),
            Some(room) if room.bytes < wanted.max(64 << 10) || room.no_files => SyncError::os(Errno::NOSPC, action, shown),
            _ => failure.at(action, shown).hint("a quota or a limit of the host may be the cause"),
        }
    }

    /// `None` where the server does not tell.
    fn room(&self, session: &Session, dir: &[u8]) -> Option<Room> {
        if !session.server.statvfs {
            return None;
        }
        let answer = session.ask(Request::extended("statvfs@openssh.com").text(&self.at.path(dir))).ok()?.extended().ok()?;
        let mut cursor = Cursor::new(&answer);
        let mut next = || cursor.u64().ok();
        let (_, unit, blocks, _, free) = (next()?, next()?, next()?, next()?, next()?);
        let (files, _, free_files, _, flags) = (next()?, next()?, next()?, next()?, next()?);
        // Some network file systems tell no sizes at all.
        let bytes = if blocks == 0 { u64::MAX } else { free.saturating_mul(unit) };
        Some(Room { bytes, no_files: files > 0 && free_files == 0, read_only: flags & 1 != 0 })
    }
}

/// Pieces of content that are under way.
#[derive(Default)]
struct Flight {
    tickets: VecDeque<(Ticket, u64)>,
    bytes: u64,
}

impl Flight {
    fn push(&mut self, ticket: Ticket, length: u64) {
        self.tickets.push_back((ticket, length));
        self.bytes += length;
    }

    fn land(&mut self, control: &Control) -> Answer<()> {
        if let Some((ticket, length)) = self.tickets.pop_front() {
            self.bytes -= length;
            ticket.done()?;
            control.bytes.fetch_add(length, Relaxed);
        }
        Ok(())
    }

    fn land_all(&mut self, control: &Control) -> Answer<()> {
        while !self.tickets.is_empty() {
            self.land(control)?;
        }
        Ok(())
    }
}

struct Room {
    bytes: u64,
    no_files: bool,
    read_only: bool,
}

/// Access and modification. What lies before 1970 or after 2106 can't be told.
pub fn times(mtime: Time) -> (u32, u32) {
    let whole = |seconds: i64| seconds.clamp(0, u32::MAX.into()) as u32;
    (whole(Time::now().seconds), whole(mtime.seconds))
}

pub fn read_full(reader: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Is what stands there still what was listed?
pub fn is_still(now: Option<&Meta>, listed: &Meta) -> bool {
    now.is_some_and(|now| {
        (now.kind, now.size, now.mtime) == (listed.kind, listed.size, listed.mtime) || now.kind == Kind::Dir && listed.kind == Kind::Dir
    })
}
