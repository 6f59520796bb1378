//! Finds credentials where the providers' own tools look for them: files, the environment, programs, the machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use reqsign_core::{CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, OsEnv};
use ureq::{Agent, AsSendBody, Proxy};

use super::{CloudClientOptions, tls};
use crate::error::SyncError;

/// What the search may use: files, HTTP without retries, programs, the environment as it is now.
pub fn context(client: Option<&CloudClientOptions>) -> Context {
    let requests = Requests { options: client.cloned().unwrap_or_default(), near: OnceLock::new(), far: OnceLock::new() };
    Context::new().with_file_read(Files).with_http_send(requests).with_command_execute(Programs).with_env(Variables)
}

/// Why a search failed, and why that.
pub fn why(error: &reqsign_core::Error) -> String {
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{source}").chars().filter(|c| !c.is_control()).take(300).collect()
}

pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

pub fn home() -> Option<PathBuf> {
    OsEnv.home_dir()
}

/// The environment, as `variable` sees it: an empty variable is as good as none.
#[derive(Debug)]
struct Variables;

impl Env for Variables {
    fn var(&self, name: &str) -> Option<String> {
        variable(name)
    }

    fn vars(&self) -> HashMap<String, String> {
        OsEnv.vars().into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    fn home_dir(&self) -> Option<PathBuf> {
        home()
    }
}

#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        std::fs::read(path).map_err(|error| reqsign_core::Error::config_invalid(format!("{path} could not be read: {error}")))
    }
}

/// One agent for plain HTTP, by which machines are told who they are, and one for the services of the providers, which are far
/// away, behind the proxy, and have certificates. Reading those that are trusted takes a while, so neither is made before it is
/// needed.
#[derive(Debug)]
struct Requests {
    options: CloudClientOptions,
    near: OnceLock<Agent>,
    far: OnceLock<Agent>,
}

impl Requests {
    fn agent(&self, encrypted: bool) -> Result<&Agent, SyncError> {
        let cell = if encrypted { &self.far } else { &self.near };
        if let Some(agent) = cell.get() {
            return Ok(agent);
        }
        // The address that tells machines who they are answers at once, or is not there.
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(if encrypted { self.options.connect_timeout_secs } else { 2 })))
            .timeout_global(Some(Duration::from_secs(20)));
        if encrypted {
            config = config.tls_config(tls::config(&self.options)?);
            if let Some(url) = &self.options.proxy_url {
                let proxy = Proxy::new(url.as_str()).map_err(|_| SyncError::config("proxy_url is not a proxy that can be used"))?;
                config = config.proxy(Some(proxy));
            }
        }
        Ok(cell.get_or_init(|| Agent::new_with_config(config.build())))
    }

    fn send(&self, parts: http::request::Parts, body: impl AsSendBody) -> Result<http::Response<ureq::Body>, SyncError> {
        let host = parts.uri.host().unwrap_or_default().to_owned();
        let agent = self.agent(parts.uri.scheme_str() == Some("https"))?;
        agent.run(http::Request::from_parts(parts, body)).map_err(|error| described(&error, &host))
    }
}

/// Requests for credentials hold secrets: no more than the host is told.
fn described(error: &ureq::Error, host: &str) -> SyncError {
    let why = match error {
        ureq::Error::Timeout(_) => "no answer in time",
        ureq::Error::HostNotFound => "unknown host",
        ureq::Error::Rustls(error) => return tls::describe(error, host),
        ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref()) {
            Some(error) => return tls::describe(error, host),
            None => "no connection",
        },
        _ => "no connection",
    };
    SyncError::new(crate::error::ErrorKind::Network, format!("{host}: {why}"))
}

impl HttpSend for Requests {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (parts, body) = request.into_parts();
        let fail = |error: SyncError| reqsign_core::Error::unexpected(error.to_string());
        let sent = if body.is_empty() { self.send(parts, ()) } else { self.send(parts, body.as_ref()) };
        let (head, mut body) = sent.map_err(fail)?.into_parts();
        let bytes = body.with_config().limit(1 << 20).read_to_vec().map_err(|error| fail(described(&error, &host)))?;
        Ok(http::Response::from_parts(head, Bytes::from(bytes)))
    }
}

#[derive(Debug)]
struct Programs;

impl CommandExecute for Programs {
    async fn command_execute(&self, program: &str, args: &[&str]) -> reqsign_core::Result<CommandOutput> {
        let output = std::process::Command::new(program)
            .args(args)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|error| reqsign_core::Error::config_invalid(format!("{program} could not be run: {error}")))?;
        Ok(CommandOutput { status: output.status.code().unwrap_or(-1), stdout: output.stdout, stderr: output.stderr })
    }
}
