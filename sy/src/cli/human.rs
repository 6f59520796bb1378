//! Numbers and characters as people read them.

use std::time::Duration;

/// `1204` → `1,204`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in decimal units: `999 B`, `12.3 kB`, `4.1 GB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    // 999.95 would be printed as 1000.0.
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A span that has passed: `314 ms`, `38.2 s`, `2 min 5 s`, `3 h 20 min`.
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs_f64();
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 0.9995 => format!("{} ms", (seconds * 1000.0).round()),
        0..60 => format!("{seconds:.1} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// A running clock: `0:22`, `1:02:03`.
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds % 3600 / 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// Is it a character that a terminal obeys instead of showing? Bidirectional overrides disguise names, too.
pub fn obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        for (n, text) in [(0, "0"), (999, "999"), (1204, "1,204"), (96_310, "96,310"), (1_000_000, "1,000,000")] {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn sizes() {
        for (n, text) in
            [(0, "0 B"), (999, "999 B"), (12_345, "12.3 kB"), (999_949, "999.9 kB"), (999_950, "1.0 MB"), (u64::MAX, "18.4 EB")]
        {
            assert_eq!(size(n), text);
        }
    }

    #[test]
    fn durations() {
        for (seconds, text) in [(0.314, "314 ms"), (38.21, "38.2 s"), (59.7, "1 min 0 s"), (125.0, "2 min 5 s"), (12_000.0, "3 h 20 min")] {
            assert_eq!(duration(Duration::from_secs_f64(seconds)), text);
        }
        assert_eq!((clock(22).as_str(), clock(3723).as_str()), ("0:22", "1:02:03"));
    }
}
