//! A sync engine: copies and mirrors trees between locations.
//!
//! Data has one way through: scan → compare → plan → apply → stats.

pub mod cli;
pub mod delta;
pub mod error;
pub mod filter;
pub mod list;
mod pages;
pub mod path;
pub mod state;

pub mod sync;
pub mod transport;

pub use cli::{Cli, Options};
pub use error::{ErrorKind, Result, SyncError};
pub use path::SyncPath;
pub use sync::{Control, Stats, run};
