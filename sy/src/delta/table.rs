//! Finds the blocks that have a weak sum. Asked once for every byte, so most questions end in a small filter.

use super::rolling::Sum;
use super::signature::Signature;

/// How far from its place a block may be put. Blocks of one sum beyond that are left out: only data made for it has that many.
const FAR: usize = 64;
/// Of the slots, no more than half are taken.
const SPARSE: usize = 2;
/// Of the filter's bits about one in 32 is set, as long as the filter fits into a cache.
const FILTER: usize = 32;
const MOST_BITS: usize = 1 << 24;
/// In a slot, the number of a block plus one. Above it a part of its weak sum, which spares most looks at the records.
const NUMBER: u32 = (1 << 21) - 1;

#[derive(Debug)]
pub(super) struct Table {
    filter: Vec<u64>,
    /// How far a weak sum is shifted to become a bit of the filter.
    shift: u32,
    /// 0 is free.
    slots: Vec<u32>,
}

impl Table {
    /// Of all whole blocks. Of blocks with one content the first stands for all.
    pub fn of(signature: &Signature) -> Self {
        let blocks = signature.shape().full();
        let size = (blocks as usize * SPARSE).next_power_of_two();
        let bits = (blocks as usize * FILTER).next_power_of_two().clamp(64, MOST_BITS);
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
                *slot = tag(weak) | (block as u32 + 1);
                let bit = weak >> self.shift;
                self.filter[bit as usize / 64] |= 1 << (bit % 64);
                return;
            }
            if signature.record(number(*slot)) == signature.record(block) {
                return;
            }
        }
    }

    /// Rolls a window of `length` bytes on until a block has its weak sum, or `old` and `new` end. How far it went.
    pub fn scan(&self, signature: &Signature, window: &mut Sum, old: &[u8], new: &[u8], length: u32) -> usize {
        let (filter, shift) = (self.filter.as_slice(), self.shift);
        let mut sum = *window;
        let mut moved = 0;
        for (&old, &new) in old.iter().zip(new) {
            sum.roll(old, new, length);
            moved += 1;
            let weak = sum.weak();
            if passes(filter, shift, weak) && self.has(signature, weak) {
                break;
            }
        }
        *window = sum;
        moved
    }

    /// Whether a block has this sum. Rarely asked by `scan`, so kept out of its loop.
    #[cold]
    #[inline(never)]
    pub fn has(&self, signature: &Signature, weak: u32) -> bool {
        self.get(signature, weak).next().is_some()
    }

    /// The blocks that have this sum.
    pub fn get(&self, signature: &Signature, weak: u32) -> impl Iterator<Item = u64> {
        let mask = self.slots.len() - 1;
        let slots = (0..FAR).map(move |step| self.slots[(home(weak) + step) & mask]).take_while(|slot| *slot != 0);
        slots.filter(move |slot| slot & !NUMBER == tag(weak)).map(number).filter(move |block| signature.weak(*block) == weak)
    }

    /// Bytes of memory.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.filter.len() * 8 + self.slots.len() * 4
    }
}

#[inline(always)]
fn passes(filter: &[u64], shift: u32, weak: u32) -> bool {
    let bit = weak >> shift;
    // The mask changes nothing; with it the compiler knows that the index is inside.
    filter[(bit as usize / 64) & (filter.len() - 1)] >> (bit % 64) & 1 != 0
}

fn number(slot: u32) -> u64 {
    u64::from((slot & NUMBER) - 1)
}

fn tag(weak: u32) -> u32 {
    weak << 21
}

/// Where to look first: other bits than those that are in the filter or a tag.
fn home(weak: u32) -> usize {
    weak.wrapping_mul(0x9e37_79b1).rotate_left(16) as usize
}
