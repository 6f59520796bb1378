//! The content of a file on a host, read ahead with many requests under way.

use std::collections::VecDeque;
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use super::failure::{Failure, Result};
use super::session::{Data, Session, Ticket};
use super::wire::{READ, Request};
use crate::error::SyncError;

/// Bytes of one file that are under way, at most.
pub const WINDOW: u64 = 16 << 20;
/// Of all files of one connection together. Each may have one request under way beyond that.
const ALL: u64 = 64 << 20;

/// Requests that are under way where bytes are let through one by one.
const SLOW: usize = 2;

/// Asks for `range`, in order, and hands the answers out. Ends early where the file does.
pub struct Pieces<'s> {
    session: &'s Session,
    handle: &'s [u8],
    range: Range<u64>,
    flight: VecDeque<(Ticket, u64, u32)>,
    /// What servers give at a time may be less than what they are asked for.
    most: u32,
    /// Each answer widens the window: the first ones need not wait for what may not be wanted.
    window: u64,
    /// Bytes that are counted in `session.reading`.
    counted: u64,
    allow: Option<Allow<'s>>,
}

/// Waits until bytes may flow; returns how many of those that are wanted.
pub type Allow<'s> = &'s dyn Fn(u64) -> Result<u64, SyncError>;

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pieces({:?})", self.range)
    }
}

impl<'s> Pieces<'s> {
    pub fn new(session: &'s Session, handle: &'s [u8], range: Range<u64>) -> Self {
        let most = session.server.read;
        Self { session, handle, range, flight: VecDeque::new(), most, window: WINDOW / 4, counted: 0, allow: None }
    }

    /// The same, not faster than `allow` lets it.
    #[must_use]
    pub fn limited(mut self, allow: Option<Allow<'s>>) -> Self {
        self.allow = allow;
        self
    }

    fn ask(&mut self, at: u64, length: u32) -> Result<Ticket> {
        let ticket = self.session.ask(Request::new(READ).text(self.handle).u64(at).u32(length))?;
        self.session.reading.fetch_add(length.into(), Relaxed);
        self.counted += u64::from(length);
        Ok(ticket)
    }

    fn uncount(&mut self, length: u64) {
        self.session.reading.fetch_sub(length, Relaxed);
        self.counted -= length;
    }

    /// Has as much under way as there may be.
    fn ahead(&mut self) -> Result<()> {
        while self.range.start < self.range.end {
            let more = self.counted < self.window && self.session.reading.load(Relaxed) < ALL;
            if !more && !self.flight.is_empty() {
                break;
            }
            let mut length = (self.range.end - self.range.start).min(self.most.into()) as u32;
            if let Some(allow) = self.allow {
                // What has arrived need not wait for what comes slowly.
                if self.flight.len() >= SLOW {
                    break;
                }
                length = allow(length.into())?.min(length.into()) as u32;
            }
            let at = self.range.start;
            let ticket = self.ask(at, length)?;
            self.range.start += u64::from(length);
            self.flight.push_back((ticket, at, length));
        }
        Ok(())
    }

    /// The next piece and where it stands; `None` at the end, which may come early.
    pub fn next(&mut self) -> Result<Option<(u64, Data)>> {
        self.ahead()?;
        let Some((ticket, at, length)) = self.flight.pop_front() else { return Ok(None) };
        let answer = ticket.data(length as usize);
        self.uncount(length.into());
        let data = answer?;
        if data.is_empty() {
            return Ok(None);
        }
        self.window = WINDOW.min(self.window + 2 * data.len() as u64);
        let got = data.len() as u32;
        if got < length {
            // The rest of it, before all that comes after.
            let ticket = self.ask(at + u64::from(got), length - got)?;
            self.flight.push_front((ticket, at + u64::from(got), length - got));
            self.most = self.most.min(got.max(4096));
        }
        Ok(Some((at, data)))
    }
}

impl Drop for Pieces<'_> {
    fn drop(&mut self) {
        self.uncount(self.counted);
    }
}

/// The same as a reader, for those who take any.
pub struct Flowing<'s> {
    pieces: Pieces<'s>,
    current: Data,
    taken: usize,
    tell: Box<dyn Fn(Failure) -> SyncError + 's>,
    count: Box<dyn Fn(u64) + 's>,
}

impl std::fmt::Debug for Flowing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Flowing({:?})", self.pieces)
    }
}

impl<'s> Flowing<'s> {
    /// `tell` makes an error of a failure; `count` hears how many bytes came.
    pub fn new(pieces: Pieces<'s>, tell: impl Fn(Failure) -> SyncError + 's, count: impl Fn(u64) + 's) -> Self {
        Self { pieces, current: Data::default(), taken: 0, tell: Box::new(tell), count: Box::new(count) }
    }
}

impl Read for Flowing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        while self.taken == self.current.len() {
            match self.pieces.next().map_err(|failure| std::io::Error::other((self.tell)(failure)))? {
                Some((_, data)) => (self.current, self.taken) = (data, 0),
                None => return Ok(0),
            }
            (self.count)(self.current.len() as u64);
        }
        let rest = &self.current[self.taken..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        self.taken += n;
        Ok(n)
    }
}
