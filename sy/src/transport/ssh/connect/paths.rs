//! Files that ssh reads, and where the user's are.

use std::path::{Path, PathBuf};

use crate::error::{Result, SyncError};

/// `$HOME`. OpenSSH itself asks the user database, which nearly always says the same.
pub fn home() -> Option<PathBuf> {
    std::env::var_os("HOME").filter(|home| !home.is_empty()).map(PathBuf::from)
}

/// `path` with `~` and all that it is relative to.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let path = match (path.strip_prefix("~"), home()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    };
    std::path::absolute(&path).map_err(|error| SyncError::io(&error, "find", path))
}

/// The private keys that ssh tries when nobody names one.
pub fn usual_keys() -> Vec<PathBuf> {
    let Some(dir) = home().map(|home| home.join(".ssh")) else { return Vec::new() };
    ["id_rsa", "id_ecdsa", "id_ed25519"].map(|name| dir.join(name)).into_iter().filter(|key| key.is_file()).collect()
}

/// The name of the user of this process.
pub fn local_user() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let named = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    named.or_else(|| variable("LOGNAME")).or_else(|| variable("USER")).unwrap_or(uid)
}
