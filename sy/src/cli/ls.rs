//! `ls`: what is at a location, one entry a line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::sync::Arc;

use clap::{ArgMatches, Args, Command, FromArgMatches};

use super::access::Stores;
use super::flags::Show;
use super::json::failure;
use super::line::Line;
use super::object::Object;
use super::screen::{Pump, Screen};
use super::{Reporter, exit};
use crate::error::{ErrorKind, Printable, Result, SyncError};
use crate::list::{self, Audience, Entry, Want};
use crate::path::SyncPath;
use crate::sync::{Control, Kind, Observer, Outcome};
use crate::transport::access::Access;

pub const NAME: &str = "ls";

/// What its command line says.
#[derive(Debug, Clone, Args)]
pub struct Ls {
    /// What to list
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    location: OsString,
    /// List also what is in directories below
    #[arg(short, long)]
    recursive: bool,
    /// Print sizes in bytes and modification times, too
    #[arg(short, long)]
    long: bool,
    /// Open directories this deep at most; 1 is the location alone
    #[arg(long, value_name = "N", requires = "recursive", value_parser = clap::value_parser!(u32).range(1..))]
    max_depth: Option<u32>,
    /// Leave out directories
    #[arg(long, conflicts_with = "dirs_only")]
    files_only: bool,
    /// Leave out all but directories
    #[arg(long)]
    dirs_only: bool,
    /// Print entries as JSON, one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    stores: Stores,
    /// Print this help
    #[arg(short = 'h', long, action = clap::ArgAction::Help, help_heading = "Help")]
    help: Option<bool>,
}

pub fn command() -> Command {
    let text = "Print what is at a location: names relative to it, directories with a slash at the end. Of an object store only the \
                asked for level is listed. A directory that is called ls can be synced as ./ls.";
    Ls::augment_args(Command::new(NAME)).about("List a location").long_about(text).disable_help_flag(true).args_override_self(true)
}

/// What to do.
#[derive(Debug)]
pub struct Listing {
    program: String,
    path: SyncPath,
    want: Want,
    access: Access,
    long: bool,
    json: bool,
}

pub fn parse(program: &str, matches: &ArgMatches) -> Result<Listing> {
    use std::os::unix::ffi::OsStrExt;
    let ls = Ls::from_arg_matches(matches).map_err(|error| SyncError::config(error.to_string()))?;
    let path = SyncPath::parse(ls.location.as_bytes())?;
    Ok(Listing {
        program: program.to_owned(),
        access: ls.stores.access(&path)?,
        path,
        want: Want { recursive: ls.recursive, max_depth: ls.max_depth, files_only: ls.files_only, dirs_only: ls.dirs_only },
        long: ls.long,
        json: ls.json,
    })
}

/// Lists, and returns the exit code.
pub fn run(listing: &Listing, control: &Arc<Control>) -> u8 {
    let show = Show { no_progress: true, ..Show::default() };
    let printer = Arc::new(Printer(Screen::new(&show, control)));
    let reporter: Arc<dyn Reporter> = printer.clone();
    let pump = Pump::start(&reporter);
    let mut told = Told { listing, screen: &printer.0, failed: false };
    let ended = list::list(&listing.path, &listing.want, &listing.access, control, &mut told);
    let failed = told.failed;
    drop(pump);
    let code = match &ended {
        Ok(()) if failed => exit::PARTIAL,
        Ok(()) => exit::DONE,
        Err(error) if error.kind == ErrorKind::Cancelled && printer.0.is_broken() => exit::BROKEN_PIPE,
        Err(error) => {
            told.complain(error, true);
            if error.kind == ErrorKind::Cancelled { exit::INTERRUPTED } else { exit::REFUSED }
        }
    };
    let code = printer.0.close(&listing.program).max(code);
    // All was found, but not all was read.
    if code == exit::DONE && printer.0.is_broken() { exit::BROKEN_PIPE } else { code }
}

/// The lines on their way out.
struct Printer(Arc<Screen>);

impl Observer for Printer {
    fn wants_actions(&self) -> bool {
        true
    }
}

impl Reporter for Printer {
    fn screen(&self) -> &Arc<Screen> {
        &self.0
    }
    fn start(&self, _: &Line) {}
    fn tick(&self) {}
    fn finish(&self, _: &Outcome, _: u8) {}
}

struct Told<'l> {
    listing: &'l Listing,
    screen: &'l Screen,
    failed: bool,
}

impl Told<'_> {
    fn complain(&self, error: &SyncError, fatal: bool) {
        if self.listing.json {
            self.screen.line(|out| failure(out, error, fatal));
        }
        self.screen.error(&format!("{}: {error}", self.listing.program));
    }
}

impl Audience for Told<'_> {
    fn entries(&mut self, entries: Vec<Entry>) {
        self.screen.line(|out| {
            for (n, entry) in entries.iter().enumerate() {
                if n > 0 {
                    out.push(b'\n');
                }
                match (self.listing.json, self.listing.long) {
                    (true, _) => object(out, entry),
                    (false, true) => long(out, entry),
                    (false, false) => name(out, entry),
                }
            }
        });
    }

    fn failed(&mut self, error: SyncError) {
        self.failed = true;
        self.complain(&error, false);
    }
}

/// A name that is safe to print. Most are so as they stand.
fn name(out: &mut Vec<u8>, entry: &Entry) {
    let mut plain = |text: &[u8]| {
        if text.iter().all(|&byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
            out.extend_from_slice(text);
        } else {
            out.extend_from_slice(Printable(text).to_string().as_bytes());
        }
    };
    plain(&entry.path);
    if let (Kind::Symlink, Some(target)) = (entry.meta.kind, &entry.target) {
        plain(b" -> ");
        plain(target);
    }
    if entry.meta.kind == Kind::Dir {
        out.push(b'/');
    }
}

/// Size, time, name: `        12345  2026-11-24T10:00:00Z  a/b`. What is not known is blank.
fn long(out: &mut Vec<u8>, entry: &Entry) {
    let mut columns = String::with_capacity(48);
    let _ = if entry.meta.kind == Kind::Dir { write!(columns, "{:>14}", "") } else { write!(columns, "{:>14}", entry.meta.size) };
    let time = entry.time().map(|time| time.whole().to_rfc3339()).unwrap_or_default();
    let _ = write!(columns, "  {time:<20}  ");
    out.extend_from_slice(columns.as_bytes());
    name(out, entry);
}

fn object(out: &mut Vec<u8>, entry: &Entry) {
    let mut object = Object::new(out, "entry");
    object.text("path", &entry.path);
    object.text("type", entry.meta.kind.name().as_bytes());
    object.raw("size", entry.meta.size);
    object.maybe("mod_time", entry.time().map(crate::transport::Time::to_rfc3339).as_ref().map(String::as_bytes));
    object.maybe("symlink_target", entry.target.as_deref());
    object.end();
}
