//! Flags that are no options of a run: what to show, and spellings that rsync users have in their fingers.

use std::path::PathBuf;

use clap::{Arg, ArgAction, Command};

use super::Options;

/// What to print.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "What to show")]
pub struct Show {
    /// Print the name of all that is changed; twice, also of what is skipped, and why; three times, more
    #[arg(short, long, action = ArgAction::Count, overrides_with = "quiet")]
    pub verbose: u8,
    /// Print nothing but errors
    #[arg(short, long, overrides_with = "verbose")]
    pub quiet: bool,
    /// Print a line for each change: action, kind, size, name, reason
    #[arg(short, long, alias = "itemise-changes")]
    pub itemize_changes: bool,
    /// Print a table of all counters at the end
    #[arg(long)]
    pub stats: bool,
    /// Print events as JSON, one object a line
    #[arg(long)]
    pub json: bool,
    /// Show progress also when standard error is no terminal, a line a second
    #[arg(short = 'P', long, overrides_with = "no_progress")]
    pub progress: bool,
    /// Show no progress bar
    #[arg(long, overrides_with = "progress")]
    pub no_progress: bool,
}

/// Files of patterns, and spellings that state a default or take an option back.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
pub struct Spellings {
    /// Patterns to take in all the same, one a line; - is standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Which files")]
    pub include_from: Vec<PathBuf>,
    /// Patterns to leave out, one a line; - is standard input
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath, help_heading = "Which files")]
    pub exclude_from: Vec<PathBuf>,
    /// Copy what symbolic links point to: --links follow
    #[arg(short = 'L', long, overrides_with_all = ["links", "keep_links", "no_links"], help_heading = "What to preserve")]
    pub copy_links: bool,

    #[arg(short = 'l', hide = true, overrides_with_all = ["links", "no_links"])]
    pub keep_links: bool,
    #[arg(long, hide = true, alias = "no-l", overrides_with_all = ["links"])]
    pub no_links: bool,
    #[arg(short = 'r', long, hide = true)]
    pub recursive: bool,
    #[arg(short = 't', long, hide = true, overrides_with = "preserve_times")]
    pub times: bool,
    #[arg(short = 'p', long, hide = true, overrides_with = "preserve_permissions")]
    pub perms: bool,
    #[arg(short = 'S', long = "sparse", hide = true, overrides_with = "sparse")]
    pub holes: bool,
    #[arg(long = "resume", alias = "partial", hide = true, overrides_with = "resume")]
    pub partial: bool,
}

/// For each flag of a run a hidden `--no-FLAG` that takes an earlier one back, by all the names it has: `--no-H`, `--no-group`.
pub fn with_opposites(command: Command) -> Command {
    let opposites: Vec<Arg> = command
        .get_arguments()
        .filter(|arg| matches!(arg.get_action(), ArgAction::SetTrue) && Options::NAMES.contains(&arg.get_id().as_str()))
        .filter_map(|arg| {
            let no = |name: &dyn std::fmt::Display| format!("no-{name}");
            let longs = arg.get_all_aliases().unwrap_or_default();
            let shorts =
                arg.get_short_and_visible_aliases().unwrap_or_default().into_iter().chain(arg.get_all_short_aliases().unwrap_or_default());
            let mut names: Vec<String> = longs.iter().map(|name| no(name)).chain(shorts.map(|name| no(&name))).collect();
            names.sort();
            names.dedup();
            let id = opposite(arg.get_id().as_str());
            Some(
                Arg::new(id)
                    .long(no(&arg.get_long()?))
                    .aliases(names)
                    .action(ArgAction::SetTrue)
                    .hide(true)
                    .overrides_with(arg.get_id().clone()),
            )
        })
        .collect();
    command.args(opposites)
}

/// The id of the flag that takes `id` back.
pub fn opposite(id: &str) -> String {
    format!("no_{id}")
}
