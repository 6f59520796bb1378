//! Sign, find and patch together.

use proptest::prelude::*;

use super::shape::MAX_BLOCKS;
use super::table::Table;
use super::*;

fn key() -> Key {
    Key::new(&[42; 32])
}

/// Bytes without a pattern.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn records(basis: &[u8], step: usize) -> Vec<u8> {
    let mut signer = Signer::new(&key(), Shape::of(basis.len() as u64));
    let mut records = Vec::new();
    for piece in basis.chunks(step.max(1)) {
        signer.push(piece, &mut records);
    }
    signer.finish(&mut records).expect("the basis is whole");
    records
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Given {
    Copy(u64, u64),
    Literal(Vec<u8>),
}

/// The new file and the records as they come in, the pieces as they go out.
struct Search<'a> {
    file: &'a [u8],
    /// Bytes that one read gives at most.
    step: usize,
    records: &'a [u8],
    /// Records that came in when they were not yet asked for.
    early: u64,
    pieces: Vec<Given>,
    /// Ends with an error at this piece.
    fails: usize,
    moved: bool,
}

impl Finding for Search<'_> {
    type Error = Fault;

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Fault> {
        let (now, later) = self.file.split_at(self.file.len().min(buffer.len()).min(self.step));
        buffer[..now.len()].copy_from_slice(now);
        self.file = later;
        Ok(now.len())
    }

    fn wait(&mut self, signature: &mut Signature, wanted: u64) -> Result<(), Fault> {
        assert!(signature.known() < wanted);
        let length = (wanted + self.early - signature.known()) as usize * signature.shape().record();
        let (now, later) = self.records.split_at(length.min(self.records.len()));
        self.records = later;
        now.chunks(7).try_for_each(|part| signature.push(part))
    }

    fn moved(&mut self) -> Result<(), Fault> {
        assert!(!self.moved);
        self.moved = true;
        Ok(())
    }

    fn piece(&mut self, piece: Piece<'_>) -> Result<(), Fault> {
        if self.pieces.len() == self.fails {
            return Err(Fault("stop"));
        }
        self.pieces.push(match piece {
            Piece::Copy { block, count } => Given::Copy(block, count),
            Piece::Literal(bytes) => Given::Literal(bytes.to_vec()),
        });
        Ok(())
    }
}

fn search<'a>(file: &'a [u8], records: &'a [u8]) -> Search<'a> {
    Search { file, step: usize::MAX, records, early: 0, pieces: Vec::new(), fails: usize::MAX, moved: false }
}

struct Copy<'a> {
    basis: &'a [u8],
    step: usize,
    file: Vec<u8>,
}

impl Patching for Copy<'_> {
    type Error = Fault;

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize, Fault> {
        let rest = self.basis.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buffer.len()).min(self.step);
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Fault> {
        let end = offset as usize + bytes.len();
        self.file.resize(self.file.len().max(end), 0);
        self.file[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
}

fn patch(basis: &[u8], pieces: &[Given], limit: u64, step: usize) -> Result<(Vec<u8>, Whole), Fault> {
    patch_shaped(Shape::of(basis.len() as u64), basis, pieces, limit, step)
}

/// With a basis that is copied up to `until` while it is signed.
fn patch_kept(basis: &[u8], pieces: &[Given], size: usize, until: usize) -> (Vec<u8>, Whole) {
    let shape = Shape::of(basis.len() as u64);
    let (copied, rest) = basis.split_at(until.min(basis.len()));
    let mut signer = Signer::keeping(&key(), shape);
    signer.push(copied, &mut Vec::new());
    signer.stop_keeping();
    signer.push(rest, &mut Vec::new());
    let kept = signer.finish(&mut Vec::new()).expect("whole");
    let mut patcher = Patcher::new(&key(), shape, size as u64, kept);
    let mut copy = Copy { basis, step: usize::MAX, file: copied.to_vec() };
    give(&mut patcher, pieces, usize::MAX, &mut copy).expect("patched");
    copy.file.resize(size, 0);
    (copy.file, patcher.finish())
}

fn give(patcher: &mut Patcher, pieces: &[Given], step: usize, copy: &mut Copy) -> Result<(), Fault> {
    for piece in pieces {
        match piece {
            Given::Copy(block, count) => patcher.copy(*block, *count, copy)?,
            // How a literal is split doesn't matter.
            Given::Literal(bytes) => bytes.chunks(step).try_for_each(|part| patcher.literal(part, copy))?,
        }
    }
    Ok(())
}

fn patch_shaped(shape: Shape, basis: &[u8], pieces: &[Given], limit: u64, step: usize) -> Result<(Vec<u8>, Whole), Fault> {
    let mut patcher = Patcher::new(&key(), shape, limit, Kept::default());
    let mut copy = Copy { basis, step, file: Vec::new() };
    give(&mut patcher, pieces, step, &mut copy)?;
    assert_eq!(patcher.size(), copy.file.len() as u64);
    Ok((copy.file, patcher.finish()))
}

/// The way there and back. How many bytes were literal, and the pieces.
fn round(basis: &[u8], file: &[u8]) -> (u64, Vec<Given>) {
    let records = records(basis, usize::MAX);
    let mut search = search(file, &records);
    let found = find(&key(), Signature::new(Shape::of(basis.len() as u64)), &mut search).expect("found");
    let (copy, whole) = patch(basis, &search.pieces, file.len() as u64, usize::MAX).expect("patched");
    assert!(copy == file, "the copy differs");
    assert_eq!(found.whole, whole);
    assert_eq!(found.whole.size, file.len() as u64);
    let literal = search.pieces.iter().map(|piece| if let Given::Literal(bytes) = piece { bytes.len() } else { 0 }).sum::<usize>();
    assert_eq!(found.literal, literal as u64);
    (found.literal, search.pieces)
}

const BLOCK: usize = 1024;

#[test]
fn an_equal_file_is_copies_alone() {
    for length in [0, 1, 1023, 1024, 1025, 5000, 300_000] {
        let basis = noise(1, length);
        assert_eq!(round(&basis, &basis).0, 0, "{length}");
    }
    assert_eq!(round(&noise(1, 3000), &noise(1, 3000)).1, [Given::Copy(0, 3)]);
}

#[test]
fn a_change_in_place_costs_its_block() {
    let basis = noise(1, 100 * BLOCK + 10);
    let mut file = basis.clone();
    file[20 * BLOCK + 5] ^= 1;
    let changed = file[20 * BLOCK..21 * BLOCK].to_vec();
    assert_eq!(round(&basis, &file).1, [Given::Copy(0, 20), Given::Literal(changed), Given::Copy(21, 80)]);
    // Longer than the look ahead.
    file[40 * BLOCK..60 * BLOCK].fill(7);
    assert_eq!(round(&basis, &file).0, 21 * BLOCK as u64);
}

#[test]
fn what_moved_is_found_again() {
    let basis = noise(1, 200 * BLOCK + 10);
    let (front, back) = basis.split_at(50 * BLOCK + 100);
    // Inserted, left out, swapped.
    assert_eq!(round(&basis, &[front, b"inserted", back].concat()).0, BLOCK as u64 + 8);
    assert_eq!(round(&basis, &[front, &back[300..]].concat()).0, BLOCK as u64 - 300);
    assert_eq!(round(&basis, &[front, &back[BLOCK - 100..]].concat()).0, 100);
    assert_eq!(round(&basis, &basis[77..]).0, BLOCK as u64 - 77);
    assert!(round(&basis, &[back, front].concat()).0 <= BLOCK as u64 + 10);
    // Longer at the end, also where the last block is short; shorter at the end.
    assert_eq!(round(&basis, &[&basis, &b"more"[..]].concat()).0, 4);
    assert_eq!(round(&basis, &basis[..100 * BLOCK + 7]).0, 7);
    // All blocks in another order.
    let blocks: Vec<&[u8]> = basis.chunks(BLOCK).rev().collect();
    assert_eq!(round(&basis, &blocks.concat()).0, 10);
}

#[test]
fn after_an_insertion_it_goes_on_block_by_block() {
    let basis = noise(1, 600 * BLOCK);
    let file = [&basis[..BLOCK], b"x", &basis[BLOCK..]].concat();
    assert_eq!(round(&basis, &file).1, [Given::Copy(0, 1), Given::Literal(b"x".to_vec()), Given::Copy(1, 599)]);
}

#[test]
fn in_place_only_the_records_up_to_there_are_needed() {
    let basis = noise(1, 100 * BLOCK);
    let mut file = basis.clone();
    file[30 * BLOCK] ^= 1;
    let records = records(&basis, 1000);
    let shape = Shape::of(basis.len() as u64);
    let mut search = search(&file[..50 * BLOCK], &records[..50 * shape.record()]);
    assert_eq!(find(&key(), Signature::new(shape), &mut search).map(|found| found.literal), Ok(BLOCK as u64));
    assert!(!search.moved);
}

#[test]
fn the_same_bytes_over_and_over_take_no_longer() {
    // Done block by block, or these would take minutes.
    let zeros = vec![0; 3 << 20];
    assert_eq!(round(&zeros, &zeros).0, 0);
    assert!(round(&zeros, &[&zeros[..], &zeros[..70_001], b"x", &zeros[..70_000]].concat()).0 < 4 * BLOCK as u64);
    assert!(round(&zeros, &noise(1, 1 << 20)).0 == 1 << 20);
    let wave: Vec<u8> = (0..1 << 20).map(|at: u32| at.is_multiple_of(3).into()).collect();
    assert!(round(&wave, &[b"x", &wave[..]].concat()).0 < 4 * BLOCK as u64);
}

#[test]
fn blocks_that_only_look_alike_cost_little() {
    // These three bytes can be added anywhere without changing a weak sum.
    let twist = |data: &mut [u8], at: usize| {
        data[at] += 1;
        data[at + 1] -= 2;
        data[at + 2] += 1;
    };
    let mut basis = vec![100; 1 << 20];
    let mut file = basis.clone();
    for block in 0..BLOCK {
        twist(&mut basis, block * BLOCK + block % 1000);
        twist(&mut file, block * BLOCK + (block * 7 + 3) % 1000);
    }
    round(&basis, &file);
}

#[test]
fn a_sink_that_fails_ends_the_search() {
    let (basis, file) = (noise(1, 50 * BLOCK), noise(2, 300_000));
    let records = records(&basis, 1000);
    let mut search = Search { fails: 1, ..search(&file, &records) };
    assert_eq!(find(&key(), Signature::new(Shape::of(basis.len() as u64)), &mut search), Err(Fault("stop")));
    assert_eq!(search.pieces.len(), 1);
}

#[test]
fn literals_are_bounded() {
    let (_, pieces) = round(&noise(1, 1 << 20), &noise(2, 2 << 20));
    assert!(pieces.iter().all(|piece| matches!(piece, Given::Literal(bytes) if bytes.len() <= MAX_LITERAL)));
}

#[test]
fn a_signature_fits_into_its_memory_whatever_the_size() {
    for size in [1 << 30, 1 << 40, 8 << 40, u64::MAX] {
        assert!(memory(Shape::of(size)) <= 26 << 20);
    }
    let mut worst = Shape::of(MAX_BLOCKS << 10).encode();
    worst[8..].copy_from_slice(&[0, 4, 0, 0, 12]);
    assert!(memory(Shape::decode(&worst).expect("allowed")) <= 32 << 20);
}

fn memory(shape: Shape) -> usize {
    let mut signature = Signature::new(shape);
    let piece = vec![0; shape.record() << 10];
    while !signature.is_complete() {
        let left = (shape.blocks() - signature.known()) as usize * shape.record();
        signature.push(&piece[..piece.len().min(left)]).expect("room");
    }
    signature.memory() + Table::of(&signature).memory()
}

#[test]
fn a_basis_that_changes_is_noticed() {
    let basis = noise(1, 10 * BLOCK);
    let mut signer = Signer::new(&key(), Shape::of(basis.len() as u64));
    signer.push(&basis[1..], &mut Vec::new());
    assert!(signer.finish(&mut Vec::new()).is_err());
    let (_, pieces) = round(&basis, &basis);
    let shape = Shape::of(basis.len() as u64);
    assert!(patch_shaped(shape, &basis[1..], &pieces, 1 << 20, 1000).is_err());
    let mut other = basis.clone();
    other[5000] ^= 1;
    let records = records(&basis, 1000);
    let found = find(&key(), Signature::new(shape), &mut search(&basis, &records)).expect("found");
    assert_ne!(patch(&other, &pieces, 1 << 20, 1000).expect("patched").1, found.whole);
}

#[test]
fn kept_blocks_are_neither_read_nor_written_again() {
    let basis = noise(1, 10 * BLOCK + 9);
    let shape = Shape::of(basis.len() as u64);
    let mut signer = Signer::keeping(&key(), shape);
    signer.push(&basis, &mut Vec::new());
    let kept = signer.finish(&mut Vec::new()).expect("whole");
    let mut patcher = Patcher::new(&key(), shape, basis.len() as u64, kept);
    let mut nothing = Copy { basis: &[], step: 0, file: Vec::new() };
    patcher.copy(0, 7, &mut nothing).expect("kept");
    patcher.copy(7, 4, &mut nothing).expect("kept");
    assert!(nothing.file.is_empty());
    assert!(patcher.copy(0, 1, &mut nothing).is_err(), "longer than it may be");
    let plain = patch(&basis, &[Given::Copy(0, 11)], 1 << 20, 1000).expect("patched").1;
    assert_eq!(patcher.finish(), plain);
}

#[test]
fn signatures_that_are_wrong_are_errors() {
    let basis = noise(1, 10 * BLOCK);
    let (records, shape) = (records(&basis, 1000), Shape::of(basis.len() as u64));
    let mut signature = Signature::new(shape);
    signature.push(&records[1..]).expect("not yet whole");
    assert!(!signature.is_complete() && signature.finish().is_err());
    assert!(signature.push(&records).is_err());
    let mut short = search(&basis, &records[1..]);
    assert!(find(&key(), signature, &mut short).is_err());
}

#[test]
fn pieces_that_are_wrong_are_errors() {
    let basis = noise(1, 10 * BLOCK + 1);
    for (block, count) in [(11, 1), (0, 12), (10, 2), (u64::MAX, 1), (u64::MAX, u64::MAX), (1, u64::MAX), (3, 0)] {
        assert!(patch(&basis, &[Given::Copy(block, count)], 1 << 20, 1000).is_err(), "{block} {count}");
    }
    assert!(patch(&basis, &[Given::Copy(10, 1)], 1, 1000).is_ok());
    assert!(patch(&basis, &[Given::Copy(0, 1)], 1023, 1000).is_err());
    assert!(patch(&basis, &[Given::Copy(0, 1), Given::Literal(vec![1])], 1024, 1000).is_err());
    assert!(patch(&[], &[Given::Copy(0, 1)], 1024, 1000).is_err());
}

/// A change: where, how much goes, what comes.
type Edit = (prop::sample::Index, usize, Vec<u8>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    prop::collection::vec((any::<prop::sample::Index>(), 0usize..3000, prop::collection::vec(0u8..3, 0..2000)), 0..5)
}

/// Pieces of few kinds, so that blocks come more than once.
fn bases() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec((0u64..4, 0usize..9000), 0..6).prop_map(|parts| {
        parts.iter().flat_map(|(seed, length)| if *seed == 0 { vec![0; *length] } else { noise(*seed, *length) }).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_patch_gives_the_new_file(basis in bases(), edits in edits(), step in 1usize..20_000, early in 0u64..50, moved: prop::sample::Index) {
        let mut file = basis.clone();
        for (at, gone, new) in edits {
            let at = at.index(file.len() + 1);
            file.splice(at..file.len().min(at + gone), new);
        }
        let moved = moved.index(file.len() + 1);
        file.rotate_left(moved);
        let shape = Shape::of(basis.len() as u64);
        let all = records(&basis, usize::MAX);
        prop_assert_eq!(&records(&basis, step), &all);
        let mut whole = Signature::new(shape);
        whole.push(&all).expect("complete");
        let mut at_once = search(&file, &[]);
        let found = find(&key(), whole, &mut at_once).expect("found");
        let mut in_parts = Search { step, early, ..search(&file, &all) };
        prop_assert_eq!(find(&key(), Signature::new(shape), &mut in_parts), Ok(found));
        prop_assert_eq!(&in_parts.pieces, &at_once.pieces);
        let (copy, whole) = patch_kept(&basis, &at_once.pieces, file.len(), moved);
        prop_assert!(copy == file);
        prop_assert_eq!(whole, found.whole);
        for step in [usize::MAX, step] {
            let (copy, whole) = patch(&basis, &at_once.pieces, file.len() as u64, step).expect("patched");
            prop_assert!(copy == file);
            prop_assert_eq!(whole, found.whole);
        }
    }

    #[test]
    fn nonsense_is_an_error_or_nothing(shape: [u8; Shape::ENCODED], size in 0u64..1 << 22, records in prop::collection::vec(0u8.., 0..3000), file in bases()) {
        let _ = Shape::decode(&shape);
        let mut search = search(&file, &records);
        let _ = find(&key(), Signature::new(Shape::of(size)), &mut search);
    }
}
