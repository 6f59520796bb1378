//! Extended attributes and access lists as they travel: bounded, and whatever they are, the side that gets them decides what of
//! them it takes.

use super::codec::{Get, Put, garbled};
use crate::error::{ErrorKind, Result, SyncError};
use crate::transport::local::{Attributes, Keep};

/// Bytes of a name and of a value, as Linux has them.
const LONGEST_NAME: usize = 255;
const LONGEST_VALUE: usize = 64 << 10;
/// Bytes of all of one entry. A message of other things has room for that much more.
pub const MOST: usize = 512 << 10;

/// `None` where they are to be left as they are.
pub fn put_attributes(put: &mut Put, attributes: Option<&Attributes>) {
    put.u64(attributes.map_or(0, |all| all.iter().len() as u64 + 1));
    for (name, value) in attributes.iter().flat_map(|all| all.iter()) {
        put.bytes(name).bytes(value);
    }
}

pub fn get_attributes(get: &mut Get<'_>) -> Result<Option<Attributes>> {
    let Some(count) = get.u64()?.checked_sub(1) else { return Ok(None) };
    let (mut all, mut size) = (Vec::new(), 0);
    for _ in 0..count {
        let (name, value) = (get.bytes()?, get.bytes()?);
        size += name.len() + value.len();
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(&0) || value.len() > LONGEST_VALUE || size > MOST {
            return Err(garbled("attributes that no file can have"));
        }
        all.push((name.to_vec(), value.to_vec()));
    }
    Attributes::of_sorted(all).map(Some).ok_or_else(|| garbled("attributes in no order"))
}

/// Refuses what is too much for a message.
pub fn sendable(attributes: Attributes, path: impl FnOnce() -> Vec<u8>) -> Result<Attributes> {
    if attributes.size() <= MOST {
        return Ok(attributes);
    }
    Err(SyncError::new(ErrorKind::Unsupported, format!("its extended attributes are more than {} KiB, too many for SSH", MOST >> 10))
        .at("read the attributes of", path()))
}

/// Which of them a run wants, in a request.
pub fn put_wish(put: &mut Put, keep: Keep) {
    put.u8(u8::from(keep.xattrs) | u8::from(keep.acls) << 1);
}

/// All that the other side might want of them.
pub fn get_wish(get: &mut Get<'_>) -> Result<Keep> {
    match get.u8()? {
        wish @ 0..4 => Ok(Keep::to_send(wish & 1 == 1, wish & 2 == 2)),
        _ => Err(garbled("a wish for other attributes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(all: &[(&[u8], &[u8])]) -> Attributes {
        Attributes::of_sorted(all.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect()).expect("in order")
    }

    #[test]
    fn they_come_back() {
        for all in [None, Some(of(&[])), Some(of(&[(b"user.a", b""), (b"user.b", &[0; 300])]))] {
            let mut put = Put::default();
            put_attributes(&mut put, all.as_ref());
            let mut get = Get(&put.0);
            assert_eq!(get_attributes(&mut get).expect("written"), all);
            get.end().expect("no more");
        }
    }

    #[test]
    fn what_no_file_has_is_refused() {
        let long = vec![b'a'; 300];
        let large = vec![0; LONGEST_VALUE + 1];
        for all in [
            vec![(&b"user.b"[..], &b""[..]), (b"user.a", b"")],
            vec![(b"user.a", b""), (b"user.a", b"")],
            vec![(b"", b"")],
            vec![(b"user.\0", b"")],
            vec![(&long, b"")],
            vec![(b"user.a", &large)],
        ] {
            let mut put = Put::default();
            put.u64(all.len() as u64 + 1);
            for (name, value) in &all {
                put.bytes(name).bytes(value);
            }
            assert!(get_attributes(&mut Get(&put.0)).is_err(), "{:?}", all[0].0);
        }
        let mut put = Put::default();
        put.u64(21);
        for n in 0..20_u8 {
            put.bytes(&[b'a' + n]).bytes(&large[1..]);
        }
        assert!(get_attributes(&mut Get(&put.0)).is_err());
    }

    #[test]
    fn the_side_that_gets_them_decides() {
        let sent =
            of(&[(b"other.x", b"1"), (b"security.x", b"2"), (b"system.posix_acl_access", b"3"), (b"system.x", b"4"), (b"user.x", b"5")]);
        let of_those = |keep: Keep, root| {
            let kept = keep.as_root(root).of_those(sent.clone());
            kept.iter().map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of_those(Keep::to_send(true, false), false), ["user.x"]);
        assert_eq!(of_those(Keep::to_send(true, true), true), ["security.x", "system.posix_acl_access", "user.x"]);
        assert_eq!(of_those(Keep::to_send(false, true), true), ["system.posix_acl_access"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = get_attributes(&mut Get(&bytes));
            let _ = get_wish(&mut Get(&bytes));
        }
    }
}
