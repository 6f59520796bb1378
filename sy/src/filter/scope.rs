//! The rules in force inside one directory.
//!
//! A scope is made from the scope of the parent directory and the rule files found in the directory itself. It shares
//! everything it inherits, so that a directory without such files costs no more than counting references.

use std::sync::Arc;

use super::list::{RuleList, Side};
use super::pattern::Entry;
use super::rules::{DirMerge, Item, Rules};
use super::{FilterError, Verdict, ignore_file};

const SYIGNORE: &[u8] = b".syignore";
const GITIGNORE: &[u8] = b".gitignore";

/// Rules for the whole tree, in order.
#[derive(Debug)]
pub enum Layer {
    Rules(RuleList),
    /// The place of the rules that the files of this dir-merge rule hold.
    Slot(usize),
}

/// What all scopes of a filter share.
#[derive(Debug, Default)]
pub struct Shared {
    pub layers: Vec<Layer>,
    pub slots: Vec<DirMerge>,
    pub gitignore: bool,
    pub exclude_vcs: bool,
}

/// The rules from one file in one directory, before those from the directories above.
#[derive(Debug)]
struct Node {
    rules: RuleList,
    parent: Chain,
    /// Does this node or one above it hide or protect anything?
    excludes: bool,
}

type Chain = Option<Arc<Node>>;

impl Drop for Node {
    /// One by one: a chain is as long as the tree is deep, and the stack may not be.
    fn drop(&mut self) {
        let mut next = self.parent.take();
        while let Some(mut node) = next.and_then(Arc::into_inner) {
            next = node.parent.take();
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Chains {
    slots: Vec<Chain>,
    syignore: Chain,
    gitignore: Chain,
}

/// The rules in force inside one directory; cheap to clone.
#[derive(Debug, Clone)]
pub struct Scope {
    shared: Arc<Shared>,
    chains: Arc<Chains>,
}

impl Scope {
    pub(super) fn root(shared: Arc<Shared>) -> Scope {
        let chains = Chains { slots: vec![None; shared.slots.len()], ..Chains::default() };
        Scope { shared, chains: Arc::new(chains) }
    }

    /// True when nothing in this directory can be hidden or protected, whatever is in it. Files that change the rules
    /// may still be found further down.
    pub fn is_empty(&self) -> bool {
        let chains = &*self.chains;
        let layers = || self.shared.layers.iter().any(|layer| matches!(layer, Layer::Rules(list) if list.excludes()));
        let mut found = chains.slots.iter().chain([&chains.syignore, &chains.gitignore]).flatten();
        !self.shared.exclude_vcs && !layers() && !found.any(|node| node.excludes)
    }

    /// Does a file of this name change the rules of the directory it is in? Its content is then to be given to
    /// [`Scope::enter`].
    pub fn wants(&self, name: &[u8]) -> bool {
        name == SYIGNORE || (self.shared.gitignore && name == GITIGNORE) || self.shared.slots.iter().any(|slot| slot.name == name)
    }

    /// The scope inside the directory `dir_key` (`""` is the root), made from the scope of its parent (for the root,
    /// `Filter::root()`) and the files found in it that are wanted, as (name, content).
    ///
    /// Fails when a file that a dir-merge rule asked for has a rule that can't be honoured.
    pub fn enter(&self, dir_key: &[u8], files: &[(&[u8], Vec<u8>)]) -> Result<Scope, FilterError> {
        let stale = || self.shared.slots.iter().zip(&self.chains.slots).any(|(slot, chain)| !slot.inherit && chain.is_some());
        if files.is_empty() && !stale() {
            return Ok(self.clone());
        }
        let base = if dir_key.is_empty() { 0 } else { dir_key.len() + 1 };
        let mut chains = (*self.chains).clone();
        for (slot, chain) in self.shared.slots.iter().zip(&mut chains.slots) {
            if !slot.inherit {
                *chain = None;
            }
            for (_, content) in files.iter().filter(|(name, _)| *name == slot.name) {
                let rules = Rules::of_directory(&file_key(dir_key, &slot.name), content, &slot.reading)?;
                if rules.cleared {
                    *chain = None;
                }
                let rules = rules.items.into_iter().filter_map(|item| match item {
                    Item::Rule(rule) => Some(rule),
                    Item::DirMerge(_) => None,
                });
                push(chain, RuleList::new(rules.collect(), base));
            }
        }
        for (name, content) in files {
            match *name {
                SYIGNORE => push(&mut chains.syignore, ignore_file::parse(content, base)),
                GITIGNORE if self.shared.gitignore => push(&mut chains.gitignore, ignore_file::parse(content, base)),
                _ => {}
            }
        }
        Ok(Scope { shared: Arc::clone(&self.shared), chains: Arc::new(chains) })
    }

    /// What becomes of the entry `key` (from the root, `a/b/c`), which is a child of this scope's directory.
    pub fn check(&self, key: &[u8], is_dir: bool) -> Verdict {
        self.judge(key, is_dir, false)
    }

    /// The same for an entry of the destination whose directory is being deleted: there, perishable rules (`p`) no
    /// longer protect.
    pub fn check_doomed(&self, key: &[u8], is_dir: bool) -> Verdict {
        self.judge(key, is_dir, true)
    }

    fn judge(&self, key: &[u8], is_dir: bool, doomed: bool) -> Verdict {
        let entry = Entry::new(key, is_dir);
        let mut answer = Answer { hidden: None, protected: None, doomed };
        let chains = &*self.chains;
        for layer in &self.shared.layers {
            match layer {
                Layer::Rules(list) => answer.ask(list, &entry),
                Layer::Slot(slot) => answer.ask_chain(chains.slots.get(*slot).unwrap_or(&None), &entry),
            }
        }
        answer.ask_chain(&chains.syignore, &entry);
        answer.ask_chain(&chains.gitignore, &entry);
        let vcs = self.shared.exclude_vcs && is_vcs(entry.name);
        Verdict { hidden: answer.hidden.unwrap_or(vcs), protected: answer.protected.unwrap_or(vcs) }
    }
}

/// What has been settled so far.
struct Answer {
    hidden: Option<bool>,
    protected: Option<bool>,
    doomed: bool,
}

impl Answer {
    fn ask_chain(&mut self, chain: &Chain, entry: &Entry) {
        let mut next = chain;
        while let Some(node) = next {
            self.ask(&node.rules, entry);
            next = &node.parent;
        }
    }

    fn ask(&mut self, list: &RuleList, entry: &Entry) {
        if self.hidden.is_none() {
            self.hidden = list.first(entry, Side::Source);
            if !list.one_sided() {
                self.protected = self.protected.or(self.hidden);
                return;
            }
        }
        if self.protected.is_none() {
            self.protected = list.first(entry, Side::Destination { doomed: self.doomed });
        }
    }
}

fn push(chain: &mut Chain, rules: RuleList) {
    if !rules.is_empty() {
        let parent = chain.take();
        let excludes = rules.excludes() || parent.as_ref().is_some_and(|node| node.excludes);
        *chain = Some(Arc::new(Node { rules, parent, excludes }));
    }
}

fn file_key(dir_key: &[u8], name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    if dir_key.is_empty() { name.into_owned() } else { format!("{}/{name}", String::from_utf8_lossy(dir_key)) }
}

/// Names that version control systems keep their own state under, as directories or (a git worktree) as a file. Names
/// that people give to other things as well, such as `RCS`, are not among them.
fn is_vcs(name: &[u8]) -> bool {
    matches!(name, b".git" | b".hg" | b".svn" | b".bzr" | b"CVS" | b"_darcs" | b".jj" | b".sl" | b".pijul" | b".fslckout" | b"_FOSSIL_")
}
