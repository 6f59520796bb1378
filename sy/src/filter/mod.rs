//! Which entries of a tree take part in a run, and which the destination keeps whatever happens.
//!
//! The rules are rsync's (the filter language with all its lists and merge files) and git's (ignore files), because
//! people have both already. Rules are compiled once into a [`Filter`]; a walk carries a [`Scope`] from directory to
//! directory and asks it about each entry it lists. Nothing here walks or lists: the caller reads the rule files it
//! finds and hands them over, so a tree may be on any kind of storage.
//!
//! The first of these that says anything about an entry settles it: `filter`, `include` and `exclude` rules (with the
//! files of dir-merge rules in place), `.syignore` files, `.gitignore` files, names of version control systems.
//!
//! Where this differs from rsync on purpose: absolute paths (`/`), names of extended attributes (`x`), files outside the
//! tree (`: /name`) and merge rules inside files of the tree are refused with an error; a directory whose own name has
//! wildcards in it doesn't disturb the anchored patterns of the rule file inside; and in a file read by words (`w`),
//! `- a + b` are two rules, as the manual says.

mod charset;
mod ignore_file;
mod list;
mod merge_file;
mod pattern;
mod rules;
mod scope;
mod syntax;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod tokens;
mod wildmatch;

use std::fmt;
use std::sync::Arc;

use list::RuleList;
use rules::{Item, Rules};
use scope::{Layer, Shared};

pub use scope::Scope;

/// What the user asked for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FilterSpec {
    /// rsync filter rules, in order: `+ *.py`, `- *`, `P x`, `. file`, `: .rsync-filter`, `!`.
    pub filter: Vec<Vec<u8>>,
    /// rsync patterns, judged after `filter` and before `exclude`.
    pub include: Vec<Vec<u8>>,
    pub exclude: Vec<Vec<u8>>,
    /// Honour `.gitignore` files. (`.syignore` files always are.)
    pub gitignore: bool,
    /// Leave out what version control systems keep: `.git`, `.hg`, `.svn` and the like.
    pub exclude_vcs: bool,
}

/// What becomes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Not part of the transfer; nor is anything below it.
    pub hidden: bool,
    /// Never deleted at the destination.
    pub protected: bool,
}

/// A rule that can't be honoured.
#[derive(Debug)]
pub struct FilterError {
    /// The rule as it was given.
    pub rule: String,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "filter rule '{}' can't be used: {}", self.rule, self.message)
    }
}

impl std::error::Error for FilterError {}

/// Compiled rules; cheap to clone.
#[derive(Debug, Clone)]
pub struct Filter {
    shared: Arc<Shared>,
}

impl Filter {
    /// Compiles the rules, reading the files that `. file` rules name (relative to the working directory).
    pub fn new(spec: &FilterSpec) -> Result<Filter, FilterError> {
        let mut rules = Rules::default();
        spec.filter.iter().try_for_each(|rule| rules.add_filter(rule))?;
        spec.include.iter().try_for_each(|pattern| rules.add_pattern(pattern, false))?;
        spec.exclude.iter().try_for_each(|pattern| rules.add_pattern(pattern, true))?;

        let mut shared = Shared { gitignore: spec.gitignore, exclude_vcs: spec.exclude_vcs, ..Shared::default() };
        let mut run = Vec::new();
        for item in rules.items {
            match item {
                Item::Rule(rule) => run.push(rule),
                Item::DirMerge(merge) => {
                    shared.layers.push(Layer::Rules(RuleList::new(std::mem::take(&mut run), 0)));
                    shared.layers.push(Layer::Slot(shared.slots.len()));
                    shared.slots.push(merge);
                }
            }
        }
        shared.layers.push(Layer::Rules(RuleList::new(run, 0)));
        shared.layers.retain(|layer| !matches!(layer, Layer::Rules(list) if list.is_empty()));
        Ok(Filter { shared: Arc::new(shared) })
    }

    /// The scope to [`Scope::enter`] the root of the tree from.
    pub fn root(&self) -> Scope {
        Scope::root(Arc::clone(&self.shared))
    }
}
