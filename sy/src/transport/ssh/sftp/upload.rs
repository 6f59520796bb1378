//! Puts one program on a host.

use super::session::{Patience, Session};
use super::wire::{self, Attrs, Request};
use super::{Failure, failure};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;
use crate::transport::ssh::SshConfig;
use crate::transport::ssh::connect::{Start, Target, connect};

/// Bytes of a request to read or write.
const PIECE: usize = 32 << 10;
/// Requests under way.
const AHEAD: usize = 64;

/// A way to put a file below the home directory there.
#[derive(Debug)]
pub struct Upload<'u> {
    pub target: &'u Target,
    pub config: &'u SshConfig,
    pub stop: &'u Stop,
}

impl Upload<'_> {
    /// Makes `folder/name` an executable file with that content, unless it is one. It is read back before it gets its name.
    pub fn program(&self, folder: &str, name: &str, content: &[u8]) -> Result<()> {
        let stream = connect(self.target, self.config, Start::Subsystem("sftp"), self.stop)?;
        let session = Session::begin(stream, None, self.stop)?;
        let path = format!("{folder}/{name}");
        let fail = |failure: Failure| failure.at("copy the agent to", path.as_bytes());
        if same(&session, path.as_bytes(), content).map_err(fail)? {
            return Ok(());
        }
        let mut made = String::new();
        for part in folder.split('/') {
            made = if made.is_empty() { part.to_owned() } else { format!("{made}/{part}") };
            // What is there already is as good.
            let _ = session.ask(Request::path(wire::MKDIR, made.as_bytes()).attrs(&Attrs::mode(0o700))).and_then(|ticket| ticket.done());
        }
        let temp = format!("{path}.{:x}", crate::transport::Time::now().total_nanos());
        let written = write(&session, temp.as_bytes(), content).and_then(|()| same(&session, temp.as_bytes(), content));
        match written.map_err(fail)? {
            true => {}
            false => {
                return Err(
                    SyncError::new(ErrorKind::Verification, "it is not there as it was sent").at("copy the agent to", path.as_bytes())
                );
            }
        }
        // Another run may have been first; then its file is the same. What else stands there is not what it was.
        put_in_place(&session, temp.as_bytes(), path.as_bytes()).or_else(|failure| {
            let _ = session.ask(Request::path(wire::REMOVE, temp.as_bytes())).and_then(|ticket| ticket.done());
            if same(&session, path.as_bytes(), content).map_err(fail)? { Ok(()) } else { Err(fail(failure)) }
        })
    }
}

fn put_in_place(session: &Session, temp: &[u8], path: &[u8]) -> failure::Result<()> {
    if session.server.posix_rename {
        return session.ask(Request::extended("posix-rename@openssh.com").text(temp).text(path))?.done();
    }
    let rename = || session.ask(Request::path(wire::RENAME, temp).text(path))?.done();
    rename().or_else(|_| {
        session.ask(Request::path(wire::REMOVE, path))?.done()?;
        rename()
    })
}

fn write(session: &Session, path: &[u8], content: &[u8]) -> failure::Result<()> {
    let flags = wire::open::WRITE | wire::open::CREATE | wire::open::EXCLUSIVE;
    let handle = session.ask(Request::path(wire::OPEN, path).u32(flags).attrs(&Attrs::mode(0o700)))?.handle()?;
    let mut under_way = std::collections::VecDeque::new();
    for (n, piece) in content.chunks(PIECE).enumerate() {
        let request = Request::new(wire::WRITE).text(&handle).u64((n * PIECE) as u64).text(piece);
        under_way.push_back(session.ask_with(request, Patience::Run)?);
        if under_way.len() > AHEAD
            && let Some(first) = under_way.pop_front()
        {
            first.done()?;
        }
    }
    for ticket in under_way {
        ticket.done()?;
    }
    session.ask(Request::new(wire::CLOSE).text(&handle))?.done()
}

/// Does the file there hold that, and may it be run?
fn same(session: &Session, path: &[u8], content: &[u8]) -> failure::Result<bool> {
    let handle = match session.ask(Request::path(wire::OPEN, path).u32(wire::open::READ).attrs(&Attrs::default()))?.handle() {
        Ok(handle) => handle,
        Err(Failure::Status(_)) => return Ok(false),
        Err(other) => return Err(other),
    };
    let attrs = session.ask(Request::new(wire::FSTAT).text(&handle))?.attrs()?;
    let mut same = attrs.size == Some(content.len() as u64) && attrs.mode.is_none_or(|mode| mode & 0o100 != 0);
    let mut under_way = std::collections::VecDeque::new();
    let mut left = content;
    for (n, piece) in content.chunks(PIECE).enumerate() {
        if !same {
            break;
        }
        under_way.push_back(session.ask(Request::new(wire::READ).text(&handle).u64((n * PIECE) as u64).u32(piece.len() as u32))?);
        if under_way.len() > AHEAD
            && let Some(first) = under_way.pop_front()
        {
            same = take(first, &mut left)?;
        }
    }
    for ticket in under_way {
        same = same && take(ticket, &mut left)?;
    }
    session.ask(Request::new(wire::CLOSE).text(&handle))?.done()?;
    Ok(same)
}

/// Is the answer what comes next? A server that gives less at a time than was asked for counts as one that has something else.
fn take(ticket: super::session::Ticket, left: &mut &[u8]) -> failure::Result<bool> {
    let data = ticket.data(PIECE)?;
    let Some(rest) = left.strip_prefix(&data[..]) else { return Ok(false) };
    let whole = data.len() == PIECE.min(left.len());
    *left = rest;
    Ok(whole)
}
