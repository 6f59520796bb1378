//! The native command line: the one in `sy::cli`, and signals.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    if sy::cli::is_agent(&argv) {
        // Signals end it as they end any other program.
        return ExitCode::from(sy::cli::serve());
    }
    sy::cli::is_native();
    let control = Arc::new(sy::Control::default());
    let caught = Arc::new(AtomicUsize::new(0));
    let ignored = ignored_signals();
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        if ignored >> (signal - 1) & 1 == 1 {
            continue;
        }
        // Without a handler a signal still ends the process, only less tidily.
        let _ = catch(signal, &control, &caught);
    }
    let code = sy::cli::main(argv, &control);
    let signal = u8::try_from(caught.load(Relaxed)).unwrap_or_default();
    ExitCode::from(if code == sy::cli::INTERRUPTED && signal != 0 { 128 + signal } else { code })
}

/// The first `signal` cancels the run, the second one has its usual effect.
fn catch(signal: i32, control: &sy::Control, caught: &Arc<AtomicUsize>) -> std::io::Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    flag::register_conditional_default(signal, Arc::clone(&again))?;
    flag::register(signal, again)?;
    flag::register_usize(signal, Arc::clone(caught), usize::try_from(signal).unwrap_or_default())?;
    flag::register(signal, control.cancel_flag())?;
    Ok(())
}

/// The signals that whoever started us wants to be ignored, as `nohup` does; bit 0 is signal 1.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
