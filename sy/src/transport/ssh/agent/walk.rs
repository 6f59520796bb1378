//! Sends the listings of the whole tree in the order in which they will be wanted, as far as was granted.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{Out, fail};
use crate::error::Result;
use crate::transport::local::LocalEndpoint;
use crate::transport::ssh::walk::walk_order;
use crate::transport::ssh::wire::message::put_listing;
use crate::transport::ssh::wire::{Kind, Put, body};
use crate::transport::{Endpoint, Kind as FileKind, Listing, child_key};

/// Bytes of a part of a listing, about.
const PART: usize = 128 << 10;
/// Directories as deep as this are left to be asked for.
const DEEPEST: usize = 1000;

/// Tells the walking thread what is wanted.
#[derive(Debug, Default)]
pub struct Walker {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: Option<(u32, Vec<u8>)>,
    /// Below zero by what the last part had more.
    granted: i64,
    closed: bool,
}

impl Walker {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Walk from `from` on, instead of whatever is under way.
    pub fn begin(&self, id: u32, from: &[u8], granted: u64) {
        let mut state = self.lock();
        state.wanted = Some((id, from.to_vec()));
        state.granted = i64::try_from(granted).unwrap_or(i64::MAX);
        self.changed.notify_all();
    }

    pub fn grant(&self, more: u64) {
        let mut state = self.lock();
        state.granted = state.granted.saturating_add_unsigned(more);
        self.changed.notify_all();
    }

    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// What the walking thread does.
    pub fn run(&self, endpoint: &LocalEndpoint, out: &Out) {
        loop {
            let mut state = self.lock();
            let (id, from) = loop {
                if state.closed {
                    return;
                }
                match state.wanted.take() {
                    Some(wanted) => break wanted,
                    None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            let mut walk = OneWalk { walker: self, endpoint, out, id, from, ancestors: Vec::new() };
            if walk.directory(b"").is_ok_and(|go_on| go_on) {
                let mut end = body();
                end.u8(0);
                if out.send(Kind::Listing, id, end.0).is_err() {
                    return;
                }
            }
        }
    }

    /// Waits for leave to send so much. `false`: this walk is not wanted any more.
    fn may_send(&self, bytes: u64) -> bool {
        let mut state = self.lock();
        loop {
            if state.closed || state.wanted.is_some() {
                return false;
            }
            if state.granted > 0 {
                state.granted = state.granted.saturating_sub_unsigned(bytes);
                return true;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A directory in another: its name and which it is.
type Child = (Box<[u8]>, (u64, u64));

struct OneWalk<'w> {
    walker: &'w Walker,
    endpoint: &'w LocalEndpoint,
    out: &'w Out,
    id: u32,
    from: Vec<u8>,
    /// Devices and inodes of the directories above, where links are followed and might lead back.
    ancestors: Vec<(u64, u64)>,
}

impl OneWalk<'_> {
    /// Sends a directory and all below it, from `from` on. `false`: not to go on.
    fn directory(&mut self, key: &[u8]) -> Result<bool> {
        let listing = self.endpoint.list(key);
        if walk_order(key, &self.from).is_ge() && !self.send(key, &listing)? {
            return Ok(false);
        }
        let Ok(mut listing) = listing else { return Ok(true) };
        listing.handle = None;
        if self.ancestors.len() > DEEPEST {
            return Ok(true);
        }
        let dirs: Vec<Child> = (0..listing.len())
            .filter(|&n| listing.item(n).meta.kind == FileKind::Dir)
            .map(|n| (listing.name(n).into(), listing.item(n).meta.identity()))
            .collect();
        drop(listing);
        for (name, identity) in dirs {
            let child = child_key(key, &name);
            // Before `from`, only what leads to it is of interest.
            let leads = self.from.strip_prefix(child.as_slice()).is_some_and(|rest| rest.starts_with(b"/"));
            if walk_order(&child, &self.from).is_lt() && !leads || self.ancestors.contains(&identity) {
                continue;
            }
            self.ancestors.push(identity);
            let go_on = self.directory(&child)?;
            self.ancestors.pop();
            if !go_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn send(&self, key: &[u8], listing: &Result<Listing>) -> Result<bool> {
        each_part(key, listing, &mut |part| {
            if !self.walker.may_send(part.0.len() as u64) {
                return Ok(false);
            }
            self.out.send(Kind::Listing, self.id, part.0).map(|()| true)
        })
    }
}

/// A listing in as many messages as it takes. `send` says whether to go on.
fn each_part(key: &[u8], listing: &Result<Listing>, send: &mut dyn FnMut(Put) -> Result<bool>) -> Result<bool> {
    let listing = match listing {
        Ok(listing) => listing,
        Err(error) => {
            let mut part = body();
            part.u8(1).bytes(key).error(error);
            return send(part);
        }
    };
    let mut from = 0;
    loop {
        let mut part = body();
        // Two for a part with more to come, three for the last; set when it is known.
        let mark = part.0.len();
        part.u8(2).bytes(key);
        from = put_listing(&mut part, listing, from, PART);
        if from < listing.len() {
            if !send(part)? {
                return Ok(false);
            }
            continue;
        }
        part.0[mark] = 3;
        put_rest(&mut part, listing);
        return send(part);
    }
}

fn put_rest(part: &mut Put, listing: &Listing) {
    // Enough of them to be put away in one run.
    const MOST: usize = 1000;
    let leftovers = &listing.leftovers[..listing.leftovers.len().min(MOST)];
    part.u64(leftovers.len() as u64);
    for name in leftovers {
        part.bytes(name);
    }
    let unknown = &listing.unknown[..listing.unknown.len().min(MOST)];
    part.u64(unknown.len() as u64);
    for (name, error) in unknown {
        part.bytes(name).error(error);
    }
}

/// One directory that was asked for by itself.
pub fn list(endpoint: &LocalEndpoint, out: &Out, id: u32, key: &[u8]) -> Result<()> {
    let listing = endpoint.list(key);
    if let Err(error) = &listing {
        return fail(out, id, error);
    }
    each_part(key, &listing, &mut |part| out.send(Kind::Listing, id, part.0).map(|()| true))?;
    out.send(Kind::Done, id, body().0)
}

/// A directory's content is too much for one message only if its names are: that can't be said of errors.
const _: () = assert!(PART < crate::transport::ssh::wire::frame::MOST / 2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SyncError;
    use crate::transport::ssh::walk::{Part, get_rest};
    use crate::transport::ssh::wire::Get;
    use crate::transport::ssh::wire::message::get_listing;
    use crate::transport::{Time, sample};

    #[test]
    fn a_large_directory_comes_in_parts() {
        let mut sent = Listing::default();
        for n in 0..20_000_u64 {
            sent.push(format!("{n:08}").as_bytes(), sample(n, Time::default()), None);
        }
        sent.leftovers.push(b"left"[..].into());
        sent.unknown.push((b"what"[..].into(), SyncError::config("why")));
        let (mut got, mut parts) = (Listing::default(), 0);
        each_part(b"dir", &Ok(sent), &mut |part| {
            parts += 1;
            let bytes = part.0[body().0.len()..].to_vec();
            let mut get = Get(&bytes);
            let Part::Entries(key, last) = Part::read(&mut get)? else { panic!("entries") };
            assert_eq!(key, b"dir");
            get_listing(&mut get, &mut got)?;
            if last {
                get_rest(&mut get, &mut got)?;
            }
            Ok(true)
        })
        .expect("sent");
        assert!(parts > 2, "{parts}");
        assert_eq!((got.len(), got.leftovers.len(), got.unknown.len()), (20_000, 1, 1));
    }
}
