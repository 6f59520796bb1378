//! Flags that say how to reach an SSH host, beside what ssh's own configuration says. Passwords have none: argv is public.

use std::path::PathBuf;

use crate::error::{Result, SyncError};
use crate::transport::config::{Config, Pairs};
use crate::transport::ssh::{HostKeyPolicy, SshConfig};

/// Of hosts on both sides.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "SSH hosts")]
pub struct Hosts {
    /// Private key
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ssh_key: Option<PathBuf>,
    /// Port where the location names none
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub ssh_port: Option<u16>,
    /// Configuration file of ssh in place of the user's
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ssh_config: Option<PathBuf>,
    /// File of known host keys
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub ssh_known_hosts: Option<PathBuf>,
    /// Learn the key of a host that is not known yet; one that changed is refused all the same
    #[arg(long)]
    pub ssh_accept_new: bool,
    /// Hosts to go through, as [USER@]HOST[:PORT], separated by commas
    #[arg(long, value_name = "HOSTS")]
    pub ssh_jump: Option<String>,
    /// Connections side by side
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=64))]
    pub ssh_connections: Option<u64>,
    /// An option of ssh, such as ServerAliveInterval=30; repeat for several
    #[arg(long, value_name = "NAME=VALUE")]
    pub ssh_option: Vec<String>,
    /// Where sy is on the host
    #[arg(long, value_name = "PATH")]
    pub agent_path: Option<String>,
}

impl Hosts {
    /// Each flag and whether it is given.
    pub fn given(&self) -> [(bool, &'static str); 9] {
        [
            (self.ssh_key.is_some(), "--ssh-key"),
            (self.ssh_port.is_some(), "--ssh-port"),
            (self.ssh_config.is_some(), "--ssh-config"),
            (self.ssh_known_hosts.is_some(), "--ssh-known-hosts"),
            (self.ssh_accept_new, "--ssh-accept-new"),
            (self.ssh_jump.is_some(), "--ssh-jump"),
            (self.ssh_connections.is_some(), "--ssh-connections"),
            (!self.ssh_option.is_empty(), "--ssh-option"),
            (self.agent_path.is_some(), "--agent-path"),
        ]
    }

    pub fn config(&self) -> Result<SshConfig> {
        let mut options = Pairs::default();
        for pair in &self.ssh_option {
            let Some((name, value)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                return Err(SyncError::config(format!("--ssh-option must be NAME=VALUE, not {pair:?}")));
            };
            options.0.insert(name.to_owned(), value.to_owned());
        }
        let config = SshConfig {
            key_file: self.ssh_key.clone(),
            port: self.ssh_port,
            config_file: self.ssh_config.clone(),
            known_hosts: self.ssh_known_hosts.clone(),
            host_key_policy: if self.ssh_accept_new { HostKeyPolicy::AcceptNew } else { HostKeyPolicy::Strict },
            proxy_jump: self.ssh_jump.clone(),
            pool_size: self.ssh_connections,
            agent_path: self.agent_path.clone(),
            options,
            ..SshConfig::default()
        };
        config.validate()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_a_config() {
        let hosts = Hosts { ssh_port: Some(22), ssh_option: vec!["A=b=c".into()], ssh_accept_new: true, ..Hosts::default() };
        let config = hosts.config().expect("valid");
        assert_eq!((config.port, config.host_key_policy), (Some(22), HostKeyPolicy::AcceptNew));
        assert_eq!(config.options.0.get("A").map(String::as_str), Some("b=c"));
        assert!(Hosts { ssh_option: vec!["A".into()], ..Hosts::default() }.config().is_err());
        assert!(Hosts { ssh_jump: Some("-oProxyCommand=x".into()), ..Hosts::default() }.config().is_err());
    }
}
