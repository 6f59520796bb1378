//! A changed file as differences from the old one, on whichever side that is. See `crate::delta` for how.

use std::os::fd::BorrowedFd;

use super::wire::{Frame, Get, Kind, Put, body, body_len, garbled};
use crate::delta::{Finding, Found, Key, Patcher, Patching, Piece, Shape, Signature, Signer, Whole, find, prefix};
use crate::error::{Result, SyncError};
use crate::transport::local::read_at;

/// From this size of both the old and the new file on, differences are looked for.
pub const WORTHWHILE: u64 = 64 << 10;
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

pub type Send<'a> = &'a mut dyn FnMut(Kind, Put) -> Result<()>;

/// Signs the old file: how it is cut, then a record for each block.
pub fn sign(key: &Key, basis: BorrowedFd<'_>, shape: Shape, send: Send<'_>) -> Result<()> {
    let mut first = body();
    first.0.extend_from_slice(&shape.encode());
    send(Kind::Signature, first)?;
    let mut signer = Signer::new(key, shape);
    let mut buffer = vec![0; PIECE];
    let mut records = body();
    let mut at = 0;
    while signer.left() > 0 {
        let want = signer.left().min(PIECE as u64) as usize;
        let n = read_at(basis, &mut buffer[..want], at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        if n == 0 {
            break;
        }
        signer.push(&buffer[..n], &mut records.0);
        at += n as u64;
        if body_len(&records) >= 8 << 10 {
            send(Kind::Signature, std::mem::replace(&mut records, body()))?;
        }
    }
    signer.finish(&mut records.0)?;
    send(Kind::Signature, records)
}

/// What is needed of the new file's side.
pub struct Search<'a> {
    pub file: BorrowedFd<'a>,
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
    let mut search = Running { outside, at: 0, pieces: body(), covered: 0, block: signature.shape().block() as u64 };
    let found = find(key, signature, &mut search)?;
    search.flush()?;
    Ok(found)
}

struct Running<'a> {
    outside: Search<'a>,
    at: u64,
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
        let n = read_at(self.outside.file, buffer, self.at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        self.at += n as u64;
        Ok(n)
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
    pub basis: BorrowedFd<'a>,
    pub write: &'a mut dyn FnMut(&[u8], u64) -> Result<()>,
    at: u64,
}

impl<'a> Patch<'a> {
    pub fn new(key: &Key, shape: Shape, size: u64, basis: BorrowedFd<'a>, write: &'a mut dyn FnMut(&[u8], u64) -> Result<()>) -> Self {
        Self { patcher: Patcher::new(key, shape, size), basis, write, at: 0 }
    }

    /// A message of pieces. Returns the bytes of the new file that it made.
    pub fn take(&mut self, pieces: &[u8]) -> Result<u64> {
        let Self { patcher, basis, write, at } = self;
        let mut outside = Outside { basis: *basis, write: *write, at };
        let before = *outside.at;
        let mut get = Get(pieces);
        while !get.is_empty() {
            match get.u8()? {
                0 => patcher.copy(get.u64()?, get.u64()?, &mut outside)?,
                1 => patcher.literal(get.bytes()?, &mut outside)?,
                _ => return Err(garbled("a piece of another kind")),
            }
        }
        Ok(*outside.at - before)
    }

    pub fn finish(self) -> Whole {
        self.patcher.finish()
    }
}

struct Outside<'a, 'b> {
    basis: BorrowedFd<'a>,
    write: &'b mut dyn FnMut(&[u8], u64) -> Result<()>,
    at: &'b mut u64,
}

impl Patching for Outside<'_, '_> {
    type Error = SyncError;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        read_at(self.basis, buffer, offset).map_err(|errno| SyncError::os(errno, "read", b""))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        (self.write)(bytes, *self.at)?;
        *self.at += bytes.len() as u64;
        Ok(())
    }
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
    let mut at = 0;
    let mut sums = body();
    let read = |buffer: &mut [u8]| {
        let n = read_at(part, buffer, at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        at += n as u64;
        Ok::<usize, SyncError>(n)
    };
    prefix::sums(key, have, read, |sum| {
        sums.0.extend_from_slice(&sum);
        if body_len(&sums) >= 4 << 10 { send(Kind::Signature, std::mem::replace(&mut sums, body())) } else { Ok(()) }
    })?;
    if body_len(&sums) > 0 { send(Kind::Signature, sums) } else { Ok(()) }
}

/// How many bytes of the other side's part are those of this file.
pub fn common_part(key: &Key, file: BorrowedFd<'_>, have: u64, next: &mut dyn FnMut() -> Result<Frame>) -> Result<u64> {
    let mut at = 0;
    let read = |buffer: &mut [u8]| {
        let n = read_at(file, buffer, at).map_err(|errno| SyncError::os(errno, "read", b""))?;
        at += n as u64;
        Ok::<usize, SyncError>(n)
    };
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
}

impl How {
    pub fn of(byte: u8) -> Result<Self> {
        [Self::Whole, Self::Difference, Self::Rest].get(usize::from(byte)).copied().ok_or_else(|| garbled("a way that there is not"))
    }
}
