//! Azure Blob Storage.

mod answers;
mod credentials;
mod requests;
mod settings;
mod sign;

use credentials::Credentials;
use settings::{Environment, Settings};

use super::CloudClientOptions;
use super::http::Http;
use crate::error::Result;
use crate::sync::Stop;
use crate::transport::access::Login;
use crate::transport::cloud::AzureConfig;

/// A container.
#[derive(Debug)]
pub struct Azure {
    http: Http,
    container: String,
    settings: Settings,
    credentials: Credentials,
}

impl Azure {
    pub fn open(container: &str, login: &Login<AzureConfig>, stop: Stop) -> Result<Self> {
        let config = &login.config;
        let defaults = CloudClientOptions::default();
        let client = config.client_options.as_ref().unwrap_or(&defaults);
        let settings = Settings::new(container, config, &Environment::read(), client)?;
        Ok(Self {
            http: Http::new(client, settings.base.starts_with("https:"), stop)?,
            container: container.to_owned(),
            credentials: Credentials::new(login, &settings)?,
            settings,
        })
    }
}
