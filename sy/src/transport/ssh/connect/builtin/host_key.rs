//! Is the host the one that it should be? Asked before anything is said to it.

use russh::client::Handler;
use russh::keys::ssh_key::HashAlg;
use russh::keys::{PublicKey, PublicKeyOrCertificate};

use super::super::known_hosts::{self, Key, Known, Verdict};
use super::super::reason::changed;
use super::super::unknown;
use super::NEEDS_SSH;
use super::algorithms::kind_of;
use super::route::Leg;
use crate::error::{ErrorKind, SyncError};

/// What ends a connection: something that the protocol met, or our own refusal.
#[derive(Debug)]
pub enum Trouble {
    Protocol(russh::Error),
    Refused(SyncError),
}

impl From<russh::Error> for Trouble {
    fn from(error: russh::Error) -> Self {
        Self::Protocol(error)
    }
}

impl From<SyncError> for Trouble {
    fn from(error: SyncError) -> Self {
        Self::Refused(error)
    }
}

/// Checks the key of one host.
#[derive(Debug)]
pub struct Checker {
    pub leg: Leg,
}

impl Checker {
    /// The name and the port under which files know the host.
    pub fn known(leg: &Leg) -> Result<Known, SyncError> {
        let (host, port) = Self::name(leg);
        Known::read(&leg.known_hosts, host, port)
    }

    fn name(leg: &Leg) -> (&str, u16) {
        leg.alias.as_deref().map_or((&leg.host, leg.port), |alias| (alias, 22))
    }

    fn check(&self, key: &PublicKey) -> Result<(), SyncError> {
        let broken = |_| SyncError::new(ErrorKind::HostKey, "the host shows a key that makes no sense");
        let blob = key.to_bytes().map_err(broken)?;
        let algorithm = key.algorithm();
        let kind = kind_of(&algorithm);
        let shown = format!("{kind} {}", key.fingerprint(HashAlg::Sha256));
        let key = Key { kind, blob: &blob };
        let error = |message: String| SyncError::new(ErrorKind::HostKey, message);
        match Self::known(&self.leg)?.judge(key) {
            Verdict::Known => Ok(()),
            Verdict::Changed(place) => Err(changed(Some(&place), Some(&shown))),
            Verdict::Revoked(place) => Err(error(format!("the host's key ({shown}) is revoked at {place}"))),
            Verdict::Authority(place) => {
                Err(error(format!("the host is known by the authority at {place} only, which the program ssh can check only"))
                    .hint(NEEDS_SSH))
            }
            Verdict::Unknown => {
                let (host, port) = Self::name(&self.leg);
                if self.leg.accept_new {
                    let file = self.leg.known_hosts.first().ok_or_else(|| error("there is no file for a new host's key".into()))?;
                    return known_hosts::add(file, host, port, key, self.leg.hash_known_hosts);
                }
                let files: Vec<String> = self.leg.known_hosts.iter().map(|file| file.display().to_string()).collect();
                let name = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
                Err(unknown(&format!("no key is known of {name}"), &files, Some(&shown), host, port))
            }
        }
    }
}

impl Handler for Checker {
    type Error = Trouble;

    async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Trouble> {
        self.check(&key.public_key())?;
        Ok(true)
    }
}
