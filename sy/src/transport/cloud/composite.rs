//! Checks content against what the store has of it: a sum of the whole, or, of an object that was made from parts, a sum of the
//! parts' sums. The latter says nothing without knowing where the parts end, which the store tells, or a customary size proves.

use std::ops::Range;

use super::deletes::side_by_side;
use super::store::{Head, Store};
use super::sums::{self, Kinds, Summer, Sums};
use crate::error::Result;

/// Ranges that hold whole parts are not larger; of larger parts the content is summed once it is there.
const LARGEST: u64 = 256 << 20;
/// Sizes of parts that programs send, the most common first.
const CUSTOMARY: [u64; 20] = [
    8 << 20,
    5 << 20,
    16 << 20,
    50 << 20,
    64 << 20,
    10 << 20,
    15 << 20,
    32 << 20,
    100 << 20,
    128 << 20,
    6 << 20,
    20 << 20,
    24 << 20,
    25 << 20,
    256 << 20,
    512 << 20,
    1 << 30,
    5_000_000,
    10_000_000,
    100_000_000,
];

/// A sum of the sums of an object's parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Composite {
    /// Of one kind, which is also that of the parts' sums.
    pub sum: Sums,
    pub parts: u32,
}

impl Composite {
    fn is_of(&self, parts: &[Sums]) -> bool {
        let mut list = Vec::new();
        parts.iter().for_each(|part| part.write_to(&mut list));
        parts.len() == self.parts as usize && sums::of(&list, self.sum.kinds()).agree(&self.sum) == Some(true)
    }
}

/// What content is checked against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// The store knows nothing to check it by.
    Nothing,
    Whole(Sums),
    Parts {
        composite: Composite,
        /// Where each part ends.
        ends: Vec<u64>,
        known: Known,
    },
}

/// How it is known where parts end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// The store told of each.
    Told,
    /// The store told of the first, and the others may be like it.
    Like,
    /// Not at all, unless the sums prove it.
    Guessed,
}

impl Check {
    /// Asks for the size of the first part where that is needed.
    pub fn of(store: &dyn Store, key: &[u8], head: &Head) -> Result<Self> {
        let composite = match head.composite {
            _ if head.sums.kinds() != Kinds::NONE => return Ok(Self::Whole(head.sums)),
            Some(composite) if composite.parts > 0 => composite,
            _ => return Ok(Self::Nothing),
        };
        let parts = |ends, known| Ok(Self::Parts { composite, ends, known });
        if composite.parts == 1 {
            return parts(vec![head.size], Known::Told);
        }
        match store.part_length(key, 1)? {
            Some(first) if head.size.div_ceil(first.max(1)) == u64::from(composite.parts) => parts(even(head.size, first), Known::Like),
            Some(_) => Ok(match told(store, key, head, composite.parts)? {
                Some(ends) => Self::Parts { composite, ends, known: Known::Told },
                None => Self::Nothing,
            }),
            None => match guesses(head.size, composite.parts).first() {
                Some(&guess) => parts(even(head.size, guess), Known::Guessed),
                None => Ok(Self::Nothing),
            },
        }
    }

    /// What has to be summed: of the whole, or of each part.
    pub fn kinds(&self) -> Kinds {
        match self {
            Self::Nothing => Kinds::NONE,
            Self::Whole(sums) => sums.best(),
            Self::Parts { composite, .. } => composite.sum.best(),
        }
    }

    /// Where what has to be summed ends, in content that passes by from its beginning to its end.
    pub fn all_ends(&self, size: u64) -> Vec<u64> {
        match self {
            Self::Parts { ends, .. } => ends.clone(),
            _ => vec![size],
        }
    }

    /// Where content is to be cut so that each range holds whole parts, of about `step` bytes.
    pub fn cut(&self, size: u64, step: u64) -> Vec<u64> {
        match self.ends() {
            Some(parts) => together(parts, step),
            None => even(size, step),
        }
    }

    /// Where the parts end, if each can be summed in passing.
    pub fn ends(&self) -> Option<&[u64]> {
        match self {
            Self::Parts { ends, .. } if longest(ends) <= LARGEST => Some(ends),
            _ => None,
        }
    }

    /// Does content hold what is known by now? `None`: nobody can tell.
    pub fn agrees(&self, size: u64, sum: &SumRange<'_>) -> Result<Option<bool>> {
        Ok(match self {
            Self::Nothing => None,
            Self::Whole(sums) => sum(0..size, sums.best())?.agree(sums),
            Self::Parts { composite, ends, .. } => Some(composite.is_of(&each(ends, &|range| sum(range, composite.sum.best()))?)),
        })
    }

    /// Is the content right? `None`: nobody can tell. `have` are the sums of `ends`, if they were made in passing; `sum` makes
    /// others.
    pub fn judge(&mut self, at: &Whose<'_>, have: Option<&[Sums]>, sum: &SumRange<'_>) -> Result<Option<bool>> {
        let Self::Parts { composite, ends, known } = self else { return self.agrees(at.head.size, sum) };
        let composite = *composite;
        let holds = |ends: &[u64]| Ok(composite.is_of(&each(ends, &|range| sum(range, composite.sum.best()))?));
        let first = match have {
            Some(have) => composite.is_of(have),
            None => holds(ends)?,
        };
        if first || *known == Known::Told {
            return Ok(Some(first));
        }
        if *known == Known::Like {
            // Only now it matters whether the others are like the first.
            let Some(real) = told(at.store, at.key, at.head, composite.parts)? else {
                *self = Self::Nothing;
                return Ok(None);
            };
            *known = Known::Told;
            if real == *ends {
                return Ok(Some(false));
            }
            *ends = real;
            return holds(ends).map(Some);
        }
        for guess in guesses(at.head.size, composite.parts).into_iter().skip(1) {
            let other = even(at.head.size, guess);
            if holds(&other)? {
                *ends = other;
                return Ok(Some(true));
            }
        }
        *self = Self::Nothing;
        Ok(None)
    }
}

/// Whose content is checked.
pub struct Whose<'w> {
    pub store: &'w dyn Store,
    pub key: &'w [u8],
    pub head: &'w Head,
}

impl std::fmt::Debug for Whose<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Whose").field("head", &self.head).finish_non_exhaustive()
    }
}

/// Sums a range of the content.
pub type SumRange<'s> = dyn Fn(Range<u64>, Kinds) -> Result<Sums> + 's;

fn each(ends: &[u64], sum: &dyn Fn(Range<u64>) -> Result<Sums>) -> Result<Vec<Sums>> {
    let mut start = 0;
    ends.iter().map(|&end| sum(std::mem::replace(&mut start, end)..end)).collect()
}

/// What the store tells of all parts; `None` if that can't be.
fn told(store: &dyn Store, key: &[u8], head: &Head, parts: u32) -> Result<Option<Vec<u64>>> {
    let numbers: Vec<u32> = (1..=parts).collect();
    let lengths = side_by_side(&numbers, store.connections(), |&number| store.part_length(key, number));
    let mut ends = Vec::with_capacity(lengths.len());
    let mut end = 0u64;
    for length in lengths {
        let Some(length) = length? else { return Ok(None) };
        end = end.saturating_add(length);
        ends.push(end);
    }
    Ok(Some(ends).filter(|_| end == head.size))
}

/// Parts of one size, but for the last.
fn even(size: u64, part: u64) -> Vec<u64> {
    (1..=size.div_ceil(part).max(1)).map(|n| size.min(n.saturating_mul(part))).collect()
}

/// Sizes that make so many parts.
fn guesses(size: u64, parts: u32) -> Vec<u64> {
    let least = size.div_ceil(u64::from(parts).max(1));
    let fitting = CUSTOMARY.into_iter().chain([least.next_multiple_of(1 << 20), least]);
    let mut all: Vec<u64> = Vec::new();
    for part in fitting.filter(|&part| part > 0 && size.div_ceil(part) == u64::from(parts)) {
        if !all.contains(&part) {
            all.push(part);
        }
    }
    all
}

fn longest(ends: &[u64]) -> u64 {
    let starts = std::iter::once(&0).chain(ends);
    ends.iter().zip(starts).map(|(end, start)| end - start).max().unwrap_or(0)
}

/// As many parts to a range as it takes to have `step` bytes.
fn together(parts: &[u64], step: u64) -> Vec<u64> {
    let (mut ranges, mut start) = (Vec::new(), 0);
    for (n, &end) in parts.iter().enumerate() {
        if end - start >= step || n + 1 == parts.len() {
            ranges.push(end);
            start = end;
        }
    }
    ranges
}

/// Sums content as it passes by, each part for itself.
pub struct PartSummer<'e> {
    kinds: Kinds,
    /// Of the parts that have not ended yet.
    ends: &'e [u64],
    at: u64,
    now: Summer,
    done: Vec<Sums>,
}

impl<'e> PartSummer<'e> {
    /// Begins at `at`, where a part begins.
    pub fn new(kinds: Kinds, ends: &'e [u64], at: u64) -> Self {
        let past = ends.partition_point(|&end| end <= at && end > 0);
        Self { kinds, ends: &ends[past..], at, now: Summer::new(kinds), done: Vec::new() }
    }

    pub fn update(&mut self, mut bytes: &[u8]) {
        while let Some(&end) = self.ends.first() {
            let left = end - self.at;
            if (bytes.len() as u64) < left {
                break;
            }
            let (last, rest) = bytes.split_at(left as usize);
            self.now.update(last);
            self.close(end);
            bytes = rest;
            if bytes.is_empty() {
                return;
            }
        }
        self.now.update(bytes);
        self.at += bytes.len() as u64;
    }

    fn close(&mut self, end: u64) {
        self.done.push(std::mem::replace(&mut self.now, Summer::new(self.kinds)).finish());
        self.ends = &self.ends[1..];
        self.at = end;
    }

    /// The sums of the parts that were whole.
    pub fn finish(mut self) -> Vec<Sums> {
        // Of no content there is a sum as well.
        if let Some(&end) = self.ends.first().filter(|&&end| end == self.at) {
            self.close(end);
        }
        self.done
    }
}

impl std::fmt::Debug for PartSummer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PartSummer").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_ranges() {
        assert_eq!(even(10, 4), [4, 8, 10]);
        assert_eq!((even(8, 4), even(0, 4)), (vec![4, 8], vec![0]));
        assert_eq!(together(&[4, 8, 10, 30, 31], 8), [8, 30, 31]);
        assert_eq!(longest(&[4, 8, 30]), 22);
    }

    #[test]
    fn guesses_make_the_number_of_parts_that_there_are() {
        assert_eq!(guesses(17 << 20, 3)[..2], [8 << 20, 6 << 20]);
        assert!(guesses(40_000_001, 9).contains(&5_000_000));
        assert_eq!(guesses(7 * (3 << 20), 7), [3 << 20]);
        assert!(guesses(5, 9).is_empty());
    }

    proptest::proptest! {
        #[test]
        fn each_part_is_summed_for_itself(lengths in proptest::collection::vec(0usize..9, 1..6), piece in 1usize..7) {
            let content: Vec<u8> = (0..lengths.iter().sum::<usize>()).map(|n| n as u8).collect();
            let lengths: Vec<usize> = if content.is_empty() { vec![0] } else { lengths.into_iter().filter(|&n| n > 0).collect() };
            let mut end = 0;
            let ends: Vec<u64> = lengths.iter().map(|n| { end += *n as u64; end }).collect();
            let mut summer = PartSummer::new(Kinds::MD5, &ends, 0);
            content.chunks(piece).for_each(|piece| summer.update(piece));
            let found = summer.finish();
            let expected = each(&ends, &|range| Ok(sums::of(&content[range.start as usize..range.end as usize], Kinds::MD5)));
            proptest::prop_assert_eq!(Ok(found), expected.map_err(|error| error.to_string()));
        }
    }
}
