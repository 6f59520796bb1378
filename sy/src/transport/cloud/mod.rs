//! Object stores: how to reach them. The stores themselves come with their transports.

mod client;
mod config;

pub use client::CloudClientOptions;
pub use config::{AzureConfig, BucketStyle, GcsConfig, S3Config};
