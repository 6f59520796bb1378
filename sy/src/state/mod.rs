//! What outlives a run, below the user's state directory: never in a user's tree.

mod index;
mod lock;
mod uploads;

pub use index::Index;
pub use lock::{Lock, lock_name, lock_tree};
pub use uploads::Uploads;

use std::fs::File;
use std::path::PathBuf;

use crate::transport::Time;

/// `$XDG_STATE_HOME/sypy`, by default `~/.local/state/sypy`.
pub fn directory() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state"))).map(|state| state.join("sypy"))
}

/// A file without a name, for what does not fit in memory; it goes away with its handle.
pub fn unnamed_file() -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let path = std::env::temp_dir().join(format!("sypy-{}-{:x}", std::process::id(), Time::now().total_nanos()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
