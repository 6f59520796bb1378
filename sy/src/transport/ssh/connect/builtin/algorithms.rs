//! How a connection is encrypted: fast first, or as ssh's configuration says.

use std::borrow::Cow;

use russh::keys::Algorithm;
use russh::keys::ssh_key::HashAlg;
use russh::{Preferred, cipher, compression, kex, mac};

use super::super::openssh::aes_is_fast;
use super::super::user_config::{matches_list, wildcard};
use super::route::Leg;
use crate::error::{Result, SyncError};

/// `kinds`: of the keys that are known of the host, which it is asked for first.
pub fn preferred(leg: &Leg, kinds: &[&str]) -> Result<Preferred> {
    let usual = Preferred::DEFAULT;
    let gcm = [cipher::AES_128_GCM, cipher::AES_256_GCM];
    let mut ciphers: Vec<cipher::Name> = usual.cipher.iter().filter(|name| !gcm.contains(name)).copied().collect();
    let at = if aes_is_fast() { 0 } else { 1 };
    ciphers.splice(at..at, gcm);
    let mut keys: Vec<Algorithm> = usual.key.iter().filter(|key| **key != Algorithm::Rsa { hash: None }).cloned().collect();
    if let Some(list) = &leg.host_key_algorithms {
        let find = |name: &str| Algorithm::new(name).ok();
        keys = choose("HostKeyAlgorithms", list, &keys, |key| key.to_string(), find)?;
    } else {
        keys.sort_by_key(|key| !kinds.contains(&kind_of(key)));
    }
    let mut kexes = usual.kex.to_vec();
    if let Some(list) = &leg.kex {
        let extension = |name: &kex::Name| name.as_ref().starts_with("kex-strict-") || name.as_ref().starts_with("ext-info-");
        let (extensions, methods): (Vec<_>, Vec<_>) = kexes.into_iter().partition(extension);
        kexes = choose("KexAlgorithms", list, &methods, |name| name.as_ref().to_owned(), |name| name.try_into().ok())?;
        kexes.extend(extensions);
    }
    if let Some(list) = &leg.ciphers {
        let find = |name: &str| cipher::Name::try_from(name).ok().filter(|name| !matches!(name.as_ref(), "none" | "clear"));
        ciphers = choose("Ciphers", list, &ciphers, |name| name.as_ref().to_owned(), find)?;
    }
    let mut macs = usual.mac.to_vec();
    if let Some(list) = &leg.macs {
        let find = |name: &str| mac::Name::try_from(name).ok().filter(|name| name.as_ref() != "none");
        macs = choose("MACs", list, &macs, |name| name.as_ref().to_owned(), find)?;
    }
    let none = vec![compression::NONE];
    let compression = if leg.compression { vec![compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE] } else { none };
    Ok(Preferred {
        kex: Cow::Owned(kexes),
        key: Cow::Owned(keys),
        cipher: Cow::Owned(ciphers),
        mac: Cow::Owned(macs),
        compression: Cow::Owned(compression),
        ..usual
    })
}

/// A list as ssh's configuration has it: names, or `+` to add some, `-` to take some away, `^` to put some first.
fn choose<T: Clone>(
    option: &str,
    list: &str,
    usual: &[T],
    name: impl Fn(&T) -> String,
    find: impl Fn(&str) -> Option<T>,
) -> Result<Vec<T>> {
    let (how, names) = match list.chars().next() {
        Some(how @ ('+' | '-' | '^')) => (Some(how), &list[1..]),
        _ => (None, list),
    };
    let names: Vec<String> = names.split(',').map(|name| name.trim().to_owned()).collect();
    let mut found: Vec<T> = names.iter().filter(|name| !name.contains(['*', '?'])).filter_map(|name| find(name)).collect();
    for wild in names.iter().filter(|name| name.contains(['*', '?'])) {
        found.extend(usual.iter().filter(|one| wildcard(wild, &name(one))).cloned());
    }
    let without = |found: &[T]| -> Vec<T> {
        let names: Vec<String> = found.iter().map(&name).collect();
        usual.iter().filter(|one| !names.contains(&name(one))).cloned().collect()
    };
    let chosen = match how {
        None => found,
        Some('+') => [usual, &found].concat(),
        Some('^') => [found.clone(), without(&found)].concat(),
        Some(_) => usual.iter().filter(|one| !matches_list(&names, &name(one))).cloned().collect(),
    };
    if chosen.is_empty() {
        return Err(SyncError::unsupported(format!(
            "none of the {option} in ssh's configuration is known without the program ssh: {list}"
        ))
        .hint(super::NEEDS_SSH));
    }
    Ok(chosen)
}

/// As files of known hosts have it: one name for all RSA keys, whatever signs with them.
pub fn kind_of(key: &Algorithm) -> &str {
    if matches!(key, Algorithm::Rsa { .. }) { "ssh-rsa" } else { key.as_str() }
}

/// The hash to sign with, if the server takes any that is still safe.
pub fn rsa_hash(best: Option<Option<HashAlg>>) -> Option<HashAlg> {
    match best {
        None => Some(HashAlg::Sha512),
        Some(best) => best,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_ssh_does() {
        let usual = ["a1", "a2", "b1"];
        let chosen = |list: &str| {
            choose("X", list, &usual, |name| (*name).to_owned(), |name| ["a1", "a2", "b1", "c1"].into_iter().find(|one| *one == name)).ok()
        };
        for (list, expected) in [
            ("b1,x,a1", Some(vec!["b1", "a1"])),
            ("+c1,x", Some(vec!["a1", "a2", "b1", "c1"])),
            ("-a*", Some(vec!["b1"])),
            ("^b1,c1", Some(vec!["b1", "c1", "a1", "a2"])),
            ("x", None),
            ("-*", None),
        ] {
            assert_eq!(chosen(list), expected, "{list}");
        }
    }
}
