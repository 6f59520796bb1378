//! Every option of a run, declared once: its name, type, default, spelling on the command line and text.
//!
//! The command line, its help and man page, and the keywords of language bindings all come from this list.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::ArgAction::{SetFalse, SetTrue};

use super::values::{Conflict, Links, OptionValue, Size, Span, Value};
use crate::error::{ErrorKind, Result, SyncError};

macro_rules! options {
    ($( $(#[$meta:meta])* $name:ident: $ty:ty = $default:expr; )*) => {
        /// What a run should do and how. Build one with `..Options::default()`.
        #[derive(Debug, Clone, PartialEq, clap::Args)]
        pub struct Options { $( $(#[$meta])* pub $name: $ty, )* }

        impl Default for Options {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl Options {
            /// The names, in order.
            pub const NAMES: &[&str] = &[$( stringify!($name) ),*];

            /// The value of the option called `name`.
            pub fn get(&self, name: &str) -> Option<Value> {
                match name {
                    $( stringify!($name) => Some(OptionValue::to_value(&self.$name)), )*
                    _ => None,
                }
            }

            /// Sets the option called `name`. The error of an unknown name says which known one is nearest.
            pub fn set(&mut self, name: &str, value: Value) -> Result<()> {
                match name {
                    $( stringify!($name) => {
                        self.$name = OptionValue::from_value(value)
                            .map_err(|expected| SyncError::config(format!("{name} must be {expected}")))?;
                    } )*
                    _ => return Err(unknown(name)),
                }
                Ok(())
            }
        }
    };
}

options! {
    /// Show what would be done; change nothing
    #[arg(short = 'n', long, help_heading = "What to do")]
    dry_run: bool = false;
    /// Remove from the destination what the source does not have
    #[arg(long, aliases = ["del", "delete-after", "delete-delay"], help_heading = "What to do")]
    delete: bool = false;
    /// Refuse to delete more than this percent of the destination's entries
    #[arg(long, value_name = "PERCENT", default_value_t = 50, value_parser = clap::value_parser!(u8).range(0..=100), help_heading = "What to do")]
    delete_threshold: u8 = 50;
    /// Refuse to delete more than this many entries
    #[arg(long, value_name = "N", help_heading = "What to do")]
    max_delete: Option<u64> = None;
    /// Delete without limits
    #[arg(long, help_heading = "What to do")]
    force_delete: bool = false;
    /// Move deleted files to the trash (to --backup-dir if given) instead
    #[arg(long, help_heading = "What to do")]
    trash: bool = false;
    /// Move replaced and deleted files into a dated folder below DIR
    #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath, help_heading = "What to do")]
    backup_dir: Option<PathBuf> = None;
    /// Update only what the destination already has
    #[arg(long, help_heading = "What to do")]
    existing: bool = false;
    /// Leave alone what the destination already has
    #[arg(long, help_heading = "What to do")]
    ignore_existing: bool = false;
    /// Remove each source file once its copy is in place
    #[arg(long, help_heading = "What to do")]
    remove_source_files: bool = false;
    /// Sync both ways
    #[arg(short = 'b', long, help_heading = "What to do")]
    bidirectional: bool = false;
    /// Which side wins where both have changed
    #[arg(long, value_enum, default_value_t = Conflict::Newer, value_name = "WHICH", help_heading = "What to do")]
    conflict_resolve: Conflict = Conflict::Newer;

    /// Compare contents, not size and time
    #[arg(short = 'c', long, help_heading = "What counts as equal")]
    checksum: bool = false;
    /// Compare sizes only
    #[arg(long, help_heading = "What counts as equal")]
    size_only: bool = false;
    /// Copy also what has the same size and time
    #[arg(short = 'I', long, help_heading = "What counts as equal")]
    ignore_times: bool = false;
    /// Leave alone what is newer at the destination
    #[arg(short = 'u', long, help_heading = "What counts as equal")]
    update: bool = false;

    /// rsync filter rule such as '- *.o' or '+ *.py'; repeat in order
    #[arg(short = 'f', long, value_name = "RULE", allow_hyphen_values = true, help_heading = "Which files")]
    filter: Vec<OsString> = Vec::new();
    /// rsync pattern of what to take in all the same
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, help_heading = "Which files")]
    include: Vec<OsString> = Vec::new();
    /// rsync pattern of what to leave out
    #[arg(long, value_name = "PATTERN", allow_hyphen_values = true, help_heading = "Which files")]
    exclude: Vec<OsString> = Vec::new();
    /// Leave out what .gitignore files say
    #[arg(long, help_heading = "Which files")]
    gitignore: bool = false;
    /// Leave out .git, .hg, .svn and their like
    #[arg(long, help_heading = "Which files")]
    exclude_vcs: bool = false;
    /// Leave out files smaller than this, such as 10MB or 1GiB
    #[arg(long, value_name = "SIZE", help_heading = "Which files")]
    min_size: Option<Size> = None;
    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", help_heading = "Which files")]
    max_size: Option<Size> = None;
    /// Leave out files changed less than this long ago, such as 2d or 90s
    #[arg(long, value_name = "TIME", help_heading = "Which files")]
    min_age: Option<Span> = None;
    /// Leave out files last changed longer than this ago
    #[arg(long, value_name = "TIME", help_heading = "Which files")]
    max_age: Option<Span> = None;

    /// Do not preserve modification times
    #[arg(long = "no-times", alias = "no-t", action = SetFalse, help_heading = "What to preserve")]
    preserve_times: bool = true;
    /// Do not preserve permissions
    #[arg(long = "no-perms", alias = "no-p", action = SetFalse, help_heading = "What to preserve")]
    preserve_permissions: bool = true;
    /// Preserve extended attributes
    #[arg(short = 'X', long = "xattrs", help_heading = "What to preserve")]
    preserve_xattrs: bool = false;
    /// Preserve access control lists
    #[arg(short = 'A', long = "acls", help_heading = "What to preserve")]
    preserve_acls: bool = false;
    /// Preserve hard links
    #[arg(short = 'H', long = "hard-links", help_heading = "What to preserve")]
    preserve_hardlinks: bool = false;
    /// Preserve owner and group
    #[arg(short = 'o', long = "owner", visible_alias = "group", short_alias = 'g', help_heading = "What to preserve")]
    preserve_owner: bool = false;
    /// Owner and group by number also where both sides have names for them (SSH)
    #[arg(long, help_heading = "What to preserve")]
    numeric_ids: bool = false;
    /// Preserve devices, FIFOs and sockets
    #[arg(short = 'D', long = "devices", visible_alias = "specials", help_heading = "What to preserve")]
    preserve_devices: bool = false;
    /// Preserve all that you may: -H -A -X, and as root -o -D
    #[arg(short = 'a', long, help_heading = "What to preserve")]
    archive: bool = false;
    /// What becomes of symbolic links
    #[arg(long, value_enum, default_value_t = Links::Preserve, value_name = "HOW", help_heading = "What to preserve")]
    links: Links = Links::Preserve;
    /// Let followed links lead out of the source
    #[arg(long, help_heading = "What to preserve")]
    unsafe_links: bool = false;
    /// Write zeros where the source has holes
    #[arg(long = "no-sparse", alias = "no-S", action = SetFalse, help_heading = "What to preserve")]
    sparse: bool = true;

    /// Transfers at a time, at most; local runs use as many as pay, and eight small objects count as one
    #[arg(short = 'j', long, value_name = "N", default_value = "10", help_heading = "How")]
    parallel: Option<u32> = Some(10);
    /// Bytes per second, at most, such as 10MB
    #[arg(long, value_name = "RATE", help_heading = "How")]
    bwlimit: Option<Size> = None;
    /// Do not keep or reuse partial transfers
    #[arg(long = "no-resume", action = SetFalse, help_heading = "How")]
    resume: bool = true;
    /// Read each copy back and compare
    #[arg(long, help_heading = "How")]
    verify: bool = false;
    /// Compress on the wire
    #[arg(short = 'z', long, help_heading = "How")]
    compress: bool = false;
    /// Have everything on disk before saying done
    #[arg(long, help_heading = "How")]
    durable: bool = false;
    /// Stop after this many failed items; 0 means never
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "How")]
    max_errors: u64 = 100;
    /// Try failed items again this many times
    #[arg(long, value_name = "N", default_value_t = 3, help_heading = "How")]
    retry: u32 = 3;
    /// Seconds before the first retry; doubles each time
    #[arg(long, value_name = "TIME", default_value = "1", help_heading = "How")]
    retry_delay: Span = Span(std::time::Duration::from_secs(1));
    /// Stop the run after this long
    #[arg(long, value_name = "TIME", help_heading = "How")]
    timeout: Option<Span> = None;
    /// Keep the connection for the next run of the process: from Python (SSH)
    #[arg(long, help_heading = "How")]
    daemon_auto: bool = false;
}

// The `action` values are named in attributes only.
const _: [clap::ArgAction; 2] = [SetFalse, SetTrue];

/// An option as messages name it: "delete", or "min_size (--min-size)" where the command line spells it in another way.
pub fn both_names(name: &str) -> String {
    let command = <Options as clap::Args>::augment_args(clap::Command::new("sy"));
    match command.get_arguments().find(|arg| arg.get_id() == name).and_then(clap::Arg::get_long) {
        Some(long) if long != name => format!("{name} (--{long})"),
        _ => name.to_owned(),
    }
}

/// An error that names the nearest known option.
fn unknown(name: &str) -> SyncError {
    let nearest = Options::NAMES.iter().map(|known| (distance(name, known), known)).min();
    let error = SyncError::new(ErrorKind::Config, format!("unknown option {name:?}"));
    match nearest {
        Some((d, known)) if d <= name.len().max(3) / 2 => error.hint(format!("did you mean {known}?")),
        _ => error,
    }
}

/// Levenshtein distance, by the two-row method.
pub fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn the_command_line_has_the_same_defaults() {
        use clap::Parser;
        assert_eq!(Line::parse_from(["sy"]).options, Options::default());
    }

    #[test]
    fn every_option_takes_its_own_value_back() {
        let mut options = Options::default();
        for name in Options::NAMES {
            let value = options.get(name).expect("a listed option has a value");
            options.set(name, value).expect("and takes it");
        }
        assert_eq!(options, Options::default());
    }

    #[test]
    fn messages_name_an_option_as_it_can_be_typed() {
        assert_eq!(both_names("min_size"), "min_size (--min-size)");
        assert_eq!(both_names("preserve_xattrs"), "preserve_xattrs (--xattrs)");
        assert_eq!(both_names("delete"), "delete");
    }

    #[test]
    fn an_unknown_name_brings_the_nearest() {
        let error = Options::default().set("delet", Value::Bool(true)).expect_err("unknown");
        assert!(error.to_string().contains("did you mean delete?"), "{error}");
    }
}
