//! A weak sum that follows a window through a file byte by byte, and sums a block with vector instructions.

/// Lanes that a block is summed in: one vector of bytes.
const LANES: usize = 16;

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
        let (rows, rest) = data.as_chunks::<LANES>();
        let mut plain = [0u32; LANES];
        let mut rising = [0u32; LANES];
        for row in rows {
            for lane in 0..LANES {
                plain[lane] = plain[lane].wrapping_add(u32::from(row[lane]));
                rising[lane] = rising[lane].wrapping_add(plain[lane]);
            }
        }
        self.rising = self.rising.wrapping_add(self.plain.wrapping_mul((rows.len() * LANES) as u32));
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

    proptest::proptest! {
        #[test]
        fn a_sum_is_the_same_at_once_in_parts_and_rolled(data in proptest::collection::vec(0u8.., 1..300), cut: usize, length: usize) {
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
