//! How to reach a host by SSH, beside what `~/.ssh/config` says.

use std::path::PathBuf;

use crate::SyncError;
use crate::cli::Span;
use crate::transport::config::{Pairs, Secret, choice, config};

choice! {
    /// What becomes of a host whose key is not known yet. A key that changed is always refused.
    HostKeyPolicy {
        Strict = "strict",
        AcceptNew = "accept-new",
    }
}

config! {
    /// A connection to an SSH host. What is not set comes from ssh's own configuration.
    SshConfig {
        key_file: Option<PathBuf> = None;
        port: Option<u16> = None;
        password: Option<Secret> = None;
        compression: bool = false;
        /// `[user@]host[:port]` to go through; several are separated by commas.
        proxy_jump: Option<String> = None;
        connect_timeout: Option<Span> = None;
        /// Connections side by side.
        pool_size: Option<u64> = None;
        user: Option<String> = None;
        /// The text of a private key.
        key_data: Option<Secret> = None;
        /// Of the private key.
        passphrase: Option<Secret> = None;
        known_hosts: Option<PathBuf> = None;
        host_key_policy: HostKeyPolicy = HostKeyPolicy::Strict;
        config_file: Option<PathBuf> = None;
        /// Where the agent is on the host.
        agent_path: Option<String> = None;
        /// ssh's own options, by their names there.
        options: Pairs = Pairs::default();
    }
    validate(this) {
        if this.key_file.is_some() && this.key_data.is_some() {
            return Err(SyncError::config("key_file and key_data are both set").hint("set one of them"));
        }
        if this.pool_size == Some(0) {
            return Err(SyncError::config("pool_size must be at least 1"));
        }
        // A value that begins with a dash would be read as an option by an ssh program.
        for (name, value) in [("user", &this.user), ("proxy_jump", &this.proxy_jump), ("agent_path", &this.agent_path)] {
            if value.as_ref().is_some_and(|value| value.starts_with('-')) {
                return Err(SyncError::config(format!("{name} must not begin with a dash")));
            }
        }
        let user_of_jump = this.proxy_jump.as_ref().and_then(|jump| jump.rsplit_once('@'));
        if user_of_jump.is_some_and(|(user, _)| user.contains(':')) {
            return Err(SyncError::config("proxy_jump must not hold a password"));
        }
        Ok(())
    }
}
