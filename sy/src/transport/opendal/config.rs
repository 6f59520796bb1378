//! Options of OpenDAL's services, as they are given. Any build has them, also one without the services.

use std::path::{Path, PathBuf};

use crate::cli::Value;
use crate::error::{Result, SyncError};
use crate::transport::config::{Config, Secret, config};

config! {
    /// A service of OpenDAL. What is not set comes from the location and from `SYPY_OPENDAL_<SERVICE>_<OPTION>`. Each service has
    /// some of these options, and refuses the others.
    OpenDalConfig {
        /// URL of the service, where the location does not say enough.
        endpoint: Option<String> = None;
        /// Whatever the service calls it.
        user: Option<String> = None;
        password: Option<Secret> = None;
        /// In place of user and password.
        token: Option<Secret> = None;
        /// Directory that locations begin in.
        root: Option<String> = None;
        /// WebDAV: make no directories.
        disable_create_dir: Option<bool> = None;
        user_metadata_prefix: Option<String> = None;
        user_metadata_uri: Option<String> = None;
        /// SFTP: private key file.
        key: Option<PathBuf> = None;
        known_hosts_strategy: Option<String> = None;
        bucket: Option<String> = None;
        bucket_id: Option<String> = None;
        application_key_id: Option<String> = None;
        application_key: Option<Secret> = None;
    }
    validate(this) {
        if this.endpoint.as_ref().is_some_and(|endpoint| endpoint.contains('@')) {
            return Err(SyncError::config("endpoint must not hold a user or a password").hint("they have fields of their own"));
        }
        Ok(())
    }
}

impl OpenDalConfig {
    /// Reads `NAME = VALUE`, one a line. Empty lines and those that begin with `#` don't count. No value stands in an error.
    pub fn from_file(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|error| SyncError::io(&error, "read the options in", path))?;
        let mut config = Self::default();
        for (number, line) in (1..).zip(text.lines().map(str::trim)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fail = |what: &str| SyncError::config(format!("line {number} of {} {what}", path.display()));
            let (name, value) = line.split_once('=').ok_or_else(|| fail("is not NAME = VALUE"))?;
            let (name, value) = (
                match name.trim() {
                    "username" => "user",
                    name => name,
                },
                value.trim(),
            );
            if !Self::NAMES.contains(&name) {
                return Err(fail(&format!("names no option: {name:?}")).hint(format!("known: {}", Self::NAMES.join(", "))));
            }
            if config.get(name) != Self::default().get(name) {
                return Err(fail(&format!("gives {name} again")));
            }
            let value = match (name, value) {
                ("disable_create_dir", "true") => Value::Bool(true),
                ("disable_create_dir", "false") => Value::Bool(false),
                _ => Value::Text(value.into()),
            };
            config.set(name, value).map_err(|error| fail(&format!("is wrong: {}", error.message)))?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Those that are set, by the names that OpenDAL has for them.
    pub fn given(&self) -> Vec<(String, String)> {
        let text = |value: Value| match value {
            Value::Text(text) => String::from_utf8(text).ok(),
            Value::Bool(yes) => Some(yes.to_string()),
            _ => None,
        };
        Self::NAMES.iter().filter_map(|name| Some(((*name).to_owned(), text(self.get(name)?)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<OpenDalConfig> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        OpenDalConfig::from_file(file.path())
    }

    #[test]
    fn a_file_has_an_option_a_line() {
        let config = read("# of the server\n\nusername = me\npassword = a = b \ndisable_create_dir=true\n").expect("valid");
        let expected = [("user", "me"), ("password", "a = b"), ("disable_create_dir", "true")];
        assert_eq!(config.given(), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert!(!format!("{config:?}").contains("a = b"));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line_and_not_shown() {
        for (text, line) in
            [("user", 1), ("\nuser = a\nuser = b", 3), ("passwort = hunter2", 1), ("password =", 1), ("disable_create_dir = x", 1)]
        {
            let error = read(text).expect_err("wrong").to_string();
            assert!(error.contains(&format!("line {line} of")) && !error.contains("hunter2"), "{error}");
        }
        assert!(!read("endpoint = ftp://me:hunter2@h").expect_err("a password").to_string().contains("hunter2"));
    }
}
