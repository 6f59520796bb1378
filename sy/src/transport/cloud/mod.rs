//! Object stores: S3, GCS, Azure, behind one trait.
#![cfg_attr(
    not(all(feature = "s3", feature = "gcs", feature = "azure")),
    allow(dead_code, reason = "which parts are needed depends on the features of the build")
)]

pub(super) mod attributes;
mod auth;
#[cfg(feature = "azure")]
mod azure;
mod blocks;
mod client;
mod composite;
mod config;
mod deletes;
mod download;
mod endpoint;
mod fetch;
mod gate;
#[cfg(feature = "gcs")]
mod gcs;
pub(super) mod http;
mod object;
mod pages;
mod parts;
mod ranges;
mod relay;
mod removal;
#[cfg(feature = "s3")]
mod s3;
mod send;
mod slots;
mod spool;
pub(super) mod store;
pub(super) mod sums;
mod tls;
mod upload;
mod uri;
pub mod walk;
mod writer;
mod xml;

pub use attributes::{civil, content_type};
#[cfg(feature = "azure")]
pub use azure::Azure;
pub use client::CloudClientOptions;
pub use config::{AzureConfig, BucketStyle, GcsConfig, S3Config};
pub use download::DownloadLane;
pub use endpoint::CloudEndpoint;
#[cfg(feature = "gcs")]
pub use gcs::Gcs;
pub use object::ObjectSource;
pub use relay::RelayLane;
#[cfg(feature = "s3")]
pub use s3::S3;
pub use store::Store;
pub use upload::{LocalSource, UploadLane};
pub use walk::Seen;
pub use writer::plain_key;
pub(super) use writer::{Content, read_error};

/// Metadata that holds the check sum of a whole that came in parts, where the service keeps none by itself. The name and the
/// form are those under which S3 tells the same sum.
const WHOLE: &str = "crc64nvme";

/// A tag without the quotation marks that it has in headers, and not always in lists.
fn bare(tag: &str) -> String {
    tag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

fn quoted(tag: &str) -> String {
    format!("\"{tag}\"")
}
