//! The kinds of value an option can have, and how text, numbers and lists become them.
//!
//! The command line hands over text; bindings hand over a `Value`. Both end in the same parsers.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::time::Duration;

/// A value on its way between an option and a language that is not Rust.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
}

/// What a value should have been.
pub type Expected = String;

/// A type that an option can have.
pub trait OptionValue: Sized {
    fn from_value(value: Value) -> Result<Self, Expected>;
    fn to_value(&self) -> Value;
}

impl OptionValue for bool {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::Bool(b) => Ok(b),
            _ => Err("True or False".into()),
        }
    }
    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

macro_rules! whole_number {
    ($($ty:ty),*) => { $(
        impl OptionValue for $ty {
            fn from_value(value: Value) -> Result<Self, Expected> {
                match value {
                    Value::Int(n) => <$ty>::try_from(n).map_err(|_| format!("a whole number from 0 to {}", <$ty>::MAX)),
                    _ => Err("a whole number".into()),
                }
            }
            fn to_value(&self) -> Value {
                Value::Int(i64::try_from(*self).unwrap_or(i64::MAX))
            }
        }
    )* };
}
whole_number!(u8, u32, u64);

impl<T: OptionValue> OptionValue for Option<T> {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::None => Ok(None),
            other => T::from_value(other).map(Some).map_err(|expected| format!("{expected}, or None")),
        }
    }
    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::None, OptionValue::to_value)
    }
}

/// Rules and patterns: one text or a list of them.
impl OptionValue for Vec<OsString> {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::None => Ok(Vec::new()),
            Value::Text(one) => Ok(vec![OsString::from_vec(one)]),
            Value::List(many) => Ok(many.into_iter().map(OsString::from_vec).collect()),
            _ => Err("a list of patterns".into()),
        }
    }
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|s| s.as_bytes().to_vec()).collect())
    }
}

impl OptionValue for PathBuf {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::Text(path) if !path.is_empty() => Ok(OsString::from_vec(path).into()),
            _ => Err("a path".into()),
        }
    }
    fn to_value(&self) -> Value {
        Value::Text(self.as_os_str().as_bytes().to_vec())
    }
}

/// A number of bytes: `1000`, `"10MB"` (decimal), `"1GiB"` or, as rsync has it, `"1G"` (binary).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl std::str::FromStr for Size {
    type Err = Expected;
    fn from_str(text: &str) -> Result<Self, Expected> {
        const EXPECTED: &str = "a size such as 1000, \"10MB\" or \"1GiB\"";
        let text = text.trim();
        let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let number: f64 = text[..digits].parse().map_err(|_| EXPECTED)?;
        let unit: f64 = match text[digits..].trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "kb" => 1e3,
            "mb" => 1e6,
            "gb" => 1e9,
            "tb" => 1e12,
            "pb" => 1e15,
            "k" | "kib" => 1024.0,
            "m" | "mib" => 1024f64.powi(2),
            "g" | "gib" => 1024f64.powi(3),
            "t" | "tib" => 1024f64.powi(4),
            "p" | "pib" => 1024f64.powi(5),
            _ => return Err(EXPECTED.into()),
        };
        let bytes = number * unit;
        if bytes < u64::MAX as f64 {
            // Whole numbers beyond 2^53 would lose digits on the way through a float.
            let exact = (unit == 1.0).then(|| text[..digits].parse().ok()).flatten();
            Ok(Self(exact.unwrap_or(bytes as u64)))
        } else {
            Err(EXPECTED.into())
        }
    }
}

impl OptionValue for Size {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::Int(n) => u64::try_from(n).map(Self).map_err(|_| "a size of 0 bytes or more".into()),
            Value::Text(text) => std::str::from_utf8(&text).map_err(|_| Expected::from("a size"))?.parse(),
            _ => Err("a size such as 1000, \"10MB\" or \"1GiB\"".into()),
        }
    }
    fn to_value(&self) -> Value {
        u64::to_value(&self.0)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A span of time: seconds, or text such as `"2d"`, `"36h"`, `"1h 30m"`.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Span(pub Duration);

const SPAN: &str = "a time in seconds, or text such as \"90s\", \"36h\" or \"2d\"";

impl Span {
    fn seconds(seconds: f64) -> Result<Self, Expected> {
        Duration::try_from_secs_f64(seconds).map(Self).map_err(|_| SPAN.into())
    }
}

impl std::str::FromStr for Span {
    type Err = Expected;
    fn from_str(text: &str) -> Result<Self, Expected> {
        match text.trim().parse::<f64>() {
            Ok(seconds) => Self::seconds(seconds),
            Err(_) => humantime::parse_duration(text.trim()).map(Self).map_err(|_| SPAN.into()),
        }
    }
}

impl OptionValue for Span {
    fn from_value(value: Value) -> Result<Self, Expected> {
        match value {
            Value::Int(n) => Self::seconds(n as f64),
            Value::Float(seconds) => Self::seconds(seconds),
            Value::Text(text) => std::str::from_utf8(&text).map_err(|_| Expected::from(SPAN))?.parse(),
            _ => Err(SPAN.into()),
        }
    }
    fn to_value(&self) -> Value {
        Value::Float(self.0.as_secs_f64())
    }
}

/// An enum of words, on the command line and in bindings.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $word:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
        pub enum $name { $($(#[$doc])* #[value(name = $word)] $variant),* }
        impl OptionValue for $name {
            fn from_value(value: Value) -> Result<Self, Expected> {
                match &value {
                    $(Value::Text(text) if text == $word.as_bytes() => Ok(Self::$variant),)*
                    _ => Err([$(concat!("\"", $word, "\"")),*].join(" or ")),
                }
            }
            fn to_value(&self) -> Value {
                Value::Text(match self { $(Self::$variant => $word),* }.as_bytes().to_vec())
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word),* })
            }
        }
    };
}

words! {
    /// What becomes of symbolic links.
    Links {
        /// copied as links
        Preserve = "preserve",
        /// replaced by what they point to, within the source
        Follow = "follow",
        /// left out
        Skip = "skip",
    }
}

words! {
    /// Which side wins when both have changed (two-way sync).
    Conflict {
        Newer = "newer",
        Older = "older",
        Larger = "larger",
        Smaller = "smaller",
        Source = "source",
        Dest = "dest",
        Rename = "rename",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("10MB", 10_000_000), ("1GiB", 1 << 30), ("1.5k", 1536), (" 7 b ", 7), ("1G", 1 << 30)] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "MB", "-1", "1 parsec", "1e9", "99999999999P"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!("9007199254740993".parse(), Ok(Size(9_007_199_254_740_993)));
    }

    #[test]
    fn spans() {
        for (text, seconds) in [("90", 90.0), ("2d", 172_800.0), ("1h 30m", 5400.0), ("0.5", 0.5)] {
            assert_eq!(text.parse(), Ok(Span(Duration::from_secs_f64(seconds))), "{text}");
        }
        for text in ["", "-1", "soon", "nan", "inf"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
