//! Deletions where a service has no request for many: one after the other takes long.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use crate::error::Result;

/// How many to hand over together.
pub const TOGETHER: usize = 256;
/// Under way for each such batch.
const THREADS: usize = 8;

/// Deletes each of `keys`, several at a time unless connections are limited. One result for each.
pub fn side_by_side(keys: &[&[u8]], connections: Option<u64>, delete: impl Fn(&[u8]) -> Result<()> + Sync) -> Vec<Result<()>> {
    let threads = if connections.is_some() { 1 } else { THREADS.min(keys.len()) };
    let (next, results) = (AtomicUsize::new(0), Mutex::new(vec![Ok(()); keys.len()]));
    let work = || {
        loop {
            let n = next.fetch_add(1, Relaxed);
            let Some(key) = keys.get(n) else { break };
            let result = delete(key);
            results.lock().unwrap_or_else(PoisonError::into_inner)[n] = result;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // With fewer threads it only takes longer.
            let _ = std::thread::Builder::new().name("sypy-delete".into()).spawn_scoped(scope, work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::SyncError;

    #[test]
    fn every_key_has_its_own_result() {
        let names: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n]).collect();
        let keys: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let odd = |key: &[u8]| if key[0] % 2 == 1 { Err(SyncError::unsupported("odd")) } else { Ok(()) };
        for connections in [None, Some(1)] {
            let results = side_by_side(&keys, connections, odd);
            assert!(results.len() == 100 && results.iter().enumerate().all(|(n, result)| result.is_err() == (n % 2 == 1)));
        }
        assert!(side_by_side(&[], None, odd).is_empty());
    }
}
