//! How much of a file that was cut off is right: the sums of its pieces against the file it should become.

use super::digest::Digest;
use super::{Fault, Key};

/// Bytes of a piece; the last may be shorter.
pub const LENGTH: usize = 1 << 20;

pub type Sum = Digest;

/// How many pieces, and so how many sums, a part of `size` bytes has.
pub fn pieces(size: u64) -> u64 {
    size.div_ceil(LENGTH as u64)
}

/// Sums the first `size` bytes of a file in order. `read` gives the next bytes, `each` takes the sums.
pub fn sums<E: From<Fault>>(
    key: &Key,
    size: u64,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    mut each: impl FnMut(Sum) -> Result<(), E>,
) -> Result<(), E> {
    let mut buffer = vec![0; LENGTH.min(size as usize)];
    for piece in 0..pieces(size) {
        let piece = &mut buffer[..length(size, piece)];
        if !fill(piece, &mut read)? {
            return Err(Fault("a part of a file became shorter while it was read").into());
        }
        each(key.prefix(piece))?;
    }
    Ok(())
}

/// How many bytes of a part of `size` bytes are the same as here. `read` gives the bytes here, `next` the other side's sums in order.
/// Asks for none after the first that differs.
pub fn common<E: From<Fault>>(
    key: &Key,
    size: u64,
    mut read: impl FnMut(&mut [u8]) -> Result<usize, E>,
    mut next: impl FnMut() -> Result<Sum, E>,
) -> Result<u64, E> {
    let mut buffer = vec![0; LENGTH.min(size as usize)];
    let mut same = 0;
    for piece in 0..pieces(size) {
        let piece = &mut buffer[..length(size, piece)];
        if !fill(piece, &mut read)? || next()? != key.prefix(piece) {
            break;
        }
        same += piece.len() as u64;
    }
    Ok(same)
}

fn length(size: u64, piece: u64) -> usize {
    (size - piece * LENGTH as u64).min(LENGTH as u64) as usize
}

fn fill<E>(mut buffer: &mut [u8], read: &mut impl FnMut(&mut [u8]) -> Result<usize, E>) -> Result<bool, E> {
    while !buffer.is_empty() {
        let count = read(buffer)?;
        if count == 0 {
            return Ok(false);
        }
        buffer = &mut buffer[count..];
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(part: &[u8], file: &[u8]) -> (u64, usize) {
        let (key, mut part_left, mut file_left) = (Key::new(&[5; 32]), part, file);
        let mut all = Vec::new();
        let read = |buffer: &mut [u8]| Ok::<_, Fault>(std::io::Read::read(&mut part_left, buffer).unwrap_or(0));
        let sum = |sum| {
            all.push(sum);
            Ok(())
        };
        sums(&key, part.len() as u64, read, sum).expect("sums");
        let mut next = all.iter().copied();
        // Short reads are whole reads in the end.
        let read = |buffer: &mut [u8]| {
            let count = buffer.len().min(70_000);
            Ok::<_, Fault>(std::io::Read::read(&mut file_left, &mut buffer[..count]).unwrap_or(0))
        };
        let same = common(&key, part.len() as u64, read, || next.next().ok_or(Fault("no more sums"))).expect("common");
        (same, all.len() - next.len())
    }

    #[test]
    fn a_part_is_right_up_to_the_piece_that_differs() {
        let file: Vec<u8> = (0..3 * LENGTH + 1000).map(|at| (at * 7 + at / 256) as u8).collect();
        assert_eq!(same(&[], &file), (0, 0));
        assert_eq!(same(&file, &file), (file.len() as u64, 4));
        assert_eq!(same(&file[..LENGTH + 17], &file), (LENGTH as u64 + 17, 2));
        let mut wrong = file.clone();
        wrong[LENGTH + 5] ^= 1;
        assert_eq!(same(&wrong, &file), (LENGTH as u64, 2));
        wrong[0] ^= 1;
        assert_eq!(same(&wrong, &file), (0, 1));
        // The file became shorter than the part.
        assert_eq!(same(&file, &file[..2 * LENGTH + 7]), (2 * LENGTH as u64, 2));
    }
}
