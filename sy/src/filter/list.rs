//! An ordered list of rules, of which the first that matches decides.
//!
//! A list is asked once per entry of the tree, so lists of some length keep an index: rules that are plain names or
//! `*.ext` are looked up, and only the others are tried one by one, up to the earliest rule already found.

use std::collections::HashMap;

use super::pattern::{Entry, Pattern, Reach, Test};

/// Which side of the transfer asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Is it hidden from the transfer?
    Source,
    /// Is it protected from deletion?
    Destination {
        /// The directory that holds it is being deleted as well.
        doomed: bool,
    },
}

/// The sides a rule speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sides {
    Both,
    Source,
    Destination,
}

#[derive(Debug, Clone)]
pub struct Rule {
    pub pattern: Pattern,
    pub exclude: bool,
    pub only_dirs: bool,
    /// Takes effect where the pattern does not match.
    pub negate: bool,
    pub sides: Sides,
    /// Without effect at the destination in directories that are being deleted.
    pub perishable: bool,
}

impl Rule {
    fn speaks_for(&self, side: Side) -> bool {
        match side {
            Side::Source => self.sides != Sides::Destination,
            Side::Destination { doomed } => self.sides != Sides::Source && !(doomed && self.perishable),
        }
    }

    fn applies(&self, entry: &Entry, base: usize, side: Side) -> bool {
        let matches = (entry.is_dir || !self.only_dirs) && self.pattern.matches(entry, base);
        matches != self.negate && self.speaks_for(side)
    }
}

/// Shorter lists are tried rule by rule: hashing costs more than a few comparisons.
const INDEXED_FROM: usize = 6;

#[derive(Debug, Clone, Default)]
pub struct RuleList {
    rules: Vec<Rule>,
    /// Length of the key, with a slash, of the directory the rules belong to.
    base: usize,
    names: HashMap<Vec<u8>, Vec<usize>>,
    /// What follows the last dot of the name.
    extensions: HashMap<Vec<u8>, Vec<usize>>,
    paths: HashMap<Vec<u8>, Vec<usize>>,
    scan: Vec<usize>,
    excludes: bool,
    one_sided: bool,
}

impl RuleList {
    pub fn new(rules: Vec<Rule>, base: usize) -> RuleList {
        let mut list = RuleList {
            base,
            excludes: rules.iter().any(|r| r.exclude),
            one_sided: rules.iter().any(|r| r.sides != Sides::Both || r.perishable),
            ..RuleList::default()
        };
        let indexed = rules.len() >= INDEXED_FROM;
        for (at, rule) in rules.iter().enumerate() {
            let (map, key) = match (&rule.pattern.test, rule.pattern.reach) {
                _ if !indexed || rule.negate => {
                    list.scan.push(at);
                    continue;
                }
                (Test::Exact(name), Reach::Name) => (&mut list.names, name.as_slice()),
                (Test::Exact(path), Reach::Anchored) => (&mut list.paths, path.as_slice()),
                (Test::Suffix(tail), Reach::Name) if extension(tail).is_some_and(|e| e.len() + 1 == tail.len()) => {
                    (&mut list.extensions, &tail[1..])
                }
                _ => {
                    list.scan.push(at);
                    continue;
                }
            };
            map.entry(key.to_vec()).or_default().push(at);
        }
        list.rules = rules;
        list
    }

    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Can it hide or protect anything at all?
    pub fn excludes(&self) -> bool {
        self.excludes
    }

    /// Can the two sides get different answers?
    pub fn one_sided(&self) -> bool {
        self.one_sided
    }

    /// What the first rule that matches says: `true` leaves the entry out, `false` lets it in.
    pub fn first(&self, entry: &Entry, side: Side) -> Option<bool> {
        let mut best = usize::MAX;
        let mut look_up = |map: &HashMap<Vec<u8>, Vec<usize>>, key: &[u8]| {
            if map.is_empty() {
                return;
            }
            let Some(found) = map.get(key) else { return };
            let hit = found.iter().find(|at| self.rules[**at].applies(entry, self.base, side));
            best = best.min(hit.copied().unwrap_or(usize::MAX));
        };
        look_up(&self.names, entry.name);
        look_up(&self.paths, entry.below(self.base));
        if let Some(extension) = extension(entry.name) {
            look_up(&self.extensions, extension);
        }
        for &at in self.scan.iter().take_while(|at| **at < best) {
            if self.rules[at].applies(entry, self.base, side) {
                return Some(self.rules[at].exclude);
            }
        }
        self.rules.get(best).map(|rule| rule.exclude)
    }
}

fn extension(name: &[u8]) -> Option<&[u8]> {
    name.iter().rposition(|b| *b == b'.').map(|dot| &name[dot + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(pattern: &str, exclude: bool) -> Rule {
        let pattern = Pattern::rsync(pattern.as_bytes());
        Rule { pattern, exclude, only_dirs: false, negate: false, sides: Sides::Both, perishable: false }
    }

    fn first(list: &RuleList, key: &str) -> Option<bool> {
        list.first(&Entry::new(key.as_bytes(), false), Side::Source)
    }

    #[test]
    fn an_index_does_not_change_the_order() {
        let patterns = ["*.o", "keep.o", "keep*", "/top", "top", "*.tar.gz", "*.gz", "t*", "*", "keep.c"];
        for turn in 0..patterns.len() {
            let mut rules: Vec<Rule> = Vec::new();
            for (i, pattern) in patterns.iter().cycle().skip(turn).take(patterns.len()).enumerate() {
                rules.push(rule(pattern, i % 2 == 0));
            }
            let whole = RuleList::new(rules.clone(), 0);
            let parts: Vec<RuleList> = rules.into_iter().map(|r| RuleList::new(vec![r], 0)).collect();
            for key in ["keep.o", "a/keep.o", "top", "a/top", "x.tar.gz", "x.gz", "gz", "keep.c", ".o", "x.c"] {
                let one_by_one = parts.iter().find_map(|p| first(p, key));
                assert_eq!(first(&whole, key), one_by_one, "{turn} {key}");
            }
        }
    }

    #[test]
    fn sides_and_perishable_rules_speak_where_they_should() {
        let mut rules = rule("x", true);
        rules.perishable = true;
        let list = RuleList::new(vec![rules.clone()], 0);
        let entry = Entry::new(b"x", false);
        assert!(list.one_sided() && list.excludes());
        assert_eq!(list.first(&entry, Side::Destination { doomed: false }), Some(true));
        assert_eq!(list.first(&entry, Side::Destination { doomed: true }), None);
        assert_eq!(list.first(&entry, Side::Source), Some(true));
        rules.sides = Sides::Destination;
        assert_eq!(RuleList::new(vec![rules], 0).first(&entry, Side::Source), None);
    }
}
