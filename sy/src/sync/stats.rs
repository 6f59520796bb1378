//! What a run did, counted where it happened.

use std::time::Duration;

use crate::error::SyncError;

macro_rules! counters {
    ($( $(#[$doc:meta])* $name:ident ),* $(,)?) => {
        /// The result of a run. A dry run counts what it would do.
        #[derive(Debug, Clone, Default, PartialEq)]
        pub struct Stats {
            $( $(#[$doc])* pub $name: u64, )*
            /// Wall time of the run.
            pub duration: Duration,
            /// Largest resident size of the process so far, bytes.
            pub peak_memory: u64,
            pub errors: Vec<SyncError>,
        }

        impl Stats {
            /// The counters by name, in order.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$( (stringify!($name), self.$name) ),*].into_iter()
            }
        }

        /// The same counters while a run is under way, shared by its workers.
        #[derive(Debug, Default)]
        pub struct Tally { $( pub $name: std::sync::atomic::AtomicU64, )* }

        impl Tally {
            pub fn snapshot(&self) -> Stats {
                Stats {
                    $( $name: self.$name.load(std::sync::atomic::Ordering::Relaxed), )*
                    ..Stats::default()
                }
            }
        }
    };
}

counters! {
    /// Files, links and special files looked at in the source.
    files_scanned,
    files_created,
    files_updated,
    /// Only times, permissions or other metadata were set.
    files_metadata_updated,
    /// Already as they should be, or left alone because an option says so.
    files_skipped,
    /// Files, links and special files removed from the destination.
    files_deleted,
    dirs_created,
    dirs_deleted,
    symlinks_created,
    hardlinks_created,
    /// Source files removed after their copy was in place.
    sources_removed,
    /// Content bytes of the files created or updated.
    bytes_transferred,
    /// Content bytes read from either side, comparisons and verification included.
    bytes_read,
    files_delta_synced,
    delta_bytes_saved,
    files_compressed,
    compression_bytes_saved,
    files_verified,
    verification_failures,
    retries,
    /// Bytes of files that a dry run would create.
    bytes_would_add,
    /// Bytes of files that a dry run would update.
    bytes_would_change,
    /// Bytes of files that a dry run would delete.
    bytes_would_delete,
}

impl Stats {
    pub fn success(&self) -> bool {
        self.errors.is_empty()
    }

    /// Content bytes per second of wall time.
    pub fn transfer_rate(&self) -> f64 {
        let seconds = self.duration.as_secs_f64();
        if seconds > 0.0 { self.bytes_transferred as f64 / seconds } else { 0.0 }
    }
}
