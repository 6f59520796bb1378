//! A large file from one agent to another: what the one says is handed to the other.
//!
//! Signatures go back as they came, and differences forth, so both wires carry no more than one alone would have to.

use std::sync::atomic::Ordering::Relaxed;

use super::SshEndpoint;
use super::difference::{How, secret};
use super::relay::RelayLane;
use super::session::{Reply, Session};
use super::window::{AHEAD, Credit};
use super::wire::attributes::{get_attributes, put_wish};
use super::wire::message::get_applied;
use super::wire::{Frame, Get, Kind, PIECE, Put, body, garbled, not_what_was_sent};
use super::writer::SshWriter;
use crate::delta::Shape;
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Dir;
use crate::transport::local::{Attributes, Keep, changed};
use crate::transport::{Applied, Op, Source};

/// The same message for the other side.
fn onward(frame: &[u8]) -> Put {
    let mut same = body();
    same.0.extend_from_slice(frame);
    same
}

impl<S: Source> RelayLane<'_, S> {
    pub(super) fn pass(&self, dir: &Dir<'_>, op: &Op, attributes: Option<&Attributes>, from: &SshEndpoint) -> Result<Applied> {
        let (how, signature) = self.how(dir, op);
        let room = AHEAD.min(op.source.size.max(PIECE as u64));
        if !self.window.take(room + signature, from.stop()) {
            return Err(SyncError::cancelled());
        }
        let passed = self.pass_within(dir, op, attributes, from, (how, room));
        self.window.give_back(room + signature);
        passed
    }

    fn pass_within(
        &self,
        dir: &Dir<'_>,
        op: &Op,
        attributes: Option<&Attributes>,
        from: &SshEndpoint,
        (how, room): (How, u64),
    ) -> Result<Applied> {
        let secret = secret()?;
        let (source, dest) = (from.session_for_large()?, self.to.at.session_for_large()?);
        let mut put = dest.ask(Kind::Put, SshWriter::put_request(dir, op, attributes, how, &secret))?;
        let have = if how == How::Rest { Get(&put.next()?.body).u64()?.min(op.source.size) } else { 0 };
        let mut request = body();
        request.u64(room).bytes(&dir.key).bytes(op.source_name());
        put_wish(&mut request, Keep::to_send(false, false));
        request.bool(true).u8(how as u8).u64(have).u64(u64::MAX).0.extend_from_slice(&secret);
        let mut fetch = source.ask(Kind::FetchFile, request).map_err(|error| from.at(error))?;
        let (put_id, fetch_id) = (put.id, fetch.id);
        std::thread::scope(|threads| {
            let answering = threads.spawn(|| {
                let answer = hand_back(&mut put, &source, fetch_id);
                if answer.is_err() {
                    let _ = source.tell(Kind::Forget, fetch_id, body());
                }
                answer
            });
            let sent = Passing { lane: self, dir, op, from, how, room, have }.hand_on(&mut fetch, &dest, put_id);
            if sent.is_err() {
                let _ = dest.tell(Kind::Forget, put_id, body());
            }
            let answer = answering.join().unwrap_or_else(|_| Err(garbled("no answer")));
            match (sent, answer) {
                (Ok(()), answer) => answer,
                // It was called off because the other side had failed.
                (Err(error), Err(cause)) if error.kind == ErrorKind::Cancelled && !self.control.should_stop() => Err(cause),
                (Err(error), _) => Err(error),
            }
        })
    }
}

/// What the destination says goes to the source, until it says what came of it.
fn hand_back(put: &mut Reply, source: &Session, fetch: u32) -> Result<Applied> {
    loop {
        let Frame { kind, body, .. } = put.next()?;
        match kind {
            Kind::Signature => source.tell(Kind::Signature, fetch, onward(&body))?,
            Kind::Done => return get_applied(&mut Get(&body)),
            _ => return Err(garbled("another answer than was asked for")),
        }
    }
}

/// One file on its way.
struct Passing<'p, 'r, S> {
    lane: &'p RelayLane<'r, S>,
    dir: &'p Dir<'p>,
    op: &'p Op,
    from: &'p SshEndpoint,
    how: How,
    room: u64,
    have: u64,
}

impl<S: Source> Passing<'_, '_, S> {
    /// What the source sends goes to the destination, up to the word that it was all.
    fn hand_on(&self, fetch: &mut Reply, dest: &Session, put: u32) -> Result<()> {
        let (lane, op) = (self.lane, self.op);
        let mut came = blake3::Hasher::new();
        let (mut at, mut carried, mut credit) = (0, 0, Credit::new(self.room));
        let mut let_come = |fetch: &Reply, bytes| credit.took(fetch, bytes).map_err(|error| self.from.at(error));
        loop {
            let Frame { kind, body: message, .. } = fetch.next().map_err(|error| self.from.at(error))?;
            let bytes = message.len() as u64;
            match kind {
                Kind::Credit if self.how == How::Rest && at == 0 => {
                    at = Get(&message).u64()?;
                    if at > self.have {
                        return Err(garbled("a part that is not there"));
                    }
                    dest.tell(Kind::Hole, put, onward(&message))?;
                    lane.control.bytes.fetch_add(at, Relaxed);
                }
                Kind::Hole if self.how != How::Difference => {
                    let length = Get(&message).u64()?;
                    if length > op.source.size - at {
                        return Err(self.changed());
                    }
                    dest.tell(Kind::Hole, put, onward(&message))?;
                    at += length;
                    lane.control.bytes.fetch_add(length, Relaxed);
                    let_come(fetch, 1)?;
                }
                Kind::Data if self.how != How::Difference => {
                    if bytes > op.source.size - at {
                        return Err(self.changed());
                    }
                    lane.allow(bytes)?;
                    came.update(&message);
                    dest.tell(Kind::Data, put, onward(&message))?;
                    at += bytes;
                    lane.control.bytes.fetch_add(bytes, Relaxed);
                    let_come(fetch, bytes)?;
                }
                Kind::Copy if self.how == How::Difference => {
                    lane.allow(bytes)?;
                    carried += bytes;
                    let made = self.made(&message)?;
                    dest.tell(Kind::Copy, put, onward(&message))?;
                    lane.control.bytes.fetch_add(made, Relaxed);
                    let_come(fetch, bytes)?;
                }
                Kind::Done => {
                    let mut get = Get(&message);
                    let whole = self.how == How::Difference || at == op.source.size;
                    if !get.meta(None)?.same_state(&op.source) || !whole {
                        return Err(self.changed());
                    }
                    get_attributes(&mut get)?;
                    let end = onward(get.0);
                    if self.how == How::Difference {
                        lane.tally.files_delta_synced.fetch_add(1, Relaxed);
                        lane.tally.delta_bytes_saved.fetch_add(op.source.size.saturating_sub(carried), Relaxed);
                    } else if get.0 != came.finalize().as_bytes() {
                        lane.tally.verification_failures.fetch_add(1, Relaxed);
                        return Err(not_what_was_sent().at("read", lane.from.path(self.dir, op)));
                    }
                    lane.tally.bytes_read.fetch_add(op.source.size, Relaxed);
                    return dest.tell(Kind::End, put, end);
                }
                _ => return Err(garbled("another answer than was asked for")),
            }
        }
    }

    fn changed(&self) -> SyncError {
        changed(self.lane.from.path(self.dir, self.op))
    }

    /// How much of the new file pieces stand for, about.
    fn made(&self, pieces: &[u8]) -> Result<u64> {
        let block = self.op.dest.map_or(0, |old| Shape::of(old.size).block() as u64);
        let (mut get, mut made) = (Get(pieces), 0_u64);
        while !get.is_empty() {
            made += match get.u8()? {
                0 => {
                    get.u64()?;
                    get.u64()?.min(self.op.source.size / block.max(1) + 1) * block
                }
                1 => get.bytes()?.len() as u64,
                _ => return Err(garbled("a piece of another kind")),
            };
        }
        Ok(made.min(self.op.source.size))
    }
}
