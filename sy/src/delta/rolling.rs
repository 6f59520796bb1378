//! A weak sum that follows a window through a file byte by byte, and sums a block with vector instructions.

/// Lanes that a block is summed in: one vector of bytes.
const LANES: usize = 16;
/// Rows of so many lanes that are summed in 16 bits: 255 times 136, their places added up, is less than 2^16.
const ROWS: usize = 16;
const BLOCK: usize = ROWS * LANES;

/// `plain` is the sum of the bytes; in `rising` each counts as often as the window has bytes from it on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum {
    plain: u32,
    rising: u32,
}

impl Sum {
    pub fn of(data: &[u8]) -> Self {
        let mut sum = Self::default();
        sum.add(data);
        sum
    }

    /// Makes the window longer by `data`.
    pub fn add(&mut self, data: &[u8]) {
        let (blocks, rest) = data.as_chunks::<BLOCK>();
        let mut plain = [0u32; LANES];
        let mut rising = [0u32; LANES];
        for block in blocks {
            // What sixteen rows add up to fits into as many bits: half as many vectors as for sums of 32. A plain loop over all rows
            // is not made one of vectors by every way to build this.
            let (mut some, mut more) = ([0u16; LANES], [0u16; LANES]);
            for row in block.as_chunks::<LANES>().0 {
                for lane in 0..LANES {
                    some[lane] = some[lane].wrapping_add(u16::from(row[lane]));
                    more[lane] = more[lane].wrapping_add(some[lane]);
                }
            }
            for lane in 0..LANES {
                let risen = plain[lane].wrapping_mul(ROWS as u32).wrapping_add(more[lane].into());
                rising[lane] = rising[lane].wrapping_add(risen);
                plain[lane] = plain[lane].wrapping_add(some[lane].into());
            }
        }
        self.rising = self.rising.wrapping_add(self.plain.wrapping_mul((blocks.len() * BLOCK) as u32));
        for lane in 0..LANES {
            self.plain = self.plain.wrapping_add(plain[lane]);
            let before = plain[lane].wrapping_mul(lane as u32);
            self.rising = self.rising.wrapping_add(rising[lane].wrapping_mul(LANES as u32)).wrapping_sub(before);
        }
        for &byte in rest {
            self.plain = self.plain.wrapping_add(byte.into());
            self.rising = self.rising.wrapping_add(self.plain);
        }
    }

    /// Moves a window of `length` bytes on by one: `old` leaves it, `new` comes in.
    #[inline(always)]
    pub fn roll(&mut self, old: u8, new: u8, length: u32) {
        self.plain = self.plain.wrapping_sub(old.into()).wrapping_add(new.into());
        self.rising = self.rising.wrapping_sub(u32::from(old).wrapping_mul(length)).wrapping_add(self.plain);
    }

    /// Both sums together hold some 40 bits of a block; these are mixed into 32.
    #[inline(always)]
    pub fn weak(self) -> u32 {
        let both = u64::from(self.plain) << 32 | u64::from(self.rising);
        (both.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slowly(data: &[u8]) -> Sum {
        let mut sum = Sum::default();
        for (at, &byte) in data.iter().enumerate() {
            sum.plain += u32::from(byte);
            sum.rising += u32::from(byte) * (data.len() - at) as u32;
        }
        sum
    }

    #[test]
    fn the_greatest_bytes_do_not_overflow() {
        let data = [255; 1000];
        assert_eq!(Sum::of(&data), slowly(&data));
    }

    proptest::proptest! {
        #[test]
        fn a_sum_is_the_same_at_once_in_parts_and_rolled(data in proptest::collection::vec(0u8.., 1..1200), cut: usize, length: usize) {
            let cut = cut % (data.len() + 1);
            let mut parts = Sum::of(&data[..cut]);
            parts.add(&data[cut..]);
            proptest::prop_assert_eq!(parts, slowly(&data));
            let length = length % data.len() + 1;
            let mut rolled = Sum::of(&data[..length]);
            for at in 0..data.len() - length {
                proptest::prop_assert_eq!(rolled, slowly(&data[at..at + length]));
                rolled.roll(data[at], data[at + length], length as u32);
            }
            proptest::prop_assert_eq!(rolled, slowly(&data[data.len() - length..]));
        }
    }
}
