//! What `ssh` is told on its command line, where the first word on an option wins over all others.

use std::path::{Path, PathBuf};

use super::super::hop::Hop;
use super::super::{ALIVE_COUNT, ALIVE_INTERVAL, Start, Target, paths};
use crate::error::{Result, SyncError};
use crate::transport::ssh::{HostKeyPolicy, SshConfig};

/// What this machine's `ssh` and processor can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Of OpenSSH, `(0, 0)` if unknown.
    pub version: (u32, u32),
    /// AES takes next to no time here, and nobody has chosen ciphers.
    pub prefer_aes: bool,
}

/// All words after `ssh`.
pub fn command_line(target: &Target, config: &SshConfig, start: Start<'_>, can: Abilities, keys: &[PathBuf]) -> Result<Vec<String>> {
    let mut words = options(target, config, start, can, keys)?;
    match start {
        Start::Command(command) => words.extend(["--".into(), target.host.clone(), command.into()]),
        Start::Subsystem(name) => words.extend(["-s".into(), "--".into(), target.host.clone(), name.into()]),
    }
    Ok(words)
}

/// The options alone. `keys` are the private keys that ssh would try by itself.
fn options(target: &Target, config: &SshConfig, start: Start<'_>, can: Abilities, keys: &[PathBuf]) -> Result<Vec<String>> {
    let mut set = common(config, can)?;
    set.push(("LogLevel", "DEBUG1".into()));
    if can.version >= (8, 7) {
        set.push(("SessionType", if matches!(start, Start::Subsystem(_)) { "subsystem" } else { "default" }.into()));
    }
    if let Some(port) = target.port.or(config.port) {
        set.push(("Port", port.to_string()));
    }
    if let Some(user) = target.user.as_ref().or(config.user.as_ref()) {
        set.push(("User", plain(user)?.to_owned()));
    }
    if let Some(key) = &config.key_file {
        set.push(("IdentityFile", file(key)?));
        // Else keys of the agent go first, and a server hangs up after a few.
        if !named(config, "IdentitiesOnly") {
            set.push(("IdentitiesOnly", "yes".into()));
        }
    }
    match config.proxy_jump.as_deref() {
        None => {}
        Some(jump) if jump.eq_ignore_ascii_case("none") => set.push(("ProxyJump", "none".into())),
        Some(jump) => {
            set.push(("ProxyCommand", proxy_command(jump, config, can, keys)?));
            if !named(config, "ProxyUseFdpass") {
                set.push(("ProxyUseFdpass", "no".into()));
            }
        }
    }
    for (name, value) in &config.options.0 {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(SyncError::config(format!("{name:?} in options is not a name of an ssh option")));
        }
        if let Some((name, value)) = set.iter().find(|(set, _)| set.eq_ignore_ascii_case(name)) {
            return Err(taken(name, value));
        }
        if value.contains(char::is_control) {
            return Err(SyncError::config(format!("the value of {name} in options holds a control character")));
        }
    }
    for (name, value) in [("ServerAliveInterval", ALIVE_INTERVAL), ("ServerAliveCountMax", ALIVE_COUNT)] {
        if !named(config, name) {
            set.push((name, value.to_string()));
        }
    }
    let mut words = with_file(config)?;
    words.extend(set.into_iter().map(|(name, value)| format!("-o{name}={value}")));
    words.extend(config.options.0.iter().map(|(name, value)| format!("-o{name}={value}")));
    Ok(words)
}

fn taken(name: &str, value: &str) -> SyncError {
    let field = match name {
        "StrictHostKeyChecking" => "host_key_policy",
        "UserKnownHostsFile" | "GlobalKnownHostsFile" => "known_hosts",
        "IdentityFile" => "key_file",
        "User" => "user",
        "Port" => "port",
        "ConnectTimeout" => "connect_timeout",
        "Compression" => "compression",
        "ProxyJump" | "ProxyCommand" => "proxy_jump",
        _ => return SyncError::config(format!("{name} can't be in options")).hint(format!("it is always {value}")),
    };
    SyncError::config(format!("{name} can't be in options")).hint(format!("{field} says it"))
}

/// What holds for every host on the way: no questions, nothing forwarded, host keys checked.
fn common(config: &SshConfig, can: Abilities) -> Result<Vec<(&'static str, String)>> {
    let checking = match config.host_key_policy {
        HostKeyPolicy::Strict => "yes",
        HostKeyPolicy::AcceptNew => "accept-new",
    };
    let mut set: Vec<(&str, String)> = [
        ("BatchMode", "yes"),
        ("StrictHostKeyChecking", checking),
        ("NoHostAuthenticationForLocalhost", "no"),
        ("ClearAllForwardings", "yes"),
        ("ForwardAgent", "no"),
        ("ForwardX11", "no"),
        ("Tunnel", "no"),
        ("RequestTTY", "no"),
        ("EscapeChar", "none"),
        ("RemoteCommand", "none"),
        // Its output would be part of the stream.
        ("PermitLocalCommand", "no"),
        // The user's own master is used, but this process never becomes one: others would end with it.
        ("ControlMaster", "no"),
    ]
    .map(|(name, value)| (name, value.to_owned()))
    .into();
    if can.version >= (8, 7) {
        set.extend([("StdinNull", "no".to_owned()), ("ForkAfterAuthentication", "no".to_owned())]);
    }
    if let Some(path) = &config.known_hosts {
        set.push(("UserKnownHostsFile", file(path)?));
        set.push(("GlobalKnownHostsFile", "/dev/null".into()));
        set.push(("VerifyHostKeyDNS", "no".into()));
        if can.version >= (8, 5) {
            set.push(("KnownHostsCommand", "none".into()));
        }
    }
    // A connection that is already there was made under other conditions than these.
    if config.known_hosts.is_some() || config.key_file.is_some() || config.proxy_jump.is_some() {
        set.push(("ControlPath", "none".into()));
    }
    if let Some(timeout) = config.connect_timeout {
        // Whole seconds, at least one; the link itself keeps the exact time.
        set.push(("ConnectTimeout", timeout.0.as_secs().saturating_add(1).min(86_400).to_string()));
    }
    if config.compression {
        set.push(("Compression", "yes".into()));
    }
    // `^` came with 8.1.
    if can.prefer_aes && can.version >= (8, 1) && !named(config, "Ciphers") {
        set.push(("Ciphers", "^aes128-gcm@openssh.com".into()));
    }
    Ok(set)
}

/// The command that reaches the target through hosts, given as for `ssh -J`. `-J` itself would check their keys as the user's
/// configuration says, and ask questions.
fn proxy_command(jump: &str, config: &SshConfig, can: Abilities, keys: &[PathBuf]) -> Result<String> {
    let mut through: Option<String> = None;
    for hop in Hop::list(jump)? {
        let mut set = common(config, can)?;
        if let Some(port) = hop.port {
            set.push(("Port", port.to_string()));
        }
        if let Some(user) = hop.user {
            set.push(("User", plain(user)?.to_owned()));
        }
        // A host to go through may know another key than the target: the usual ones stay.
        for key in config.key_file.iter().chain(config.key_file.as_ref().map_or(&[][..], |_| keys)) {
            set.push(("IdentityFile", file(key)?));
        }
        if let Some(command) = through {
            set.push(("ProxyCommand", command));
        }
        let mut words = vec!["ssh".to_owned()];
        words.extend(with_file(config)?);
        words.extend(set.into_iter().map(|(name, value)| format!("-o{name}={value}")));
        let mut line: Vec<String> = words.iter().map(|word| quote(word).replace('%', "%%")).collect();
        line.push(format!("-W '[%h]:%p' -- {}", quote(hop.host).replace('%', "%%")));
        through = Some(line.join(" "));
    }
    through.ok_or_else(|| SyncError::config("proxy_jump names no host"))
}

fn with_file(config: &SshConfig) -> Result<Vec<String>> {
    let Some(path) = &config.config_file else { return Ok(Vec::new()) };
    let path = paths::absolute(path)?;
    let path = path.to_str().ok_or_else(|| SyncError::config("config_file must be UTF-8"))?;
    Ok(vec!["-F".into(), path.to_owned()])
}

fn named(config: &SshConfig, option: &str) -> bool {
    config.options.0.keys().any(|name| name.eq_ignore_ascii_case(option))
}

/// A value that ssh takes as one word.
fn plain(text: &str) -> Result<&str> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\')) {
        return Err(SyncError::config(format!("{text:?} is not a user's name")));
    }
    Ok(text)
}

/// The path of a file as ssh reads it in its configuration.
fn file(path: &Path) -> Result<String> {
    let path = paths::absolute(path)?;
    match path.to_str() {
        Some(text) if !text.contains(|c: char| c.is_control() || matches!(c, '"' | '\\')) && !text.contains("${") => {
            Ok(format!("\"{}\"", text.replace('%', "%%")))
        }
        _ => Err(SyncError::config(format!("ssh can't be given the path {}", crate::error::Quoted(path.as_os_str().as_encoded_bytes())))
            .hint("a quotation mark, a backslash, ${ or a byte that is not UTF-8 is in it")),
    }
}

/// A word as a POSIX shell reads it.
fn quote(word: &str) -> String {
    let safe = |b: u8| b.is_ascii_alphanumeric() || b"-_=.,/@:+".contains(&b);
    if word.bytes().all(safe) { word.to_owned() } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::config::Pairs;

    const NEW: Abilities = Abilities { version: (9, 2), prefer_aes: true };

    fn target() -> Target {
        Target { user: None, host: "host".into(), port: None }
    }

    fn words(config: &SshConfig, can: Abilities) -> Vec<String> {
        command_line(&target(), config, Start::Command("cat"), can, &["/home/u/.ssh/id_rsa".into()]).expect("a command line")
    }

    fn pairs(pairs: &[(&str, &str)]) -> Pairs {
        Pairs(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn host_keys_are_checked_whatever_the_options_say() {
        for (name, value) in
            [("StrictHostKeyChecking", "no"), ("stricthostkeychecking", "off"), ("NoHostAuthenticationForLocalhost", "yes")]
        {
            let config = SshConfig { options: pairs(&[(name, value)]), ..SshConfig::default() };
            assert!(command_line(&target(), &config, Start::Command("cat"), NEW, &[]).is_err(), "{name}");
        }
        assert!(words(&SshConfig::default(), NEW).contains(&"-oStrictHostKeyChecking=yes".into()));
        let config = SshConfig { host_key_policy: HostKeyPolicy::AcceptNew, ..SshConfig::default() };
        assert!(words(&config, NEW).contains(&"-oStrictHostKeyChecking=accept-new".into()));
    }

    #[test]
    fn an_option_can_smuggle_nothing_in() {
        for (name, value) in [("A B", "c"), ("", "c"), ("A=b", "c"), ("User", "a\nb"), ("-A", "c")] {
            let config = SshConfig { options: pairs(&[(name, value)]), ..SshConfig::default() };
            assert!(command_line(&target(), &config, Start::Command("cat"), NEW, &[]).is_err(), "{name}");
        }
    }

    #[test]
    fn fields_become_options() {
        let config = SshConfig {
            key_file: Some("/k/with space%".into()),
            port: Some(7),
            user: Some("me".into()),
            compression: true,
            config_file: Some("/c".into()),
            known_hosts: Some("/kh".into()),
            options: pairs(&[("ServerAliveInterval", "5"), ("Ciphers", "aes256-ctr")]),
            connect_timeout: "1.5".parse().ok(),
            ..SshConfig::default()
        };
        let words = words(&config, NEW);
        for word in [
            "-F",
            "/c",
            "-oIdentityFile=\"/k/with space%%\"",
            "-oIdentitiesOnly=yes",
            "-oPort=7",
            "-oUser=me",
            "-oCompression=yes",
            "-oUserKnownHostsFile=\"/kh\"",
            "-oGlobalKnownHostsFile=/dev/null",
            "-oServerAliveInterval=5",
            "-oServerAliveCountMax=3",
            "-oCiphers=aes256-ctr",
            "-oConnectTimeout=2",
        ] {
            assert!(words.contains(&word.to_owned()), "{word} is not in {words:?}");
        }
        assert_eq!(words.iter().filter(|word| word.contains("ServerAliveInterval") || word.contains("Ciphers")).count(), 2);
        assert_eq!(words[words.len() - 3..], ["--", "host", "cat"]);
    }

    #[test]
    fn a_location_says_more_than_the_config() {
        let config = SshConfig { port: Some(7), user: Some("me".into()), ..SshConfig::default() };
        let target = Target { user: Some("you".into()), host: "host".into(), port: Some(8) };
        let words = command_line(&target, &config, Start::Subsystem("sftp"), NEW, &[]).expect("a command line");
        assert!(words.contains(&"-oPort=8".into()) && words.contains(&"-oUser=you".into()), "{words:?}");
        assert_eq!(words[words.len() - 4..], ["-s", "--", "host", "sftp"]);
    }

    #[test]
    fn what_an_old_ssh_does_not_know_is_not_said() {
        let config = SshConfig { known_hosts: Some("/kh".into()), ..SshConfig::default() };
        let old = words(&config, Abilities { version: (7, 6), prefer_aes: true });
        assert!(!old.iter().any(|word| ["Ciphers", "SessionType", "KnownHostsCommand"].iter().any(|new| word.contains(new))), "{old:?}");
        let new = words(&config, NEW);
        assert!(new.contains(&"-oCiphers=^aes128-gcm@openssh.com".into()));
        assert!(!words(&config, Abilities { prefer_aes: false, ..NEW }).iter().any(|word| word.contains("Ciphers")));
    }

    #[test]
    fn hosts_on_the_way_are_checked_too() {
        let config = SshConfig { proxy_jump: Some("u@a:22, b".into()), key_file: Some("/k".into()), ..SshConfig::default() };
        let words = words(&config, NEW);
        let proxy = words.iter().find(|word| word.starts_with("-oProxyCommand=")).expect("a proxy command");
        assert_eq!(proxy.matches("StrictHostKeyChecking=yes").count(), 2);
        assert_eq!(proxy.matches("BatchMode=yes").count(), 2);
        assert!(proxy.contains("-oPort=22") && proxy.contains("-oUser=u") && proxy.ends_with("-W '[%h]:%p' -- b"), "{proxy}");
        // The inner command is read by the second ssh: its own `%h` is doubled for the first.
        assert!(proxy.contains("[%%h]:%%p"), "{proxy}");
        assert!(proxy.contains("/home/u/.ssh/id_rsa"), "{proxy}");
    }
}
