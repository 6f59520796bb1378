//! A command line on its way to what it means: argv → matches → locations, resolved options, what to show.

use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, MissingRequiredArgument};
use clap::parser::ValueSource::CommandLine;
use clap::{ArgMatches, CommandFactory, FromArgMatches};

use super::flags::{Show, opposite, with_opposites};
use super::generate::{self, Generate};
use super::values::Links;
use super::{Cli, Options, exit, human, ls};
use crate::error::{Result, SyncError};
use crate::path::SyncPath;
use crate::transport::access::Accesses;

/// What a command line means.
#[derive(Debug)]
pub struct Line {
    /// The name the program was called by.
    pub program: String,
    pub source: SyncPath,
    pub dest: SyncPath,
    pub options: Options,
    pub accesses: Accesses,
    pub show: Show,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    Sync(Box<Line>),
    List(Box<ls::Listing>),
}

/// Text to print instead of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct Early {
    pub text: String,
    pub code: u8,
}

/// The command as clap knows it, under the name it was called by.
pub fn command(program: &str) -> clap::Command {
    with_opposites(Cli::command())
        .name(program.to_owned())
        .bin_name(program)
        .override_usage(format!("{program} [OPTIONS] <SOURCE> <DEST>\n       {program} ls [OPTIONS] <LOCATION>"))
        .subcommand(ls::command())
        // Only the first word can be a command: `sypy -v ls dst/` and `sypy src/ ls` are runs.
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .disable_help_subcommand(true)
        .after_long_help(generate::after_help())
        .max_term_width(100)
}

/// Reads a command line, `argv[0]` included.
pub fn parse(argv: &[OsString]) -> Result<Asked, Early> {
    let program = program(argv.first());
    let mut command = command(&program);
    let matches = command.try_get_matches_from_mut(argv).map_err(|error| {
        // `-h` beside two locations means human-readable sizes, as in rsync; alone it asks for help.
        let help = error.kind() == MissingRequiredArgument
            && command.clone().ignore_errors(true).try_get_matches_from(argv).is_ok_and(|partial| partial.get_flag("short_help"));
        if help { Early { text: command.render_help().to_string(), code: exit::DONE } } else { early(&error) }
    })?;
    if let Some(&what) = matches.get_one::<Generate>("generate") {
        return Err(Early { text: generate::generate(what, command, &program), code: exit::DONE });
    }
    let refused = |error: SyncError| Early { text: format!("{program}: {error}\n"), code: exit::REFUSED };
    if let Some((ls::NAME, matches)) = matches.subcommand() {
        return ls::parse(&program, matches).map(|listing| Asked::List(Box::new(listing))).map_err(refused);
    }
    let cli = Cli::from_arg_matches(&matches).map_err(|error| early(&error))?;
    resolve(cli, &matches, &program).map(|line| Asked::Sync(Box::new(line))).map_err(refused)
}

fn resolve(cli: Cli, matches: &ArgMatches, program: &str) -> Result<Line> {
    let mut options = cli.options;
    if cli.spellings.copy_links {
        options.links = Links::Follow;
    } else if cli.spellings.no_links {
        options.links = Links::Skip;
    }
    options.filter = rules(matches)?;
    options.include.clear();
    options.exclude.clear();
    resolve_archive(&mut options, matches);
    let (source, dest) = (SyncPath::parse(cli.source.as_bytes())?, SyncPath::parse(cli.dest.as_bytes())?);
    if options.daemon_auto && [&source, &dest].into_iter().any(SyncPath::is_on_host) {
        return Err(SyncError::unsupported("--daemon-auto keeps a connection for the next run of a process, and a command is one run")
            .hint("ControlMaster and ControlPersist of ssh, in ~/.ssh/config, keep one for commands"));
    }
    let accesses = cli.stores.accesses(&cli.sides, &source, &dest)?;
    Ok(Line { program: program.to_owned(), source, dest, options, accesses, show: cli.show })
}

/// The file name of `argv[0]`; `python -m sypy` puts its `__main__.py` there.
fn program(argv0: Option<&OsString>) -> String {
    match argv0.and_then(|name| Path::new(name).file_name()).and_then(OsStr::to_str) {
        Some("__main__.py" | "-c" | "-m") => "sypy".to_owned(),
        Some(name) if name.chars().all(|c| c.is_ascii_graphic()) => name.to_owned(),
        _ => env!("CARGO_PKG_NAME").to_owned(),
    }
}

fn early(error: &clap::Error) -> Early {
    let text = error.render().to_string();
    match error.kind() {
        DisplayHelp | DisplayVersion => Early { text, code: exit::DONE },
        // What was typed stands in the message, escape sequences and all.
        _ => Early {
            text: text
                .chars()
                .map(|c| if human::obeyed(c) && c != '\n' { c.escape_default().to_string() } else { c.to_string() })
                .collect(),
            code: exit::REFUSED,
        },
    }
}

/// The filter options as one list of rsync rules, in the order in which they stand in argv.
fn rules(matches: &ArgMatches) -> Result<Vec<OsString>> {
    let mut given: Vec<(usize, &str, &OsStr)> = Vec::new();
    for id in ["filter", "include", "exclude", "include_from", "exclude_from"] {
        if let (Some(indices), Some(values)) = (matches.indices_of(id), matches.get_raw(id)) {
            given.extend(indices.zip(values).map(|(index, value)| (index, id, value)));
        }
    }
    given.sort_unstable_by_key(|&(index, ..)| index);
    let mut rules = Vec::new();
    for (_, id, value) in given {
        match id {
            "include" => rules.push(signed(b'+', value.as_bytes())),
            "exclude" => rules.push(signed(b'-', value.as_bytes())),
            "include_from" => rules.extend(patterns(&read(value)?).map(|pattern| signed(b'+', pattern))),
            "exclude_from" => rules.extend(patterns(&read(value)?).map(|pattern| signed(b'-', pattern))),
            _ => rules.push(value.to_owned()),
        }
    }
    Ok(rules)
}

/// A pattern as a rule. One that brings its own sign keeps it, and a lone `!` forgets the rules before it.
fn signed(sign: u8, pattern: &[u8]) -> OsString {
    let rule = match pattern {
        b"!" | [b'+' | b'-', b' ', ..] => pattern.to_vec(),
        _ => [&[sign, b' '], pattern].concat(),
    };
    OsString::from_vec(rule)
}

/// The patterns of a file: one a line, `;` and `#` begin comments, empty lines do not count.
fn patterns(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b'\n' || byte == b'\r').filter(|line| !matches!(line.first(), None | Some(b';' | b'#')))
}

fn read(file: &OsStr) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = if file == "-" { std::io::stdin().lock().read_to_end(&mut text).map(|_| text) } else { std::fs::read(file) };
    read.map_err(|error| SyncError::io(&error, "read", file))
}

/// Takes out of `--archive` what a later option takes back: `-a --no-owner`, `-a --no-times`.
fn resolve_archive(options: &mut Options, matches: &ArgMatches) {
    let given = |id: &str| matches.index_of(id).filter(|_| matches.value_source(id) == Some(CommandLine));
    let Some(archive) = given("archive") else { return };
    let root = rustix::process::geteuid().is_root();
    let parts = [
        ("preserve_times".to_owned(), &mut options.preserve_times, true),
        ("preserve_permissions".to_owned(), &mut options.preserve_permissions, true),
        (opposite("preserve_hardlinks"), &mut options.preserve_hardlinks, true),
        (opposite("preserve_acls"), &mut options.preserve_acls, true),
        (opposite("preserve_xattrs"), &mut options.preserve_xattrs, true),
        (opposite("preserve_owner"), &mut options.preserve_owner, root),
        (opposite("preserve_devices"), &mut options.preserve_devices, root),
    ];
    let taken_back = |id: &str| given(id).is_some_and(|index| index > archive);
    if parts.iter().any(|(id, ..)| taken_back(id)) {
        options.archive = false;
        for (id, part, may) in parts {
            *part |= may && !taken_back(&id);
        }
    }
}

#[cfg(test)]
#[path = "line_tests.rs"]
mod tests;
