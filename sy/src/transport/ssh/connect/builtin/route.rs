//! Which hosts are passed on the way to the target, and what the user's configuration says of each.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::hop::Hop;
use super::super::{Target, paths};
use super::NEEDS_SSH;
use super::settings::{self, Asked, Settings, matches_list};
use crate::error::{Result, SyncError};
use crate::transport::accounts::{self, Accounts, Who};
use crate::transport::ssh::{HostKeyPolicy, SshConfig};

/// More hosts than this are a loop.
const HOPS: usize = 16;

/// One connection of the way.
#[derive(Debug, Clone)]
pub struct Leg {
    /// As a message names it.
    pub name: String,
    pub host: String,
    pub port: u16,
    pub user: String,
    /// Where it stands in files of known hosts: as `host` and `port`, or an alias.
    pub alias: Option<String>,
    pub known_hosts: Vec<PathBuf>,
    pub hash_known_hosts: bool,
    pub accept_new: bool,
    /// Private keys, of which the first may be one that was named explicitly.
    pub keys: Vec<PathBuf>,
    pub agent: Option<PathBuf>,
    pub identities_only: bool,
    pub compression: bool,
    pub alive_interval: Option<Duration>,
    pub alive_count: usize,
    pub family: Family,
    /// `Ciphers` and the like, as they are written.
    pub ciphers: Option<String>,
    pub macs: Option<String>,
    pub kex: Option<String>,
    pub host_key_algorithms: Option<String>,
    pub environment: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    Any,
    V4,
    V6,
}

/// The way, from the first host to the target, and how long ssh's configuration lets it take.
pub fn route(target: &Target, config: &SshConfig) -> Result<(Vec<Leg>, Option<Duration>)> {
    let user = target.user.as_deref().or(config.user.as_deref());
    let asked = Hop { user, host: &target.host, port: target.port.or(config.port) };
    let mut legs = Vec::new();
    let timeout = add(&mut legs, asked, config.proxy_jump.as_deref(), config, true)?;
    legs.reverse();
    Ok((legs, config.connect_timeout.map(|span| span.0).or(timeout)))
}

/// Adds a host and those before it, from the last to the first.
fn add(legs: &mut Vec<Leg>, hop: Hop<'_>, jump: Option<&str>, config: &SshConfig, is_target: bool) -> Result<Option<Duration>> {
    if legs.len() == HOPS {
        return Err(SyncError::config("ProxyJump goes in circles").hint("a host is reached through itself"));
    }
    let local_user = local_user();
    let mut settings = Settings::default();
    if is_target {
        take_options(&mut settings, config)?;
    }
    let asked = Asked { host: hop.host, user: hop.user, local_user: &local_user };
    settings::read(&mut settings, config.config_file.as_deref(), asked)?;
    refuse_unsupported(&settings)?;
    legs.push(leg(hop, &settings, config, local_user, is_target)?);
    let timeout = settings.get("connecttimeout").and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let jump = jump.or(settings.get("proxyjump")).filter(|jump| !jump.eq_ignore_ascii_case("none")).map(ToOwned::to_owned);
    if let Some(jump) = jump {
        let hops = Hop::list(&jump)?;
        // Of those in a list, only the first may have others before it.
        for (index, hop) in hops.iter().enumerate().rev() {
            add(legs, *hop, (index > 0).then_some("none"), config, false)?;
        }
    }
    Ok(timeout)
}

/// What is done by this client, by the names of ssh's options.
const DONE: [&str; 22] = [
    "addressfamily",
    "ciphers",
    "compression",
    "connecttimeout",
    "globalknownhostsfile",
    "hashknownhosts",
    "hostkeyalgorithms",
    "hostkeyalias",
    "hostname",
    "identitiesonly",
    "identityagent",
    "identityfile",
    "kexalgorithms",
    "macs",
    "port",
    "proxyjump",
    "serveralivecountmax",
    "serveraliveinterval",
    "setenv",
    "tcpkeepalive",
    "user",
    "userknownhostsfile",
];

/// What changes nothing here: it is about terminals, forwarding, asking, logs, methods that are not used; or it only weakens checks.
const WITHOUT_EFFECT: &str = "addkeystoagent batchmode casignaturealgorithms challengeresponseauthentication checkhostip clearallforwardings \
    connectionattempts controlmaster controlpath controlpersist dynamicforward enableescapecommandline enablesshkeysign escapechar \
    exitonforwardfailure fingerprinthash forkafterauthentication forwardagent forwardx11 forwardx11timeout forwardx11trusted gatewayports \
    gssapiauthentication gssapiclientidentity gssapidelegatecredentials gssapikexalgorithms gssapikeyexchange gssapirenewalforcesrekey \
    gssapiserveridentity gssapitrustdns hostbasedacceptedalgorithms hostbasedauthentication hostbasedkeytypes ignoreunknown ipqos \
    kbdinteractiveauthentication kbdinteractivedevices localcommand localforward loglevel logverbose nohostauthenticationforlocalhost \
    numberofpasswordprompts obscurekeystroketiming passwordauthentication permitlocalcommand permitremoteopen preferredauthentications \
    proxyusefdpass pubkeyacceptedalgorithms pubkeyacceptedkeytypes pubkeyauthentication rekeylimit remotecommand remoteforward requesttty \
    requiredrsasize sendenv sessiontype stdinnull streamlocalbindmask streamlocalbindunlink stricthostkeychecking syslogfacility tag tunnel \
    tunneldevice updatehostkeys usekeychain verifyhostkeydns visualhostkey warnweakcrypto xauthlocation";

fn take_options(settings: &mut Settings, config: &SshConfig) -> Result<()> {
    for (name, value) in &config.options.0 {
        let lower = name.to_ascii_lowercase();
        if !DONE.contains(&lower.as_str()) {
            return Err(SyncError::unsupported(format!("{name} in options can be followed by the program ssh only")).hint(NEEDS_SSH));
        }
        let values = if lower == "setenv" || lower.ends_with("knownhostsfile") {
            value.split_whitespace().map(ToOwned::to_owned).collect()
        } else {
            vec![value.clone()]
        };
        settings.set(&lower, values, "options".into());
    }
    Ok(())
}

fn refuse_unsupported(settings: &Settings) -> Result<()> {
    let unknown = settings.by_name.get("ignoreunknown").map(|setting| setting.values.join(",").to_ascii_lowercase());
    let unknown: Vec<String> = unknown.iter().flat_map(|list| list.split(',')).map(ToOwned::to_owned).collect();
    for (name, setting) in &settings.by_name {
        let off = matches!(setting.values.first().map(|value| value.to_ascii_lowercase()).as_deref(), Some("none" | "no") | None);
        let known = DONE.contains(&name.as_str()) || WITHOUT_EFFECT.split_whitespace().any(|other| other == name);
        if !off && !known && !matches_list(&unknown, name) {
            return Err(
                SyncError::unsupported(format!("{name} at {} can be followed by the program ssh only", setting.place)).hint(NEEDS_SSH)
            );
        }
    }
    Ok(())
}

fn leg(hop: Hop<'_>, settings: &Settings, config: &SshConfig, local_user: String, is_target: bool) -> Result<Leg> {
    let user = hop.user.or(settings.get("user")).unwrap_or(&local_user).to_owned();
    let port = match (hop.port, settings.get("port")) {
        (Some(port), _) => port,
        (None, Some(text)) => text.parse().map_err(|_| wrong(settings, "port"))?,
        (None, None) => 22,
    };
    let host = match settings.get("hostname") {
        Some(name) => expand(name, &[('h', hop.host), ('n', hop.host)])?,
        None => hop.host.to_owned(),
    };
    let home = paths::home();
    let home_text = home.as_deref().and_then(Path::to_str).unwrap_or("~");
    let port_text = port.to_string();
    let alias = settings.get("hostkeyalias").map(ToOwned::to_owned);
    let key_name = alias.as_deref().unwrap_or(hop.host);
    let tokens =
        [('d', home_text), ('h', host.as_str()), ('k', key_name), ('n', hop.host), ('p', &port_text), ('r', &user), ('u', &local_user)];
    let file = |text: &str| paths::absolute(Path::new(&expand(text, &tokens)?));
    let files = |name: &str, usual: [PathBuf; 2]| match settings.by_name.get(name) {
        Some(setting) => setting.values.iter().filter(|value| !value.eq_ignore_ascii_case("none")).map(|value| file(value)).collect(),
        None => Ok(Vec::from(usual)),
    };
    let known_hosts = match &config.known_hosts {
        Some(path) => vec![paths::absolute(path)?],
        None => {
            let dir = home.clone().unwrap_or_default().join(".ssh");
            let mut own = files("userknownhostsfile", ["known_hosts", "known_hosts2"].map(|name| dir.join(name)))?;
            own.extend(files(
                "globalknownhostsfile",
                ["ssh_known_hosts", "ssh_known_hosts2"].map(|name| Path::new("/etc/ssh").join(name)),
            )?);
            own
        }
    };
    let mut keys: Vec<PathBuf> = Vec::new();
    if let Some(key) = &config.key_file {
        keys.push(paths::absolute(key)?);
    }
    for key in &settings.identity_files {
        if !key.eq_ignore_ascii_case("none") {
            keys.push(file(key)?);
        }
    }
    if settings.identity_files.is_empty() && !(is_target && config.key_file.is_some()) {
        keys.extend(paths::usual_keys());
    }
    let yes = |name: &str| settings.get(name).map(|value| value.eq_ignore_ascii_case("yes") || value.eq_ignore_ascii_case("true"));
    let number = |name: &str, usual: u64| match settings.get(name) {
        Some(text) => text.parse().map_err(|_| wrong(settings, name)),
        None => Ok(usual),
    };
    let alive = number("serveraliveinterval", super::super::ALIVE_INTERVAL.into())?;
    let agent = agent(settings, &file)?;
    Ok(Leg {
        name: Target { user: hop.user.map(ToOwned::to_owned), host: hop.host.to_owned(), port: hop.port }.name(),
        host: host.clone(),
        port,
        alias: alias.clone(),
        known_hosts,
        hash_known_hosts: yes("hashknownhosts").unwrap_or(false),
        accept_new: config.host_key_policy == HostKeyPolicy::AcceptNew,
        keys,
        agent,
        identities_only: yes("identitiesonly").unwrap_or(is_target && (config.key_file.is_some() || config.key_data.is_some())),
        compression: config.compression || yes("compression").unwrap_or(false),
        alive_interval: (alive > 0).then(|| Duration::from_secs(alive)),
        alive_count: usize::try_from(number("serveralivecountmax", super::super::ALIVE_COUNT.into())?).unwrap_or(usize::MAX),
        family: match settings.get("addressfamily").map(str::to_ascii_lowercase).as_deref() {
            None | Some("any") => Family::Any,
            Some("inet") => Family::V4,
            Some("inet6") => Family::V6,
            Some(_) => return Err(wrong(settings, "addressfamily")),
        },
        ciphers: settings.get("ciphers").map(ToOwned::to_owned),
        macs: settings.get("macs").map(ToOwned::to_owned),
        kex: settings.get("kexalgorithms").map(ToOwned::to_owned),
        host_key_algorithms: settings.get("hostkeyalgorithms").map(ToOwned::to_owned),
        environment: settings
            .by_name
            .get("setenv")
            .map_or(&[][..], |setting| &setting.values)
            .iter()
            .filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())))
            .collect(),
        user: user.clone(),
    })
}

/// The socket of an agent, if there is to be one.
fn agent(settings: &Settings, file: &impl Fn(&str) -> Result<PathBuf>) -> Result<Option<PathBuf>> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    match settings.get("identityagent") {
        None | Some("SSH_AUTH_SOCK") => Ok(variable("SSH_AUTH_SOCK")),
        Some(none) if none.eq_ignore_ascii_case("none") => Ok(None),
        Some(text) => match text.strip_prefix('$') {
            Some(name) => Ok(variable(name.trim_start_matches('{').trim_end_matches('}'))),
            None => file(text).map(Some),
        },
    }
}

fn wrong(settings: &Settings, name: &str) -> SyncError {
    let setting = &settings.by_name[name];
    SyncError::config(format!("{}: {name} can't be {:?}", setting.place, setting.values.join(" ")))
}

/// Puts in what stands for `%h` and the like.
fn expand(text: &str, tokens: &[(char, &str)]) -> Result<String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(token) if tokens.iter().any(|(name, _)| *name == token) => {
                out.extend(tokens.iter().filter(|(name, _)| *name == token).map(|(_, value)| *value));
            }
            _ => {
                return Err(
                    SyncError::unsupported(format!("{text:?} in ssh's configuration can be read by the program ssh only")).hint(NEEDS_SSH)
                );
            }
        }
    }
    Ok(out)
}

/// The name of the user of this process.
fn local_user() -> String {
    let uid = rustix::process::getuid().as_raw();
    let named = accounts::Here.names(Who::User, &[uid]).ok().and_then(|mut names| names.pop().flatten());
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    named.or_else(|| variable("LOGNAME")).or_else(|| variable("USER")).unwrap_or_else(|| uid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::config::Pairs;

    fn way(text: &str, host: &str, config: SshConfig) -> Result<Vec<Leg>> {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("config");
        std::fs::write(&file, text).expect("written");
        let target = Target { user: None, host: host.into(), port: None };
        route(&target, &SshConfig { config_file: Some(file), ..config }).map(|(legs, _)| legs)
    }

    fn ends(legs: &[Leg]) -> Vec<String> {
        legs.iter().map(|leg| format!("{}@{}:{}", leg.user, leg.host, leg.port)).collect()
    }

    #[test]
    fn a_host_is_what_the_configuration_says() {
        let text = "Host h\nHostName %h.example.org\nPort 7\nUser u\nIdentityFile /keys/%r-%h\nUserKnownHostsFile /kh/%p none\n\
            GlobalKnownHostsFile none\nServerAliveInterval 0\nIdentityAgent none\nCompression yes\nSetEnv A=b C=d\n";
        let legs = way(text, "h", SshConfig::default()).expect("a way");
        assert_eq!(ends(&legs), ["u@h.example.org:7"]);
        let leg = &legs[0];
        assert_eq!(leg.keys, [PathBuf::from("/keys/u-h.example.org")]);
        assert_eq!(leg.known_hosts, [PathBuf::from("/kh/7")]);
        assert!(leg.alive_interval.is_none() && leg.agent.is_none() && leg.compression && !leg.identities_only);
        assert_eq!(leg.environment, [("A".into(), "b".into()), ("C".into(), "d".into())]);
        let explicit = SshConfig { port: Some(8), user: Some("me".into()), known_hosts: Some("/other".into()), ..SshConfig::default() };
        let legs = way(text, "h", explicit).expect("a way");
        assert_eq!(ends(&legs), ["me@h.example.org:8"]);
        assert_eq!(legs[0].known_hosts, [PathBuf::from("/other")]);
    }

    #[test]
    fn the_way_through_hosts() {
        let text = "Host t\nProxyJump a,x@b:5\nHost a\nProxyJump z\nHost b\nProxyJump nobody\nHost *\nUser u\n";
        assert_eq!(ends(&way(text, "t", SshConfig::default()).expect("a way")), ["u@z:22", "u@a:22", "x@b:5", "u@t:22"]);
        let explicit = SshConfig { proxy_jump: Some("c".into()), ..SshConfig::default() };
        assert_eq!(ends(&way(text, "t", explicit).expect("a way")), ["u@c:22", "u@t:22"]);
        let none = SshConfig { proxy_jump: Some("none".into()), ..SshConfig::default() };
        assert_eq!(ends(&way(text, "t", none).expect("a way")), ["u@t:22"]);
        assert!(way("ProxyJump a\n", "t", SshConfig::default()).is_err());
    }

    #[test]
    fn what_only_ssh_can_do_is_refused() {
        for text in [
            "ProxyCommand nc %h %p",
            "RevokedHostKeys /x",
            "KnownHostsCommand /x",
            "CertificateFile /x",
            "BindAddress 1.2.3.4",
            "Unheard of",
        ] {
            let error = way(text, "t", SshConfig::default()).expect_err(text);
            assert!(error.to_string().contains("config:1"), "{error}");
        }
        for text in [
            "ProxyCommand none",
            "StrictHostKeyChecking no",
            "IgnoreUnknown Un*\nUnheard of",
            "ForwardAgent yes",
            "Host x\nProxyCommand nc",
        ] {
            assert!(way(text, "t", SshConfig::default()).is_ok(), "{text}");
        }
    }

    #[test]
    fn options_are_followed_or_refused() {
        let options =
            |name: &str, value: &str| SshConfig { options: Pairs([(name.to_owned(), value.to_owned())].into()), ..SshConfig::default() };
        assert_eq!(way("Port 7\n", "t", options("Port", "9")).expect("a way")[0].port, 9);
        for name in ["StrictHostKeyChecking", "ForwardAgent", "ProxyCommand", "Nothing"] {
            assert!(way("", "t", options(name, "no")).is_err(), "{name}");
        }
    }
}
