//! How a basis is cut into blocks, and how long their strong sums are.

use super::Fault;

/// So that a signature with its table stays below 32 MiB.
pub(super) const MAX_BLOCKS: u64 = 1 << 20;
pub(super) const MIN_BLOCK: u32 = 1 << 10;
pub(super) const MAX_BLOCK: u32 = 8 << 20;
/// Bytes of a weak sum in a record.
pub(super) const WEAK: usize = 4;
const STRONG: std::ops::RangeInclusive<u8> = 5..=12;
/// Two to the power of minus this is how likely a false match is in a file as large as the basis.
const DOUBT: u32 = 36;

/// How a basis of `size` bytes is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    size: u64,
    block: u32,
    strong: u8,
}

impl Shape {
    /// Bytes of a `Shape` on the wire.
    pub const ENCODED: usize = 13;

    /// Blocks are about as long as they are many, so that the signature and what a small change costs grow alike. From 16 KiB on
    /// their length is a multiple of 4 or 8 KiB, where the hash is fastest.
    pub fn of(size: u64) -> Self {
        let root = size.isqrt().max(size.div_ceil(MAX_BLOCKS)).clamp(MIN_BLOCK.into(), MAX_BLOCK.into());
        let unit = (1 << (root.ilog2() - 2)).min(8 << 10);
        let mut block = (root + unit / 2) / unit * unit;
        if size.div_ceil(block) > MAX_BLOCKS {
            block = (block + unit).min(MAX_BLOCK.into());
        }
        let shape = Self { size, block: block as u32, strong: 0 };
        let bits = size.max(1).ilog2() + shape.blocks().max(1).ilog2() + 2 + DOUBT - 8 * WEAK as u32;
        Self { strong: (bits.div_ceil(8) as u8).clamp(*STRONG.start(), *STRONG.end()), ..shape }
    }

    /// Size of the basis.
    pub fn size(self) -> u64 {
        self.size
    }

    /// Bytes of a block, except the last one, which may be shorter.
    pub fn block(self) -> usize {
        self.block as usize
    }

    /// Bytes of a strong sum in a record.
    pub fn strong(self) -> usize {
        self.strong.into()
    }

    /// Bytes of a record of a signature.
    pub fn record(self) -> usize {
        WEAK + self.strong()
    }

    /// Bytes of the basis that are in blocks: all, except of a basis beyond 8 TiB.
    pub fn covered(self) -> u64 {
        self.size.min(MAX_BLOCKS * u64::from(MAX_BLOCK))
    }

    pub fn blocks(self) -> u64 {
        self.covered().div_ceil(self.block.into())
    }

    /// Where a block begins in the basis. `block` may be the number of blocks, for where the last one ends.
    pub(super) fn start(self, block: u64) -> u64 {
        (block * u64::from(self.block)).min(self.covered())
    }

    pub(super) fn length(self, block: u64) -> usize {
        (self.start(block + 1) - self.start(block)) as usize
    }

    /// How many blocks are as long as the others.
    pub(super) fn full(self) -> u64 {
        self.covered() / u64::from(self.block)
    }

    pub fn encode(self) -> [u8; Self::ENCODED] {
        let mut bytes = [0; Self::ENCODED];
        bytes[..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.block.to_le_bytes());
        bytes[12] = self.strong;
        bytes
    }

    /// From the other side, which may lie.
    pub fn decode(bytes: &[u8; Self::ENCODED]) -> Result<Self, Fault> {
        let [s0, s1, s2, s3, s4, s5, s6, s7, b0, b1, b2, b3, strong] = *bytes;
        let size = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
        let shape = Self { size, block: u32::from_le_bytes([b0, b1, b2, b3]), strong };
        let sane = (MIN_BLOCK..=MAX_BLOCK).contains(&shape.block) && STRONG.contains(&strong);
        if sane && shape.blocks() <= MAX_BLOCKS { Ok(shape) } else { Err(Fault("the other side cuts a file in a way that can't be")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_grow_with_the_file_and_their_number_is_bounded() {
        let block = |size: u64| Shape::of(size).block();
        assert_eq!([block(0), block(1 << 20), block(256 << 20), block(2 << 30)], [1024, 1024, 16384, 49152]);
        for power in 0..64 {
            for size in [1u64 << power, (1 << power) - 1, 3 << power >> 1] {
                let shape = Shape::of(size);
                assert!(shape.blocks() <= MAX_BLOCKS, "{shape:?}");
                assert_eq!(Shape::decode(&shape.encode()), Ok(shape));
            }
        }
        assert!(Shape::of(u64::MAX).blocks() <= MAX_BLOCKS);
        assert_eq!(Shape::of(u64::MAX).length(MAX_BLOCKS - 1), MAX_BLOCK as usize);
    }

    #[test]
    fn the_last_block_is_what_is_left() {
        let shape = Shape::of(2500);
        assert_eq!((shape.blocks(), shape.full()), (3, 2));
        assert_eq!([shape.length(0), shape.length(1), shape.length(2)], [1024, 1024, 452]);
        assert_eq!(Shape::of(0).blocks(), 0);
        assert_eq!(Shape::of(2048).length(1), 1024);
    }

    #[test]
    fn shapes_that_can_t_be_are_refused() {
        let shape = |size, block, strong| Shape::decode(&Shape { size, block, strong }.encode()).is_ok();
        assert!(shape(1 << 30, 1024, 5));
        assert!(!shape((1 << 30) + 1, 1024, 5), "too many blocks");
        for block in [0, 1, 1023, (8 << 20) + 1, u32::MAX] {
            assert!(!shape(1 << 20, block, 6));
        }
        assert!(!shape(1 << 20, 1024, 0) && !shape(1 << 20, 1024, 4) && !shape(1 << 20, 1024, 255));
        assert!(shape(u64::MAX, 8 << 20, 9));
    }
}
