//! How far a run is, in a line: redrawn in place in a terminal, or a new one each second elsewhere.

use std::collections::VecDeque;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::flags::Show;
use super::human::{clock, count, size};
use super::screen::print_error;
use crate::error::Printable;
use crate::sync::Progress;

/// The rate is that of the last few seconds.
const WINDOW: Duration = Duration::from_secs(5);
/// What is over sooner needs no bar.
const QUICK: Duration = Duration::from_millis(200);
const BAR: usize = 20;
/// Longest name, in characters: with the counts before it, it fits a line of any usual terminal.
const NAME: usize = 48;

/// Where progress is shown.
#[derive(Debug)]
pub enum Bar {
    Off,
    /// A line each second; the second last written.
    Lines(Mutex<(u64, Rate)>),
    Terminal(ProgressBar, Mutex<Rate>),
}

impl Bar {
    pub fn new(show: &Show) -> Self {
        let terminal = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        if show.no_progress || show.quiet || (show.json && !show.progress) {
            Self::Off
        } else if terminal {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(15));
            bar.set_style(ProgressStyle::with_template("{msg}").unwrap_or_else(|_| ProgressStyle::default_bar()));
            Self::Terminal(bar, Mutex::default())
        } else if show.progress {
            Self::Lines(Mutex::default())
        } else {
            Self::Off
        }
    }

    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    pub fn show(&self, progress: &Progress) {
        if progress.elapsed < QUICK {
            return;
        }
        match self {
            Self::Off => {}
            Self::Lines(last) => {
                let Ok(mut last) = last.lock() else { return };
                let rate = last.1.of(progress);
                if progress.elapsed.as_secs() > last.0 {
                    last.0 = progress.elapsed.as_secs();
                    print_error(&(describe(progress, rate, "  ") + "\n"));
                }
            }
            Self::Terminal(bar, rates) => {
                let Ok(mut rates) = rates.lock() else { return };
                let drawn = fraction(progress).map_or(String::new(), |done| draw(done) + " ");
                bar.set_message(drawn + &describe(progress, rates.of(progress), "\n"));
            }
        }
    }

    /// Takes the bar off the screen while `print` prints.
    pub fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match self {
            Self::Terminal(bar, _) => bar.suspend(print),
            _ => print(),
        }
    }

    pub fn clear(&self) {
        if let Self::Terminal(bar, _) = self {
            bar.finish_and_clear();
        }
    }
}

/// Bytes per second, over a window.
#[derive(Debug, Default)]
pub struct Rate(VecDeque<(Duration, u64)>);

impl Rate {
    pub fn of(&mut self, progress: &Progress) -> f64 {
        if self.0.is_empty() {
            self.0.push_back(Default::default());
        }
        self.0.push_back((progress.elapsed, progress.bytes));
        while self.0.len() > 2 && self.0.front().is_some_and(|first| first.0 + WINDOW < progress.elapsed) {
            self.0.pop_front();
        }
        let (then, bytes) = self.0.front().copied().unwrap_or_default();
        let seconds = progress.elapsed.saturating_sub(then).as_secs_f64();
        if seconds > 0.0 { progress.bytes.saturating_sub(bytes) as f64 / seconds } else { 0.0 }
    }
}

/// The part that is done, once it is known what there is to do.
fn fraction(progress: &Progress) -> Option<f64> {
    let (done, all) =
        if progress.total_bytes > 0 { (progress.bytes, progress.total_bytes) } else { (progress.transfers, progress.total_transfers) };
    (progress.totals_are_final && all > 0).then(|| (done as f64 / all as f64).min(1.0))
}

fn draw(done: f64) -> String {
    let full = (done * BAR as f64) as usize;
    format!("[{}{}]", "#".repeat(full), "-".repeat(BAR.saturating_sub(full)))
}

/// How far it is with what there is to transfer; while nothing is, what has been looked at.
fn describe(progress: &Progress, rate: f64, between: &str) -> String {
    if progress.total_transfers == 0 {
        return format!("{} entries looked at  {}", count(progress.scanned), clock(progress.elapsed.as_secs()));
    }
    amount(progress, rate) + between + &files(progress)
}

/// `45%  1.8 GB of 4.1 GB  108.0 MB/s  ETA 0:22`.
fn amount(progress: &Progress, rate: f64) -> String {
    let done = fraction(progress);
    let percent = done.map_or(String::new(), |done| format!("{:.0}%  ", (done * 100.0).floor()));
    let mut text =
        format!("{percent}{} of {}{}  {}/s", size(progress.bytes), size(progress.total_bytes), more(progress), size(rate as u64));
    if done.is_some() && rate >= 1.0 {
        let left = progress.total_bytes.saturating_sub(progress.bytes) as f64 / rate;
        text += &format!("  ETA {}", clock(left.ceil() as u64));
    }
    text
}

/// `1,204 of 2,700 files  a/b`.
fn files(progress: &Progress) -> String {
    let name = progress.current_file.as_ref().map_or(String::new(), |name| format!("  {}", shorten(&Printable(name).to_string())));
    format!("{} of {}{} files{name}", count(progress.transfers), count(progress.total_transfers), more(progress))
}

/// What is known so far may grow.
fn more(progress: &Progress) -> &'static str {
    if progress.totals_are_final { "" } else { "+" }
}

/// A name cut from the left, since its end tells more.
fn shorten(name: &str) -> String {
    match name.char_indices().rev().nth(NAME - 2) {
        Some((start, _)) if start > 0 && name[..start].chars().nth(1).is_some() => format!("…{}", &name[start..]),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64, bytes: u64) -> Progress {
        Progress {
            bytes,
            total_bytes: 4_000_000,
            transfers: 1204,
            total_transfers: 2700,
            totals_are_final: true,
            current_file: Some(b"a/\x1b".to_vec()),
            elapsed: Duration::from_secs(seconds),
            ..Progress::default()
        }
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long() {
        let (mut rate, far) = (Rate::default(), at(2, 1_000_000));
        rate.of(&at(1, 500_000));
        let rate = rate.of(&far);
        assert_eq!(amount(&far, rate), "25%  1.0 MB of 4.0 MB  500.0 kB/s  ETA 0:06");
        assert_eq!(files(&far), "1,204 of 2,700 files  a/\\u{1b}");
        assert_eq!(fraction(&far).map(draw).as_deref(), Some("[#####---------------]"));
    }

    #[test]
    fn nothing_is_foretold_while_totals_grow() {
        let progress = Progress { totals_are_final: false, ..at(2, 1_000_000) };
        assert_eq!(amount(&progress, 5e5), "1.0 MB of 4.0 MB+  500.0 kB/s");
        assert_eq!(files(&progress), "1,204 of 2,700+ files  a/\\u{1b}");
        assert_eq!(fraction(&progress), None);
    }

    #[test]
    fn while_there_is_nothing_to_transfer_it_says_what_was_looked_at() {
        let progress = Progress { scanned: 12_345, elapsed: Duration::from_secs(3), ..Progress::default() };
        assert_eq!(describe(&progress, 0.0, "\n"), "12,345 entries looked at  0:03");
    }

    #[test]
    fn the_rate_forgets() {
        let mut rate = Rate::default();
        rate.of(&at(0, 0));
        rate.of(&at(1, 3_000_000));
        rate.of(&at(4, 3_000_000));
        assert!(rate.of(&at(9, 3_000_000)) < 1.0);
    }

    #[test]
    fn long_names_keep_their_end() {
        let long = "é".repeat(100) + "/end";
        assert_eq!(shorten(&long).chars().count(), NAME);
        assert!(shorten(&long).ends_with("/end"));
        let fits = "é".repeat(NAME);
        assert_eq!(shorten(&fits), fits);
    }
}
