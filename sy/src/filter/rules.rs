//! From rules as text to rules that can be asked: the ordered list that rsync builds from its options.
//!
//! Merge files are read here, in place of the rule that names them. Whatever can't be honoured ends the reading with
//! an error; a rule that is accepted has its full effect.

use super::FilterError;
use super::list::{Rule, Sides};
use super::merge_file::{self, Reading};
use super::pattern::Pattern;
use super::syntax::{Directive, Kind};

/// What names to leave out with `C`, as cvs(1) does unless told otherwise.
const CVS_NAMES: &[u8] = b"RCS SCCS CVS CVS.adm RCSLOG cvslog.* tags TAGS .make.state .nse_depinfo *~ #* .#* ,* _$* *$ \
    *.old *.bak *.BAK *.orig *.rej .del-* *.a *.olb *.o *.obj *.so *.exe *.Z *.elc *.ln core .svn/ .git/ .hg/ .bzr/";

/// Merge files may name merge files; deeper than this, one surely names itself.
const MERGE_DEPTH: usize = 16;

/// A file that is looked for in every directory.
#[derive(Debug, Clone)]
pub struct DirMerge {
    pub name: Vec<u8>,
    pub inherit: bool,
    pub reading: Reading,
}

#[derive(Debug, Clone)]
pub enum Item {
    Rule(Rule),
    DirMerge(DirMerge),
}

/// A list under construction.
#[derive(Debug, Default)]
pub struct Rules {
    pub items: Vec<Item>,
    /// A `!` was read: rules from further up no longer count.
    pub cleared: bool,
    depth: usize,
    in_directory: bool,
}

impl Rules {
    /// The rules in the file that a dir-merge rule asked for.
    pub fn of_directory(file: &str, content: &[u8], reading: &Reading) -> Result<Rules, FilterError> {
        let mut rules = Rules { in_directory: true, ..Rules::default() };
        rules.read(file, content, reading)?;
        Ok(rules)
    }

    /// One value of the option `filter`.
    pub fn add_filter(&mut self, rule: &[u8]) -> Result<(), FilterError> {
        if rule.is_empty() {
            return Ok(());
        }
        self.add(rule, &Reading::default()).map_err(|reason| reason.of(rule))
    }

    /// One value of the options `include` and `exclude`: a pattern, unless a sign and a space come first.
    pub fn add_pattern(&mut self, value: &[u8], exclude: bool) -> Result<(), FilterError> {
        let (exclude, pattern) = match value {
            b"" => return Ok(()),
            b"!" => {
                self.clear();
                return Ok(());
            }
            [b'-', b' ', rest @ ..] => (true, rest),
            [b'+', b' ', rest @ ..] => (false, rest),
            pattern => (exclude, pattern),
        };
        let bare = Reading { bare: Some(exclude), ..Reading::default() };
        self.add(pattern, &bare).map_err(|reason| reason.of(value))
    }

    fn add(&mut self, text: &[u8], reading: &Reading) -> Result<(), Reason> {
        let Some(exclude) = reading.bare else {
            return self.add_directive(&Directive::parse(text)?, reading);
        };
        if text == b"!" && reading.may_clear {
            self.clear();
            return Ok(());
        }
        let mut rule = rule(text)?;
        rule.exclude = exclude;
        rule.sides = reading.sides.unwrap_or(Sides::Both);
        rule.perishable = reading.perishable;
        self.items.push(Item::Rule(rule));
        Ok(())
    }

    fn add_directive(&mut self, directive: &Directive, outer: &Reading) -> Result<(), Reason> {
        if directive.kind == Kind::Clear {
            self.clear();
            return Ok(());
        }
        if directive.sides.is_some() && outer.sides.is_some() {
            return Err("the rule that merges this file names a side, so the rules in it can't; \
                        leave out 's', 'r', hide, show, protect and risk on one of the two"
                .into());
        }
        let sides = directive.sides.or(outer.sides);
        let perishable = directive.perishable || outer.perishable;
        let argument = directive.argument.unwrap_or_default();
        if directive.kind.merges() {
            let reading = Reading::of(directive, sides, perishable);
            return self.add_merge(directive, argument, reading);
        }
        if directive.cvs {
            return match argument {
                b"" => self.add_cvs(sides, perishable),
                _ => Err("'-C' stands for a whole list and takes no pattern; leave the pattern out".into()),
            };
        }
        let mut rule = rule(argument)?;
        rule.exclude = directive.kind.excludes();
        rule.negate = directive.negate;
        rule.sides = sides.unwrap_or(Sides::Both);
        rule.perishable = perishable;
        self.items.push(Item::Rule(rule));
        Ok(())
    }

    fn add_merge(&mut self, directive: &Directive, name: &[u8], reading: Reading) -> Result<(), Reason> {
        if self.in_directory {
            return Err("a file found in the tree can't name further files to read; \
                        give the merge rule as an option instead"
                .into());
        }
        let name = if name.is_empty() && directive.cvs { b".cvsignore".as_slice() } else { name };
        if name.is_empty() {
            return Err("it names no file; write the file's name after a space, e.g. '. rules.txt'".into());
        }
        if directive.exclude_self {
            let file = name.rsplit(|b| *b == b'/').next().unwrap_or(name);
            let bare = Reading { bare: Some(true), ..Reading::default() };
            self.add(file, &bare)?;
        }
        if directive.kind == Kind::Merge {
            return self.add_file(name, &reading);
        }
        if name.contains(&b'/') {
            return Err("only files inside the tree are looked for, by their name; \
                        write the name without a slash, e.g. ': .rsync-filter'"
                .into());
        }
        self.items.push(Item::DirMerge(DirMerge { name: name.to_vec(), inherit: directive.inherit, reading }));
        Ok(())
    }

    fn add_file(&mut self, path: &[u8], reading: &Reading) -> Result<(), Reason> {
        if self.depth >= MERGE_DEPTH {
            return Err("merge files are nested too deep; see that none names itself".into());
        }
        let content = merge_file::read(path)?;
        self.depth += 1;
        let read = self.read(&String::from_utf8_lossy(path), &content, reading);
        self.depth -= 1;
        read.map_err(Reason::Told)
    }

    fn read(&mut self, file: &str, content: &[u8], reading: &Reading) -> Result<(), FilterError> {
        for (line, rule) in merge_file::rules(content, reading) {
            self.add(&rule, reading).map_err(|reason| reason.of_line(&rule, file, line))?;
        }
        Ok(())
    }

    /// The names of CVS, of the user's own file and of the environment. Only the first are perishable.
    fn add_cvs(&mut self, sides: Option<Sides>, perishable: bool) -> Result<(), Reason> {
        let reading = |perishable| Reading { bare: Some(true), words: true, may_clear: true, sides, perishable };
        let mut list = Rules::default();
        list.read("-C", CVS_NAMES, &reading(true)).map_err(Reason::Told)?;
        if let Some(home) = std::env::var_os("HOME")
            && let Ok(content) = std::fs::read(std::path::Path::new(&home).join(".cvsignore"))
        {
            list.read("~/.cvsignore", &content, &reading(perishable)).map_err(Reason::Told)?;
        }
        if let Some(value) = std::env::var_os("CVSIGNORE") {
            list.read("CVSIGNORE", value.as_encoded_bytes(), &reading(perishable)).map_err(Reason::Told)?;
        }
        self.items.append(&mut list.items);
        Ok(())
    }

    fn clear(&mut self) {
        self.items.clear();
        self.cleared = true;
    }
}

/// An exclude rule for both sides.
fn rule(pattern: &[u8]) -> Result<Rule, Reason> {
    if pattern.is_empty() {
        return Err("it has no pattern; write what it should match after a space, e.g. '- *.o'".into());
    }
    if pattern.contains(&0) {
        return Err("it has a NUL byte in it, which no file name has; take it out".into());
    }
    let (only_dirs, pattern) = match pattern.strip_suffix(b"/") {
        Some(rest) => (true, rest),
        None => (false, pattern),
    };
    Ok(Rule { pattern: Pattern::rsync(pattern), exclude: true, only_dirs, negate: false, sides: Sides::Both, perishable: false })
}

/// Why a rule was refused; which rule it was is known one level up.
enum Reason {
    Why(String),
    /// A rule in a file that this rule merges; nothing to add.
    Told(FilterError),
}

impl<T: Into<String>> From<T> for Reason {
    fn from(message: T) -> Reason {
        Reason::Why(message.into())
    }
}

impl Reason {
    fn of(self, rule: &[u8]) -> FilterError {
        match self {
            Reason::Why(message) => FilterError { rule: String::from_utf8_lossy(rule).into_owned(), message },
            Reason::Told(error) => error,
        }
    }

    fn of_line(self, rule: &[u8], file: &str, line: usize) -> FilterError {
        match self {
            Reason::Why(message) => Reason::Why(format!("{message} ({file}, line {line})")).of(rule),
            told => told.of(rule),
        }
    }
}
