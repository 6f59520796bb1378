//! Object stores: S3, GCS, Azure, behind one trait.

pub(super) mod attributes;
mod auth;
mod client;
mod config;
mod download;
mod endpoint;
mod gate;
pub(super) mod http;
mod relay;
#[cfg(feature = "s3")]
mod s3;
mod spool;
pub(super) mod store;
pub(super) mod sums;
mod upload;
mod uri;
mod writer;
mod xml;

pub use client::CloudClientOptions;
pub use config::{AzureConfig, BucketStyle, GcsConfig, S3Config};
pub use download::DownloadLane;
pub use endpoint::CloudEndpoint;
pub use relay::RelayLane;
#[cfg(feature = "s3")]
pub use s3::S3;
pub use store::Store;
pub use upload::UploadLane;
#[cfg(feature = "opendal")]
pub(super) use writer::read_error;

/// A tag without the quotation marks that it has in headers, and not always in lists.
fn bare(tag: &str) -> String {
    tag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}
