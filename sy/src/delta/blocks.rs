//! Cuts a stream that comes in any pieces into blocks, and sums them.

use blake3::{Hash, Hasher};

use super::digest::Key;
use super::rolling::Sum;

/// One block that has gone by. The weak sum is zero where it was not wanted.
pub(super) struct Block {
    pub sum: Sum,
    pub hash: Hash,
    pub length: usize,
}

#[derive(Debug)]
pub(super) struct Cutter {
    length: usize,
    weighs: bool,
    hasher: Hasher,
    sum: Sum,
    /// Bytes of the block that is under way.
    have: usize,
}

impl Cutter {
    pub fn new(key: &Key, length: usize, weighs: bool) -> Self {
        Self { length, weighs, hasher: key.block_hasher(), sum: Sum::default(), have: 0 }
    }

    pub fn push(&mut self, mut data: &[u8], mut each: impl FnMut(Block)) {
        while !data.is_empty() {
            let (part, rest) = data.split_at(data.len().min(self.length - self.have));
            self.hasher.update(part);
            if self.weighs {
                self.sum.add(part);
            }
            self.have += part.len();
            data = rest;
            if self.have == self.length {
                each(self.cut());
            }
        }
    }

    /// Ends the block that is under way, if there is one. The next byte begins another.
    pub fn end(&mut self) -> Option<Block> {
        (self.have > 0).then(|| self.cut())
    }

    fn cut(&mut self) -> Block {
        let block = Block { sum: std::mem::take(&mut self.sum), hash: self.hasher.finalize(), length: self.have };
        self.hasher.reset();
        self.have = 0;
        block
    }
}
