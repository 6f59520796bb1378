//! Pieces of files as bodies of messages.

use std::cell::RefCell;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::wire::{PIECE, Put, body};
use crate::pages::{PAGE, first_page};
use crate::transport::local::read_at;

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Reads at most `want` bytes, and no more than a piece; less only at the end of the file. By way of a buffer of whole pages: that
/// the bytes are moved once more costs less than to read them to where a body begins.
pub fn read_piece(file: BorrowedFd<'_>, at: u64, want: usize) -> Result<Put, Errno> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIECE + PAGE, 0);
        let first = first_page(buffer);
        let n = read_at(file, &mut buffer[first..][..want.min(PIECE)], at)?;
        let mut piece = body();
        piece.0.extend_from_slice(&buffer[first..][..n]);
        Ok(piece)
    })
}
