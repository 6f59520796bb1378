//! Google Cloud Storage.
//!
//! Its JSON API tells about objects, changes them and takes those that go in one request. Its XML API gives content, since
//! only there the metadata comes along, and takes parts.

mod answers;
mod credentials;
mod frame;
mod objects;
mod requests;
mod search;
mod settings;
mod wire;

use std::sync::atomic::AtomicBool;

use credentials::Credentials;
use settings::Settings;

use super::auth::variable;
use super::http::Http;
use super::{CloudClientOptions, GcsConfig};
use crate::error::Result;
use crate::sync::Stop;
use crate::transport::access::Login;

/// A bucket.
#[derive(Debug)]
pub struct Gcs {
    http: Http,
    bucket: String,
    settings: Settings,
    credentials: Credentials,
    /// The bucket wants to know who pays.
    payer: AtomicBool,
}

impl Gcs {
    pub fn open(bucket: &str, login: &Login<GcsConfig>, stop: Stop) -> Result<Self> {
        let config = &login.config;
        let defaults = CloudClientOptions::default();
        let client = config.client_options.as_ref().unwrap_or(&defaults);
        let settings = Settings::new(bucket, config, client, variable("STORAGE_EMULATOR_HOST"))?;
        Ok(Self {
            http: Http::new(client, settings.base.starts_with("https:"), stop)?,
            bucket: bucket.to_owned(),
            credentials: Credentials::new(login, settings.emulator),
            settings,
            payer: AtomicBool::new(false),
        })
    }
}
