//! Where tokens come from: key files, Google's own tool, the machine, a function.

use std::path::PathBuf;

use reqsign_core::time::Timestamp;
use reqsign_core::{Context, ProvideCredential};
use reqsign_google::{
    Credential, ServiceAccountTokenCredentialProvider, StaticCredentialProvider, Token as Loaded, VmMetadataCredentialProvider,
};

use super::super::auth::{home, variable, why};
use crate::error::{ErrorKind, Result, SyncError};

/// A token, and when it ends.
pub type Found = (String, Option<i64>);

/// Looks where Google's own tools look.
pub fn search(context: &Context) -> Result<Found> {
    match key_file(variable, home()) {
        Some(path) => from_file(&path, context),
        None => from_machine(context),
    }
}

pub fn nothing_found() -> SyncError {
    SyncError::new(ErrorKind::Authentication, "no credentials for Google Cloud Storage were found").hint(
        "set credentials_file, credentials_json or token of GcsConfig, or GOOGLE_APPLICATION_CREDENTIALS, \
         or run gcloud auth application-default login; anonymous=True needs none",
    )
}

/// The key file that the environment names, or that Google's own tool wrote.
fn key_file(variable: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Option<PathBuf> {
    if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
        // Should it not be there, that is worth an error.
        return Some(path.into());
    }
    let dir = variable("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| Some(home?.join(".config/gcloud")))?;
    Some(dir.join("application_default_credentials.json")).filter(|path| path.exists())
}

pub fn from_file(path: &std::path::Path, context: &Context) -> Result<Found> {
    let text = std::fs::read_to_string(path).map_err(|error| SyncError::io(&error, "read the credentials in", path))?;
    exchange(&text, &path.display().to_string(), context)
}

/// Makes a token of what a key file holds. `name` is where it came from.
pub fn exchange(text: &str, name: &str, context: &Context) -> Result<Found> {
    let fail = |error: reqsign_core::Error| {
        let hint = format!("{name} must hold the JSON key of a service account, a user or an external account that is still valid");
        SyncError::new(ErrorKind::Authentication, format!("credentials for Google Cloud Storage could not be had: {}", why(&error)))
            .hint(hint)
    };
    let provided = pollster::block_on(StaticCredentialProvider::new(text).provide_credential(context)).map_err(fail)?;
    match provided {
        Some(Credential { token: Some(token), .. }) => Ok(loaded(token)),
        Some(Credential { service_account: Some(account), .. }) => {
            let provider = ServiceAccountTokenCredentialProvider::new(account);
            let provided = pollster::block_on(provider.provide_credential(context)).map_err(fail)?;
            provided.and_then(|credential| credential.token).map(loaded).ok_or_else(nothing_found)
        }
        _ => Err(nothing_found()),
    }
}

/// Machines at Google are told who they are.
fn from_machine(context: &Context) -> Result<Found> {
    let provided = pollster::block_on(VmMetadataCredentialProvider::new().provide_credential(context));
    // On other machines there is nobody to ask.
    provided.ok().flatten().and_then(|credential| credential.token).map(loaded).ok_or_else(nothing_found)
}

fn loaded(token: Loaded) -> Found {
    (token.access_token, token.expires_at.map(Timestamp::as_second))
}

pub fn from_fields(fields: Vec<(String, String)>) -> Result<Found> {
    let (mut token, mut end) = (String::new(), None);
    for (name, value) in fields {
        match name.as_str() {
            "token" => token = value,
            "expires" => {
                let time: Timestamp =
                    value.parse().map_err(|_| SyncError::config("expires of credentials must be a time such as 2030-01-01T00:00:00Z"))?;
                end = Some(time.as_second());
            }
            _ => return Err(SyncError::config(format!("credentials have an unknown field {name:?}"))),
        }
    }
    if token.is_empty() {
        return Err(SyncError::config("credentials need token"));
    }
    Ok((token, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_is_asked_before_the_well_known_place() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = dir.path().join(".config/gcloud");
        std::fs::create_dir_all(&config).expect("a directory");
        let home = || Some(dir.path().to_owned());
        assert_eq!(key_file(|_| None, home()), None);
        let known = config.join("application_default_credentials.json");
        std::fs::write(&known, "{}").expect("a file");
        assert_eq!(key_file(|_| None, home()), Some(known.clone()));
        let named = |wanted: &'static str, path: PathBuf| move |name: &str| (name == wanted).then(|| path.display().to_string());
        assert_eq!(key_file(named("CLOUDSDK_CONFIG", config), None), Some(known));
        assert_eq!(key_file(named("GOOGLE_APPLICATION_CREDENTIALS", "/none".into()), home()), Some("/none".into()));
    }

    #[test]
    fn what_is_no_key_is_told_without_its_text() {
        let error = exchange("{\"private_key\": \"hunter2\"}", "credentials_json", &Context::new()).expect_err("no key");
        assert_eq!(error.kind, ErrorKind::Authentication);
        assert!(!error.to_string().contains("hunter2"), "{error}");
        assert!(from_fields(vec![("key".into(), "x".into())]).is_err() && from_fields(Vec::new()).is_err());
    }
}
