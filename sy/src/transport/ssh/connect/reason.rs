//! Why there is no connection: ssh's own messages as typed errors.

use crate::error::{ErrorKind, SyncError};

/// Why `ssh` ended, as far as its messages tell. What it says of host keys comes from `host_key`.
pub fn reason(text: &str, host_key: Option<&str>) -> SyncError {
    host_keys(text, host_key).or_else(|| refused(text)).or_else(|| local(text)).or_else(|| network(text)).unwrap_or_else(|| {
        let message = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
        SyncError::new(ErrorKind::Network, message.unwrap_or("the connection ended"))
    })
}

/// Why a session that was there ended.
pub fn broken(text: &str) -> SyncError {
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.starts_with("Timeout, server ") {
        return SyncError::new(ErrorKind::Timeout, "the host no longer answers").retryable();
    }
    match network(line) {
        Some(error) => error.retryable(),
        None => SyncError::new(ErrorKind::Network, "the connection broke off").retryable(),
    }
}

fn host_keys(text: &str, host_key: Option<&str>) -> Option<SyncError> {
    let error = |message: String| SyncError::new(ErrorKind::HostKey, message);
    let line = |part: &str| text.lines().find(|line| line.contains(part)).map(str::trim);
    if line("REVOKED HOST KEY DETECTED").is_some() {
        let key = line("is marked as revoked").unwrap_or("the key of the host is marked as revoked").trim_end_matches('.');
        return Some(error(key.to_owned()));
    }
    if line("HOST IDENTIFICATION HAS CHANGED").is_some() {
        let place = line("Offending ").and_then(|line| line.split_once(" in ")).map(|(_, place)| place);
        let shown =
            text.lines().map(str::trim).find(|line| line.starts_with("SHA256:")).map(|print| print.trim_end_matches('.').to_owned());
        let shown = shown.or_else(|| host_key.map(ToOwned::to_owned));
        return Some(changed(place, shown.as_deref()));
    }
    if let Some(line) = line(" host key is known for ") {
        let name = line.split_once(" is known for ").and_then(|(_, rest)| rest.split(" and you").next()).unwrap_or_default();
        return Some(error(format!("no key is known of {name}")));
    }
    line("Host key verification failed").map(|_| error("the key of the host could not be checked".into()))
}

/// A host shows another key than the one at `place` (`FILE:LINE`).
pub fn changed(place: Option<&str>, shown: Option<&str>) -> SyncError {
    let shown = shown.map_or_else(String::new, |shown| format!(" (it shows {shown})"));
    let (known, hint) = match place {
        Some(place) => (format!(" at {place}"), "remove that line once the host's new key is confirmed"),
        None => (String::new(), "remove the old one once the host's new key is confirmed"),
    };
    SyncError::new(
        ErrorKind::HostKey,
        format!("the host's key is not the known one{known}{shown}: it has a new key, or somebody is in between"),
    )
    .hint(hint)
}

fn refused(text: &str) -> Option<SyncError> {
    let error = |message: String| SyncError::new(ErrorKind::Authentication, message);
    let unusable = text.lines().map(str::trim).find(|line| line.starts_with("Load key ") || line.contains("UNPROTECTED PRIVATE KEY"));
    if let Some(line) = text.lines().rev().find(|line| line.contains("Permission denied (")) {
        let methods = line.split_once('(').and_then(|(_, rest)| rest.split(')').next()).unwrap_or_default();
        let who = line.split_once(": Permission denied").map_or("", |(who, _)| who.trim());
        let who = if who.is_empty() { String::new() } else { format!(" {who}") };
        let error = error(format!("the host did not let{who} in (it takes: {})", methods.replace(',', ", ")));
        return Some(match unusable {
            Some(line) if line.starts_with("Load key ") => error.hint(line.to_owned()),
            Some(_) => error.hint("the private key's file may be read by others, so ssh did not use it: chmod 600 it"),
            None => error.hint("no key of ssh's own, of its agent or of key_file was accepted; nothing was asked for"),
        });
    }
    let many = text.lines().rev().find(|line| line.contains("Too many authentication failures"));
    many.map(|_| error("the host hung up after too many keys".into()).hint("name the right one with key_file"))
}

/// What is wrong with this side.
fn local(text: &str) -> Option<SyncError> {
    const SIGNS: [&str; 10] = [
        "Bad configuration option",
        "Bad owner or permissions on ",
        "Can't open user config file",
        "Bad SSH2 cipher spec",
        "Bad SSH2 mac spec",
        "command-line: line ",
        "command-line line ",
        "terminating, ",
        "unsupported option",
        "jumphost loop",
    ];
    let line = text.lines().map(str::trim).find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    Some(SyncError::config(format!("ssh: {line}")))
}

fn network(text: &str) -> Option<SyncError> {
    let line = |parts: &[&str]| text.lines().rev().map(str::trim).find(|line| parts.iter().any(|part| line.contains(part)));
    let error = |kind, line: &str| SyncError::new(kind, line.strip_prefix("ssh: ").unwrap_or(line).trim_end_matches('.').to_owned());
    if let Some(line) = line(&["Could not resolve hostname"]) {
        let error = error(ErrorKind::Network, line);
        return Some(if line.contains("Temporary failure") { error.retryable() } else { error });
    }
    if let Some(line) =
        line(&["Connection refused", "No route to host", "Network is unreachable", "no matching ", "Could not request local"])
    {
        return Some(error(ErrorKind::Network, line));
    }
    if let Some(line) = line(&["timed out", "Timeout, server "]) {
        return Some(error(ErrorKind::Timeout, line).retryable());
    }
    let cut = ["Connection reset", "Connection closed", "closed by remote host", "Broken pipe", "Connection to ", "Read from remote host"];
    line(&cut).map(|line| error(ErrorKind::Network, line).retryable())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANGED: &str = "\
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @
@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@@
IT IS POSSIBLE THAT SOMEONE IS DOING SOMETHING NASTY!
Someone could be eavesdropping on you right now (man-in-the-middle attack)!
It is also possible that a host key has just been changed.
The fingerprint for the ED25519 key sent by the remote host is
SHA256:abc.
Please contact your system administrator.
Add correct host key in /home/u/.ssh/known_hosts to get rid of this message.
Offending ED25519 key in /home/u/.ssh/known_hosts:3
  remove with:
  ssh-keygen -f \"/home/u/.ssh/known_hosts\" -R \"h\"
Host key for h has changed and you have requested strict checking.
Host key verification failed.";

    #[test]
    fn messages_have_kinds() {
        for (text, kind, retryable, part) in [
            (CHANGED, ErrorKind::HostKey, false, "/home/u/.ssh/known_hosts:3"),
            (CHANGED, ErrorKind::HostKey, false, "SHA256:abc"),
            (
                "No ED25519 host key is known for [h]:2 and you have requested strict checking.\nHost key verification failed.",
                ErrorKind::HostKey,
                false,
                "[h]:2",
            ),
            ("Host key verification failed.\nConnection closed by UNKNOWN port 65535", ErrorKind::HostKey, false, "key"),
            (
                "@       WARNING: REVOKED HOST KEY DETECTED!               @\nThe ED25519 host key for h is marked as revoked.",
                ErrorKind::HostKey,
                false,
                "revoked",
            ),
            ("u@h: Permission denied (publickey,password).", ErrorKind::Authentication, false, "publickey, password"),
            ("Received disconnect from 1.2.3.4 port 22:2: Too many authentication failures", ErrorKind::Authentication, false, "key_file"),
            ("ssh: Could not resolve hostname h: Name or service not known", ErrorKind::Network, false, "Could not resolve hostname h"),
            ("ssh: Could not resolve hostname h: Temporary failure in name resolution", ErrorKind::Network, true, "Temporary"),
            ("ssh: connect to host h port 22: Connection refused", ErrorKind::Network, false, "refused"),
            ("ssh: connect to host h port 22: Connection timed out", ErrorKind::Timeout, true, "timed out"),
            ("Connection timed out during banner exchange", ErrorKind::Timeout, true, "timed out"),
            ("Connection reset by 1.2.3.4 port 22", ErrorKind::Network, true, "reset"),
            ("kex_exchange_identification: Connection closed by remote host", ErrorKind::Network, true, "closed"),
            ("command-line: line 0: Bad configuration option: foo", ErrorKind::Config, false, "foo"),
            ("Can't open user config file /x: No such file or directory", ErrorKind::Config, false, "/x"),
            ("Something new", ErrorKind::Network, false, "Something new"),
            ("", ErrorKind::Network, false, "ended"),
        ] {
            let error = reason(text, None);
            assert_eq!((error.kind, error.retryable), (kind, retryable), "{text}: {error}");
            assert!(error.to_string().contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_session_that_breaks_off_can_be_tried_again() {
        for (text, kind) in [
            ("Timeout, server h not responding.", ErrorKind::Timeout),
            ("client_loop: send disconnect: Broken pipe", ErrorKind::Network),
            ("Connection to h closed by remote host.", ErrorKind::Network),
            ("", ErrorKind::Network),
            // The other side's words, not ssh's.
            ("u@h: Permission denied (publickey).", ErrorKind::Network),
        ] {
            let error = broken(text);
            assert_eq!((error.kind, error.retryable), (kind, true), "{text}");
        }
    }
}
