//! Compression on the wire: zstd over all that goes one way, so that what was sent before helps, also other files.
//!
//! It is used where it helps. Far away it begins at once; near by, when the wire is what everything waits for. What does not
//! shrink is soon left as it is, and tried again later.

use std::time::Duration;

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

use super::codec::garbled;
use crate::error::Result;

/// Two to the power of this many bytes are looked back over. Both sides take that much memory.
const WINDOW: u32 = 24;
/// Fast enough for any wire that this is used on.
const LEVEL: i32 = 1;
/// After so many bytes it is judged whether they shrink.
const TRIAL: u64 = 4 << 20;
/// After so many more it is tried again.
const PAUSE: u64 = 64 << 20;
/// Of a hundred bytes, at most so many may be left, or it is not worth it.
const WORTH: u64 = 96;
/// So much goes as it is before it is known whether the other side is far: an encoder costs time to set up.
const FREE: u64 = 256 << 10;
/// A slower wire, bytes a second, is worth compressing for.
const SLOW: f64 = 40e6;
/// The other side is far away when an answer takes longer.
pub const FAR: Duration = Duration::from_millis(5);

/// When to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum When {
    Always,
    /// Where it helps: as far as is known now, it does.
    Yes,
    /// As far as is known now, it does not.
    No,
}

/// Compresses what is sent, when that pays.
pub struct Zip {
    encoder: Option<Encoder<'static>>,
    when: When,
    /// Bytes before and after, since the last judgement.
    taken: u64,
    given: u64,
    /// Bytes that go as they are before the next try.
    pause: u64,
    /// Bytes that went as they are, and how long that took, lately.
    sent: u64,
    waited: Duration,
}

impl When {
    pub fn of(byte: u8) -> Result<Self> {
        [Self::Always, Self::Yes, Self::No].get(usize::from(byte)).copied().ok_or_else(|| garbled("a choice that there is not"))
    }
}

impl std::fmt::Debug for Zip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Zip").field("when", &self.when).finish_non_exhaustive()
    }
}

impl Zip {
    pub fn new(when: When) -> Self {
        Self {
            encoder: None,
            when,
            taken: 0,
            given: 0,
            pause: if when == When::Always { 0 } else { FREE },
            sent: 0,
            waited: Duration::ZERO,
        }
    }

    /// The other side turned out to be near or far.
    pub fn learn(&mut self, when: When) {
        if self.when != When::Always {
            self.pause = if when == When::Always { 0 } else { self.pause };
            self.when = when;
        }
    }

    /// A frame, smaller; `None` if it should go as it is.
    pub fn zip(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        if self.when == When::No || frame.len() < 64 {
            return None;
        }
        if self.pause > 0 {
            self.pause = self.pause.saturating_sub(frame.len() as u64);
            return None;
        }
        if self.encoder.is_none() {
            let mut encoder = Encoder::new(LEVEL).ok()?;
            encoder.set_parameter(CParameter::WindowLog(WINDOW)).ok()?;
            encoder.set_parameter(CParameter::EnableLongDistanceMatching(true)).ok()?;
            self.encoder = Some(encoder);
        }
        let zipped = self.encoder.as_mut().and_then(|encoder| run(encoder, frame).ok())?;
        self.taken += frame.len() as u64;
        self.given += zipped.len() as u64;
        if self.taken >= TRIAL {
            if self.given * 100 > self.taken * WORTH && self.when != When::Always {
                self.pause = PAUSE;
            }
            (self.taken, self.given) = (0, 0);
        }
        // What went through the encoder has to go out, or the other side loses track.
        Some(zipped)
    }

    /// Bytes went out as they are. A slow wire near by is found out so.
    pub fn sent(&mut self, bytes: usize, took: Duration) {
        if self.when != When::No {
            return;
        }
        self.sent += bytes as u64;
        self.waited += took;
        if self.sent >= TRIAL {
            if self.sent as f64 / self.waited.as_secs_f64().max(1e-9) < SLOW {
                (self.when, self.pause) = (When::Yes, 0);
            }
            (self.sent, self.waited) = (0, Duration::ZERO);
        }
    }
}

fn run(encoder: &mut Encoder<'static>, frame: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut out = vec![0; zstd::zstd_safe::compress_bound(frame.len()) + 64];
    let mut output = OutBuffer::around(&mut out[..]);
    let mut input = InBuffer::around(frame);
    while input.pos() < frame.len() {
        encoder.run(&mut input, &mut output)?;
    }
    while encoder.flush(&mut output)? > 0 {}
    let length = output.pos();
    out.truncate(length);
    Ok(out)
}

/// The other end of it.
pub struct Unzip(Decoder<'static>);

impl std::fmt::Debug for Unzip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unzip")
    }
}

impl Unzip {
    pub fn new() -> Result<Self> {
        let mut decoder = Decoder::new().map_err(|_| garbled("what can't be unpacked"))?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW)).map_err(|_| garbled("what can't be unpacked"))?;
        Ok(Self(decoder))
    }

    /// What was packed, no more than `most` bytes of it.
    pub fn unzip(&mut self, zipped: &[u8], most: usize) -> Result<Vec<u8>> {
        let broken = || garbled("what can't be unpacked");
        // One more, to see that there is more.
        let mut out = Vec::with_capacity((zipped.len() * 2).min(most + 1));
        let mut input = InBuffer::around(zipped);
        loop {
            let from = out.len();
            let room = (out.capacity() - from).max(32 << 10).min(most + 1 - from);
            if room == 0 {
                return Err(garbled("a message that is too large"));
            }
            out.resize(from + room, 0);
            let mut output = OutBuffer::around(&mut out[from..]);
            self.0.run(&mut input, &mut output).map_err(|_| broken())?;
            let made = output.pos();
            out.truncate(from + made);
            if input.pos() == zipped.len() && made < room {
                return Ok(out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_before_helps() {
        let (mut zip, mut unzip) = (Zip::new(When::Always), Unzip::new().expect("memory"));
        let mut state = 1_u64;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        })
        .take(200_000)
        .collect();
        let first = zip.zip(&noise).expect("far away");
        let again = zip.zip(&noise).expect("far away");
        assert!(first.len() > 199_000 && again.len() < 2_000, "{} {}", first.len(), again.len());
        assert_eq!(unzip.unzip(&first, 1 << 20).expect("whole"), noise);
        assert_eq!(unzip.unzip(&again, 1 << 20).expect("whole"), noise);
        assert!(unzip.unzip(&zip.zip(&noise).expect("far away"), 1000).is_err());
    }

    #[test]
    fn what_does_not_shrink_is_left_as_it_is() {
        let mut zip = Zip::new(When::Yes);
        assert!(zip.zip(&[0; 256 << 10]).is_none(), "it is not known yet whether that pays");
        let mut state = 1_u64;
        let mut pieces = 0;
        loop {
            let noise: Vec<u8> = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                (state >> 56) as u8
            })
            .take(256 << 10)
            .collect();
            if zip.zip(&noise).is_none() {
                break;
            }
            pieces += 1;
            assert!(pieces < 100);
        }
        assert_eq!(pieces, TRIAL / (256 << 10));
    }

    #[test]
    fn a_slow_wire_near_by_is_found_out() {
        let mut zip = Zip::new(When::No);
        assert!(zip.zip(&[7; 1000]).is_none());
        for _ in 0..16 {
            zip.sent(256 << 10, Duration::from_millis(20));
        }
        assert!(zip.zip(&[7; 1000]).is_some());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_unpacked_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
            let _ = Unzip::new().expect("memory").unzip(&bytes, 10_000);
        }
    }
}
