//! A changed file as differences from the old one, on whichever side that is. See `crate::delta` for how.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::wire::{Frame, Get, Kind, Put, body, body_len, garbled};
use crate::delta::{Finding, Found, Kept, Key, Patcher, Patching, Piece, Shape, Signature, Signer, Whole, find, prefix};
use crate::error::{Result, SyncError};
use crate::pages::{PAGE, first_page};
use crate::transport::local::read_at;
use crate::transport::{Kind as FileKind, Meta};

/// From this size of both the old and the new file on, differences are looked for.
const WORTHWHILE: u64 = 64 << 10;

/// Is a file better sent as differences? One that is nearly all holes has less to be sent than would be read.
pub fn is_worthwhile(new: &Meta, old: &Meta) -> bool {
    old.kind == FileKind::File && old.size >= WORTHWHILE && new.size >= WORTHWHILE && new.allocated >= new.size / 8
}
/// Bytes of a message of pieces, about.
const TOGETHER: usize = 64 << 10;
/// After so much of the new file a message goes out, however small, so that the other side has work.
const OVERDUE: u64 = 4 << 20;
const PIECE: usize = 256 << 10;

/// Bytes that the other side has to know to compute the same digests.
pub type Secret = [u8; 32];

pub fn secret() -> Result<Secret> {
    use std::io::Read;
    let mut secret = [0; 32];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut secret));
    read.map(|()| secret).map_err(|error| SyncError::io(&error, "read", "/dev/urandom"))
}

/// Gives the next bytes of a file; none at its end.
pub type Read<'a> = &'a mut dyn FnMut(&mut [u8]) -> Result<usize>;

/// Reads an open file from its beginning on.
pub fn from_start(file: BorrowedFd<'_>) -> impl FnMut(&mut [u8]) -> Result<usize> + '_ {
    let mut at = 0;
    move |buffer| {
        let n = read_at(file, buffer, at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        at += n as u64;
        Ok(n)
    }
}

pub type Send<'a> = &'a mut dyn FnMut(Kind, Put) -> Result<()>;

/// The old file, which is signed and put where the new one comes to be.
pub struct Basis<'a> {
    pub file: BorrowedFd<'a>,
    pub shape: Shape,
    /// Writes what may stay in place.
    pub keep: &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync),
    /// The other side found that something is not where it was: no more is worth keeping.
    pub moved: &'a AtomicBool,
}

/// Signs the old file: how it is cut, then a record for each block. What is in place already need not be written again.
pub fn sign(key: &Key, basis: &Basis<'_>, send: Send<'_>) -> Result<Kept> {
    let shape = basis.shape;
    let mut first = body();
    first.0.extend_from_slice(&shape.encode());
    send(Kind::Signature, first)?;
    let mut signer = Signer::keeping(key, shape);
    let mut space = vec![0; PIECE + PAGE];
    let start = first_page(&space);
    let buffer = &mut space[start..start + PIECE];
    let mut records = body();
    let (mut at, mut keeps) = (0, true);
    while signer.left() > 0 {
        let want = signer.left().min(PIECE as u64) as usize;
        let n = read_at(basis.file, &mut buffer[..want], at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        if n == 0 {
            break;
        }
        if keeps && basis.moved.load(Relaxed) {
            keeps = false;
            signer.stop_keeping();
        }
        if keeps {
            (basis.keep)(&buffer[..n], at)?;
        }
        signer.push(&buffer[..n], &mut records.0);
        at += n as u64;
        if body_len(&records) >= 8 << 10 {
            send(Kind::Signature, std::mem::replace(&mut records, body()))?;
        }
    }
    let kept = signer.finish(&mut records.0)?;
    send(Kind::Signature, records)?;
    Ok(kept)
}

/// What is needed of the new file's side.
pub struct Search<'a> {
    /// Reads it, from its beginning on.
    pub read: Read<'a>,
    /// The next message of the other side: its signature.
    pub next: &'a mut dyn FnMut() -> Result<Frame>,
    pub send: Send<'a>,
    /// Hears of bytes of the new file that are done.
    pub seen: &'a mut dyn FnMut(u64) -> Result<()>,
}

/// Finds out what of a file the other side has, and sends the rest.
pub fn search(key: &Key, outside: Search<'_>) -> Result<Found> {
    let first = (outside.next)()?;
    let shape: &[u8; Shape::ENCODED] = first.body[..].try_into().map_err(|_| garbled("no signature"))?;
    let signature = Signature::new(Shape::decode(shape)?);
    let mut search = Running { outside, pieces: body(), covered: 0, block: signature.shape().block() as u64 };
    let found = find(key, signature, &mut search)?;
    search.flush()?;
    Ok(found)
}

struct Running<'a> {
    outside: Search<'a>,
    pieces: Put,
    /// Bytes of the new file that the pieces stand for.
    covered: u64,
    block: u64,
}

impl Running<'_> {
    fn flush(&mut self) -> Result<()> {
        (self.outside.seen)(std::mem::take(&mut self.covered))?;
        if body_len(&self.pieces) == 0 {
            return Ok(());
        }
        (self.outside.send)(Kind::Copy, std::mem::replace(&mut self.pieces, body()))
    }
}

impl Finding for Running<'_> {
    type Error = SyncError;

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        (self.outside.read)(buffer)
    }

    fn wait(&mut self, signature: &mut Signature, wanted: u64) -> Result<()> {
        while signature.known() < wanted && !signature.is_complete() {
            let frame = (self.outside.next)()?;
            if frame.kind != Kind::Signature {
                return Err(garbled("no signature"));
            }
            signature.push(&frame.body)?;
        }
        Ok(())
    }

    fn moved(&mut self) -> Result<()> {
        self.flush()?;
        // A message of no pieces says it.
        (self.outside.send)(Kind::Copy, body())
    }

    fn piece(&mut self, piece: Piece<'_>) -> Result<()> {
        match piece {
            Piece::Copy { block, count } => {
                self.pieces.u8(0).u64(block).u64(count);
                self.covered += count * self.block;
            }
            Piece::Literal(bytes) => {
                self.pieces.u8(1).bytes(bytes);
                self.covered += bytes.len() as u64;
            }
        }
        if body_len(&self.pieces) >= TOGETHER || self.covered >= OVERDUE { self.flush() } else { Ok(()) }
    }
}

/// The side of the old file: puts the new one together.
pub struct Patch<'a> {
    patcher: Patcher,
    basis: BorrowedFd<'a>,
    write: &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync),
}

impl<'a> Patch<'a> {
    pub fn new(key: &Key, basis: &Basis<'a>, size: u64, kept: Kept) -> Self {
        Self { patcher: Patcher::new(key, basis.shape, size, kept), basis: basis.file, write: basis.keep }
    }

    /// A message of pieces. Returns the bytes of the new file that it made.
    pub fn take(&mut self, pieces: &[u8]) -> Result<u64> {
        let before = self.patcher.size();
        let mut outside = Outside { basis: self.basis, write: self.write };
        let mut get = Get(pieces);
        while !get.is_empty() {
            match get.u8()? {
                0 => self.patcher.copy(get.u64()?, get.u64()?, &mut outside)?,
                1 => self.patcher.literal(get.bytes()?, &mut outside)?,
                _ => return Err(garbled("a piece of another kind")),
            }
        }
        Ok(self.patcher.size() - before)
    }

    pub fn finish(self) -> Whole {
        self.patcher.finish()
    }
}

struct Outside<'a> {
    basis: BorrowedFd<'a>,
    write: &'a (dyn Fn(&[u8], u64) -> Result<()> + Sync),
}

impl Patching for Outside<'_> {
    type Error = SyncError;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_at(self.basis, buffer, offset).map_err(|errno| SyncError::os(errno, "read", b""))
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        (self.write)(bytes, offset)
    }
}

/// Pieces that came while the old file is still being signed, for they can't be put together before. Bytes, at most.
const BACKLOG: usize = 4 << 20;

/// Signs the old file and puts the new one together from what `next` gives, until `end` takes a message that is no piece.
/// Returns that message and the digest of the new file, which is cut to its size.
pub fn rebuild(
    key: &Key,
    basis: &Basis<'_>,
    size: u64,
    send: &(dyn Fn(Kind, Put) -> Result<()> + Sync),
    next: &mut dyn FnMut() -> Result<Frame>,
    made: &mut dyn FnMut(usize, u64) -> Result<()>,
) -> Result<(Frame, Whole)> {
    std::thread::scope(|threads| {
        let signing = threads.spawn(|| sign(key, basis, &mut |kind, records| send(kind, records)));
        let mut backlog = std::collections::VecDeque::new();
        let mut waiting = 0;
        while !signing.is_finished() && waiting < BACKLOG {
            let frame = next()?;
            if frame.kind == Kind::Copy && frame.body.is_empty() {
                basis.moved.store(true, Relaxed);
            }
            let last = frame.kind != Kind::Copy;
            waiting += frame.body.len();
            backlog.push_back(frame);
            if last {
                break;
            }
        }
        let kept = signing.join().map_err(|_| garbled("no signature"))??;
        let mut patch = Patch::new(key, basis, size, kept);
        loop {
            let frame = match backlog.pop_front() {
                Some(frame) => frame,
                None => next()?,
            };
            if frame.kind != Kind::Copy {
                return Ok((frame, patch.finish()));
            }
            let bytes = patch.take(&frame.body)?;
            made(frame.body.len(), bytes)?;
        }
    })
}

pub fn put_whole(put: &mut Put, whole: &Whole) {
    put.u64(whole.size);
    put.0.extend_from_slice(&whole.digest);
}

/// Is it the digest that the other side sent?
pub fn is_whole(sent: &[u8], whole: &Whole) -> bool {
    let mut own = Put::default();
    put_whole(&mut own, whole);
    own.0 == sent
}

/// The sums of the pieces of a file that was cut off, as one message or several.
pub fn sum_part(key: &Key, part: BorrowedFd<'_>, have: u64, send: Send<'_>) -> Result<()> {
    let mut sums = body();
    prefix::sums(key, have, from_start(part), |sum| {
        sums.0.extend_from_slice(&sum);
        if body_len(&sums) >= 4 << 10 { send(Kind::Signature, std::mem::replace(&mut sums, body())) } else { Ok(()) }
    })?;
    if body_len(&sums) > 0 { send(Kind::Signature, sums) } else { Ok(()) }
}

/// How many bytes of the other side's part are those of this file.
pub fn common_part(key: &Key, read: Read<'_>, have: u64, next: &mut dyn FnMut() -> Result<Frame>) -> Result<u64> {
    let mut waiting: Vec<prefix::Sum> = Vec::new();
    let mut taken = 0;
    let same = prefix::common(key, have, read, || {
        while taken == waiting.len() {
            waiting.clear();
            taken = 0;
            let frame = next()?;
            if frame.kind != Kind::Signature || frame.body.len() % size_of::<prefix::Sum>() != 0 || frame.body.is_empty() {
                return Err(garbled("no sums"));
            }
            waiting.extend(frame.body.as_chunks().0.iter().copied());
        }
        taken += 1;
        Ok(waiting[taken - 1])
    })?;
    Ok(same)
}

/// How a large file travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum How {
    Whole,
    Difference,
    /// The other side has the beginning of it.
    Rest,
    /// What it does not have the beginning of comes in ranges, over several connections.
    Ranges,
}

impl How {
    pub fn of(byte: u8) -> Result<Self> {
        [Self::Whole, Self::Difference, Self::Rest, Self::Ranges]
            .get(usize::from(byte))
            .copied()
            .ok_or_else(|| garbled("a way that there is not"))
    }
}
