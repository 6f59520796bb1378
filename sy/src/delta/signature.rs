//! What one side tells of its blocks, and what the other keeps of it.

use blake3::Hash;

use super::Fault;
use super::blocks::{Block, Cutter};
use super::digest::{Digest, Key, short};
use super::rolling::Sum;
use super::shape::{Shape, WEAK};

/// Makes the records of a basis that goes by, in order, in pieces of any size.
#[derive(Debug)]
pub struct Signer {
    shape: Shape,
    cutter: Cutter,
    signed: u64,
    keeps: bool,
    kept: Kept,
}

/// Digests of the first blocks of a basis, which have been written to the new file too, in their old place. A `Patcher` needs not
/// read, hash and write these once more if that is where they belong.
#[derive(Debug, Default)]
pub struct Kept(pub(super) Vec<Digest>);

impl Signer {
    pub fn new(key: &Key, shape: Shape) -> Self {
        Self { shape, cutter: Cutter::new(key, shape.block(), true), signed: 0, keeps: false, kept: Kept::default() }
    }

    /// One for a basis that is copied to the new file while it is signed: before its records are sent, or as a clone.
    pub fn keeping(key: &Key, shape: Shape) -> Self {
        let kept = Kept(Vec::with_capacity(shape.blocks() as usize));
        Self { keeps: true, kept, ..Self::new(key, shape) }
    }

    /// What is pushed from here on is not copied.
    pub fn stop_keeping(&mut self) {
        self.keeps = false;
    }

    /// Takes the next bytes of the basis and adds the records that are ready to `records`. What is beyond the size that the shape
    /// has is left out.
    pub fn push(&mut self, data: &[u8], records: &mut Vec<u8>) {
        let left = self.left().min(data.len() as u64) as usize;
        self.signed += left as u64;
        let kept = self.keeps.then_some(&mut self.kept);
        let mut note = Note { shape: self.shape, kept, records };
        self.cutter.push(&data[..left], |block| note.down(&block));
    }

    /// How many bytes of the basis are still wanted.
    pub fn left(&self) -> u64 {
        self.shape.covered() - self.signed
    }

    /// Adds the last record. An error when the basis was shorter than it should be: it changed meanwhile.
    pub fn finish(mut self, records: &mut Vec<u8>) -> Result<Kept, Fault> {
        if let Some(block) = self.cutter.end() {
            let kept = self.keeps.then_some(&mut self.kept);
            Note { shape: self.shape, kept, records }.down(&block);
        }
        if self.left() > 0 { Err(Fault("the old file became shorter while it was read")) } else { Ok(self.kept) }
    }
}

/// Where a block's sums go.
struct Note<'a> {
    shape: Shape,
    kept: Option<&'a mut Kept>,
    records: &'a mut Vec<u8>,
}

impl Note<'_> {
    fn down(&mut self, block: &Block) {
        self.records.extend_from_slice(&block.sum.weak().to_le_bytes());
        self.records.extend_from_slice(&block.hash.as_bytes()[..self.shape.strong()]);
        if let Some(kept) = &mut self.kept {
            kept.0.push(short(block.hash));
        }
    }
}

/// The records of a basis, as far as they have arrived.
#[derive(Debug)]
pub struct Signature {
    shape: Shape,
    records: Vec<u8>,
}

impl Signature {
    /// Nothing is taken from memory before records arrive, whatever the shape promises.
    pub fn new(shape: Shape) -> Self {
        Self { shape, records: Vec::new() }
    }

    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Takes the next bytes of the records, split anywhere.
    pub fn push(&mut self, records: &[u8]) -> Result<(), Fault> {
        let all = self.shape.blocks() as usize * self.shape.record();
        let wanted = self.records.len() + records.len();
        if wanted > all {
            return Err(Fault("the other side sent more of a signature than there can be"));
        }
        if wanted > self.records.capacity() {
            // Growth by doubling ends with what is needed, not above it.
            self.records.reserve_exact(wanted.next_power_of_two().max(4096).min(all) - self.records.len());
        }
        self.records.extend_from_slice(records);
        Ok(())
    }

    /// How many blocks are known.
    pub fn known(&self) -> u64 {
        (self.records.len() / self.shape.record()) as u64
    }

    pub fn is_complete(&self) -> bool {
        self.known() == self.shape.blocks()
    }

    /// To be called when no more records come.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.is_complete() { Ok(()) } else { Err(Fault("the other side sent too little of a signature")) }
    }

    pub(super) fn record(&self, block: u64) -> &[u8] {
        let length = self.shape.record();
        &self.records[block as usize * length..][..length]
    }

    pub(super) fn weak(&self, block: u64) -> u32 {
        self.record(block).first_chunk::<WEAK>().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    pub(super) fn is_weakly(&self, block: u64, data: &[u8]) -> bool {
        self.weak(block) == Sum::of(data).weak()
    }

    pub(super) fn is(&self, block: u64, hash: &Hash) -> bool {
        self.record(block)[WEAK..] == hash.as_bytes()[..self.shape.strong()]
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.records.capacity()
    }
}
