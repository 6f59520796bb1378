//! Rules that are given as options.

use super::super::{FilterSpec, Verdict};
use super::{bytes, hidden, judge, refused, rules, scope};

#[test]
fn the_first_rule_that_matches_decides() {
    let spec = rules(&["+ keep.o", "- *.o", "+ *"]);
    assert!(!hidden(&spec, &[], "keep.o"));
    assert!(hidden(&spec, &[], "a/x.o"));
    assert!(!hidden(&spec, &[], "x.c"));
}

#[test]
fn each_kind_speaks_for_its_side() {
    for (rule, hidden, protected) in [
        ("- x", true, true),
        ("exclude_x", true, true),
        ("-s x", true, false),
        ("-r x", false, true),
        ("-sr x", true, true),
        ("H x", true, false),
        ("P x", false, true),
        ("protect,p x", false, true),
        ("-! y", true, true),
        ("+ x", false, false),
        ("- x/", false, false),
    ] {
        assert_eq!(judge(&rules(&[rule]), &[], "x"), Verdict { hidden, protected }, "{rule}");
    }
    for (first, hidden, protected) in [("S x", false, true), ("R x", true, false)] {
        assert_eq!(judge(&rules(&[first, "- x"]), &[], "x"), Verdict { hidden, protected }, "{first}");
    }
}

#[test]
fn perishable_rules_do_not_protect_in_a_doomed_directory() {
    let scope = scope(&rules(&["-p *.o", "P keep"]), &[], "d").unwrap();
    assert_eq!(scope.check(b"d/x.o", false), Verdict { hidden: true, protected: true });
    assert_eq!(scope.check_doomed(b"d/x.o", false), Verdict { hidden: true, protected: false });
    assert!(scope.check_doomed(b"d/keep", false).protected);
}

#[test]
fn filter_comes_before_include_before_exclude() {
    let spec = FilterSpec {
        filter: bytes(&["- a*"]),
        include: bytes(&["ab", "b*", "- bx"]),
        exclude: bytes(&["*", "+ zz"]),
        ..FilterSpec::default()
    };
    assert!(hidden(&spec, &[], "ab"));
    assert!(!hidden(&spec, &[], "b"));
    assert!(hidden(&spec, &[], "zz"));
}

#[test]
fn plain_lists_know_signs_and_the_clearing_mark() {
    let exclude = |values: &[&str]| FilterSpec { exclude: bytes(values), ..FilterSpec::default() };
    assert!(!hidden(&exclude(&["+ x", "x"]), &[], "x"));
    assert!(!hidden(&exclude(&["x", "!"]), &[], "x"));
    assert!(hidden(&exclude(&["!x"]), &[], "!x"));
    assert!(hidden(&exclude(&["-_x"]), &[], "-_x"));
    assert!(!hidden(&exclude(&[""]), &[], "x"));
    let mut spec = exclude(&["!"]);
    spec.filter = bytes(&["- x"]);
    assert!(!hidden(&spec, &[], "x"));
    assert!(!hidden(&rules(&["- x", "clear"]), &[], "x"));
}

#[test]
fn the_list_of_cvs_is_perishable() {
    let scope = scope(&rules(&["-C"]), &[], "").unwrap();
    for (key, is_dir, expected) in [("x.o", false, true), ("x~", false, true), (".git", false, false), (".git", true, true)] {
        assert_eq!(scope.check(key.as_bytes(), is_dir).hidden, expected, "{key}");
        assert!(!scope.check_doomed(key.as_bytes(), is_dir).protected, "{key}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    for (rule, part) in [
        ("-", "no pattern"),
        ("- ", "no pattern"),
        ("- a\0b", "NUL"),
        ("-/ /x", "relative to the root"),
        ("-x user.*", "extended attributes"),
        (": /.rsync-filter", "': .rsync-filter'"),
        (": a/b", "without a slash"),
        (":", "names no file"),
        (". -", "standard input"),
        ("-C x", "takes no pattern"),
        ("*.o", "begins with no rule name"),
        ("-foo", "put a space"),
        (".n x", "dir-merge rules only"),
    ] {
        let message = refused(&rules(&[rule]));
        assert!(message.contains(part), "{rule}: {message}");
    }
    let exclude = FilterSpec { exclude: bytes(&["- "]), ..FilterSpec::default() };
    assert!(refused(&exclude).contains("'- '"));
}
