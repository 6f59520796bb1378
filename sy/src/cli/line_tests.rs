use std::io::Write;

use super::*;

fn parsed(args: &[&str]) -> Result<Line, Early> {
    let argv: Vec<OsString> = ["/usr/bin/sy"].iter().chain(args).map(OsString::from).collect();
    match parse(&argv)? {
        Asked::Sync(line) => Ok(*line),
        Asked::List(listing) => panic!("a run: {listing:?}"),
    }
}

fn line(args: &[&str]) -> Line {
    parsed(&[args, &["src/", "dst"]].concat()).unwrap_or_else(|early| panic!("{args:?}: {}", early.text))
}

fn options(args: &[&str]) -> Options {
    line(args).options
}

fn filter(args: &[&str]) -> Vec<String> {
    options(args).filter.into_iter().map(|rule| rule.into_string().expect("text")).collect()
}

#[test]
fn without_options_all_is_as_declared() {
    let line = line(&[]);
    assert_eq!(line.options, Options::default());
    assert_eq!(line.show, Show::default());
    assert_eq!((line.source.to_string().as_str(), line.dest.to_string().as_str()), ("src/", "dst"));
}

#[test]
fn short_flags_combine_as_in_rsync() {
    let line = line(&["-aHAXnvvi"]);
    let o = &line.options;
    assert!(o.archive && o.preserve_hardlinks && o.preserve_acls && o.preserve_xattrs && o.dry_run);
    assert_eq!((line.show.verbose, line.show.itemize_changes), (2, true));
    assert_eq!(options(&["-rltp"]), Options::default());
    assert!(options(&["-avz", "--delete"]).delete);
}

#[test]
fn options_may_follow_the_locations() {
    let line = parsed(&["a", "b", "--delete", "-n"]).expect("valid");
    assert!(line.options.delete && line.options.dry_run);
    assert_eq!(parsed(&["--", "-a", "-b"]).expect("valid").source.to_string(), "-a");
}

#[test]
fn filters_keep_the_order_in_which_they_were_given() {
    let args = ["--exclude=*.o", "-f", "- x", "--include", "*.py", "--filter=+ y", "--exclude", "*"];
    assert_eq!(filter(&args), ["- *.o", "- x", "+ *.py", "+ y", "- *"]);
    let line = options(&args);
    assert!(line.include.is_empty() && line.exclude.is_empty());
}

#[test]
fn a_pattern_keeps_its_own_sign() {
    assert_eq!(
        filter(&["--exclude", "+ a", "--include", "- b", "--exclude=!", "--exclude", "-c", "--include=+d"]),
        ["+ a", "- b", "!", "- -c", "+ +d"]
    );
}

#[test]
fn files_of_patterns_stand_where_they_were_named() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(b"# comment\n; comment\n\na b \r\n+ keep\n!\n- *.o\nlast").expect("written");
    let path = file.path().to_str().expect("text");
    assert_eq!(
        filter(&["--include=first", "--exclude-from", path, "--exclude", "end"]),
        ["+ first", "- a b ", "+ keep", "!", "- *.o", "- last", "- end"]
    );
    let early = parsed(&["--exclude-from=/no/such/file", "a", "b"]).expect_err("missing");
    assert_eq!((early.text.as_str(), early.code), ("sy: cannot read \"/no/such/file\": No such file or directory\n", 1));
}

#[test]
fn the_later_of_two_opposites_counts() {
    assert!(!options(&["-t", "--no-times"]).preserve_times);
    assert!(options(&["--no-times", "-t"]).preserve_times);
    assert!(options(&["--no-t", "--times"]).preserve_times);
    assert!(options(&["--no-perms", "-rltp"]).preserve_permissions);
    assert!(options(&["--no-sparse", "-S"]).sparse);
    assert!(!options(&["--delete", "--no-delete"]).delete);
    assert!(options(&["--no-delete", "--del"]).delete);
    assert!(!options(&["-H", "--no-H"]).preserve_hardlinks);
    assert_eq!(options(&["--delete-threshold=1", "--delete-threshold=2"]).delete_threshold, 2);
    assert!(options(&["-vv", "-q"]).delete_threshold == 50);
    assert_eq!(line(&["-v", "-q"]).show.verbose, 0);
    assert!(!line(&["-q", "-v"]).show.quiet);
}

#[test]
fn links() {
    use Links::{Follow, Preserve, Skip};
    for (args, links) in [
        (&["-l"][..], Preserve),
        (&["-L"], Follow),
        (&["--no-links"], Skip),
        (&["-L", "-l"], Preserve),
        (&["-lL"], Follow),
        (&["-L", "--links=skip"], Skip),
        (&["--links=skip", "--copy-links"], Follow),
        (&["--no-links", "-L"], Follow),
        (&["-L", "--no-l"], Skip),
        (&["--links", "follow", "--no-links"], Skip),
        (&["--no-links", "-l"], Preserve),
    ] {
        assert_eq!(options(args).links, links, "{args:?}");
    }
}

#[test]
fn a_part_of_an_archive_can_be_taken_back() {
    let limited = options(&["-a", "--no-owner", "--no-A"]);
    assert!(!limited.archive && limited.preserve_hardlinks && limited.preserve_xattrs && limited.preserve_times);
    assert!(!limited.preserve_owner && !limited.preserve_acls);
    let untimed = options(&["-a", "--no-times"]);
    assert!(!untimed.archive && !untimed.preserve_times && untimed.preserve_permissions && untimed.preserve_acls);
    // What comes before -a is part of it again.
    assert!(options(&["--no-owner", "--no-times", "-a"]).archive);
    let again = options(&["--no-times", "-a", "--no-H"]);
    assert!(again.preserve_times && !again.preserve_hardlinks);
    assert!(options(&["-a", "--no-H", "-H"]).archive);
}

#[test]
fn a_short_h_asks_for_help_unless_there_is_work() {
    for args in [&["-h"][..], &["-avh"]] {
        let help = parsed(args).expect_err("help");
        assert!(help.text.contains("Usage: sy [OPTIONS]") && help.code == 0, "{args:?}");
    }
    assert!(line(&["-avh"]).options.archive);
    assert_eq!(parsed(&["a"]).expect_err("one location").code, 1);
}

#[test]
fn refusals_are_usage_errors_without_raw_escapes() {
    for args in [&["--no-such", "a", "b"][..], &["a"], &["a", "b", "c"], &["--bwlimit=x", "a", "b"], &["", "b"], &["ftp://h/x", "b"]] {
        let early = parsed(args).expect_err("refused");
        assert_eq!(early.code, 1, "{args:?}");
    }
    let early = parsed(&["--\u{1b}[31m", "a", "b"]).expect_err("refused");
    assert!(!early.text.contains('\u{1b}'), "{}", early.text);
}

#[test]
fn names_need_not_be_utf_8() {
    let argv = [&b"sy"[..], b"a\xff", b"--exclude=\xfe", b"b"].map(|arg| OsString::from_vec(arg.to_vec()));
    let line = parse(&argv).expect("valid");
    assert_eq!(line.source.path, b"a\xff");
    assert_eq!(line.options.filter[0].as_bytes(), b"- \xfe");
}

#[test]
fn the_program_is_called_what_the_user_called_it() {
    for (argv0, name) in [("/usr/bin/sypy", "sypy"), ("./sy", "sy"), ("/x/sypy/__main__.py", "sypy"), ("", "sy")] {
        assert_eq!(program(Some(&argv0.into())), name);
        let version = parse(&[argv0.into(), "--version".into()]).expect_err("text");
        assert_eq!(version.text, format!("{name} {}\n", env!("CARGO_PKG_VERSION")));
    }
}

#[test]
fn everything_can_be_generated() {
    for (what, holds) in [("bash", "complete -F"), ("zsh", "#compdef sy"), ("fish", "complete -c sy"), ("man", ".SH \"EXIT STATUS\"")] {
        let early = parsed(&["--generate", what]).expect_err("text");
        assert!(early.code == 0 && early.text.contains(holds), "{what}");
    }
}

#[test]
fn the_long_help_lists_exit_codes() {
    let help = parsed(&["--help"]).expect_err("text").text;
    for (code, meaning) in exit::TABLE {
        assert!(help.contains(&format!("{code}  {meaning}")), "{code}");
    }
}

#[test]
fn only_the_first_word_is_a_command() {
    let asked = |args: &[&str]| parse(&["sy"].iter().chain(args).map(OsString::from).collect::<Vec<_>>());
    assert!(matches!(asked(&["ls", "s3://b/", "-rl", "--region", "r"]), Ok(Asked::List(_))));
    for args in [&["-v", "ls", "b/"][..], &["a/", "ls"], &["./ls", "b/"], &["help", "b/"], &["--", "ls", "b/"]] {
        assert!(matches!(asked(args), Ok(Asked::Sync(_))), "{args:?}");
    }
    for args in [&["ls"][..], &["ls", "a", "b"], &["ls", "a", "--delete"], &["ls", "a", "--max-depth=2"], &["ls", "a", "--region=r"]] {
        assert!(matches!(asked(args), Err(Early { code: exit::REFUSED, .. })), "{args:?}");
    }
}
