//! Files as differences from what the other side has: signatures, search, patch. Pure algorithms on streams of bytes.
//!
//! The side with the old file, the basis, cuts it into blocks (`Shape`) and signs each (`Signer`). The other side keeps the records
//! (`Signature`) and says of the new file what is in the basis and what is not (`find`). The first puts both together (`Patcher`).
//! In the end both have a `Whole`: when these are equal, so are the files.
//!
//! Memory is bounded whatever the sizes: about 25 MiB for the largest signature, two blocks and some pieces for a search, one
//! piece for the rest, at most 16 MiB of digests where a basis is copied while it is signed. What comes from the other side is checked; a lie costs an error, never more.

mod blocks;
mod digest;
mod find;
mod patch;
pub mod prefix;
mod rolling;
mod shape;
mod signature;
mod table;
#[cfg(test)]
mod tests;
mod window;

use std::fmt;

pub use digest::{Key, Whole};
pub use find::{Finding, Found, find};
pub use patch::{Patcher, Patching};
pub use shape::Shape;
pub use signature::{Kept, Signature, Signer};

/// Bytes read at a time. Larger pieces leave the processor's cache before they are hashed.
pub const PIECE: usize = 256 << 10;
/// No literal that `find` gives is longer. Bytes.
pub const MAX_LITERAL: usize = 128 << 10;

/// What of the new file comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// `count` blocks of the basis, from `block` on.
    Copy { block: u64, count: u64 },
    /// Bytes that are not in the basis.
    Literal(&'a [u8]),
}

/// Something that can't be: the other side sent what makes no sense, or a file is not what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault(pub &'static str);

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for crate::SyncError {
    fn from(fault: Fault) -> Self {
        Self::new(crate::ErrorKind::Verification, fault.0)
    }
}
