//! What tells this machine, and the tree of files that is seen here, from others.

/// Equal for two processes that mean the same file by the same path.
pub fn machine() -> Vec<u8> {
    let mut hash = blake3::Hasher::new();
    hash.update(&std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default());
    hash.update(rustix::system::uname().nodename().to_bytes());
    // Containers of one machine have roots of their own.
    if let Ok(root) = rustix::fs::stat("/") {
        hash.update(&root.st_dev.to_le_bytes()).update(&root.st_ino.to_le_bytes());
    }
    hash.finalize().as_bytes()[..16].to_vec()
}
