//! SSH hosts: how to reach them. The connection itself comes with its transport.

mod config;

pub use config::{HostKeyPolicy, SshConfig};
