//! The part of the new file that is in memory.

use super::find::Finding;
use super::{MAX_LITERAL, PIECE};
use crate::pages::{PAGE, first_page};

/// `taken..at` went by and is still to be given as a literal; `at..end` is ahead.
#[derive(Debug)]
pub(super) struct Window {
    data: Vec<u8>,
    /// Where the first page of it begins. What is read goes to places that are as far from one as it is in the file.
    base: usize,
    taken: usize,
    at: usize,
    end: usize,
    /// The file has no more.
    over: bool,
}

impl Window {
    /// One that can hold `ahead` bytes from any place on.
    pub fn new(ahead: usize) -> Self {
        let data = vec![0; MAX_LITERAL + ahead + PIECE + 2 * PAGE];
        let base = first_page(&data);
        Self { data, base, taken: base, at: base, end: base, over: false }
    }

    /// Reads until `wanted` bytes are ahead. False when the file ends before.
    pub fn fill<F: Finding>(&mut self, wanted: usize, outside: &mut F) -> Result<bool, F::Error> {
        while self.left() < wanted && !self.over {
            if self.data.len() - self.end < PIECE {
                let taken = self.base + (self.taken - self.base) % PAGE;
                let by = self.taken - taken;
                self.data.copy_within(self.taken..self.end, taken);
                self.at -= by;
                self.end -= by;
                self.taken = taken;
            }
            let room = &mut self.data[self.end..][..PIECE];
            let read = outside.read(room)?.min(PIECE);
            self.over = read == 0;
            self.end += read;
        }
        Ok(self.left() >= wanted)
    }

    /// How many bytes are ahead.
    pub fn left(&self) -> usize {
        self.end - self.at
    }

    pub fn peek(&self, ahead: usize, length: usize) -> &[u8] {
        &self.data[self.at + ahead..][..length]
    }

    /// Bytes here and bytes `length` ahead, as many as are there, but no more than make `most` pending.
    pub fn around(&self, length: usize, most: usize) -> (&[u8], &[u8]) {
        let count = (self.left() - length).min(most - self.pending().len());
        (self.peek(0, count), self.peek(length, count))
    }

    pub fn advance(&mut self, length: usize) {
        self.at += length;
    }

    /// What went by and was not taken.
    pub fn pending(&self) -> &[u8] {
        &self.data[self.taken..self.at]
    }

    pub fn take(&mut self) {
        self.taken = self.at;
    }
}
