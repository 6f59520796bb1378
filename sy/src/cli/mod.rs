//! The command line: the same for the native `sy` and for `sypy` in a Python process.
//!
//! argv → `line` → a run that tells a reporter (`report` for people, `json` for programs) → `exit`.

mod access;
mod exit;
mod flags;
mod generate;
mod hosts;
mod human;
mod json;
mod line;
mod ls;
mod object;
mod options;
mod progress;
mod report;
mod screen;
mod values;

pub use access::{Sides, Stores};
pub use exit::INTERRUPTED;
pub use flags::{Show, Spellings};
pub use generate::Generate;
pub use options::{Options, both_names};
pub use report::summary;
pub use values::{Conflict, Links, OptionValue, Size, Span, Value};

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::sync::{self, Control, Observer, Outcome};
use crate::transport::ssh::agent;
pub use crate::transport::ssh::deploy::is_native;
use line::{Asked, Early, Line};
use screen::Screen;

/// What a command line says.
#[derive(Debug, clap::Parser)]
#[command(name = "sy", version, about = "Copy and mirror trees", disable_help_flag = true, disable_version_flag = true)]
#[command(
    long_about = "Make a destination like a source: copy what is new or changed and, with --delete, remove what the source does not have.",
    args_override_self = true
)]
pub struct Cli {
    /// Where from; with a trailing slash, its contents
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub source: OsString,
    /// Where to
    #[arg(value_hint = clap::ValueHint::AnyPath)]
    pub dest: OsString,
    #[command(flatten)]
    pub options: Options,
    #[command(flatten)]
    pub spellings: Spellings,
    #[command(flatten)]
    pub stores: Stores,
    #[command(flatten)]
    pub sides: Sides,
    #[command(flatten)]
    pub show: Show,
    /// Print this help in short; between locations, sizes for people, as always
    #[arg(short = 'h', help_heading = "Help")]
    pub short_help: bool,
    /// Print the help in full
    #[arg(long, action = clap::ArgAction::HelpLong, help_heading = "Help")]
    pub help: Option<bool>,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, help_heading = "Help")]
    pub version: Option<bool>,
    /// Print completions for a shell, or the man page
    #[arg(long, value_name = "WHAT", exclusive = true, help_heading = "Help")]
    pub generate: Option<Generate>,
}

/// Tells people or programs about a run. Whatever happens, the stats come last.
trait Reporter: Observer {
    fn screen(&self) -> &Arc<Screen>;
    /// Before the run.
    fn start(&self, line: &Line);
    /// Ten times a second or so while it lasts.
    fn tick(&self);
    /// After it.
    fn finish(&self, outcome: &Outcome, code: u8);
}

/// Runs a command line, `argv[0]` included, and returns its exit code. `control` can be cancelled by signal handlers.
///
/// Never ends the process and never panics, so that a program can call it as a function.
pub fn main(argv: Vec<OsString>, control: &Arc<Control>) -> u8 {
    catch_unwind(AssertUnwindSafe(|| run(&argv, control))).unwrap_or_else(|_| {
        screen::print_error("sy: internal error: this is a bug, please report it\n");
        exit::REFUSED
    })
}

/// Does a command line start the other side of a connection? Then nothing else may read its input or write to its output.
pub fn is_agent(argv: &[OsString]) -> bool {
    argv.len() == 2 && argv[1] == agent::COMMAND
}

/// Serves whoever started this process until the connection ends.
pub fn serve() -> u8 {
    let own = |fd: std::os::fd::BorrowedFd<'_>| fd.try_clone_to_owned().map(std::fs::File::from);
    match (own(std::io::stdin().as_fd()), own(std::io::stdout().as_fd())) {
        (Ok(input), Ok(output)) => {
            if agent::serve(input, output) {
                exit::DONE
            } else {
                exit::REFUSED
            }
        }
        _ => exit::REFUSED,
    }
}

fn run(argv: &[OsString], control: &Arc<Control>) -> u8 {
    if is_agent(argv) {
        return serve();
    }
    screen::open_standard_streams();
    let line = match line::parse(argv) {
        Ok(Asked::Sync(line)) => *line,
        Ok(Asked::List(listing)) => return ls::run(&listing, control),
        Err(Early { text, code: exit::DONE }) => return screen::print(&text),
        Err(Early { text, code }) => {
            screen::print_error(&text);
            return code;
        }
    };
    let reporter: Arc<dyn Reporter> =
        if line.show.json { Arc::new(json::Json::new(&line, control)) } else { Arc::new(report::Human::new(&line, control)) };
    reporter.start(&line);
    let pump = screen::Pump::start(&reporter);
    let outcome = sync::run(&line.source, &line.dest, &line.options, &line.accesses, control, &*reporter);
    drop(pump);
    let screen = reporter.screen();
    let code = match exit::code(&outcome) {
        exit::INTERRUPTED if screen.is_broken() => exit::BROKEN_PIPE,
        code => code,
    };
    reporter.finish(&outcome, code);
    screen.close(&line.program).max(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_and_flags_do_not_clash() {
        line::command("sy").debug_assert();
    }
}
