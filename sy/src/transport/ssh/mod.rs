//! SSH hosts.

mod accounts;
pub mod agent;
mod attributes;
mod config;
pub mod connect;
pub mod deploy;
mod difference;
mod endpoint;
mod extents;
mod finish;
mod pull;
mod push;
mod session;
pub mod sftp;
mod walk;
mod window;
mod wire;
mod writer;

pub use config::{HostKeyPolicy, SshConfig};
pub use endpoint::SshEndpoint;
pub use pull::PullLane;
pub use push::PushLane;
