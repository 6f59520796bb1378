//! What outlives a run, below the user's state directory: never in a user's tree.

mod lock;

pub use lock::{Lock, lock_tree};

use std::path::PathBuf;

/// `$XDG_STATE_HOME/sypy`, by default `~/.local/state/sypy`.
pub fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state"))).map(|state| state.join("sypy"))
}
