//! Amazon S3 and what speaks its protocol.

mod answers;
mod credentials;
mod removal;
mod requests;
mod settings;
mod sign;

use std::sync::atomic::AtomicU8;

use credentials::Credentials;
use settings::Settings;

use super::CloudClientOptions;
use super::http::Http;
use crate::error::Result;
use crate::sync::Stop;
use crate::transport::access::Login;
use crate::transport::cloud::S3Config;

/// A bucket.
#[derive(Debug)]
pub struct S3 {
    http: Http,
    bucket: String,
    settings: Settings,
    credentials: Credentials,
    /// What the server checks uploads by, found out with the first one.
    checks: AtomicU8,
}

impl S3 {
    pub fn open(bucket: &str, login: &Login<S3Config>, stop: Stop) -> Result<Self> {
        let config = &login.config;
        let defaults = CloudClientOptions::default();
        let client = config.client_options.as_ref().unwrap_or(&defaults);
        let settings = Settings::new(bucket, config, login.refresh.is_some(), client)?;
        Ok(Self {
            http: Http::new(client, settings.base.starts_with("https:"), stop)?,
            bucket: bucket.to_owned(),
            credentials: Credentials::new(login, &settings),
            settings,
            checks: AtomicU8::new(answers::UNKNOWN),
        })
    }
}
