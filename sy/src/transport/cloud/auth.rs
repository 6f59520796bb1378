//! Finds credentials where the providers' own tools look for them: files, the environment, programs, the machine.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqsign_core::{CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, OsEnv};
use ureq::{Agent, AsSendBody};

/// What the search may use: files, HTTP without retries, programs, the environment as it is now.
pub fn context() -> Context {
    Context::new().with_file_read(Files).with_http_send(Requests::new()).with_command_execute(Programs).with_env(Variables)
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

#[derive(Debug)]
struct Requests(Agent);

impl Requests {
    fn new() -> Self {
        // The address that tells machines who they are answers at once, or is not there.
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(2)))
            .timeout_global(Some(Duration::from_secs(20)));
        Self(Agent::new_with_config(config.build()))
    }
}

impl HttpSend for Requests {
    async fn http_send(&self, request: http::Request<Bytes>) -> reqsign_core::Result<http::Response<Bytes>> {
        let host = request.uri().host().unwrap_or_default().to_owned();
        let (parts, body) = request.into_parts();
        let fail = |error: ureq::Error| {
            // Requests for credentials hold secrets: no more than the host is told.
            let why = match error {
                ureq::Error::Timeout(_) => "no answer in time",
                ureq::Error::HostNotFound => "unknown host",
                _ => "no connection",
            };
            reqsign_core::Error::unexpected(format!("{host}: {why}"))
        };
        let sent = if body.is_empty() { self.send(parts, ()) } else { self.send(parts, body.as_ref()) };
        let (head, mut body) = sent.map_err(fail)?.into_parts();
        let bytes = body.with_config().limit(1 << 20).read_to_vec().map_err(fail)?;
        Ok(http::Response::from_parts(head, Bytes::from(bytes)))
    }
}

impl Requests {
    fn send(&self, parts: http::request::Parts, body: impl AsSendBody) -> Result<http::Response<ureq::Body>, ureq::Error> {
        self.0.run(http::Request::from_parts(parts, body))
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
