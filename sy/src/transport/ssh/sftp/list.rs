//! Lists one directory: names and metadata come together, links are asked for their targets many at a time.

use std::collections::VecDeque;
use std::sync::Arc;

use super::endpoint::{SftpEndpoint, tells_nothing};
use super::failure::{Failure, Result};
use super::session::{Session, Ticket};
use super::wire::{Attrs, CLOSE, LSTAT, OPENDIR, READDIR, READLINK, Request, code};
use crate::error::{ErrorKind, Quoted, SyncError};
use crate::transport::local::{ABANDONED, Ours, ours};
use crate::transport::{Endpoint, Kind, Listing, Meta, Time, child_key};

/// Questions about one directory that are under way, at most.
const AT_ONCE: usize = 64;
/// Batches of names that are asked for ahead, at most. The server fills one after the other.
const BATCHES: usize = 8;

struct One {
    name: Box<[u8]>,
    attrs: Attrs,
    links: u32,
}

/// Lists the directory at `key`. The first error ends it: a listing is whole or it is none.
pub fn list(at: &SftpEndpoint, session: &Arc<Session>, key: &[u8]) -> Result<Listing> {
    let entering = at.begin_enter(session, key)?;
    let opened = session.ask(Request::path(OPENDIR, &at.path(key)))?;
    at.end_enter(entering)?;
    let handle = opened.handle()?;
    let named = names(session, &handle);
    // Nobody waits for it.
    let _ = session.ask(Request::path(CLOSE, &handle));
    let mut named = named?;
    // In a directory that changes meanwhile a name may come twice.
    named.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    named.dedup_by(|a, b| a.name == b.name);
    let mut listing = Listing::with_capacity(named.len(), named.iter().map(|one| one.name.len()).sum());
    let mut links: Vec<(Box<[u8]>, Meta)> = Vec::new();
    let mut vague: Vec<Box<[u8]>> = Vec::new();
    for one in named {
        match ours(&one.name) {
            Some(Ours::InUse) => {}
            Some(Ours::Foreign | Ours::Part) => {
                let last = one.attrs.times.map_or(0, |(access, change)| access.max(change));
                if i64::from(last) < Time::now().seconds - ABANDONED || ours(&one.name) == Some(Ours::Part) {
                    listing.leftovers.push(one.name);
                }
            }
            Some(Ours::Leftover) => listing.leftovers.push(one.name),
            None => match at.meta(&child_key(key, &one.name), &one.attrs, one.links) {
                Some(meta) if meta.kind == Kind::Symlink => links.push((one.name, meta)),
                Some(meta) => listing.push(&one.name, meta, None),
                None => vague.push(one.name),
            },
        }
    }
    look_closer(at, session, key, vague, &mut listing, &mut links)?;
    read_links(at, session, key, links, &mut listing)?;
    listing.sort();
    Ok(listing)
}

/// All names in an open directory.
fn names(session: &Session, handle: &[u8]) -> Result<Vec<One>> {
    let ask = || session.ask(Request::path(READDIR, handle));
    let mut all = Vec::new();
    let mut bad = None;
    let mut flight = VecDeque::from([ask()?, ask()?]);
    while let Some(ticket) = flight.pop_front() {
        let more = ticket.names(|name| {
            let leads_elsewhere = name.name.is_empty() || name.name.len() > 0xffff || name.name.iter().any(|&b| b == b'/' || b == 0);
            match name.name {
                b"." | b".." => {}
                _ if leads_elsewhere => bad = Some(name.name.to_vec()),
                _ => all.push(One { name: name.name.into(), attrs: name.attrs, links: name.links() }),
            }
        })?;
        if let Some(name) = bad {
            let error = SyncError::new(ErrorKind::Io, format!("the server names an entry {}, which no directory can have", Quoted(&name)));
            return Err(Failure::Session(error));
        }
        if !more {
            // What was asked for beyond the end is answered in the same way.
            break;
        }
        flight.push_back(ask()?);
        if flight.len() < BATCHES {
            flight.push_back(ask()?);
        }
    }
    Ok(all)
}

/// Asks about each of `all`, many at a time; `take` gets the answers in order.
fn ask_each<T>(session: &Session, all: Vec<T>, ask: impl Fn(&T) -> Request, mut take: impl FnMut(T, Ticket) -> Result<()>) -> Result<()> {
    let mut flight: VecDeque<(T, Ticket)> = VecDeque::new();
    for one in all {
        if flight.len() >= AT_ONCE
            && let Some((one, ticket)) = flight.pop_front()
        {
            take(one, ticket)?;
        }
        let ticket = session.ask(ask(&one))?;
        flight.push_back((one, ticket));
    }
    flight.into_iter().try_for_each(|(one, ticket)| take(one, ticket))
}

/// What the listing does not tell the kind of is asked for by itself.
fn look_closer(
    at: &SftpEndpoint,
    session: &Session,
    dir: &[u8],
    vague: Vec<Box<[u8]>>,
    listing: &mut Listing,
    links: &mut Vec<(Box<[u8]>, Meta)>,
) -> Result<()> {
    let key = |name: &[u8]| child_key(dir, name);
    ask_each(
        session,
        vague,
        |name| Request::path(LSTAT, &at.path(&key(name))),
        |name, ticket| {
            match ticket.attrs() {
                Ok(attrs) => match at.meta(&key(&name), &attrs, 1) {
                    Some(meta) if meta.kind == Kind::Symlink => links.push((name, meta)),
                    Some(meta) => listing.push(&name, meta, None),
                    None => {
                        let error = tells_nothing().at("read", at.path_of(&key(&name)));
                        listing.unknown.push((name, error));
                    }
                },
                // It went away since its name was read: it is not here.
                Err(Failure::Status(code::NO_SUCH_FILE)) => {}
                Err(failure @ Failure::Status(_)) => {
                    let error = failure.at("read", at.path_of(&key(&name)));
                    listing.unknown.push((name, error));
                }
                Err(failure) => return Err(failure),
            }
            Ok(())
        },
    )
}

fn read_links(at: &SftpEndpoint, session: &Session, dir: &[u8], links: Vec<(Box<[u8]>, Meta)>, listing: &mut Listing) -> Result<()> {
    let key = |name: &[u8]| child_key(dir, name);
    ask_each(
        session,
        links,
        |(name, _)| Request::path(READLINK, &at.path(&key(name))),
        |(name, meta), ticket| {
            match ticket.name() {
                Ok(target) => listing.push(&name, meta, Some(target.into_boxed_slice())),
                Err(Failure::Status(code::NO_SUCH_FILE)) => {}
                Err(failure @ Failure::Status(_)) => {
                    let error = failure.at("read", at.path_of(&key(&name)));
                    listing.unknown.push((name, error));
                }
                Err(failure) => return Err(failure),
            }
            Ok(())
        },
    )
}
