//! Requests for many objects where a service has none for many at once: one after the other takes long.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// How many to hand over together.
pub const TOGETHER: usize = 256;
/// Under way for each such batch.
const THREADS: usize = 8;

/// Asks about each of `items`, several at a time unless connections are limited. One result for each, in their order.
pub fn side_by_side<T: Sync, R: Send>(items: &[T], connections: Option<u64>, ask: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = if connections.is_some() { 1 } else { THREADS.min(items.len()) };
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(items.len())));
    let work = || {
        loop {
            let n = next.fetch_add(1, Relaxed);
            let Some(item) = items.get(n) else { break };
            let result = ask(item);
            results.lock().unwrap_or_else(PoisonError::into_inner).push((n, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            // With fewer threads it only takes longer.
            let _ = std::thread::Builder::new().name("sypy-delete".into()).spawn_scoped(scope, work);
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_unstable_by_key(|(n, _)| *n);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Result, SyncError};

    #[test]
    fn every_key_has_its_own_result() {
        let names: Vec<Vec<u8>> = (0..100u8).map(|n| vec![n]).collect();
        let keys: Vec<&[u8]> = names.iter().map(Vec::as_slice).collect();
        let odd = |key: &&[u8]| if key[0] % 2 == 1 { Err(SyncError::unsupported("odd")) } else { Ok(()) };
        for connections in [None, Some(1)] {
            let results: Vec<Result<()>> = side_by_side(&keys, connections, odd);
            assert!(results.len() == 100 && results.iter().enumerate().all(|(n, result)| result.is_err() == (n % 2 == 1)));
        }
        assert!(side_by_side(&[], None, odd).is_empty());
    }
}
