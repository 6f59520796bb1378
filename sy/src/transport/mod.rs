//! Storage: one folder for each kind, behind two traits.
//!
//! An `Endpoint` is an open location: it says what it can do and lists itself. A `Lane` carries actions out between a
//! pair of endpoints; the planner above knows neither files nor buckets. Keys are bytes, relative to the endpoint's root,
//! separated by `/`, so that whatever a storage holds can be named.

pub mod cloud;
pub mod config;
mod entry;
mod lane;
pub mod local;
pub mod ssh;

pub use entry::{Found, Item, Kind, Listing, Meta, Time, key_order};
pub use lane::{Applied, Doomed, Held, Lane, Op, What};

use crate::error::Result;

/// What a storage can do. The planner asks; it never tests for a kind of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// How exactly modification times are kept, nanoseconds.
    pub mtime_precision: u64,
    pub xattrs: bool,
    pub acls: bool,
}

/// An open location.
pub trait Endpoint: Send + Sync + std::fmt::Debug {
    fn capabilities(&self) -> Capabilities;

    /// One directory, whole and in key order. `key` is without a trailing slash; "" is the root.
    fn list(&self, key: &[u8]) -> Result<Listing>;

    /// One entry, and its target if it is a symbolic link; `None` if there is none.
    fn stat(&self, dir: &[u8], name: &[u8]) -> Result<Option<Found>>;

    /// The content of a small file, such as one that holds filter rules.
    fn read(&self, key: &[u8]) -> Result<Vec<u8>>;

    /// The path of `key` as a user would write it, for messages.
    fn path_of(&self, key: &[u8]) -> Vec<u8>;
}

/// `dir/name`, or `name` in the root.
pub fn child_key(dir: &[u8], name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(dir.len() + 1 + name.len());
    if !dir.is_empty() {
        key.extend_from_slice(dir);
        key.push(b'/');
    }
    key.extend_from_slice(name);
    key
}

/// The key of the directory that holds `key`, and the name in it.
pub fn split_key(key: &[u8]) -> (&[u8], &[u8]) {
    match key.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&key[..slash], &key[slash + 1..]),
        None => (b"", key),
    }
}
