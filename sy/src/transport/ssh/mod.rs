//! SSH hosts.

mod config;
pub mod connect;

pub use config::{HostKeyPolicy, SshConfig};
