//! Storage: one folder for each kind, behind two traits.
//!
//! An `Endpoint` is an open location: it says what it can do and lists itself. A `Lane` carries actions out between a
//! pair of endpoints; the planner above knows neither files nor buckets. Keys are bytes, relative to the endpoint's root,
//! separated by `/`, so that whatever a storage holds can be named.

pub mod access;
pub mod accounts;
pub mod cloud;
pub mod config;
mod entry;
mod lane;
pub mod local;
pub mod open;
#[cfg(feature = "opendal")]
mod opendal;
#[path = "opendal/config.rs"]
pub mod opendal_config;
mod source;
pub mod ssh;

#[cfg(test)]
pub(crate) use entry::sample;
pub use entry::{Found, Item, Kind, Known, Listing, Meta, NO_ID, Time, key_order};
pub use lane::{Applied, Done, Doomed, Held, Lane, Op, Pace, Settled, What, not_in_place};
pub(crate) use source::Source;

use crate::error::Result;

/// What a storage can do. The planner asks; it never tests for a kind of storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// How exactly modification times are kept, nanoseconds.
    pub mtime_precision: u64,
    pub xattrs: bool,
    pub acls: bool,
    pub owner: bool,
    pub hard_links: bool,
    /// Devices, FIFOs and sockets.
    pub devices: bool,
    /// Symbolic links.
    pub links: bool,
    pub trash: bool,
    /// Any bytes make a name, and a file may stand beside a directory of the same name.
    pub any_name: bool,
}

/// An open location.
pub trait Endpoint: Send + Sync + std::fmt::Debug {
    fn capabilities(&self) -> Capabilities;

    /// What tells this location from all others, whatever a user calls it.
    fn identity(&self) -> Vec<u8>;

    /// Of the root itself.
    fn root_meta(&self) -> Result<Meta>;

    /// Does it list the whole tree by itself, ahead of being asked? Then it wants to be asked in the order of a walk.
    fn lists_ahead(&self) -> bool {
        false
    }

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
