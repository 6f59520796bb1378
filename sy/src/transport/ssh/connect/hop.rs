//! Hosts to go through.

use crate::error::{Result, SyncError};

/// `[user@]host[:port]`, or the same as a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hop<'a> {
    pub user: Option<&'a str>,
    pub host: &'a str,
    pub port: Option<u16>,
}

impl<'a> Hop<'a> {
    /// The hosts of a list, in the order in which they are passed.
    pub fn list(text: &'a str) -> Result<Vec<Self>> {
        text.split(',').map(|hop| Self::parse(hop.trim())).collect()
    }

    fn parse(text: &'a str) -> Result<Self> {
        let bad = || SyncError::config(format!("proxy_jump: {text:?} is not [USER@]HOST[:PORT]"));
        let rest = text.strip_prefix("ssh://").map_or(text, |rest| rest.trim_end_matches('/'));
        let (user, rest) = match rest.rsplit_once('@') {
            Some((user, rest)) => (Some(user), rest),
            None => (None, rest),
        };
        let (host, port) = crate::path::split_port(rest).ok_or_else(bad)?;
        let doubtful =
            |text: &str| text.is_empty() || text.starts_with('-') || text.contains(|c: char| c.is_whitespace() || c.is_control());
        if doubtful(host) || user.is_some_and(doubtful) {
            return Err(bad());
        }
        Ok(Self { user, host, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hops() {
        let hop = |user, host, port| Hop { user, host, port };
        for (text, parsed) in [
            ("a", vec![hop(None, "a", None)]),
            ("u@a:2, b", vec![hop(Some("u"), "a", Some(2)), hop(None, "b", None)]),
            ("u@x@[::1]:2", vec![hop(Some("u@x"), "::1", Some(2))]),
            ("ssh://u@a:2/", vec![hop(Some("u"), "a", Some(2))]),
        ] {
            assert_eq!(Hop::list(text).ok(), Some(parsed), "{text}");
        }
        for text in ["", "a,", "@a", "a:0", "a:b", "-oX", "u@-a", "a b", "-u@a"] {
            assert!(Hop::list(text).is_err(), "{text:?}");
        }
    }
}
