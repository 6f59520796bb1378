//! Digests of blocks and of whole files, with a key that nobody knew when the files were made.

use blake3::{Hash, Hasher};

/// Long enough that equal means equal: 128 bits.
pub(super) type Digest = [u8; 16];

/// The keys of one session. Made from 32 random bytes that one side chooses and both sides know.
#[derive(Clone)]
pub struct Key {
    block: [u8; 32],
    whole: [u8; 32],
    prefix: [u8; 32],
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Key {
    pub fn new(secret: &[u8; 32]) -> Self {
        let derive = |use_| blake3::derive_key(use_, secret);
        Self { block: derive("sypy delta 1 block"), whole: derive("sypy delta 1 whole"), prefix: derive("sypy delta 1 prefix") }
    }

    pub(super) fn block(&self, data: &[u8]) -> Hash {
        blake3::keyed_hash(&self.block, data)
    }

    pub(super) fn block_hasher(&self) -> Hasher {
        Hasher::new_keyed(&self.block)
    }

    pub(super) fn prefix(&self, data: &[u8]) -> Digest {
        short(blake3::keyed_hash(&self.prefix, data))
    }
}

pub(super) fn short(hash: Hash) -> Digest {
    let [first, ..] = hash.as_bytes().as_chunks().0 else { unreachable!("a hash has 32 bytes") };
    *first
}

/// What both sides know of the whole new file in the end. Equal means equal content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Whole {
    pub size: u64,
    pub digest: [u8; 16],
}

/// Digests a file as blocks and runs of literals go by, so that each byte is hashed once, for the search and for this.
/// How literals are split doesn't matter.
#[derive(Debug)]
pub(super) struct Transcript {
    units: Hasher,
    literal: Hasher,
    /// Length of the run of literals that is open.
    open: u64,
    size: u64,
}

impl Transcript {
    pub fn new(key: &Key) -> Self {
        Self { units: Hasher::new_keyed(&key.whole), literal: key.block_hasher(), open: 0, size: 0 }
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn literal(&mut self, bytes: &[u8]) {
        self.literal.update(bytes);
        self.open += bytes.len() as u64;
        self.size += bytes.len() as u64;
    }

    pub fn block(&mut self, length: u64, digest: Digest) {
        self.close();
        self.unit(length, digest);
        self.size += length;
    }

    pub fn finish(mut self) -> Whole {
        self.close();
        Whole { size: self.size, digest: short(self.units.finalize()) }
    }

    fn close(&mut self) {
        if self.open > 0 {
            self.unit(self.open, short(self.literal.finalize()));
            self.literal.reset();
            self.open = 0;
        }
    }

    /// All units have one length, so that no two lists of units are the same bytes.
    fn unit(&mut self, length: u64, digest: Digest) {
        self.units.update(&length.to_le_bytes());
        self.units.update(&digest);
    }
}
