//! SSH hosts.

mod config;
pub mod connect;
pub mod sftp;

pub use config::{HostKeyPolicy, SshConfig};
