//! A file's metadata as it travels with an object, under the names that others already use: rclone's `mtime`, s3fs's
//! `mtime`, `mode`, `uid` and `gid`.

use crate::transport::{Kind, Meta, NO_ID, Time};

/// File type bits of a mode.
const TYPE: u32 = 0o170_000;
const LINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;

/// What is known of the file that an object was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    pub mtime: Option<Time>,
    /// With the type of the file. A symbolic link is an object that holds its target.
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub content_type: Option<String>,
    /// What others gave the object, as it goes along from one store to another. Lists do not tell it.
    pub more: Option<Box<More>>,
}

/// What an object has besides: how its content is to be handled, and metadata that are not ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// Names are those of HTTP, of `HANDLING`.
    pub headers: Vec<(&'static str, String)>,
    pub metadata: Vec<(String, String)>,
}

pub const HANDLING: [&str; 4] = ["cache-control", "content-disposition", "content-encoding", "content-language"];

/// Metadata that are no file's: marks of a service of its own, and what is worked out anew.
const NOT_CARRIED: [&str; 3] = ["hdi_isfolder", super::WHOLE, "goog-reserved-file-mtime"];

/// How a time is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeStyle {
    /// Seconds since 1970 with a fraction, as rclone and s3fs write it to S3.
    Seconds,
    /// RFC 3339, as rclone writes it to GCS and Azure.
    Rfc3339,
}

impl Attributes {
    /// Of a local entry, as far as they are to be kept.
    pub fn of(meta: &Meta, name: &[u8], times: bool, permissions: bool, owner: bool) -> Self {
        let kind = if meta.kind == Kind::Symlink { LINK } else { REGULAR };
        Self {
            mtime: times.then_some(meta.mtime),
            mode: (permissions || meta.kind == Kind::Symlink).then_some(kind | meta.mode & 0o7777),
            uid: owner.then_some(meta.uid),
            gid: owner.then_some(meta.gid),
            content_type: content_type(name).map(str::to_owned),
            more: None,
        }
    }

    /// The same without what others gave it.
    #[must_use]
    pub fn own(&self) -> Self {
        Self { more: None, ..self.clone() }
    }

    pub fn is_link(&self) -> bool {
        self.mode.is_some_and(|mode| mode & TYPE == LINK)
    }

    /// Takes in one name and value of an object's metadata; what is not ours or makes no sense is left alone.
    pub fn set(&mut self, name: &str, value: &str) {
        match name.to_ascii_lowercase().as_str() {
            "mtime" => self.mtime = parse_time(value).or(self.mtime),
            "mode" => self.mode = parse_mode(value).or(self.mode),
            "uid" => self.uid = value.trim().parse().ok().or(self.uid),
            "gid" => self.gid = value.trim().parse().ok().or(self.gid),
            _ => {}
        }
    }

    /// The same, for what is to go along with the object: what is not ours is kept.
    pub fn take(&mut self, name: &str, value: &str) {
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if ["mtime", "mode", "uid", "gid"].iter().any(is) {
            self.set(name, value);
        } else if !NOT_CARRIED.iter().any(is) {
            self.more.get_or_insert_default().metadata.push((name.to_owned(), value.to_owned()));
        }
    }

    /// How the content is to be handled, by one of `HANDLING`.
    pub fn handle(&mut self, name: &'static str, value: Option<&str>) {
        // What is framed on its way is not so where it lies.
        let value =
            value.map(|value| value.trim_start_matches("aws-chunked").trim_start_matches([',', ' '])).filter(|value| !value.is_empty());
        if let Some(value) = value {
            self.more.get_or_insert_default().headers.push((name, value.to_owned()));
        }
    }

    pub fn headers(&self) -> &[(&'static str, String)] {
        self.more.as_ref().map_or(&[], |more| &more.headers)
    }

    /// Metadata of others that can stand in headers.
    pub fn foreign(&self) -> impl Iterator<Item = (&str, &str)> {
        let plain = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        let printable = |value: &str| value.bytes().all(|b| (0x20..0x7f).contains(&b));
        self.all_foreign().filter(move |(name, value)| plain(name) && printable(value))
    }

    pub fn all_foreign(&self) -> impl Iterator<Item = (&str, &str)> {
        self.more.iter().flat_map(|more| &more.metadata).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Names and values for the object's metadata.
    pub fn pairs(&self, style: TimeStyle) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::with_capacity(4);
        pairs.extend(self.mtime.map(|time| ("mtime", print_time(time, style))));
        pairs.extend(self.mode.map(|mode| ("mode", mode.to_string())));
        pairs.extend(self.uid.map(|uid| ("uid", uid.to_string())));
        pairs.extend(self.gid.map(|gid| ("gid", gid.to_string())));
        pairs
    }

    /// What is known of the entry, on top of what the listing told.
    pub fn complete(&self, meta: &Meta) -> Meta {
        let kind = if self.is_link() { Kind::Symlink } else { meta.kind };
        let default = if kind == Kind::Dir { 0o755 } else { 0o644 };
        Meta {
            kind,
            mtime: self.mtime.unwrap_or(meta.mtime),
            mode: self.mode.map_or(default, |mode| mode & 0o7777),
            uid: self.uid.unwrap_or(NO_ID),
            gid: self.gid.unwrap_or(NO_ID),
            known: super::super::Known {
                all: true,
                mtime: self.mtime.is_some(),
                mode: self.mode.is_some(),
                owner: self.uid.is_some() || self.gid.is_some(),
            },
            ..*meta
        }
    }
}

/// Seconds with a fraction, or RFC 3339.
fn parse_time(text: &str) -> Option<Time> {
    let text = text.trim();
    if let Some(at) = text.find('T') {
        return parse_rfc3339(text, at);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos: u32 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()?;
    // A fraction before 1970 counts backwards from the whole second.
    if whole.starts_with('-') && nanos > 0 {
        return Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000 - nanos });
    }
    Some(Time { seconds, nanos })
}

fn print_time(time: Time, style: TimeStyle) -> String {
    match style {
        TimeStyle::Rfc3339 if (0..253_402_300_800).contains(&time.seconds) => {
            let (year, month, day) = civil(time.seconds.div_euclid(86_400));
            let second = time.seconds.rem_euclid(86_400);
            format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:09}Z", second / 3600, second / 60 % 60, second % 60, time.nanos)
        }
        _ if time.seconds < 0 && time.nanos > 0 => {
            let (whole, fraction) = (time.seconds + 1, 1_000_000_000 - time.nanos);
            format!("{}{whole}.{fraction:09}", if whole == 0 { "-" } else { "" })
        }
        _ => format!("{}.{:09}", time.seconds, time.nanos),
    }
}

/// `2026-11-24T10:00:00.123456789Z`, also with an offset. `at` is where the `T` stands.
pub fn parse_rfc3339(text: &str, at: usize) -> Option<Time> {
    let (date, rest) = (&text[..at], &text[at + 1..]);
    let mut parts = date.splitn(3, '-');
    let (year, month, day): (i64, u32, u32) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let zone = rest.find(['Z', 'z', '+', '-'])?;
    let (clock, zone) = rest.split_at(zone);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = clock.splitn(3, ':');
    let (hour, minute, second): (u8, u8, u8) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let (hour, minute, second) = (i64::from(hour), i64::from(minute), i64::from(second));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 || !(0..=9999).contains(&year) {
        return None;
    }
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign, ..] => {
            let (hours, minutes) = zone[1..].split_once(':')?;
            let seconds = i64::from(hours.parse::<u8>().ok()?) * 3600 + i64::from(minutes.parse::<u8>().ok()?) * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
        [] => return None,
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let nanos = if fraction.is_empty() { 0 } else { format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().ok()? };
    Some(Time { seconds: days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset, nanos })
}

/// `Tue, 24 Nov 2026 10:00:00 GMT`, as HTTP headers have it.
pub fn parse_http_date(text: &str) -> Option<Time> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_once(", ")?.1.split(' ');
    let day: u32 = words.next()?.parse().ok()?;
    let name = words.next()?;
    let month = MONTHS.iter().position(|month| *month == name)? as u32 + 1;
    let year = i64::from(words.next()?.parse::<u16>().ok()?);
    let mut clock = words.next()?.splitn(3, ':');
    let (hour, minute, second): (u8, u8, u8) = (clock.next()?.parse().ok()?, clock.next()?.parse().ok()?, clock.next()?.parse().ok()?);
    let (hour, minute, second) = (i64::from(hour), i64::from(minute), i64::from(second));
    Some(Time { seconds: days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second, nanos: 0 })
}

/// Days since 1970 of a date in the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days(year: i64, month: u32, day: u32) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), i64::from(month));
    let of_era = year - era * 400;
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The date of a day since 1970.
pub fn civil(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = (of_year - (153 * month + 2) / 5 + 1) as u32;
    let month = if month < 10 { month + 3 } else { month - 9 } as u32;
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// s3fs writes a mode in decimal, rclone in octal. A decimal one has at most 16 bits; an octal one with a file type looks larger.
fn parse_mode(text: &str) -> Option<u32> {
    let text = text.trim();
    let decimal: u32 = text.parse().ok()?;
    if text.starts_with('0') || decimal > 0o177_777 { u32::from_str_radix(text, 8).ok() } else { Some(decimal) }
}

/// By the name's ending: what browsers need to show an object, and text that people read.
pub fn content_type(name: &[u8]) -> Option<&'static str> {
    let dot = name.iter().rposition(|&b| b == b'.')?;
    let ending = std::str::from_utf8(&name[dot + 1..]).ok()?.to_ascii_lowercase();
    Some(match ending.as_str() {
        "html" | "htm" => "text/html",
        "css" => "text/css",
        "js" | "mjs" => "text/javascript",
        "json" => "application/json",
        "xml" => "application/xml",
        "txt" | "log" | "text" => "text/plain",
        "md" => "text/markdown",
        "csv" => "text/csv",
        "yaml" | "yml" => "application/yaml",
        "pdf" => "application/pdf",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "svg" => "image/svg+xml",
        "webp" => "image/webp",
        "avif" => "image/avif",
        "ico" => "image/vnd.microsoft.icon",
        "tif" | "tiff" => "image/tiff",
        "mp3" => "audio/mpeg",
        "wav" => "audio/wav",
        "ogg" => "audio/ogg",
        "mp4" => "video/mp4",
        "webm" => "video/webm",
        "mov" => "video/quicktime",
        "zip" => "application/zip",
        "gz" | "tgz" => "application/gzip",
        "zst" => "application/zstd",
        "tar" => "application/x-tar",
        "7z" => "application/x-7z-compressed",
        "wasm" => "application/wasm",
        "woff" => "font/woff",
        "woff2" => "font/woff2",
        "ttf" => "font/ttf",
        "parquet" => "application/vnd.apache.parquet",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_understood() {
        let mut attributes = Attributes::default();
        attributes.set("Mtime", "1617196800.25");
        attributes.set("mode", "33188");
        assert_eq!((attributes.mtime, attributes.mode), (Some(Time { seconds: 1_617_196_800, nanos: 250_000_000 }), Some(0o100_644)));
        attributes.set("mtime", "2021-03-31T15:20:00.5+02:00");
        attributes.set("mode", "100755");
        assert_eq!((attributes.mtime, attributes.mode), (Some(Time { seconds: 1_617_196_800, nanos: 500_000_000 }), Some(0o100_755)));
        attributes.set("mtime", "yesterday");
        attributes.set("mode", "rw");
        assert_eq!(attributes.mode, Some(0o100_755), "what makes no sense changes nothing");
        assert_eq!(parse_mode("0644"), Some(0o644));
        assert!(Attributes { mode: Some(41_471), ..Attributes::default() }.is_link());
    }

    #[test]
    fn http_dates() {
        assert_eq!(parse_http_date("Wed, 31 Mar 2021 13:20:00 GMT"), Some(Time { seconds: 1_617_196_800, nanos: 0 }));
        assert_eq!(parse_http_date("soon"), None);
        assert_eq!(parse_http_date("Wed, 31 Mar 9223372036854775807 13:20:00 GMT"), None);
        assert_eq!(parse_http_date("Wed, 31 Mar 2021 9223372036854775807:20:00 GMT"), None);
        assert_eq!(parse_time("2021-03-31T10:00:00+9223372036854775807:00"), None);
        assert_eq!(parse_time("2021-03-31T10:9223372036854775807:00Z"), None);
    }

    #[test]
    fn what_others_gave_an_object_goes_along() {
        let mut attributes = Attributes::default();
        for (name, value) in [("mtime", "5"), ("Color", "blue"), ("größe", "1"), ("size", "groß"), ("hdi_isfolder", "true")] {
            attributes.take(name, value);
        }
        attributes.handle("content-encoding", Some("aws-chunked,gzip"));
        attributes.handle("content-language", Some(""));
        assert_eq!(attributes.mtime.map(|time| time.seconds), Some(5));
        assert_eq!(attributes.foreign().collect::<Vec<_>>(), [("Color", "blue")]);
        assert_eq!(attributes.all_foreign().count(), 3);
        assert_eq!(attributes.headers(), [("content-encoding", "gzip".to_owned())]);
        assert_eq!(attributes.own().more, None);
    }

    proptest::proptest! {
        #[test]
        fn times_come_back_as_they_were(seconds in -62_135_596_800i64..253_402_300_800, nanos in 0u32..1_000_000_000, style in 0..2) {
            let (time, style) = (Time { seconds, nanos }, if style == 0 { TimeStyle::Seconds } else { TimeStyle::Rfc3339 });
            proptest::prop_assert_eq!(parse_time(&print_time(time, style)), Some(time));
        }

        #[test]
        fn nothing_that_is_written_there_is_too_much(text in "\\PC{0,40}") {
            let mut attributes = Attributes::default();
            for name in ["mtime", "mode", "uid", "gid"] {
                attributes.set(name, &text);
            }
        }
    }
}
