//! Hosts that speak SFTP: a client of version 3 with the extensions of OpenSSH, and lanes over it.
//!
//! What SFTP can't tell or do is said where it matters: times are whole seconds, a file is known by its path only, contents
//! can't be summed there, and no directory can be held open while work in it goes on.

mod aside;
mod client;
mod endpoint;
mod failure;
mod home;
mod incoming;
mod list;
mod place;
mod pull;
mod push;
mod reader;
mod server;
mod session;
mod stream;
mod tree;
mod upload;
mod wire;
mod writer;

pub use client::Again;
pub use endpoint::SftpEndpoint;
pub use failure::Failure;
pub use home::Place;
pub use pull::PullLane;
pub use push::PushLane;
pub use reader::SftpReader;
pub use upload::Upload;
