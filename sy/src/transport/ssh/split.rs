//! One large file over several connections, in ranges: what one connection has on its way is limited, by OpenSSH to 2 MiB.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::endpoint::SshEndpoint;
use super::session::Session;
use crate::error::{Result, SyncError};
use crate::transport::Meta;

/// Less of a file goes over one.
const WORTHWHILE: u64 = 32 << 20;
/// Bytes of a range. Between two of them a connection is idle for as long as a question takes.
const SMALLEST: u64 = 8 << 20;
const LARGEST: u64 = 64 << 20;

/// Is a file worth it? Holes are not told in ranges.
pub fn is_worthwhile(source: &Meta, left: u64, connections: usize) -> bool {
    connections > 1 && left >= WORTHWHILE && source.allocated >= source.size
}

/// What of a file has yet to be taken. It is handed out in order: of a file that is cut off the beginning is what can be used.
#[derive(Debug)]
pub struct Ranges {
    next: AtomicU64,
    end: u64,
    step: u64,
}

impl Ranges {
    pub fn new(from: u64, end: u64, connections: usize) -> Self {
        let step = (end.saturating_sub(from) / (connections as u64 * 4)).clamp(SMALLEST, LARGEST);
        Self { next: AtomicU64::new(from), end, step }
    }

    fn take(&self) -> Option<(u64, u64)> {
        let from = self.next.fetch_add(self.step, Relaxed);
        (from < self.end).then(|| (from, (from + self.step).min(self.end)))
    }

    fn give_up(&self) {
        self.next.store(self.end, Relaxed);
    }
}

/// Carries a range over a connection.
type Carry<'c> = dyn Fn(&Session, (u64, u64)) -> Result<()> + Sync + 'c;

/// Has all connections carry ranges until none is left.
pub fn over_all(at: &SshEndpoint, ranges: &Ranges, carry: &Carry<'_>) -> Result<()> {
    let work = |place| {
        // The others do without one that could not be made.
        let Some(session) = at.session_at(place)? else { return Ok(()) };
        while let Some(range) = ranges.take() {
            carry(&session, range).inspect_err(|_| ranges.give_up())?;
        }
        Ok(())
    };
    std::thread::scope(|threads| {
        let spawn = |place| std::thread::Builder::new().name("sypy-ssh-range".into()).spawn_scoped(threads, move || work(place));
        let others: Vec<_> = (1..at.connections()).filter_map(|place| spawn(place).ok()).collect();
        let mut done = work(0);
        for other in others {
            let other = other.join().unwrap_or_else(|_| Err(SyncError::cancelled()));
            done = done.and(other);
        }
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_byte_is_in_one_range(from in 0..1_u64 << 40, length in 0..1_u64 << 32, connections in 1..33_usize) {
            let ranges = Ranges::new(from, from + length, connections);
            let mut at = from;
            while let Some((start, end)) = ranges.take() {
                prop_assert!(start == at && end > start && end - start <= LARGEST);
                at = end;
            }
            prop_assert_eq!(at, from + length);
        }
    }
}
