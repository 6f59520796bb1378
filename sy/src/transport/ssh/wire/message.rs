//! What messages hold that both sides write and read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::codec::{Get, Put, garbled};
use crate::cli::Options;
use crate::error::Result;
use crate::sync::Reason;
use crate::transport::{Applied, Capabilities, Doomed, Found, Kind, Listing, Meta, Op, What};

/// The version of the protocol. A change that an older side would misread makes it larger.
pub const VERSION: u32 = 1;

/// Begins everything that an agent says. Not text, so that no login script says it by chance.
pub const GREETING: &[u8] = b"\nsypy-agent\x00\xf5\n";

const WHATS: [What; 6] = [What::Copy, What::CopyIfDifferent, What::Metadata, What::Attributes, What::Nothing, What::Ask];
const APPLIED: [Applied; 4] = [Applied::Created, Applied::Updated, Applied::Metadata, Applied::Same];

/// One of a few, by its place.
fn place<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|other| other == one).unwrap_or(0) as u8
}

fn at<T: Copy>(all: &[T], place: u8) -> Result<T> {
    all.get(usize::from(place)).copied().ok_or_else(|| garbled("a choice that there is not"))
}

pub fn put_applied(put: &mut Put, applied: Applied) {
    put.u8(place(&APPLIED, &applied));
}

pub fn get_applied(get: &mut Get<'_>) -> Result<Applied> {
    at(&APPLIED, get.u8()?)
}

pub fn put_optional_meta(put: &mut Put, meta: Option<&Meta>, before: Option<&Meta>) {
    put.bool(meta.is_some());
    if let Some(meta) = meta {
        put.meta(meta, before);
    }
}

pub fn get_optional_meta(get: &mut Get<'_>, before: Option<&Meta>) -> Result<Option<Meta>> {
    if get.bool()? { get.meta(before).map(Some) } else { Ok(None) }
}

pub fn put_op(put: &mut Put, op: &Op) {
    put.bytes(&op.name).u8(place(&WHATS, &op.what)).meta(&op.source, None).option(op.target.as_deref());
    put_optional_meta(put, op.dest.as_ref(), Some(&op.source));
}

pub fn get_op(get: &mut Get<'_>) -> Result<Op> {
    let name = get.name()?.into();
    let what = at(&WHATS, get.u8()?)?;
    let source = get.meta(None)?;
    let target = get.option()?.map(Into::into);
    let dest = get_optional_meta(get, Some(&source))?;
    Ok(Op { name, source_name: None, source, target, dest, dest_target: None, what, reason: Reason::New, write_out: false })
}

pub fn put_found(put: &mut Put, found: Option<&Found>) {
    put_optional_meta(put, found.map(|(meta, _)| meta), None);
    if let Some((_, target)) = found {
        put.option(target.as_deref());
    }
}

pub fn get_found(get: &mut Get<'_>) -> Result<Option<Found>> {
    match get_optional_meta(get, None)? {
        Some(meta) => Ok(Some((meta, get.option()?.map(Into::into)))),
        None => Ok(None),
    }
}

pub fn put_doomed(put: &mut Put, name: &[u8], one: &Doomed) {
    put.bytes(name).bool(one.kind == Kind::Dir).u64(one.size).u64(one.ino).time(one.mtime);
    if one.kind != Kind::Dir {
        put.u8(place(&KINDS, &one.kind));
    }
}

pub fn get_doomed(get: &mut Get<'_>, dir: &[u8]) -> Result<Doomed> {
    let key = crate::transport::child_key(dir, get.name()?);
    let is_dir = get.bool()?;
    let (size, ino, mtime) = (get.u64()?, get.u64()?, get.time()?);
    let kind = if is_dir { Kind::Dir } else { at(&KINDS, get.u8()?)? };
    // The other side is a tree, whose entries have no tags.
    Ok(Doomed { key, kind, size, ino, mtime, tag: None })
}

const KINDS: [Kind; 6] = [Kind::File, Kind::Symlink, Kind::Fifo, Kind::Socket, Kind::CharDevice, Kind::BlockDevice];

/// A part of a listing, from entry `from` on; returns where the next part begins.
pub fn put_listing(put: &mut Put, listing: &Listing, from: usize, most: usize) -> usize {
    let start = put.0.len();
    let mut before: Option<Meta> = None;
    let mut at = from;
    while at < listing.len() && put.0.len() - start < most {
        let item = listing.item(at);
        put.bytes(listing.name(at)).meta(&item.meta, before.as_ref()).option(item.target.as_deref());
        before = Some(item.meta);
        at += 1;
    }
    // An empty name ends the entries.
    put.bytes(b"");
    at
}

/// Names and metadata as `put_listing` wrote them, added to `listing`. Names in their order, each once.
pub fn get_listing(get: &mut Get<'_>, listing: &mut Listing) -> Result<()> {
    let mut before: Option<Meta> = None;
    loop {
        if get.0.first() == Some(&0) {
            return get.bytes().map(drop);
        }
        let name = get.name()?;
        let name_length = name.len();
        let meta = get.meta(before.as_ref())?;
        let target = get.option()?.map(Into::into);
        if name_length > usize::from(u16::MAX) {
            return Err(garbled("a name that none can have"));
        }
        if let Some(last) = listing.len().checked_sub(1)
            && crate::transport::key_order(listing.name(last), listing.item(last).meta.kind, name, meta.kind).is_ge()
        {
            return Err(garbled("a directory whose names are in no order"));
        }
        listing.push(name, meta, target);
        before = Some(meta);
    }
}

pub fn put_capabilities(put: &mut Put, c: &Capabilities) {
    put.u64(c.mtime_precision);
    for kept in [c.xattrs, c.acls, c.owner, c.hard_links, c.devices, c.links, c.trash] {
        put.bool(kept);
    }
}

pub fn get_capabilities(get: &mut Get<'_>) -> Result<Capabilities> {
    Ok(Capabilities {
        mtime_precision: get.u64()?,
        xattrs: get.bool()?,
        acls: get.bool()?,
        owner: get.bool()?,
        hard_links: get.bool()?,
        devices: get.bool()?,
        links: get.bool()?,
        trash: get.bool()?,
        any_name: false,
    })
}

/// The options of a run that the other side has to know.
pub fn put_options(put: &mut Put, options: &Options) {
    for set in flags(&mut options.clone()) {
        put.bool(*set);
    }
    put.option(options.backup_dir.as_ref().map(|dir| dir.as_os_str().as_bytes()));
}

pub fn get_options(get: &mut Get<'_>) -> Result<Options> {
    let mut options = Options::default();
    for set in flags(&mut options) {
        *set = get.bool()?;
    }
    options.backup_dir = get.option()?.map(|dir| PathBuf::from(OsStr::from_bytes(dir)));
    Ok(options)
}

fn flags(options: &mut Options) -> [&mut bool; 15] {
    [
        &mut options.dry_run,
        &mut options.delete,
        &mut options.trash,
        &mut options.archive,
        &mut options.preserve_times,
        &mut options.preserve_permissions,
        &mut options.preserve_owner,
        &mut options.preserve_xattrs,
        &mut options.preserve_acls,
        &mut options.preserve_hardlinks,
        &mut options.preserve_devices,
        &mut options.sparse,
        &mut options.resume,
        &mut options.verify,
        &mut options.durable,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Time, sample};
    use proptest::prelude::*;

    fn listing(names: &std::collections::BTreeSet<Vec<u8>>) -> Listing {
        let mut listing = Listing::default();
        for (n, name) in names.iter().enumerate() {
            let kind = if n % 3 == 0 { Kind::Dir } else { Kind::File };
            listing.push(name, Meta { kind, ino: n as u64, ..sample(n as u64, Time::default()) }, (n % 5 == 0).then(|| b"to"[..].into()));
        }
        listing.sort();
        listing
    }

    proptest! {
        #[test]
        fn listings_come_back_in_parts(names in prop::collection::btree_set(prop::collection::vec(1..47_u8, 1..9), 0..40), most in 1..200_usize) {
            let names = names.into_iter().filter(|name| **name != *b"." && **name != *b"..").collect();
            let sent = listing(&names);
            let mut got = Listing::default();
            let mut from = 0;
            loop {
                let mut put = Put::default();
                from = put_listing(&mut put, &sent, from, most);
                let mut get = Get(&put.0);
                get_listing(&mut get, &mut got).expect("written");
                get.end().expect("no more");
                if from == sent.len() {
                    break;
                }
            }
            prop_assert_eq!(got.len(), sent.len());
            for n in 0..got.len() {
                prop_assert_eq!((got.name(n), got.item(n).meta, &got.item(n).target), (sent.name(n), sent.item(n).meta, &sent.item(n).target));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = get_op(&mut Get(&bytes));
            let _ = get_listing(&mut Get(&bytes), &mut Listing::default());
            let _ = get_doomed(&mut Get(&bytes), b"dir");
            let _ = get_options(&mut Get(&bytes));
            let _ = get_found(&mut Get(&bytes));
            let _ = get_capabilities(&mut Get(&bytes));
        }
    }

    #[test]
    fn operations_come_back() {
        let source = sample(5, Time { seconds: 7, nanos: 8 });
        let op = Op {
            name: b"name"[..].into(),
            source_name: None,
            source,
            target: Some(b"target"[..].into()),
            dest: Some(Meta { size: 9, ..source }),
            dest_target: None,
            what: What::Metadata,
            reason: Reason::New,
            write_out: false,
        };
        let mut put = Put::default();
        put_op(&mut put, &op);
        let got = get_op(&mut Get(&put.0)).expect("written");
        assert_eq!((got.name, got.source, got.target, got.dest, got.what), (op.name, op.source, op.target, op.dest, op.what));
    }

    #[test]
    fn options_come_back() {
        let options = Options { preserve_owner: true, sparse: false, backup_dir: Some("b/\u{1}".into()), ..Options::default() };
        let mut put = Put::default();
        put_options(&mut put, &options);
        assert_eq!(get_options(&mut Get(&put.0)).expect("written"), options);
    }

    #[test]
    fn names_out_of_order_are_refused() {
        let mut put = Put::default();
        for name in [b"b", b"a"] {
            put.bytes(name).meta(&sample(1, Time::default()), None).option(None);
        }
        put.bytes(b"");
        assert!(get_listing(&mut Get(&put.0), &mut Listing::default()).is_err());
    }
}
