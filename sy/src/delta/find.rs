//! Says of a new file what of it is in the basis. Block after block where it can; byte by byte where something was moved.

use blake3::Hash;

use super::digest::{Key, Transcript, Whole, short};
use super::rolling::Sum;
use super::shape::Shape;
use super::signature::Signature;
use super::table::Table;
use super::window::Window;
use super::{Fault, MAX_LITERAL, Piece};

/// What a search needs from outside. Any error ends it.
pub trait Finding {
    type Error: From<Fault>;

    /// Reads the next bytes of the new file; how many. 0 is the end.
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Self::Error>;

    /// Waits until `signature` knows `wanted` blocks, and pushes the records that arrive. Not called when it knows them.
    fn wait(&mut self, signature: &mut Signature, wanted: u64) -> Result<(), Self::Error>;

    /// Called once, when something is not where it was, so that most of the rest may have moved.
    fn moved(&mut self) -> Result<(), Self::Error>;

    /// Takes the next piece.
    fn piece(&mut self, piece: Piece<'_>) -> Result<(), Self::Error>;
}

/// What became of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub whole: Whole,
    /// Bytes that were not in the basis.
    pub literal: u64,
}

/// Bytes that one copy is at most, so that the other side can begin before a long run ends.
const MAX_RUN: u64 = 1 << 20;
/// How far to look for a block in its old place, when one before it changed. Blocks and bytes.
const AHEAD: usize = 8;
const AHEAD_BYTES: usize = 1 << 20;
/// How many bytes may be hashed in vain for each byte that is searched, and how many on credit, in blocks.
const EFFORT: usize = 4;
const CREDIT: usize = 64;

/// Reads the new file and gives its pieces.
///
/// In place, only the records up to there are needed; the search for moved blocks waits for all of them.
pub fn find<F: Finding>(key: &Key, signature: Signature, outside: &mut F) -> Result<Found, F::Error> {
    let shape = signature.shape();
    let ahead = (AHEAD_BYTES / shape.block()).clamp(1, AHEAD);
    let window = Window::new((1 + ahead) * shape.block());
    let report = Report { transcript: Transcript::new(key), literal: 0, first: 0, count: 0, most: (MAX_RUN / shape.block() as u64).max(1) };
    let mut finder =
        Finder { key, shape, signature, outside, window, report, table: None, expected: 0, ahead, effort: CREDIT * shape.block() };
    while finder.in_place()? || finder.skip()? || finder.search()? {}
    finder.rest()?;
    finder.report.flush(finder.outside)?;
    Ok(Found { literal: finder.report.literal, whole: finder.report.transcript.finish() })
}

struct Finder<'a, F> {
    key: &'a Key,
    shape: Shape,
    signature: Signature,
    outside: &'a mut F,
    window: Window,
    report: Report,
    /// Made when it is needed: all records have to be there.
    table: Option<Table>,
    /// The block that comes next if nothing changed.
    expected: u64,
    ahead: usize,
    /// Bytes that may be hashed in vain.
    effort: usize,
}

impl<F: Finding> Finder<'_, F> {
    /// Whether the block that is expected is here. Takes it.
    fn in_place(&mut self) -> Result<bool, F::Error> {
        if self.expected >= self.shape.blocks() {
            return Ok(false);
        }
        let length = self.shape.length(self.expected);
        if !self.window.fill(length, self.outside)? {
            return Ok(false);
        }
        self.wait(self.expected + 1)?;
        let hash = self.key.block(self.window.peek(0, length));
        let found = self.signature.is(self.expected, &hash);
        if found {
            self.copy(self.expected, length, &hash)?;
        }
        Ok(found)
    }

    /// Whether some blocks changed, and one after them is in its old place. Takes all of them.
    fn skip(&mut self) -> Result<bool, F::Error> {
        for changed in 1..=self.ahead {
            let block = self.expected + changed as u64;
            let before = changed * self.shape.block();
            if block >= self.shape.blocks() || !self.window.fill(before + self.shape.length(block), self.outside)? {
                break;
            }
            self.wait(block + 1)?;
            let data = self.window.peek(before, self.shape.length(block));
            if !self.signature.is_weakly(block, data) {
                continue;
            }
            let hash = self.key.block(data);
            if self.signature.is(block, &hash) {
                let length = data.len();
                self.window.advance(before);
                self.copy(block, length, &hash)?;
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Goes on byte by byte until a block is found, wherever it was. False at the end.
    fn search(&mut self) -> Result<bool, F::Error> {
        let block = self.shape.block();
        if self.shape.full() == 0 || !self.window.fill(block, self.outside)? {
            return self.last();
        }
        if self.table.is_none() {
            self.outside.moved()?;
            self.wait(self.shape.blocks())?;
        }
        let table = self.table.take().unwrap_or_else(|| Table::of(&self.signature));
        let found = self.roll(&table);
        self.table = Some(table);
        Ok(found? || self.last()?)
    }

    fn roll(&mut self, table: &Table) -> Result<bool, F::Error> {
        let block = self.shape.block();
        let mut sum = Sum::of(self.window.peek(0, block));
        loop {
            if let Some((found, hash)) = self.look_up(table, sum.weak()) {
                self.copy(found, block, &hash)?;
                return Ok(true);
            }
            if !self.window.fill(block + 1, self.outside)? {
                return Ok(false);
            }
            let (old, new) = self.window.around(block, MAX_LITERAL);
            let moved = table.scan(&self.signature, &mut sum, old, new, block as u32);
            self.window.advance(moved);
            self.effort = (self.effort + EFFORT * moved).min(CREDIT * block);
            if self.window.pending().len() >= MAX_LITERAL {
                self.literals()?;
            }
        }
    }

    /// The block with this weak sum that is here.
    fn look_up(&mut self, table: &Table, weak: u32) -> Option<(u64, Hash)> {
        let block = self.shape.block();
        if self.effort < block || !table.has(&self.signature, weak) {
            return None;
        }
        let hash = self.key.block(self.window.peek(0, block));
        let found = table.get(&self.signature, weak).find(|found| self.signature.is(*found, &hash));
        if found.is_none() {
            self.effort -= block;
        }
        found.map(|found| (found, hash))
    }

    /// At the end: whether the last block, which is short, is there. Takes it.
    fn last(&mut self) -> Result<bool, F::Error> {
        let (block, length) = (self.shape.full(), self.shape.length(self.shape.full()));
        // Fills what is less than a block, and knows then how much there is.
        let left = self.window.left();
        if length == 0 || left < length {
            return Ok(false);
        }
        self.wait(block + 1)?;
        let hash = self.key.block(self.window.peek(left - length, length));
        let found = self.signature.is(block, &hash);
        if found {
            self.window.advance(left - length);
            self.copy(block, length, &hash)?;
        }
        Ok(found)
    }
}

impl<F: Finding> Finder<'_, F> {
    fn wait(&mut self, wanted: u64) -> Result<(), F::Error> {
        if self.signature.known() < wanted {
            self.outside.wait(&mut self.signature, wanted)?;
        }
        let known = self.signature.known() >= wanted;
        if known { Ok(()) } else { Err(Fault("the other side sent too little of a signature").into()) }
    }

    /// Takes a block that was found, after what stands before it.
    fn copy(&mut self, block: u64, length: usize, hash: &Hash) -> Result<(), F::Error> {
        self.literals()?;
        self.window.advance(length);
        self.window.take();
        self.expected = block + 1;
        self.report.copy(block, length, hash, self.outside)
    }

    /// Gives as literals what the window went over.
    fn literals(&mut self) -> Result<(), F::Error> {
        for bytes in self.window.pending().chunks(MAX_LITERAL) {
            self.report.literal(bytes, self.outside)?;
        }
        self.window.take();
        Ok(())
    }

    /// Gives what is left of the file as literals.
    fn rest(&mut self) -> Result<(), F::Error> {
        loop {
            let wanted = MAX_LITERAL - self.window.pending().len();
            let more = self.window.fill(wanted, self.outside)?;
            self.window.advance(self.window.left().min(wanted));
            self.literals()?;
            if !more {
                return Ok(());
            }
        }
    }
}

/// Puts blocks that follow each other together, and digests the whole file.
struct Report {
    transcript: Transcript,
    literal: u64,
    /// The run that is not given yet.
    first: u64,
    count: u64,
    most: u64,
}

impl Report {
    fn copy<F: Finding>(&mut self, block: u64, length: usize, hash: &Hash, outside: &mut F) -> Result<(), F::Error> {
        self.transcript.block(length as u64, short(*hash));
        if self.count == self.most || block != self.first + self.count {
            self.flush(outside)?;
        }
        if self.count == 0 {
            self.first = block;
        }
        self.count += 1;
        Ok(())
    }

    fn literal<F: Finding>(&mut self, bytes: &[u8], outside: &mut F) -> Result<(), F::Error> {
        self.flush(outside)?;
        self.transcript.literal(bytes);
        self.literal += bytes.len() as u64;
        outside.piece(Piece::Literal(bytes))
    }

    fn flush<F: Finding>(&mut self, outside: &mut F) -> Result<(), F::Error> {
        let count = std::mem::take(&mut self.count);
        if count > 0 { outside.piece(Piece::Copy { block: self.first, count }) } else { Ok(()) }
    }
}
