//! Has anybody chosen ciphers for `ssh`? Where nobody has, the one that this processor is fastest at goes first.

use std::path::Path;

use super::super::config_lines::mentions;
use crate::transport::ssh::connect::paths;

/// Whether the processor has instructions for AES. Then AES-GCM takes half the time of ssh's own first choice.
pub fn aes_is_fast() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes") && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// Whether a file that ssh reads names ciphers for any host. One that can't be read counts as if it did.
pub fn chosen(config_file: Option<&Path>) -> bool {
    match config_file {
        Some(file) => mentions(file, "ciphers"),
        None => {
            let own = paths::home().is_none_or(|home| mentions(&home.join(".ssh/config"), "ciphers"));
            own || mentions(Path::new("/etc/ssh/ssh_config"), "ciphers")
        }
    }
}
