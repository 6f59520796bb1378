//! How a connection is configured: plain values, checked when they are set, with secrets that never print.
//!
//! A config is declared once with `config!`. Bindings read and write its fields by name, as they do with `Options`.

use std::collections::BTreeMap;
use std::fmt;

use super::cloud::CloudClientOptions;
use crate::cli::{OptionValue, Value};
use crate::error::Result;

/// A config seen by the names of its fields.
pub trait Config: Clone + Default + PartialEq + fmt::Debug {
    const NAMES: &'static [&'static str];
    /// Whether the config holds `CloudClientOptions`, which no `Value` can carry.
    const HAS_CLIENT: bool = false;

    fn get(&self, name: &str) -> Option<Value>;
    /// Sets one field. How fields go together is judged by `validate`.
    fn set(&mut self, name: &str, value: Value) -> Result<()>;
    /// What must not be shown or stored: whether the field has such a value right now.
    fn is_secret(&self, name: &str) -> bool;
    /// Whether the field is a mapping, carried as a list of `KEY=VALUE`.
    fn is_map(name: &str) -> bool;
    fn validate(&self) -> Result<()>;

    fn client(&self) -> Option<&CloudClientOptions> {
        None
    }
    fn set_client(&mut self, _client: Option<CloudClientOptions>) {}
}

/// Text that stands for access. `Debug` shows that it is there and nothing else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// `None` for empty text.
    pub fn from_text(text: &str) -> Option<Self> {
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// The text itself, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A URL that may hold a password, as a proxy's does. Such a one is a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Url(String);

impl Url {
    pub fn from_text(text: &str) -> Result<Self, String> {
        Self::from_value(Value::Text(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part between `://` and the next slash has a user in it.
    pub fn has_user(&self) -> bool {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split(['/', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.has_user() { f.write_str("***") } else { self.0.fmt(f) }
    }
}

/// Settings by name, such as ssh's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Pairs(pub BTreeMap<String, String>);

/// A value that a config can have.
pub trait Field: OptionValue {
    const MAP: bool = false;
    fn is_secret(&self) -> bool {
        false
    }
}

impl Field for bool {}
impl Field for u64 {}
impl Field for crate::cli::Span {}
impl Field for Pairs {
    const MAP: bool = true;
}
impl<T: Plain + OptionValue> Field for Option<T> {
    fn is_secret(&self) -> bool {
        self.as_ref().is_some_and(Plain::is_secret)
    }
}

/// What an optional field can be.
pub trait Plain {
    fn is_secret(&self) -> bool {
        false
    }
}

impl Plain for bool {}
impl Plain for u64 {}
impl Plain for u16 {}
impl Plain for String {}
impl Plain for std::path::PathBuf {}
impl Plain for crate::cli::Size {}
impl Plain for crate::cli::Span {}
impl Plain for Secret {
    fn is_secret(&self) -> bool {
        true
    }
}
impl Plain for Url {
    fn is_secret(&self) -> bool {
        self.has_user()
    }
}

impl OptionValue for u16 {
    fn from_value(value: Value) -> Result<Self, String> {
        let expected = || "a whole number from 1 to 65535".to_owned();
        match value {
            Value::Int(n) => Self::try_from(n).ok().filter(|&n| n > 0).ok_or_else(expected),
            _ => Err(expected()),
        }
    }
    fn to_value(&self) -> Value {
        Value::Int(i64::from(*self))
    }
}

impl OptionValue for String {
    fn from_value(value: Value) -> Result<Self, String> {
        match value {
            Value::Text(text) if !text.is_empty() && !text.contains(&0) => Self::from_utf8(text).map_err(|_| "text in UTF-8".into()),
            _ => Err("text that is not empty".into()),
        }
    }
    fn to_value(&self) -> Value {
        Value::Text(self.as_bytes().to_vec())
    }
}

impl OptionValue for Secret {
    fn from_value(value: Value) -> Result<Self, String> {
        String::from_value(value).map(Self)
    }
    fn to_value(&self) -> Value {
        self.0.to_value()
    }
}

impl OptionValue for Url {
    fn from_value(value: Value) -> Result<Self, String> {
        let expected = || "a URL such as \"https://HOST:PORT\"".to_owned();
        let text = String::from_value(value).map_err(|_| expected())?;
        let (scheme, rest) = text.split_once("://").ok_or_else(expected)?;
        let known = ["http", "https", "socks5", "socks5h"].iter().any(|s| scheme.eq_ignore_ascii_case(s));
        let clean = !rest.starts_with('/') && !rest.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if known && clean { Ok(Self(text)) } else { Err(expected()) }
    }
    fn to_value(&self) -> Value {
        self.0.to_value()
    }
}

impl OptionValue for Pairs {
    fn from_value(value: Value) -> Result<Self, String> {
        let expected = || "settings by name".to_owned();
        let Value::List(items) = value else { return Err(expected()) };
        let pairs = items.into_iter().map(|item| {
            let text = String::from_utf8(item).map_err(|_| expected())?;
            let (name, value) = text.split_once('=').ok_or_else(expected)?;
            let clean = !name.is_empty() && !text.contains(|c: char| c.is_control());
            clean.then(|| (name.to_owned(), value.to_owned())).ok_or_else(expected)
        });
        pairs.collect::<Result<_, _>>().map(Self)
    }
    fn to_value(&self) -> Value {
        Value::List(self.0.iter().map(|(name, value)| format!("{name}={value}").into_bytes()).collect())
    }
}

/// Declares a config: fields with defaults, and how they go together.
macro_rules! config {
    (
        $(#[$meta:meta])* $config:ident $(with $client:ident)? {
            $( $(#[$doc:meta])* $name:ident: $ty:ty = $default:expr; )*
        }
        validate($this:ident) $validate:block
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $config {
            $( $(#[$doc])* pub $name: $ty, )*
            $(
                /// Timeouts, retries and connection pool; `None` for the defaults.
                pub $client: Option<$crate::transport::cloud::CloudClientOptions>,
            )?
        }

        impl Default for $config {
            fn default() -> Self {
                Self { $( $name: $default, )* $( $client: None )? }
            }
        }

        impl $crate::transport::config::Config for $config {
            const NAMES: &'static [&'static str] = &[$( stringify!($name) ),*];

            fn get(&self, name: &str) -> Option<$crate::cli::Value> {
                match name {
                    $( stringify!($name) => Some($crate::cli::OptionValue::to_value(&self.$name)), )*
                    _ => None,
                }
            }

            fn set(&mut self, name: &str, value: $crate::cli::Value) -> $crate::error::Result<()> {
                match name {
                    $( stringify!($name) => {
                        self.$name = $crate::cli::OptionValue::from_value(value)
                            .map_err(|expected| $crate::SyncError::config(format!("{name} must be {expected}")))?;
                    } )*
                    _ => return Err($crate::SyncError::config(format!("unknown field {name:?}"))),
                }
                Ok(())
            }

            fn is_secret(&self, name: &str) -> bool {
                match name {
                    $( stringify!($name) => $crate::transport::config::Field::is_secret(&self.$name), )*
                    _ => false,
                }
            }

            fn is_map(name: &str) -> bool {
                match name {
                    $( stringify!($name) => <$ty as $crate::transport::config::Field>::MAP, )*
                    _ => false,
                }
            }

            fn validate(&self) -> $crate::error::Result<()> {
                let $this = self;
                $validate
            }

            $(
                const HAS_CLIENT: bool = true;
                fn client(&self) -> Option<&$crate::transport::cloud::CloudClientOptions> {
                    self.$client.as_ref()
                }
                fn set_client(&mut self, client: Option<$crate::transport::cloud::CloudClientOptions>) {
                    self.$client = client;
                }
            )?
        }
    };
}
pub(crate) use config;

/// A setting that is one of a few words.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant),* }
        impl $crate::cli::OptionValue for $name {
            fn from_value(value: $crate::cli::Value) -> Result<Self, String> {
                match &value {
                    $($crate::cli::Value::Text(text) if text == $word.as_bytes() => Ok(Self::$variant),)*
                    _ => Err([$(concat!("\"", $word, "\"")),*].join(" or ")),
                }
            }
            fn to_value(&self) -> $crate::cli::Value {
                $crate::cli::Value::Text(match self { $(Self::$variant => $word),* }.as_bytes().to_vec())
            }
        }
        impl $crate::transport::config::Field for $name {}
    };
}
pub(crate) use choice;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print() {
        assert_eq!(format!("{:?}", Secret("hunter2".into())), "***");
        assert_eq!(format!("{:?}", Url("http://me:hunter2@proxy:3128".into())), "***");
        assert_eq!(format!("{:?}", Url("http://proxy:3128/a@b".into())), "\"http://proxy:3128/a@b\"");
    }

    #[test]
    fn urls() {
        for good in ["http://h", "https://h:9000/x", "socks5://h:1"] {
            assert!(Url::from_value(Value::Text(good.into())).is_ok(), "{good}");
        }
        for bad in ["", "h:9000", "ftp://h", "http://", "http:///x", "http://h\n", "http://a b"] {
            assert!(Url::from_value(Value::Text(bad.into())).is_err(), "{bad:?}");
        }
    }
}
