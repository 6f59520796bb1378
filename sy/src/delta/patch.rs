//! Puts the new file together from pieces and the basis.

use super::blocks::Cutter;
use super::digest::{Key, Transcript, Whole, short};
use super::shape::Shape;
use super::signature::Kept;
use super::{Fault, PIECE};

/// What a patch needs from outside. Any error ends it.
pub trait Patching {
    type Error: From<Fault>;

    /// Reads from the basis at `offset`; how many bytes. 0 is the end.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Takes the next bytes of the new file; their place is `offset`. Only blocks that were kept are left out.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Takes the pieces of one file in order.
#[derive(Debug)]
pub struct Patcher {
    shape: Shape,
    limit: u64,
    kept: Kept,
    transcript: Transcript,
    cutter: Cutter,
    buffer: Vec<u8>,
}

impl Patcher {
    /// The new file gets no longer than `limit` bytes, whatever the other side sends. If blocks were kept, it may be longer than
    /// its size in the end, and has to be cut off there.
    pub fn new(key: &Key, shape: Shape, limit: u64, kept: Kept) -> Self {
        let cutter = Cutter::new(key, shape.block(), false);
        Self { shape, limit, kept, transcript: Transcript::new(key), cutter, buffer: Vec::new() }
    }

    /// Bytes of the new file so far.
    pub fn size(&self) -> u64 {
        self.transcript.size()
    }

    pub fn literal<P: Patching>(&mut self, bytes: &[u8], outside: &mut P) -> Result<(), P::Error> {
        self.check(bytes.len() as u64)?;
        outside.write(self.size(), bytes)?;
        self.transcript.literal(bytes);
        Ok(())
    }

    pub fn copy<P: Patching>(&mut self, block: u64, count: u64, outside: &mut P) -> Result<(), P::Error> {
        let end = block.checked_add(count).filter(|end| count > 0 && *end <= self.shape.blocks());
        let end = self.shape.start(end.ok_or(Fault("the other side wants blocks that are not there"))?);
        self.check(end - self.shape.start(block))?;
        let mut offset = self.shape.start(block + self.in_place(block, count));
        let mut place = self.size();
        self.buffer.resize(PIECE, 0);
        while offset < end {
            let wanted = (end - offset).min(PIECE as u64) as usize;
            let read = outside.read(offset, &mut self.buffer[..wanted])?.min(wanted);
            if read == 0 {
                return Err(Fault("the old file became shorter while it was read").into());
            }
            let bytes = &self.buffer[..read];
            self.cutter.push(bytes, |block| self.transcript.block(block.length as u64, short(block.hash)));
            outside.write(place, bytes)?;
            place += read as u64;
            offset += read as u64;
        }
        if let Some(block) = self.cutter.end() {
            self.transcript.block(block.length as u64, short(block.hash));
        }
        Ok(())
    }

    /// How many of these blocks are in the new file already.
    fn in_place(&mut self, block: u64, count: u64) -> u64 {
        if self.size() != self.shape.start(block) {
            return 0;
        }
        let end = (block + count).min(self.kept.0.len() as u64);
        for block in block..end {
            self.transcript.block(self.shape.length(block) as u64, self.kept.0[block as usize]);
        }
        end.saturating_sub(block)
    }

    /// What was written, to compare with what the other side read.
    pub fn finish(self) -> Whole {
        self.transcript.finish()
    }

    fn check(&self, more: u64) -> Result<(), Fault> {
        let fits = self.size().checked_add(more).is_some_and(|size| size <= self.limit);
        if fits { Ok(()) } else { Err(Fault("the other side sent more of a file than it said")) }
    }
}
