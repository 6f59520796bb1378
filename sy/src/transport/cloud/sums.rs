//! Check sums of content, as object stores know them.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crc_fast::{CrcAlgorithm, Digest};
use md5::Digest as _;

/// Which sums.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kinds {
    pub crc64: bool,
    pub crc32c: bool,
    pub crc32: bool,
    pub sha1: bool,
    pub sha256: bool,
    pub md5: bool,
}

impl Kinds {
    pub const NONE: Self = Self { crc64: false, crc32c: false, crc32: false, sha1: false, sha256: false, md5: false };
    pub const CRC64: Self = Self { crc64: true, ..Self::NONE };
    pub const CRC32C: Self = Self { crc32c: true, ..Self::NONE };
    pub const MD5: Self = Self { md5: true, ..Self::NONE };

    /// These, and those as well.
    pub fn and(self, more: Self) -> Self {
        Self {
            crc64: self.crc64 || more.crc64,
            crc32c: self.crc32c || more.crc32c,
            crc32: self.crc32 || more.crc32,
            sha1: self.sha1 || more.sha1,
            sha256: self.sha256 || more.sha256,
            md5: self.md5 || more.md5,
        }
    }

    /// Whether sums of parts make the sum of the whole.
    pub fn combine(self) -> bool {
        !self.md5 && !self.sha1 && !self.sha256
    }
}

/// The sums that are known of some content.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sums {
    /// CRC-64/NVME.
    pub crc64: Option<u64>,
    pub crc32c: Option<u32>,
    pub crc32: Option<u32>,
    pub sha1: Option<[u8; 20]>,
    pub sha256: Option<[u8; 32]>,
    pub md5: Option<[u8; 16]>,
}

impl Sums {
    /// The sums that both know are equal; `None` if they know none in common.
    pub fn agree(&self, other: &Self) -> Option<bool> {
        fn same<T: PartialEq>(a: Option<T>, b: Option<T>) -> Option<bool> {
            Some(a? == b?)
        }
        [
            same(self.crc64, other.crc64),
            same(self.crc32c, other.crc32c),
            same(self.crc32, other.crc32),
            same(self.sha1, other.sha1),
            same(self.sha256, other.sha256),
            same(self.md5, other.md5),
        ]
        .into_iter()
        .flatten()
        .reduce(|a, b| a && b)
    }

    /// The kinds that are known.
    pub fn kinds(&self) -> Kinds {
        Kinds {
            crc64: self.crc64.is_some(),
            crc32c: self.crc32c.is_some(),
            crc32: self.crc32.is_some(),
            sha1: self.sha1.is_some(),
            sha256: self.sha256.is_some(),
            md5: self.md5.is_some(),
        }
    }

    /// The cheapest kind to check against.
    pub fn best(&self) -> Kinds {
        match self {
            Self { crc64: Some(_), .. } => Kinds::CRC64,
            Self { crc32c: Some(_), .. } => Kinds::CRC32C,
            Self { crc32: Some(_), .. } => Kinds { crc32: true, ..Kinds::NONE },
            Self { md5: Some(_), .. } => Kinds::MD5,
            Self { sha1: Some(_), .. } => Kinds { sha1: true, ..Kinds::NONE },
            Self { sha256: Some(_), .. } => Kinds { sha256: true, ..Kinds::NONE },
            _ => Kinds::NONE,
        }
    }

    /// The bytes of what is known, as they stand in a sum of sums.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend(self.crc64.iter().flat_map(|sum| sum.to_be_bytes()));
        for sum in [self.crc32c, self.crc32].into_iter().flatten() {
            out.extend(sum.to_be_bytes());
        }
        out.extend(self.sha1.iter().flatten());
        out.extend(self.sha256.iter().flatten());
        out.extend(self.md5.iter().flatten());
    }

    /// The sums of this content followed by another of `size` bytes. MD5 and SHA can't be put together.
    #[must_use]
    pub fn followed_by(&self, next: &Self, size: u64) -> Self {
        let combine = |algorithm, a: Option<u64>, b: Option<u64>| Some(crc_fast::checksum_combine(algorithm, a?, b?, size));
        let short = |sum: Option<u32>| sum.map(u64::from);
        Self {
            crc64: combine(CrcAlgorithm::Crc64Nvme, self.crc64, next.crc64),
            crc32c: combine(CrcAlgorithm::Crc32Iscsi, short(self.crc32c), short(next.crc32c)).map(|sum| sum as u32),
            crc32: combine(CrcAlgorithm::Crc32IsoHdlc, short(self.crc32), short(next.crc32)).map(|sum| sum as u32),
            ..Self::default()
        }
    }
}

/// Sums content as it passes by.
#[derive(Clone)]
pub struct Summer {
    crc64: Option<Digest>,
    crc32c: Option<Digest>,
    crc32: Option<Digest>,
    sha1: Option<sha1::Sha1>,
    sha256: Option<sha2::Sha256>,
    md5: Option<md5::Md5>,
}

impl Summer {
    pub fn new(kinds: Kinds) -> Self {
        let crc = |wanted: bool, algorithm| wanted.then(|| Digest::new(algorithm));
        Self {
            crc64: crc(kinds.crc64, CrcAlgorithm::Crc64Nvme),
            crc32c: crc(kinds.crc32c, CrcAlgorithm::Crc32Iscsi),
            crc32: crc(kinds.crc32, CrcAlgorithm::Crc32IsoHdlc),
            sha1: kinds.sha1.then(sha1::Sha1::new),
            sha256: kinds.sha256.then(sha2::Sha256::new),
            md5: kinds.md5.then(md5::Md5::new),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        for crc in [&mut self.crc64, &mut self.crc32c, &mut self.crc32].into_iter().flatten() {
            crc.update(bytes);
        }
        if let Some(sha1) = &mut self.sha1 {
            sha1.update(bytes);
        }
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(bytes);
        }
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
    }

    pub fn finish(self) -> Sums {
        Sums {
            crc64: self.crc64.map(|crc| crc.finalize()),
            crc32c: self.crc32c.map(|crc| crc.finalize() as u32),
            crc32: self.crc32.map(|crc| crc.finalize() as u32),
            sha1: self.sha1.map(|sha1| sha1.finalize().into()),
            sha256: self.sha256.map(|sha256| sha256.finalize().into()),
            md5: self.md5.map(|md5| md5.finalize().into()),
        }
    }
}

impl std::fmt::Debug for Summer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summer").finish_non_exhaustive()
    }
}

/// The sums of what is in memory.
pub fn of(bytes: &[u8], kinds: Kinds) -> Sums {
    let mut summer = Summer::new(kinds);
    summer.update(bytes);
    summer.finish()
}

pub fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

/// The MD5 that a tag is, where it is one.
pub fn md5_from_hex(tag: &str) -> Option<[u8; 16]> {
    let hex = tag.len() == 32 && tag.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| u128::from_str_radix(tag, 16).ok().map(u128::to_be_bytes)).flatten()
}

/// `None` unless it is the base 64 of exactly `N` bytes.
pub fn from_base64<const N: usize>(text: &str) -> Option<[u8; N]> {
    BASE64_STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Kinds = Kinds { crc64: true, crc32c: true, crc32: true, sha1: true, sha256: true, md5: true };

    #[test]
    fn known_values() {
        let sums = of(b"123456789", ALL);
        assert_eq!(sums.crc64, Some(0xae8b_1486_0a79_9888));
        assert_eq!(sums.crc32c, Some(0xe306_9283));
        assert_eq!(sums.crc32, Some(0xcbf4_3926));
        assert_eq!(sums.md5.map(|sum| base64(&sum)).as_deref(), Some("JfnnlDI7RTiF9RgfG2JNCw=="));
        assert_eq!(sums.sha1.map(|sum| base64(&sum)).as_deref(), Some("98O8HYCOBHMq32eZZczDTKeuNEE="));
        assert_eq!(sums.sha256.map(|sum| base64(&sum)).as_deref(), Some("FeKw08M4keuw8e9gnsQZQgwg4yDOlMZfvIwzEkSOsiU="));
    }

    #[test]
    fn a_tag_is_a_sum_only_if_it_looks_like_one() {
        assert_eq!(md5_from_hex("25f9e794323b453885f5181f1b624d0b"), of(b"123456789", Kinds::MD5).md5);
        for tag in ["25f9e794323b453885f5181f1b624d0b-2", "zzf9e794323b453885f5181f1b624d0b", "+5f9e794323b453885f5181f1b624d0b", ""] {
            assert_eq!(md5_from_hex(tag), None);
        }
    }

    #[test]
    fn agreement_needs_something_in_common() {
        let (a, b) = (of(b"a", Kinds::CRC64), of(b"b", ALL));
        assert_eq!(a.agree(&b), Some(false));
        assert_eq!(a.agree(&of(b"a", ALL)), Some(true));
        assert_eq!(a.agree(&of(b"a", Kinds::MD5)), None);
    }

    proptest::proptest! {
        #[test]
        fn sums_of_parts_make_the_sum_of_the_whole(a: Vec<u8>, b: Vec<u8>) {
            let whole = of(&[a.clone(), b.clone()].concat(), ALL);
            let joined = of(&a, ALL).followed_by(&of(&b, ALL), b.len() as u64);
            proptest::prop_assert_eq!(joined, Sums { md5: None, sha1: None, sha256: None, ..whole });
        }
    }
}
