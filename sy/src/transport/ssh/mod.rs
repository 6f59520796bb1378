//! SSH hosts.

pub mod agent;
mod config;
pub mod connect;
mod session;
mod walk;
mod wire;

pub use config::{HostKeyPolicy, SshConfig};
