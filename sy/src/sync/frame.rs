//! One directory of the walk: both listings, joined name by name in key order.

use std::cmp::Ordering;
use std::sync::Arc;

use super::dir::Dir;
use super::scan::Wanted;
use crate::filter::Scope;
use crate::transport::{Doomed, Held, Kind, Listing, Op, key_order};

/// What both sides have under one name. A file and a directory of one name are two rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    pub source: Option<u32>,
    pub dest: Option<u32>,
}

/// Listings of a child directory that were asked for ahead.
#[derive(Default)]
pub struct Ahead<'r> {
    pub source: Option<Arc<Wanted<'r>>>,
    pub dest: Option<Arc<Wanted<'r>>>,
}

pub struct Frame<'r> {
    pub dir: Arc<Dir<'r>>,
    pub source: Option<Listing>,
    pub dest: Option<Listing>,
    pub rows: Vec<Row>,
    pub next: usize,
    pub scope: Scope,
    /// Operations gathered for the next job.
    pub pending: Vec<Op>,
    pub pending_bytes: u64,
    /// For each row from `next` on that is a directory asked for ahead.
    pub ahead: std::collections::VecDeque<(usize, Ahead<'r>)>,
    pub asked_to: usize,
    /// The destination's directory itself goes, if all in it does.
    pub doomed: Option<Doomed>,
    /// Something in it stays, so it stays as well.
    pub holds: bool,
    /// Transfers of large files in a directory with leftovers, which may go on with one of them.
    pub resumable: Vec<Op>,
    /// Keeps the destination's directory open while others are made in it.
    pub held: Held,
}

/// Joins two listings in key order.
pub fn join(source: Option<&Listing>, dest: Option<&Listing>) -> Vec<Row> {
    let (n, m) = (source.map_or(0, Listing::len), dest.map_or(0, Listing::len));
    let mut rows = Vec::with_capacity(n.max(m));
    let (mut i, mut j) = (0, 0);
    while i < n || j < m {
        let order = match (source.filter(|_| i < n), dest.filter(|_| j < m)) {
            (Some(a), Some(b)) => key_order(a.name(i), a.item(i).meta.kind, b.name(j), b.item(j).meta.kind),
            (Some(_), None) => Ordering::Less,
            _ => Ordering::Greater,
        };
        // A file and a link of one name are one row; a directory has a row of its own.
        rows.push(Row { source: (order != Ordering::Greater).then_some(i as u32), dest: (order != Ordering::Less).then_some(j as u32) });
        i += usize::from(order != Ordering::Greater);
        j += usize::from(order != Ordering::Less);
    }
    rows
}

impl Frame<'_> {
    pub fn source_kind(&self, row: Row) -> Option<Kind> {
        row.source.and_then(|i| self.source.as_ref().map(|listing| listing.item(i as usize).meta.kind))
    }

    pub fn dest_kind(&self, row: Row) -> Option<Kind> {
        row.dest.and_then(|j| self.dest.as_ref().map(|listing| listing.item(j as usize).meta.kind))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Meta, Time};

    fn listing(names: &[&str]) -> Listing {
        let mut listing = Listing::default();
        for name in names {
            let (name, kind) = name.strip_suffix('/').map_or((*name, Kind::File), |name| (name, Kind::Dir));
            let meta = Meta { kind, ..crate::transport::sample(0, Time::default()) };
            listing.push(name.as_bytes(), meta, None);
        }
        listing.sort();
        listing
    }

    #[test]
    fn names_that_sort_apart_are_joined_all_the_same() {
        let (a, b) = (listing(&["a", "a-b", "a.txt", "a0"]), listing(&["a/", "a-b", "b"]));
        let text: Vec<String> = join(Some(&a), Some(&b))
            .iter()
            .map(|row| {
                let name =
                    |side: &Listing, i: Option<u32>| i.map_or("-".into(), |i| String::from_utf8_lossy(side.name(i as usize)).into_owned());
                format!("{} {}", name(&a, row.source), name(&b, row.dest))
            })
            .collect();
        assert_eq!(text, ["a -", "a-b a-b", "a.txt -", "- a", "a0 -", "- b"]);
        assert!(b.find(b"a", true).is_some() && b.find(b"a", false).is_none());
    }

    proptest::proptest! {
        #[test]
        fn every_entry_is_in_one_row_and_matches_are_found(x in proptest::collection::btree_set("[ab./-]{1,3}", 0..12), y in proptest::collection::btree_set("[ab./-]{1,3}", 0..12)) {
            let clean = |set: std::collections::BTreeSet<String>| -> Vec<String> {
                let mut seen = std::collections::BTreeSet::new();
                set.into_iter().filter(|name| {
                    let bare = name.strip_suffix('/').unwrap_or(name);
                    !bare.is_empty() && !bare.contains('/') && seen.insert(bare.to_owned())
                }).collect()
            };
            let (x, y) = (clean(x), clean(y));
            let refs = |names: &[String]| -> Listing { listing(&names.iter().map(String::as_str).collect::<Vec<_>>()) };
            let rows = join(Some(&refs(&x)), Some(&refs(&y)));
            proptest::prop_assert_eq!(rows.iter().filter(|row| row.source.is_some()).count(), x.len());
            proptest::prop_assert_eq!(rows.iter().filter(|row| row.dest.is_some()).count(), y.len());
            let both = x.iter().filter(|name| y.contains(name)).count();
            proptest::prop_assert_eq!(rows.iter().filter(|row| row.source.is_some() && row.dest.is_some()).count(), both);
        }
    }
}
