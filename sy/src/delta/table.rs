//! Finds the blocks that have a weak sum. Asked once for every byte, so most questions end in a small filter.

use super::signature::Signature;

/// How far from its place a block may be put. Blocks of one sum beyond that are left out: only data made for it has that many.
const FAR: usize = 64;
/// Of the slots with a block, no more than half are taken; of the filter's bits, no more than one in 8.
const SPARSE: usize = 2;
const SPARSER: usize = 8;

#[derive(Debug)]
pub(super) struct Table {
    filter: Vec<u64>,
    /// How far a weak sum is shifted to become a bit of the filter.
    shift: u32,
    /// Numbers of blocks plus one; 0 is free.
    slots: Vec<u32>,
}

impl Table {
    /// Of all whole blocks. Of blocks with one content the first stands for all.
    pub fn of(signature: &Signature) -> Self {
        let blocks = signature.shape().full();
        let size = (blocks as usize * SPARSE).next_power_of_two();
        let bits = (blocks as usize * SPARSER).next_power_of_two().max(64);
        let mut table = Self { filter: vec![0; bits / 64], shift: 32 - bits.ilog2(), slots: vec![0; size] };
        for block in 0..blocks {
            table.insert(signature, block);
        }
        table
    }

    fn insert(&mut self, signature: &Signature, block: u64) {
        let weak = signature.weak(block);
        let mask = self.slots.len() - 1;
        for step in 0..FAR {
            let slot = &mut self.slots[(home(weak) + step) & mask];
            if *slot == 0 {
                *slot = block as u32 + 1;
                let bit = weak >> self.shift;
                self.filter[bit as usize / 64] |= 1 << (bit % 64);
                return;
            }
            if signature.record(u64::from(*slot - 1)) == signature.record(block) {
                return;
            }
        }
    }

    /// False means that no block has this sum.
    #[inline(always)]
    pub fn may_have(&self, weak: u32) -> bool {
        let bit = weak >> self.shift;
        self.filter[bit as usize / 64] >> (bit % 64) & 1 != 0
    }

    /// The blocks that have this sum.
    pub fn get(&self, signature: &Signature, weak: u32) -> impl Iterator<Item = u64> {
        let mask = self.slots.len() - 1;
        let slots = (0..FAR).map(move |step| self.slots[(home(weak) + step) & mask]);
        slots.take_while(|slot| *slot != 0).map(|slot| u64::from(slot - 1)).filter(move |block| signature.weak(*block) == weak)
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.filter.len() * 8 + self.slots.len() * 4
    }
}

/// Not the bits that the filter takes.
fn home(weak: u32) -> usize {
    weak.wrapping_mul(0x9e37_79b1).rotate_left(16) as usize
}
