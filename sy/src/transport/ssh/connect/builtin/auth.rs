//! Who we are: private keys, an agent, a password; each tried while the host takes its kind.

use std::path::Path;
use std::sync::Arc;

use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, decode_secret_key, load_public_key};
use russh::{MethodKind, MethodSet};
use tokio::net::UnixStream;

use super::algorithms::rsa_hash;
use super::host_key::{Checker, Trouble};
use super::route::Leg;
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::ssh::SshConfig;

/// A key file larger than this is none, bytes.
const KEY_FILE: u64 = 1 << 20;
/// A server may ask this many times, so that one that never has enough is left.
const QUESTIONS: usize = 10;

/// One thing to try.
enum Attempt {
    Key(Arc<PrivateKey>),
    /// By an agent, which keeps the private part.
    Agent(PublicKey),
    Password(String),
    Answers(String),
}

impl Attempt {
    fn method(&self) -> MethodKind {
        match self {
            Self::Key(_) | Self::Agent(_) => MethodKind::PublicKey,
            Self::Password(_) => MethodKind::Password,
            Self::Answers(_) => MethodKind::KeyboardInteractive,
        }
    }
}

/// Secrets of the config. A password is for the target alone: a host on the way must not learn it.
pub async fn authenticate(handle: &mut Handle<Checker>, leg: &Leg, config: &SshConfig, is_target: bool) -> Result<(), Trouble> {
    let mut agent = match &leg.agent {
        Some(socket) => AgentClient::connect_uds(socket).await.ok(),
        None => None,
    };
    let (mut attempts, unusable) = attempts(leg, config, is_target, agent.as_mut()).await?;
    // Tells which methods there are.
    let mut result = handle.authenticate_none(&leg.user).await?;
    let mut offered = MethodSet::empty();
    let mut tried = false;
    loop {
        let remaining = match result {
            AuthResult::Success => return Ok(()),
            AuthResult::Failure { remaining_methods, .. } => remaining_methods,
        };
        if handle.is_closed() {
            let error = SyncError::new(ErrorKind::Authentication, "the host hung up while keys or passwords were tried");
            return Err(error.hint("it takes a few only; name the right key with key_file").into());
        }
        if !remaining.is_empty() {
            offered = remaining.clone();
        }
        let Some(next) = attempts.iter().position(|attempt| remaining.contains(&attempt.method())) else {
            return Err(refused(leg, &offered, tried, unusable, config, is_target).into());
        };
        tried = true;
        result = attempt(handle, &leg.user, attempts.remove(next), agent.as_mut()).await?;
    }
}

fn refused(leg: &Leg, offered: &MethodSet, tried: bool, unusable: Option<String>, config: &SshConfig, is_target: bool) -> SyncError {
    let names: Vec<&str> = offered.iter().map(Into::into).collect();
    let error = SyncError::new(ErrorKind::Authentication, format!("the host did not let {} in (it takes: {})", leg.user, names.join(", ")));
    match unusable {
        Some(why) => error.hint(why),
        None if !is_target && config.password.is_some() => {
            error.hint("the password is for the last host only; those on the way need a key")
        }
        None if tried => error.hint("none of what was tried was accepted"),
        None => error.hint("there was nothing to try: give a password, key_file or key_data"),
    }
}

async fn attempt(
    handle: &mut Handle<Checker>,
    user: &str,
    attempt: Attempt,
    agent: Option<&mut AgentClient<UnixStream>>,
) -> Result<AuthResult, Trouble> {
    match attempt {
        Attempt::Password(password) => Ok(handle.authenticate_password(user, password).await?),
        Attempt::Answers(password) => answers(handle, user, &password).await,
        Attempt::Key(key) => {
            let hash = if key.algorithm().is_rsa() { rsa_hash(handle.best_supported_rsa_hash().await?) } else { None };
            if key.algorithm().is_rsa() && hash.is_none() {
                return Err(SyncError::new(ErrorKind::Authentication, "the host takes RSA keys with SHA-1 only, which is not safe").into());
            }
            Ok(handle.authenticate_publickey(user, PrivateKeyWithHashAlg::new(key, hash)).await?)
        }
        Attempt::Agent(key) => {
            let hash = if key.algorithm().is_rsa() { rsa_hash(handle.best_supported_rsa_hash().await?) } else { None };
            let Some(agent) = agent else { return Err(russh::Error::Inconsistent.into()) };
            // An agent may not want to sign, for one: the next key then.
            match handle.authenticate_publickey_with(user, key, hash, agent).await {
                Ok(result) => Ok(result),
                Err(_) => Ok(handle.authenticate_none(user).await?),
            }
        }
    }
}

/// Says the password wherever something is asked that is not to be seen on a screen.
async fn answers(handle: &mut Handle<Checker>, user: &str, password: &str) -> Result<AuthResult, Trouble> {
    let mut response = handle.authenticate_keyboard_interactive_start(user, None::<String>).await?;
    let mut said = false;
    for _ in 0..QUESTIONS {
        match response {
            KeyboardInteractiveAuthResponse::Success => return Ok(AuthResult::Success),
            KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            KeyboardInteractiveAuthResponse::InfoRequest { ref prompts, .. } => {
                let hidden = prompts.iter().filter(|prompt| !prompt.echo).count();
                if prompts.len() != hidden || hidden > 1 || (said && hidden > 0) {
                    let asked: Vec<&str> = prompts.iter().map(|prompt| prompt.prompt.trim()).collect();
                    let error =
                        SyncError::new(ErrorKind::Authentication, format!("the host asks for more than a password: {}", asked.join(" ")));
                    return Err(error.into());
                }
                said |= hidden > 0;
                let replies = prompts.iter().map(|_| password.to_owned()).collect();
                response = handle.authenticate_keyboard_interactive_respond(replies).await?;
            }
        }
    }
    Err(SyncError::new(ErrorKind::Authentication, "the host goes on asking").into())
}

/// What to try, in this order: what was named explicitly, then the agent's keys, then the usual ones. And why a key can't be used.
async fn attempts(
    leg: &Leg,
    config: &SshConfig,
    is_target: bool,
    agent: Option<&mut AgentClient<UnixStream>>,
) -> Result<(Vec<Attempt>, Option<String>)> {
    let passphrase = config.passphrase.as_ref().map(|secret| secret.expose());
    let of_agent: Vec<PublicKey> = match agent {
        Some(agent) => {
            let keys = agent.request_identities().await.unwrap_or_default();
            keys.into_iter()
                .filter_map(|identity| if let AgentIdentity::PublicKey { key, .. } = identity { Some(key) } else { None })
                .collect()
        }
        None => Vec::new(),
    };
    let (mut first, mut rest, mut named) = (Vec::new(), Vec::new(), Vec::new());
    let mut unusable = None;
    if let Some(text) = &config.key_data {
        let key = decode_secret_key(text.expose(), passphrase).map_err(|error| useless("key_data", &error, passphrase.is_some()))?;
        first.push(Attempt::Key(Arc::new(key)));
    }
    for (index, path) in leg.keys.iter().enumerate() {
        let explicit = index == 0 && config.key_file.is_some();
        let text = match read(path) {
            Ok(text) => text,
            Err(error) if explicit => return Err(error.hint("it is the key_file")),
            Err(_) => continue,
        };
        let list = if explicit { &mut first } else { &mut rest };
        match decode_secret_key(&text, passphrase) {
            Ok(key) => {
                named.push(key.public_key().clone());
                list.push(Attempt::Key(Arc::new(key)));
            }
            // An agent may have it open.
            Err(error) => match public_half(path, &text) {
                Some(public) if of_agent.iter().any(|key| key.key_data() == public.key_data()) => {
                    named.push(public.clone());
                    list.push(Attempt::Agent(public));
                }
                _ if explicit => return Err(useless(&path.display().to_string(), &error, passphrase.is_some())),
                _ => unusable = unusable.or_else(|| Some(useless(&path.display().to_string(), &error, passphrase.is_some()).message)),
            },
        }
    }
    if let Some(password) = config.password.as_ref().filter(|_| is_target) {
        first.push(Attempt::Password(password.expose().to_owned()));
        first.push(Attempt::Answers(password.expose().to_owned()));
    }
    if !leg.identities_only {
        let new = of_agent.into_iter().filter(|key| named.iter().all(|known| known.key_data() != key.key_data()));
        first.extend(new.map(Attempt::Agent));
    }
    first.extend(rest);
    Ok((first, unusable))
}

fn read(path: &Path) -> Result<String> {
    let text =
        std::fs::metadata(path).and_then(|meta| if meta.len() > KEY_FILE { Ok(String::new()) } else { std::fs::read_to_string(path) });
    text.map_err(|error| SyncError::io(&error, "read", path))
}

/// Of a private key that is locked.
fn public_half(path: &Path, text: &str) -> Option<PublicKey> {
    let inside = PrivateKey::from_openssh(text).ok().map(|key| key.public_key().clone());
    inside.or_else(|| load_public_key(format!("{}.pub", path.display())).ok())
}

fn useless(name: &str, error: &russh::keys::Error, has_passphrase: bool) -> SyncError {
    use russh::keys::Error;
    use russh::keys::ssh_key::Error as KeyError;
    let error = match error {
        Error::KeyIsEncrypted | Error::SshKey(KeyError::Encrypted) => "it is locked: give its passphrase".to_owned(),
        Error::SshKey(KeyError::Crypto) | Error::Pkcs8(_) | Error::Unpad(_) if has_passphrase => {
            "the passphrase does not open it".to_owned()
        }
        _ => "it is not a private key that is understood".to_owned(),
    };
    SyncError::new(ErrorKind::Authentication, format!("{name} can't be used: {error}"))
}
