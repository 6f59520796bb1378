//! Goes through a listing page by page, and when it turns out to be long, in several ranges of keys side by side.
//!
//! A service answers with a thousand keys or so, one page after the other. Where a long list has directories further on,
//! their names cut what is left into ranges. What comes out of turn waits in its own spool, so memory stays flat.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::spool::{Kept, Trouble};
use super::store::{Page, Query, Store};
use crate::error::{ErrorKind, Result, SyncError};
use crate::sync::Stop;

/// Pages in a row before a list counts as long.
const LONG: usize = 16;
const RANGES: usize = 8;
/// How far down a directory is looked for that has several others in it.
const DEEP: usize = 3;

/// All that begins with `prefix`, in the store's order. `ranges`: that is the order of the keys' bytes, as far as is known.
pub fn pages(
    store: &dyn Store,
    prefix: &[u8],
    stop: &Stop,
    ranges: bool,
    take: &mut dyn FnMut(Page) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut list = List { store, prefix, stop, next: None, after: None, circle: Circle::default() };
    for n in 0.. {
        let page = list.page()?;
        let last = page.objects.last().map(|object| object.key.clone());
        take(page)?;
        if list.next.is_none() {
            break;
        }
        if let (true, Some(last)) = (n + 1 == LONG && ranges && store.features().begins_anywhere, last) {
            let bounds = bounds(store, prefix, &last)?;
            if bounds.len() > 1 {
                return in_ranges(store, prefix, stop, list, &bounds, take);
            }
        }
    }
    Ok(())
}

/// Notices a list that goes round in circles, however long they are: one page is kept in mind, a later one each time twice as
/// many have passed.
#[derive(Debug, Default)]
pub struct Circle {
    mark: Option<String>,
    passed: u64,
    until: u64,
}

impl Circle {
    /// `next` is where the list goes on.
    pub fn check(&mut self, next: Option<&str>) -> Result<()> {
        let Some(next) = next else { return Ok(()) };
        if self.mark.as_deref() == Some(next) {
            return Err(SyncError::new(ErrorKind::Io, "the service lists the same pages again and again"));
        }
        self.passed += 1;
        if self.passed > self.until {
            (self.mark, self.passed, self.until) = (Some(next.to_owned()), 0, (self.until * 2).max(1));
        }
        Ok(())
    }
}

/// A way through a list.
struct List<'l> {
    store: &'l dyn Store,
    prefix: &'l [u8],
    stop: &'l Stop,
    next: Option<String>,
    after: Option<Vec<u8>>,
    circle: Circle,
}

impl List<'_> {
    fn page(&mut self) -> Result<Page> {
        if self.stop.is_set() {
            return Err(SyncError::cancelled());
        }
        let query = Query { prefix: self.prefix, page: self.next.as_deref(), after: self.after.as_deref(), ..Query::default() };
        let mut page = self.store.list(&query)?;
        self.next = page.next.take();
        self.circle.check(self.next.as_deref())?;
        Ok(page)
    }
}

/// Where the rest of a list may be cut: directories after `last`, a few of them.
fn bounds(store: &dyn Store, prefix: &[u8], last: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut above = prefix.to_vec();
    for _ in 0..DEEP {
        let page = store.list(&Query { prefix: &above, after: Some(last), shallow: true, ..Query::default() })?;
        let found: Vec<Vec<u8>> = page.prefixes.into_iter().filter(|found| found.as_slice() > last && found.starts_with(prefix)).collect();
        if !found.is_sorted() {
            // Not in the order of the bytes: what a range would hold is not known.
            break;
        }
        if found.len() > 1 {
            let step = found.len().div_ceil(RANGES - 1);
            return Ok(found.into_iter().step_by(step).collect());
        }
        // Perhaps all is below one directory.
        match last.get(above.len()..).and_then(|rest| rest.iter().position(|&b| b == b'/')) {
            Some(slash) => above = last[..=above.len() + slash].to_vec(),
            None => break,
        }
    }
    Ok(Vec::new())
}

/// Keys sort behind this one just before those that begin with `bound`.
fn before(bound: &[u8]) -> Vec<u8> {
    // A slash comes after a dot: whatever lies between belongs to the range before, and is cut off here.
    [bound.strip_suffix(b"/").unwrap_or(bound), b"."].concat()
}

fn in_ranges(
    store: &dyn Store,
    prefix: &[u8],
    stop: &Stop,
    first: List<'_>,
    bounds: &[Vec<u8>],
    take: &mut dyn FnMut(Page) -> Result<(), Trouble>,
) -> Result<(), Trouble> {
    let mut lists: Vec<Mutex<Option<List<'_>>>> = vec![Mutex::new(Some(first))];
    let from = |bound: &Vec<u8>| List { store, prefix, stop, next: None, after: Some(before(bound)), circle: Circle::default() };
    lists.extend(bounds.iter().map(|bound| Mutex::new(Some(from(bound)))));
    let done: Vec<Mutex<Result<Part, Trouble>>> = lists.iter().map(|_| Mutex::new(Ok(Part::default()))).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let n = next.fetch_add(1, Relaxed);
            let Some(list) = lists.get(n).and_then(|list| list.lock().unwrap_or_else(PoisonError::into_inner).take()) else { break };
            let (from, to) = (n.checked_sub(1).map(|n| &bounds[n]), bounds.get(n));
            let result = one_range(list, from.map(Vec::as_slice), to.map(Vec::as_slice));
            *done[n].lock().unwrap_or_else(PoisonError::into_inner) = result;
        }
    };
    std::thread::scope(|threads| {
        for _ in 1..lists.len() {
            // With fewer threads it only takes longer.
            let _ = std::thread::Builder::new().name("sypy-list".into()).spawn_scoped(threads, work);
        }
        work();
    });
    // Where one range ends the next has to begin, or there are keys between them that neither has seen.
    let mut expected = None;
    for (n, part) in done.into_iter().enumerate() {
        let part = part.into_inner().unwrap_or_else(PoisonError::into_inner)?;
        if n > 0 && part.first != expected {
            return Err(Trouble::Order);
        }
        expected = part.after;
        part.kept.each(&mut *take)?;
    }
    Ok(())
}

/// A range of a list.
#[derive(Default)]
struct Part {
    kept: Kept,
    /// The first key from the lower bound on, be it beyond the upper one.
    first: Option<Vec<u8>>,
    /// The first key beyond the upper bound.
    after: Option<Vec<u8>>,
}

/// What of a list lies between two bounds.
fn one_range(mut list: List<'_>, from: Option<&[u8]>, to: Option<&[u8]>) -> Result<Part, Trouble> {
    let mut part = Part::default();
    let mut last = Vec::new();
    loop {
        let mut page = list.page()?;
        for object in &page.objects {
            if !last.is_empty() && object.key <= last {
                return Err(Trouble::Order);
            }
            last.clone_from(&object.key);
        }
        page.objects.retain(|object| from.is_none_or(|from| object.key.as_slice() >= from));
        if part.first.is_none() {
            part.first = page.objects.first().map(|object| object.key.clone());
        }
        let end = to.map_or(page.objects.len(), |to| page.objects.partition_point(|object| object.key.as_slice() < to));
        part.after = page.objects.get(end).map(|object| object.key.clone());
        page.objects.truncate(end);
        part.kept.push(&page)?;
        if part.after.is_some() || list.next.is_none() {
            return Ok(part);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Range;
    use std::sync::atomic::AtomicU64;

    use super::super::attributes::Attributes;
    use super::super::http::Body;
    use super::super::store::{Content, Features, Head, If, Object, Origin, Part, Removal};
    use super::super::sums::{Kinds, Sums};
    use super::*;

    /// Keys in memory, listed in pages of three.
    #[derive(Debug)]
    struct Keys {
        keys: BTreeSet<Vec<u8>>,
        /// Lists those that begin with a `z` after `19/`, as a service with an order of its own might.
        odd: bool,
        asked: AtomicU64,
    }

    impl Keys {
        fn in_order(&self) -> Vec<&Vec<u8>> {
            let mut keys: Vec<&Vec<u8>> = self.keys.iter().collect();
            keys.sort_by_key(|key| self.rank(key));
            keys
        }

        fn rank(&self, key: &[u8]) -> Vec<u8> {
            if self.odd && key.starts_with(b"z") { [b"19/~", key].concat() } else { key.to_vec() }
        }
    }

    fn keys(keys: impl IntoIterator<Item = String>) -> Keys {
        Keys { keys: keys.into_iter().map(String::into_bytes).collect(), odd: false, asked: AtomicU64::new(0) }
    }

    fn no<T>() -> Result<T> {
        Err(SyncError::unsupported("a list only"))
    }

    impl Store for Keys {
        fn features(&self) -> Features {
            Features {
                attributes: false,
                lists_attributes: false,
                conditions: false,
                parts: false,
                min_part: 0,
                max_parts: 0,
                max_put: 0,
                copies_attributes: 0,
                sets_attributes: false,
                deletes_at_once: 1,
                conditional_deletes: false,
                directories: false,
                ordered: true,
                begins_anywhere: true,
            }
        }

        fn list(&self, query: &Query<'_>) -> Result<Page> {
            self.asked.fetch_add(1, Relaxed);
            let after = query.page.map(|page| page.as_bytes().to_vec()).or_else(|| query.after.map(<[u8]>::to_vec));
            let mut page = Page::default();
            let (mut last, mut count) = (Vec::new(), 0);
            let wanted = |key: &[u8]| key.starts_with(query.prefix) && after.as_ref().is_none_or(|after| self.rank(key) > self.rank(after));
            for key in self.in_order().into_iter().filter(|key| wanted(key)) {
                if count == 3 {
                    page.next = Some(String::from_utf8(last).expect("keys are text here"));
                    break;
                }
                last.clone_from(key);
                let below = key[query.prefix.len()..].iter().position(|&b| b == b'/');
                if let (true, Some(slash)) = (query.shallow, below) {
                    let prefix = key[..=query.prefix.len() + slash].to_vec();
                    if page.prefixes.last() != Some(&prefix) {
                        page.prefixes.push(prefix);
                    }
                    continue;
                }
                count += 1;
                let modified = crate::transport::Time::default();
                page.objects.push(Object { key: key.clone(), size: 1, modified, tag: "t".into(), attributes: None });
            }
            Ok(page)
        }

        fn wants(&self) -> Kinds {
            Kinds::NONE
        }
        fn name(&self) -> String {
            "keys".into()
        }
        fn bucket(&self) -> &str {
            "keys"
        }
        fn realm(&self) -> String {
            "keys".into()
        }
        fn place(&self) -> String {
            "keys".into()
        }
        fn head(&self, _: &[u8]) -> Result<Option<Head>> {
            no()
        }
        fn get(&self, _: &[u8], _: Option<Range<u64>>, _: Option<&str>) -> Result<Content> {
            no()
        }
        fn put(&self, _: &[u8], _: Body<'_>, _: &Attributes, _: &Sums, _: If<'_>) -> Result<String> {
            no()
        }
        fn copy(&self, _: &Origin<'_>, _: &[u8], _: Option<&Attributes>, _: If<'_>) -> Result<String> {
            no()
        }
        fn delete(&self, _: &[Removal<'_>]) -> Vec<Result<()>> {
            Vec::new()
        }
        fn begin(&self, _: &[u8], _: &Attributes) -> Result<String> {
            no()
        }
        fn put_part(&self, _: &[u8], _: &str, _: u32, _: Body<'_>, _: &Sums) -> Result<Part> {
            no()
        }
        fn parts(&self, _: &[u8], _: &str) -> Result<Option<Vec<Part>>> {
            no()
        }
        fn complete(&self, _: &[u8], _: &str, _: &[Part], _: &Attributes, _: &Sums, _: If<'_>) -> Result<String> {
            no()
        }
        fn abort(&self, _: &[u8], _: &str) {}
        fn connections(&self) -> Option<u64> {
            None
        }
        fn part_size(&self) -> Option<u64> {
            None
        }
        fn requests(&self) -> u64 {
            self.asked.load(Relaxed)
        }
    }

    fn listed(store: &Keys, prefix: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let done = pages(store, prefix, &Stop::default(), true, &mut |page| {
            found.extend(page.objects.into_iter().map(|object| object.key));
            Ok(())
        });
        assert!(done.is_ok());
        found
    }

    #[test]
    fn a_long_list_is_cut_into_ranges_that_miss_nothing() {
        let store = keys((0..2000).map(|n| format!("p/{:02}{}x{n}", n / 40, if n % 3 == 0 { "/" } else { "." })));
        assert_eq!(listed(&store, b"p/"), store.keys.iter().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn ranges_are_not_trusted_where_the_order_is_another() {
        let names = (0..400).map(|n| format!("{:02}/{n}", n / 10)).chain((0..10).map(|n| format!("z{n}")));
        let store = Keys { odd: true, ..keys(names) };
        let done = pages(&store, b"", &Stop::default(), true, &mut |_| Ok(()));
        assert!(matches!(done, Err(Trouble::Order)));
    }

    #[test]
    fn a_list_that_goes_round_in_circles_is_noticed() {
        for length in [1, 2, 3, 7, 100] {
            let mut circle = Circle::default();
            let found = (0..1000).position(|n| circle.check(Some(&format!("{}", n % length))).is_err());
            assert!(found.is_some_and(|found| found <= 4 * length), "{length}: {found:?}");
        }
        let mut circle = Circle::default();
        assert!((0..10_000).all(|n| circle.check(Some(&n.to_string())).is_ok()) && circle.check(None).is_ok());
    }

    #[test]
    fn a_short_list_costs_its_pages_and_no_more() {
        let store = keys((0..30).map(|n| format!("d{n:02}/x")));
        assert_eq!(listed(&store, b"").len(), 30);
        assert_eq!(store.requests(), 10);
    }

    proptest::proptest! {
        #[test]
        fn every_key_comes_once_and_in_order(names in proptest::collection::btree_set("[a./0-]{1,7}", 40..120), prefix in "(a/?)?") {
            let store = keys(names);
            let expected: Vec<Vec<u8>> = store.keys.iter().filter(|key| key.starts_with(prefix.as_bytes())).cloned().collect();
            proptest::prop_assert_eq!(listed(&store, prefix.as_bytes()), expected);
        }
    }
}
