//! Texts made from the command line's declaration: completions, the man page, the end of the help.

use clap::Command;
use clap_complete::Shell;

use super::exit;

/// What `--generate` can make.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Generate {
    Bash,
    Zsh,
    Fish,
    Man,
}

/// What a reader has to know beside the options: a title and a text.
const NOTES: &[(&str, &str)] = &[
    (
        "Locations",
        "A local path, user@host:path, ssh://user@host:port/path, s3://bucket/key, gs://bucket/key, az://container/key or \
         opendal+SERVICE://. A source directory with a trailing slash means its contents; without one, the directory itself goes \
         inside the destination. A name that looks like a URL or begins with a dash can be written ./NAME.",
    ),
    (
        "Listings",
        "ls LOCATION, with ls as the first word, prints what is at a location, with -r also what is below, with -l sizes in bytes and \
         times; ls --help tells all. A directory of that name can be written ./ls.",
    ),
    (
        "Credentials",
        "Keys of object stores come from the profile (--profile), the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, \
         GOOGLE_APPLICATION_CREDENTIALS, AZURE_STORAGE_KEY and their like) or the machine. No flag takes a secret, since others can read \
         a command line.",
    ),
    (
        "As in rsync",
        "-r, -l, -t, -p and -S ask for what is done anyway; they take back an earlier --no-times and the like. --no-OPTION takes back \
         an earlier flag, also a part of -a: -a --no-owner, -a --no-H. --filter, --include and --exclude form one list in the order \
         in which they are given; the first match decides. Of other options that are given twice, the last counts.",
    ),
    (
        "Itemized lines",
        "--itemize-changes and --dry-run print: action (create, update, metadata, delete, skip), kind (file, directory, symlink, …), \
         size of a file, name, and why in parentheses. The columns are padded with spaces and parted by two. A directory's name ends \
         in a slash; a link's is followed by -> and its target. Control characters in names, backslashes and bytes that are not \
         UTF-8 are escaped.",
    ),
    (
        "JSON events",
        "--json prints one object a line, its kind in \"event\": start, action, error, log, progress (each second) and, always \
         last, stats. Skipped files are told with -vv. Names that are not UTF-8 hold lone surrogates, as in Python.",
    ),
    ("Signals", "Ctrl-C, SIGTERM and SIGHUP stop a run; what was in flight is cleaned up. The same signal again ends the process at once."),
];

/// The end of `--help`.
pub fn after_help() -> String {
    let mut text = String::new();
    for (title, note) in NOTES {
        text += &format!("{title}:\n{note}\n\n");
    }
    text += "Exit codes:\n";
    for (code, meaning) in exit::TABLE {
        text += &format!("  {code:>3}  {meaning}\n");
    }
    text
}

pub fn generate(what: Generate, mut command: Command, program: &str) -> String {
    let mut out = Vec::new();
    let shell = match what {
        Generate::Bash => Shell::Bash,
        Generate::Zsh => Shell::Zsh,
        Generate::Fish => Shell::Fish,
        Generate::Man => return man(command, program),
    };
    clap_complete::generate(shell, &mut command, program, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn man(command: Command, program: &str) -> String {
    // The notes become sections of their own, so that a man page's reader finds them.
    let page = clap_mangen::Man::new(command.after_long_help("")).title(program.to_uppercase()).manual("User Commands");
    let mut out = Vec::new();
    // Writing to memory does not fail.
    let _ = page.render_title(&mut out);
    let _ = page.render_name_section(&mut out);
    let _ = page.render_synopsis_section(&mut out);
    let _ = page.render_description_section(&mut out);
    let _ = page.render_options_section(&mut out);
    let mut text = String::from_utf8_lossy(&out).into_owned();
    for (title, note) in NOTES {
        text += &format!(".SH \"{}\"\n{}\n", title.to_uppercase(), roff(note));
    }
    text += ".SH \"EXIT STATUS\"\n";
    for (code, meaning) in exit::TABLE {
        text += &format!(".TP\n{code}\n{}\n", roff(meaning));
    }
    text
}

/// Text as roff: dashes that can be copied, no line that looks like a request.
fn roff(text: &str) -> String {
    format!("\\&{}", text.replace('\\', "\\e").replace('-', "\\-").replace('…', "\\&..."))
}
