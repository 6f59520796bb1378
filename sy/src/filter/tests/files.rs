//! Rules that come from files: merged, found in the tree, ignore files.

use super::super::{FilterSpec, Verdict};
use super::{bytes, hidden, judge, refused, rules, scope};

#[test]
fn files_of_dir_merge_rules_nest_and_take_their_place_in_the_list() {
    let files = [(".r", "- foo\n"), ("a/.r", "+ foo\n- /bar\n"), ("b/.r", "!\n")];
    let spec = rules(&["+ sure", ": .r", "- zz"]);
    for (key, expected) in [
        ("foo", true),
        ("x/foo", true),
        ("a/foo", false),
        ("a/x/foo", false),
        ("a/bar", true),
        ("a/x/bar", false),
        ("b/foo", false),
        ("b/zz", true),
        (".r", false),
    ] {
        assert_eq!(hidden(&spec, &files, key), expected, "{key}");
    }
    assert!(!hidden(&rules(&["+ foo", ": .r"]), &files, "foo"));
}

#[test]
fn modifiers_of_dir_merge_rules() {
    for (rule, content, key, expected) in [
        (":n .r", "- foo", "foo", true),
        (":n .r", "- foo", "d/foo", false),
        (":- .r", "+ foo", "+ foo", true),
        (":+ .r", "foo", "foo", false),
        (":e .r", "", ".r", true),
        (":e .r", "", "d/.r", true),
        (":w- .r", "a foo", "foo", true),
        (":w .r", "- a - foo", "foo", true),
        (":s .r", "- foo", "foo", true),
        (":r .r", "- foo", "foo", false),
    ] {
        assert_eq!(hidden(&rules(&[rule]), &[(".r", content)], key), expected, "{rule} {key}");
    }
    let cvs = [(".cvsignore", "a foo\n"), ("d/.cvsignore", "b ! c")];
    for (key, expected) in [("foo", true), ("d/foo", false), ("d/b", false), ("d/c", true)] {
        assert_eq!(hidden(&rules(&[":C"]), &cvs, key), expected, "{key}");
    }
}

#[test]
fn merge_files_are_read_in_place() {
    let dir = std::env::temp_dir().join(format!("filter-merge-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    std::fs::write(path("inner"), "*.o\n").unwrap();
    std::fs::write(path("outer"), format!("# rules\n+ keep.o\r\n.- {}\n", path("inner"))).unwrap();
    std::fs::write(path("loop"), format!(". {}\n", path("loop"))).unwrap();
    std::fs::write(path("sided"), "H x\n").unwrap();
    std::fs::write(path("broken"), "- x\nnonsense\n").unwrap();

    let spec = rules(&[&format!(". {}", path("outer"))]);
    assert!(!hidden(&spec, &[], "keep.o"));
    assert!(hidden(&spec, &[], "x.o"));
    assert!(hidden(&rules(&[&format!(".e- {}", path("inner"))]), &[], "a/inner"));
    assert!(refused(&rules(&[&format!(". {}", path("loop"))])).contains("names itself"));
    assert!(refused(&rules(&[&format!(".s {}", path("sided"))])).contains("names a side"));
    let message = refused(&rules(&[&format!(". {}", path("broken"))]));
    assert!(message.starts_with("filter rule 'nonsense' can't be used: "), "{message}");
    assert!(message.ends_with("broken, line 2)"), "{message}");
    assert!(refused(&rules(&[&format!(". {}", path("absent"))])).contains("can't be read"));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_file_in_the_tree_cannot_name_further_files() {
    for content in [". other", ": other", ":C", "nonsense"] {
        let error = scope(&rules(&[": .r"]), &[("a/.r", content)], "a").expect_err(content);
        assert!(error.message.ends_with("(a/.r, line 1)"), "{error}");
    }
}

#[test]
fn ignore_files_nest_and_the_nearest_wins() {
    let spec = FilterSpec { gitignore: true, ..FilterSpec::default() };
    let files = [(".gitignore", "*.log\n/build/\n!b.log\n"), ("a/.gitignore", "!x.log\n/only\n")];
    for (key, expected) in [
        ("x.log", true),
        ("b.log", false),
        ("a/x.log", false),
        ("a/y.log", true),
        ("build/", true),
        ("build", false),
        ("a/build/", false),
        ("a/only", true),
        ("a/b/only", false),
        (".gitignore", false),
    ] {
        let verdict = judge(&spec, &files, key);
        assert_eq!(verdict, Verdict { hidden: expected, protected: expected }, "{key}");
    }
    assert!(!hidden(&FilterSpec::default(), &files, "x.log"));
}

#[test]
fn rules_come_before_syignore_before_gitignore_before_vcs() {
    let files = [(".gitignore", "a\nb\nc\n!.git\n"), (".syignore", "!b\nd\nc\n")];
    let spec = FilterSpec { filter: bytes(&["+ c", "S d"]), gitignore: true, exclude_vcs: true, ..FilterSpec::default() };
    for (key, hidden, protected) in
        [("a", true, true), ("b", false, false), ("c", false, false), ("d", false, true), (".git/", false, false), (".hg/", true, true)]
    {
        assert_eq!(judge(&spec, &files, key), Verdict { hidden, protected }, "{key}");
    }
}

#[test]
fn only_files_that_matter_are_wanted() {
    let wants = |spec: &FilterSpec, name: &str| scope(spec, &[], "").unwrap().wants(name.as_bytes());
    assert!(wants(&FilterSpec::default(), ".syignore"));
    assert!(!wants(&FilterSpec::default(), ".gitignore"));
    assert!(wants(&FilterSpec { gitignore: true, ..FilterSpec::default() }, ".gitignore"));
    assert!(wants(&rules(&[": .r"]), ".r"));
    assert!(!wants(&rules(&[": .r", "!"]), ".r"));
}
