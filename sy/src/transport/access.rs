//! Who asks: the configs of both sides of a run. They never pass through the environment, so two runs can't mix them up.

use std::sync::Arc;

use super::cloud::{AzureConfig, GcsConfig, S3Config};
use super::opendal_config::OpenDalConfig;
use super::ssh::SshConfig;
use crate::error::Result;

/// Gives fresh credentials by the names of a config's fields, and with `expires` (RFC 3339) when they end.
pub type Refresh = Arc<dyn Fn() -> Result<Vec<(String, String)>> + Send + Sync>;

/// A config, and where its credentials come from if that is a function.
#[derive(Clone, Default)]
pub struct Login<C> {
    pub config: C,
    pub refresh: Option<Refresh>,
}

impl<C> From<C> for Login<C> {
    fn from(config: C) -> Self {
        Self { config, refresh: None }
    }
}

impl<C: std::fmt::Debug> std::fmt::Debug for Login<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login").field("config", &self.config).field("refresh", &self.refresh.is_some()).finish()
    }
}

/// The configs of one side; what is not set comes from the environment and the machine.
#[derive(Debug, Clone, Default)]
pub struct Access {
    pub s3: Option<Login<S3Config>>,
    pub gcs: Option<Login<GcsConfig>>,
    pub azure: Option<Login<AzureConfig>>,
    pub ssh: Option<SshConfig>,
    pub opendal: Option<OpenDalConfig>,
}

/// The configs of both sides.
#[derive(Debug, Clone, Default)]
pub struct Accesses {
    pub source: Access,
    pub dest: Access,
}
