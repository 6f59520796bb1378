//! SSH hosts.

mod accounts;
pub mod agent;
mod attributes;
mod batch;
mod config;
pub mod connect;
pub mod deploy;
mod difference;
mod endpoint;
mod extents;
mod finish;
mod here;
mod kept;
mod later;
mod pass;
mod piece;
mod pull;
mod push;
mod reader;
mod relay;
mod session;
pub mod sftp;
mod split;
mod walk;
mod window;
mod wire;
mod writer;

pub use config::{HostKeyPolicy, SshConfig};
pub use endpoint::{Here, SshEndpoint};
pub use here::boot;
pub use pull::PullLane;
pub use push::{PushLane, pace};
pub use reader::SshReader;
pub use relay::{RelayLane, pace as relay_pace};
