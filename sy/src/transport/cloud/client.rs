//! What S3, GCS and Azure have in common: the HTTP client.

use crate::SyncError;
use crate::error::Result;
use crate::transport::config::{Url, config};

config! {
    /// How the HTTP client of an object store behaves. Times are in seconds.
    CloudClientOptions {
        /// Idle connections kept for each host.
        pool_max_idle_per_host: u64 = 50;
        /// An idle connection is closed after this long.
        pool_idle_timeout_secs: u64 = 30;
        connect_timeout_secs: u64 = 5;
        /// A request that moves no byte for this long has failed.
        request_timeout_secs: u64 = 60;
        max_retries: u64 = 3;
        /// No retry is begun later than this after the first try.
        retry_timeout_secs: u64 = 15;
        /// Plain HTTP is refused unless this is set.
        allow_http: bool = false;
        proxy_url: Option<Url> = None;
        /// PEM file with the certificates to trust beside the system's.
        ca_bundle: Option<std::path::PathBuf> = None;
        user_agent: Option<String> = None;
        /// Connections at a time, to all hosts together.
        max_connections: Option<u64> = None;
    }
    validate(this) {
        for (name, value) in [
            ("connect_timeout_secs", this.connect_timeout_secs),
            ("request_timeout_secs", this.request_timeout_secs),
            ("max_connections", this.max_connections.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(SyncError::config(format!("{name} must be at least 1")));
            }
        }
        Ok(())
    }
}

impl CloudClientOptions {
    /// Refuses an endpoint that holds a password, wherever it was found, since it is shown; and one without encryption, unless
    /// that is allowed here or by `AWS_ALLOW_HTTP`.
    pub fn allow(&self, endpoint: &str) -> Result<()> {
        if endpoint.contains('@') {
            return Err(SyncError::config("an endpoint must not hold a user or a password"));
        }
        let plain = endpoint.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http:"));
        let by_environment = || std::env::var("AWS_ALLOW_HTTP").is_ok_and(|value| matches!(value.as_str(), "1" | "true" | "TRUE" | "True"));
        if plain && !self.allow_http && !by_environment() {
            return Err(SyncError::config(format!("{endpoint} is not encrypted"))
                .hint("allow_http of CloudClientOptions (--allow-http), or AWS_ALLOW_HTTP=true, accepts that"));
        }
        Ok(())
    }

    /// Many connections, and time for large bodies.
    pub fn high_throughput() -> Self {
        Self { pool_max_idle_per_host: 100, request_timeout_secs: 120, max_retries: 3, ..Self::default() }
    }

    /// Few connections, and an early error instead of a long wait.
    pub fn low_latency() -> Self {
        Self { pool_max_idle_per_host: 20, request_timeout_secs: 30, max_retries: 2, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_an_endpoint_is_refused_and_not_shown() {
        for allow_http in [false, true] {
            let options = CloudClientOptions { allow_http, ..CloudClientOptions::default() };
            for endpoint in ["http://user:hunter2@h", "https://user:hunter2@h/x", "user:hunter2@h"] {
                let error = options.allow(endpoint).expect_err("refused");
                assert!(!format!("{error:?} {error}").contains("hunter2"));
            }
        }
    }
}
