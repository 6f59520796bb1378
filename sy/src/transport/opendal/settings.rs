//! Which services there are, and where their options come from: given, the location itself, the environment, in this order.

use std::collections::BTreeMap;

use crate::error::{Result, SyncError};

/// A service of OpenDAL, as far as this build has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    pub name: &'static str,
    /// Names of its options, as OpenDAL has them.
    pub options: &'static [&'static str],
    /// The option that the authority of a location stands for, and what comes before it there.
    pub place: (&'static str, &'static str),
    /// Which option says who is asking.
    pub user: &'static str,
    /// Files stand in real directories, and a write is visible while it goes on.
    pub directories: bool,
    /// Connections that such a server usually stands.
    pub connections: u64,
}

const SERVICES: &[Service] = &[
    Service {
        name: "webdav",
        options: &["endpoint", "username", "password", "token", "root", "disable_create_dir", "user_metadata_prefix", "user_metadata_uri"],
        place: ("endpoint", "https://"),
        user: "username",
        directories: true,
        connections: 32,
    },
    Service {
        name: "ftp",
        options: &["endpoint", "user", "password", "root"],
        place: ("endpoint", "ftp://"),
        user: "user",
        directories: true,
        connections: 8,
    },
    Service {
        name: "sftp",
        options: &["endpoint", "user", "key", "root", "known_hosts_strategy"],
        place: ("endpoint", "ssh://"),
        user: "user",
        directories: true,
        connections: 8,
    },
    Service {
        name: "b2",
        options: &["bucket", "bucket_id", "application_key_id", "application_key", "root"],
        place: ("bucket", ""),
        user: "application_key_id",
        directories: false,
        connections: 32,
    },
];

/// A service with all its options. There are passwords among them, so they don't print.
pub struct Settings {
    pub service: &'static Service,
    options: BTreeMap<String, String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("service", &self.service.name).finish_non_exhaustive()
    }
}

impl Settings {
    /// `variable` looks into the environment.
    pub fn new(scheme: &str, authority: &str, given: &[(String, String)], variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let service = SERVICES.iter().find(|service| service.name == scheme).ok_or_else(|| {
            let known: Vec<&str> = SERVICES.iter().map(|service| service.name).collect();
            SyncError::config(format!("{scheme:?} is not a service of OpenDAL that this build has"))
                .hint(format!("it has {}", known.join(", ")))
        })?;
        if authority.contains('@') {
            return Err(SyncError::config("a user or a password must not stand in an OpenDAL location")
                .hint(format!("they are options of the service: {}", service.options.join(", "))));
        }
        let mut options = BTreeMap::new();
        for (name, value) in given {
            let known = service.options.contains(&name.as_str());
            // Services differ in what they call it.
            let name = if !known && name == "user" && service.options.contains(&"username") { "username" } else { name };
            if !service.options.contains(&name) {
                return Err(SyncError::config(format!("{name:?} is not an option of OpenDAL's {scheme}"))
                    .hint(format!("it has {}", service.options.join(", "))));
            }
            if options.insert(name.to_owned(), value.clone()).is_some() {
                return Err(SyncError::config(format!("the option {name} of OpenDAL's {scheme} is given twice")));
            }
        }
        let (place, before) = service.place;
        let from_environment =
            |name: &str| variable(&format!("SYPY_OPENDAL_{}_{}", scheme.to_uppercase(), name.to_uppercase())).filter(|v| !v.is_empty());
        match options.get(place) {
            Some(given) if !names(given, authority) => {
                return Err(SyncError::config(format!("the {place} of OpenDAL's {scheme} is not {authority}, which the location names"))
                    .hint(format!("leave the name out, as in opendal+{scheme}:///PATH, or make them agree")));
            }
            Some(_) => {}
            None => {
                // The environment may know more of this place, such as a path or plain HTTP. Another place it must not name.
                let known = from_environment(place).filter(|value| names(value, authority));
                match known.or_else(|| (!authority.is_empty()).then(|| format!("{before}{authority}"))) {
                    Some(value) => options.insert(place.to_owned(), value),
                    None => {
                        return Err(SyncError::config(format!("the {place} of OpenDAL's {scheme} is missing"))
                            .hint(format!("write opendal+{scheme}://NAME/PATH, or give the option")));
                    }
                };
            }
        }
        for name in service.options {
            if !options.contains_key(*name)
                && let Some(value) = from_environment(name)
            {
                options.insert((*name).to_owned(), value);
            }
        }
        // OpenDAL begins in the user's home directory with SFTP only.
        if service.name == "sftp" {
            options.entry("root".to_owned()).or_insert_with(|| "/".to_owned());
        }
        let settings = Self { service, options };
        // It is printed in errors.
        if authority_of(settings.place()).contains('@') {
            return Err(SyncError::config(format!("the {place} of OpenDAL's {scheme} must not hold a user or a password"))
                .hint("they have options of their own"));
        }
        Ok(settings)
    }

    pub fn get(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    pub fn pairs(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.options.iter().map(|(name, value)| (name.clone(), value.clone()))
    }

    /// Endpoint or bucket.
    pub fn place(&self) -> &str {
        self.get(self.service.place.0)
    }

    /// What tells the service and the account from others. No secrets.
    pub fn realm(&self) -> String {
        format!("opendal {} {} {} {}", self.service.name, self.place(), self.get("root"), self.get(self.service.user))
    }

    pub fn is_encrypted(&self) -> bool {
        let scheme = self.place().split_once("://").map_or("", |(scheme, _)| scheme);
        !matches!(scheme.to_ascii_lowercase().as_str(), "http" | "ftp" | "ssh")
    }
}

/// Host and port of an endpoint, or a bucket as it is.
fn authority_of(place: &str) -> &str {
    let rest = place.split_once("://").map_or(place, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Is it the place that the location names? One without a name takes what the options say.
fn names(place: &str, authority: &str) -> bool {
    authority.is_empty() || authority_of(place).eq_ignore_ascii_case(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(scheme: &str, authority: &str, given: &[(&str, &str)], environment: &[(&str, &str)]) -> Result<Settings> {
        let given: Vec<_> = given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let find = |wanted: &str| environment.iter().find(|(name, _)| *name == wanted).map(|(_, value)| (*value).to_owned());
        Settings::new(scheme, authority, &given, find)
    }

    #[test]
    fn the_location_names_the_endpoint_unless_that_is_given() {
        let place = |scheme, given: &[(&str, &str)]| settings(scheme, "h:1", given, &[]).expect("valid").place().to_owned();
        assert_eq!(place("webdav", &[]), "https://h:1");
        assert_eq!(place("ftp", &[]), "ftp://h:1");
        assert_eq!(place("b2", &[]), "h:1");
        assert_eq!(place("webdav", &[("endpoint", "http://H:1/dav")]), "http://H:1/dav");
        let error = settings("webdav", "h:1", &[("endpoint", "http://other")], &[]).expect_err("another place").to_string();
        assert!(error.contains("endpoint"), "{error}");
        assert!(settings("ftp", "", &[], &[]).is_err(), "no place at all");
    }

    #[test]
    fn the_environment_fills_in_what_is_missing() {
        let environment = [
            ("SYPY_OPENDAL_WEBDAV_ENDPOINT", "http://h/dav"),
            ("SYPY_OPENDAL_WEBDAV_PASSWORD", "hunter2"),
            ("SYPY_OPENDAL_WEBDAV_USERNAME", "me"),
        ];
        let there = settings("webdav", "h", &[("username", "you")], &environment).expect("valid");
        assert_eq!((there.place(), there.get("username"), there.get("password")), ("http://h/dav", "you", "hunter2"));
        assert!(!format!("{there:?} {}", there.realm()).contains("hunter2"));
        let other = settings("webdav", "other", &[], &environment).expect("valid");
        assert_eq!(other.place(), "https://other", "the environment is about another place");
    }

    #[test]
    fn what_is_unknown_is_named_and_what_is_secret_is_not() {
        let error = |scheme, authority, given: &[(&str, &str)]| settings(scheme, authority, given, &[]).expect_err("refused").to_string();
        assert!(error("gopher", "h", &[]).contains("gopher"));
        let unknown = error("ftp", "h", &[("passwort", "hunter2")]);
        assert!(unknown.contains("passwort") && !unknown.contains("hunter2"), "{unknown}");
        assert!(!error("ftp", "me:hunter2@h", &[]).contains("hunter2"));
        assert!(!error("ftp", "", &[("endpoint", "ftp://me:hunter2@h")]).contains("hunter2"));
        assert_eq!(settings("webdav", "h", &[("user", "me")], &[]).expect("its own name").get("username"), "me");
    }

    #[test]
    fn encryption() {
        for (scheme, endpoint, encrypted) in [("webdav", "http://h", false), ("webdav", "https://h", true), ("ftp", "ftps://h", true)] {
            assert_eq!(settings(scheme, "", &[("endpoint", endpoint)], &[]).expect("valid").is_encrypted(), encrypted);
        }
    }
}
