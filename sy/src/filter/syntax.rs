//! The text of one rsync rule, taken apart: kind, modifiers, argument.
//!
//! Text only; which files a merge rule names and what the patterns mean is decided elsewhere.

use super::list::Sides;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Exclude,
    Include,
    Hide,
    Show,
    Protect,
    Risk,
    Merge,
    DirMerge,
    Clear,
}

const KINDS: [(&[u8], u8, Kind); 9] = [
    (b"exclude", b'-', Kind::Exclude),
    (b"include", b'+', Kind::Include),
    (b"hide", b'H', Kind::Hide),
    (b"show", b'S', Kind::Show),
    (b"protect", b'P', Kind::Protect),
    (b"risk", b'R', Kind::Risk),
    (b"merge", b'.', Kind::Merge),
    (b"dir-merge", b':', Kind::DirMerge),
    (b"clear", b'!', Kind::Clear),
];

impl Kind {
    pub fn excludes(self) -> bool {
        matches!(self, Kind::Exclude | Kind::Hide | Kind::Protect)
    }

    pub fn merges(self) -> bool {
        matches!(self, Kind::Merge | Kind::DirMerge)
    }

    /// The sides that the kind itself names.
    fn sides(self) -> Option<Sides> {
        match self {
            Kind::Hide | Kind::Show => Some(Sides::Source),
            Kind::Protect | Kind::Risk => Some(Sides::Destination),
            _ => None,
        }
    }

    fn modifiers(self) -> &'static [u8] {
        match self {
            Kind::Exclude => b"!Csrp",
            Kind::Include => b"!srp",
            Kind::Hide | Kind::Show | Kind::Protect | Kind::Risk => b"!p",
            Kind::Merge => b"-+Cewsrp",
            Kind::DirMerge => b"-+Cenwsrp",
            Kind::Clear => b"",
        }
    }
}

/// One rule: `dir-merge,n- .ignore` and the like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directive<'a> {
    pub kind: Kind,
    /// `!`: takes effect where the pattern does not match.
    pub negate: bool,
    /// The sides the rule names, by its kind or a modifier.
    pub sides: Option<Sides>,
    pub perishable: bool,
    /// `C`: the list of CVS, or a file read as CVS does.
    pub cvs: bool,
    /// `-` and `+`: a file of bare patterns, all to be excluded (`true`) or included.
    pub bare: Option<bool>,
    pub words: bool,
    pub inherit: bool,
    pub exclude_self: bool,
    /// What follows the separator, if there is one.
    pub argument: Option<&'a [u8]>,
}

impl<'a> Directive<'a> {
    pub fn parse(rule: &'a [u8]) -> Result<Directive<'a>, String> {
        let (kind, head) = split_kind(rule).ok_or(
            "it begins with no rule name; write e.g. '- *.o' to exclude, '+ *.c' to include, \
             or one of hide, show, protect, risk, merge, dir-merge, clear",
        )?;
        let end = head.iter().position(|b| matches!(b, b' ' | b'_')).unwrap_or(head.len());
        let mut directive = Directive {
            kind,
            negate: false,
            sides: kind.sides(),
            perishable: false,
            cvs: false,
            bare: None,
            words: false,
            inherit: true,
            exclude_self: false,
            argument: head.get(end + 1..),
        };
        if kind == Kind::Clear {
            let message = "a rule that clears the list stands alone; leave out what follows it";
            return if head.is_empty() { Ok(directive) } else { Err(message.to_owned()) };
        }
        for &modifier in head[..end].strip_prefix(b",").unwrap_or(&head[..end]) {
            directive.modify(modifier)?;
        }
        Ok(directive)
    }

    fn modify(&mut self, modifier: u8) -> Result<(), String> {
        if !self.kind.modifiers().contains(&modifier) {
            return Err(refusal(self.kind, modifier));
        }
        let exclusive = self.bare.is_some() || self.cvs;
        match modifier {
            b'-' | b'+' | b'C' if self.kind.merges() && exclusive => {
                return Err("of the modifiers '-', '+' and 'C' it can have only one".to_owned());
            }
            b'!' => self.negate = true,
            b's' if self.sides == Some(Sides::Destination) => self.sides = Some(Sides::Both),
            b's' => self.sides = self.sides.or(Some(Sides::Source)),
            b'r' if self.sides == Some(Sides::Source) => self.sides = Some(Sides::Both),
            b'r' => self.sides = self.sides.or(Some(Sides::Destination)),
            b'p' => self.perishable = true,
            b'-' => self.bare = Some(true),
            b'+' => self.bare = Some(false),
            b'w' => self.words = true,
            b'n' => self.inherit = false,
            b'e' => self.exclude_self = true,
            b'C' => {
                self.cvs = true;
                if self.kind.merges() {
                    (self.words, self.inherit) = (true, false);
                }
            }
            _ => return Err(refusal(self.kind, modifier)),
        }
        if self.cvs && self.negate {
            return Err("the list of CVS can't be negated; leave out '!'".to_owned());
        }
        Ok(())
    }

    /// Is it incomplete without an argument?
    pub fn needs_argument(&self) -> bool {
        self.kind != Kind::Clear && !self.cvs
    }
}

/// The kind, and what follows its name: modifiers, separator and argument.
fn split_kind(rule: &[u8]) -> Option<(Kind, &[u8])> {
    KINDS.iter().find_map(|(long, short, kind)| {
        if let Some(rest) = rule.strip_prefix(*long)
            && matches!(rest.first(), None | Some(b' ' | b'_' | b','))
        {
            return Some((*kind, rest));
        }
        rule.strip_prefix(&[*short]).map(|rest| (*kind, rest))
    })
}

fn refusal(kind: Kind, modifier: u8) -> String {
    match modifier {
        b'/' => "the modifier '/' (absolute paths) isn't supported; \
                 write the pattern relative to the root of the transfer, e.g. '- /dir/file'"
            .to_owned(),
        b'x' => "the modifier 'x' (names of extended attributes) isn't supported; leave the rule out".to_owned(),
        b'n' if kind == Kind::Merge => "the modifier 'n' means something for dir-merge rules only; leave it out".to_owned(),
        b'C' if kind == Kind::Include => "the list of CVS can only be excluded; write '-C'".to_owned(),
        _ => format!(
            "'{}' is no modifier of this rule; put a space between the rule's name and its pattern, e.g. '- *.o'",
            modifier.escape_ascii()
        ),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn short_and_long_names_mean_the_same() {
        for (long, short, kind) in KINDS {
            let argument: &[u8] = if kind == Kind::Clear { b"" } else { b" x y" };
            let short = [&[short], argument].concat();
            let long = [long, argument].concat();
            let (short, long) = (Directive::parse(&short).unwrap(), Directive::parse(&long).unwrap());
            assert_eq!(short, long);
            assert_eq!(short.kind, kind);
        }
    }

    #[test]
    fn one_space_or_underscore_separates() {
        for (rule, argument) in [
            ("- x", Some("x")),
            ("-_x", Some("x")),
            ("-  x", Some(" x")),
            ("-__x", Some("_x")),
            ("-,s x", Some("x")),
            ("exclude_x", Some("x")),
            ("-", None),
            ("- ", Some("")),
            ("-C", None),
        ] {
            assert_eq!(Directive::parse(rule.as_bytes()).unwrap().argument, argument.map(str::as_bytes), "{rule}");
        }
    }

    #[test]
    fn modifiers_are_read() {
        let d = Directive::parse(b"-,!sp x").unwrap();
        assert!(d.negate && d.perishable && d.sides == Some(Sides::Source));
        assert_eq!(Directive::parse(b"-sr x").unwrap().sides, Some(Sides::Both));
        assert_eq!(Directive::parse(b"P x").unwrap().sides, Some(Sides::Destination));
        let d = Directive::parse(b"dir-merge,n-we .x").unwrap();
        assert!(!d.inherit && d.words && d.exclude_self && d.bare == Some(true));
        let d = Directive::parse(b":C").unwrap();
        assert!(d.cvs && d.words && !d.inherit && !d.needs_argument());
    }

    #[test]
    fn what_is_not_a_rule_says_so() {
        for rule in [
            "",
            "x",
            "excludefoo",
            "Exclude x",
            " - x",
            "# x",
            "-foo",
            "-e x",
            "-n x",
            "-w x",
            "-- x",
            "-+ x",
            "-x x",
            "-/ x",
            "Hs x",
            "Pr x",
            "HC",
            "+C",
            "-C!",
            "-,,x y",
            "! ",
            "!x",
            "clear x",
            "clear,s",
            ":+- x",
            ":-C x",
            ":! x",
            ":x x",
            ".n x",
            ":/ x",
            "-\tx",
        ] {
            assert!(Directive::parse(rule.as_bytes()).is_err(), "{rule}");
        }
    }
}
