//! The rules as a whole: what a small walk over a tree leaves out and keeps.

mod files;
mod options;

use super::{Filter, FilterError, FilterSpec, Scope, Verdict};

fn bytes(values: &[&str]) -> Vec<Vec<u8>> {
    values.iter().map(|v| v.as_bytes().to_vec()).collect()
}

fn rules(filter: &[&str]) -> FilterSpec {
    FilterSpec { filter: bytes(filter), ..FilterSpec::default() }
}

/// The scope in `dir`, with the files above and in it entered from the root down.
fn scope(spec: &FilterSpec, files: &[(&str, &str)], dir: &str) -> Result<Scope, FilterError> {
    let mut scope = Filter::new(spec)?.root();
    let mut ends = vec![0];
    ends.extend(dir.match_indices('/').map(|(at, _)| at));
    ends.extend((!dir.is_empty()).then_some(dir.len()));
    for end in ends {
        let key = &dir[..end];
        let found: Vec<(&[u8], Vec<u8>)> = files
            .iter()
            .map(|(path, content)| (path.rsplit_once('/').unwrap_or(("", path)), content))
            .filter(|((parent, name), _)| *parent == key && scope.wants(name.as_bytes()))
            .map(|((_, name), content)| (name.as_bytes(), content.as_bytes().to_vec()))
            .collect();
        scope = scope.enter(key.as_bytes(), &found)?;
    }
    Ok(scope)
}

/// `key` with a slash at its end is a directory.
fn judge(spec: &FilterSpec, files: &[(&str, &str)], key: &str) -> Verdict {
    let (key, is_dir) = key.strip_suffix('/').map_or((key, false), |k| (k, true));
    let dir = key.rsplit_once('/').map_or("", |(dir, _)| dir);
    scope(spec, files, dir).unwrap().check(key.as_bytes(), is_dir)
}

fn hidden(spec: &FilterSpec, files: &[(&str, &str)], key: &str) -> bool {
    judge(spec, files, key).hidden
}

fn refused(spec: &FilterSpec) -> String {
    Filter::new(spec).expect_err("the rule should be refused").to_string()
}

#[test]
fn state_of_version_control_is_left_out_when_asked() {
    let spec = FilterSpec { exclude_vcs: true, ..FilterSpec::default() };
    for key in [".git/", ".git", "a/.hg/", ".svn/", "CVS/", "_darcs/", ".jj/", ".bzr/"] {
        assert_eq!(judge(&spec, &[], key), Verdict { hidden: true, protected: true }, "{key}");
    }
    for key in [".gitignore", "git", ".github/", "cvs/"] {
        assert!(!hidden(&spec, &[], key), "{key}");
    }
    assert!(!hidden(&FilterSpec::default(), &[], ".git/"));
}

#[test]
fn a_scope_is_empty_until_something_can_be_left_out() {
    let plain = FilterSpec::default();
    assert!(scope(&plain, &[], "").unwrap().is_empty());
    assert!(!scope(&plain, &[(".syignore", "x")], "a").unwrap().is_empty());
    assert!(scope(&plain, &[("a/.syignore", "x")], "b").unwrap().is_empty());
    assert!(scope(&rules(&["+ x"]), &[], "").unwrap().is_empty());
    assert!(!scope(&rules(&["P x"]), &[], "").unwrap().is_empty());
    assert!(!scope(&rules(&[":n .r"]), &[(".r", "- x")], "").unwrap().is_empty());
    assert!(scope(&rules(&[":n .r"]), &[(".r", "- x")], "a").unwrap().is_empty());
    assert!(!scope(&FilterSpec { exclude_vcs: true, ..plain }, &[], "").unwrap().is_empty());
}

#[test]
fn no_input_makes_it_panic() {
    const ALPHABET: &[u8] = b"-+.:!HSPRCswne,_ /*?[]\\^ab#;\n\r\0\xff";
    let mut seed = 7u64;
    let mut random = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for _ in 0..20_000 {
        let mut text = |length: usize| (0..random(length)).map(|_| ALPHABET[random(ALPHABET.len())]).collect::<Vec<u8>>();
        let spec = FilterSpec {
            filter: vec![b": a".to_vec(), [b"- ", text(12).as_slice()].concat()],
            exclude: vec![text(8)],
            gitignore: true,
            ..FilterSpec::default()
        };
        let _ = Filter::new(&rules(&[&String::from_utf8_lossy(&text(8))]));
        let Ok(filter) = Filter::new(&spec) else {
            continue;
        };
        let (dir, key) = (text(4), text(10));
        let files = [(b"a".as_slice(), text(12)), (b".gitignore", text(20)), (b".syignore", text(20))];
        if let Ok(scope) = filter.root().enter(&dir, &files) {
            scope.check(&key, true);
            scope.check_doomed(&key, false);
        }
    }
}

#[test]
fn a_very_deep_tree_does_not_exhaust_the_stack() {
    let mut scope = Filter::new(&FilterSpec::default()).unwrap().root();
    for _ in 0..100_000 {
        scope = scope.enter(b"d", &[(b".syignore", b"/x".to_vec())]).unwrap();
    }
    drop(scope);
}
