//! Operations on their way to a host, wherever contents come from, and what is said of each.

use std::sync::atomic::Ordering::Relaxed;

use super::difference::{How, Secret, put_whole};
use super::session::Reply;
use super::wire::attributes::put_attributes;
use super::wire::message::{get_applied, put_op};
use super::wire::{Get, Kind, Put, body, garbled};
use super::writer::{SshWriter, outcome};
use crate::delta::Found;
use crate::error::Result;
use crate::sync::{Dir, Tally};
use crate::transport::local::Attributes;
use crate::transport::{Applied, Done, Kind as FileKind, Meta, Op, What};

/// A message of several operations, and which of them those are.
pub struct Batch {
    pub request: Put,
    pub ops: Vec<usize>,
}

/// Messages, and which operations are in each.
pub type Sent = Vec<(Result<Reply>, Vec<usize>)>;

impl Batch {
    pub fn new(dir: &Dir<'_>) -> Self {
        let mut request = body();
        request.bytes(&dir.key);
        Self { request, ops: Vec::new() }
    }
}

/// Is it content of a file that goes?
fn is_content(op: &Op) -> bool {
    op.what == What::Copy && op.source.kind == FileKind::File
}

impl SshWriter<'_> {
    pub fn send(&self, batch: Batch, sent: &mut Sent) {
        if !batch.ops.is_empty() {
            sent.push((self.at.session().and_then(|session| session.ask(Kind::Ops, batch.request)), batch.ops));
        }
    }

    /// Waits for answers; what has to go after all is put into `again`.
    pub fn conclude(
        &self,
        dir: &Dir<'_>,
        ops: &mut [Op],
        sent: Sent,
        tally: &Tally,
        again: &mut Vec<usize>,
        report: &mut dyn FnMut(&mut Op, Result<Done>),
    ) {
        for (reply, which) in sent {
            let answer = reply.and_then(|mut reply| {
                let answer = reply.done();
                let files = which.iter().filter(|&&n| is_content(&ops[n])).count();
                if files > 0 {
                    reply.tally(files as u64, tally);
                }
                answer
            });
            let mut get = Get(answer.as_deref().unwrap_or_default());
            for n in which {
                let done = match &answer {
                    Ok(_) => outcome(&mut get).and_then(|()| Ok((get_applied(&mut get)?, get.bool()?))),
                    Err(error) => Err(error.clone()),
                };
                match done {
                    // The contents differ: it has to go after all.
                    Ok((_, false)) if ops[n].what == What::CopyIfDifferent => {
                        ops[n].what = What::Copy;
                        again.push(n);
                    }
                    done => {
                        if !matches!(done, Ok((Applied::Metadata | Applied::Same, _))) {
                            dir.touch();
                        }
                        let done = done.map(|(applied, _)| self.made(&ops[n], applied, tally)).map_err(|error| self.at.at(error));
                        report(&mut ops[n], done);
                    }
                }
            }
        }
    }

    /// Something was done there, and read back if that was asked for.
    pub fn made(&self, op: &Op, applied: Applied, tally: &Tally) -> Done {
        if self.verify && is_content(op) {
            tally.files_verified.fetch_add(1, Relaxed);
        }
        applied.into()
    }

    /// The beginning of a large file.
    pub fn put_request(dir: &Dir<'_>, op: &Op, attributes: Option<&Attributes>, how: How, secret: &Secret) -> Put {
        let mut request = body();
        request.bytes(&dir.key);
        put_op(&mut request, op);
        put_attributes(&mut request, attributes);
        request.u8(how as u8).0.extend_from_slice(secret);
        request
    }

    /// What ends a file of which only differences went.
    pub fn end_of_difference(op: &Op, found: &Found, tally: &Tally) -> Put {
        tally.files_delta_synced.fetch_add(1, Relaxed);
        tally.delta_bytes_saved.fetch_add(op.source.size - found.literal, Relaxed);
        let mut end = body();
        put_whole(&mut end, &found.whole);
        end
    }

    /// Waits for the word that a large file is in place.
    pub fn put_is_done(reply: &mut Reply, tally: &Tally) -> Result<Applied> {
        loop {
            let frame = reply.next()?;
            match frame.kind {
                Kind::Done => {
                    reply.tally(1, tally);
                    return get_applied(&mut Get(&frame.body));
                }
                // Not all that was said of the old file was needed.
                Kind::Signature => {}
                _ => return Err(garbled("another answer than was asked for")),
            }
        }
    }

    /// Has the destination's file the content with that hash? For a dry run.
    pub fn has_content(&self, dir: &Dir<'_>, op: &Op, hash: &[u8; 32]) -> Result<bool> {
        let theirs = self.at.hashes(&dir.key, &[&op.name]).pop().unwrap_or_else(|| Err(garbled("no hash")))?;
        Ok(theirs.1 == *hash)
    }

    /// What an operation would do, for a dry run.
    pub fn examined(&self, op: &Op, same: impl FnOnce() -> Result<bool>, differs: impl FnOnce() -> Result<bool>) -> Result<Applied> {
        Ok(match op.what {
            What::CopyIfDifferent if same()? => {
                if self.shares_metadata(op) {
                    Applied::Updated
                } else if differs()? {
                    Applied::Metadata
                } else {
                    Applied::Same
                }
            }
            What::Copy | What::CopyIfDifferent if op.dest.is_some() => Applied::Updated,
            What::Copy | What::CopyIfDifferent => Applied::Created,
            What::Metadata => Applied::Metadata,
            What::Attributes if differs()? => Applied::Metadata,
            What::Attributes | What::Nothing | What::Ask => Applied::Same,
        })
    }

    /// Of an operation that is to be tried again: leaves nothing to do if it was done, before a connection was cut and nobody could
    /// hear of it.
    pub fn refresh(&self, dir: &Dir<'_>, op: &mut Op) -> Result<()> {
        if let Some((now, _)) = self.stat(dir, &op.name)?
            && self.is_done(op, &now)
        {
            op.what = What::Nothing;
        }
        Ok(())
    }

    fn is_done(&self, op: &Op, now: &Meta) -> bool {
        now.looks_like(&op.source)
            && !self.keep.but_owner().differs(&op.source, now, self.precision)
            && self.keep.times
            && op.source.known.mtime
            && op.dest.is_none_or(|old| old.ino != now.ino)
    }
}
