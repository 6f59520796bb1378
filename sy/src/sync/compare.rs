//! Decides what has to happen to one entry, from what both sides say of it. No input, no output.

use crate::cli::{Links, Options};
use crate::transport::local::{Keep, same_time};
use crate::transport::{Kind, Meta, What};

use super::event::Reason;

/// The part of the options that decides what "equal" means.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    pub checksum: bool,
    pub size_only: bool,
    pub ignore_times: bool,
    pub update: bool,
    pub existing: bool,
    pub ignore_existing: bool,
    pub keep: Keep,
    pub devices: bool,
    pub skip_links: bool,
    pub min_size: u64,
    pub max_size: u64,
    /// Modification times, in nanoseconds since 1970, that age limits allow.
    pub oldest: i128,
    pub newest: i128,
    /// Of the coarser side, nanoseconds.
    pub precision: u64,
}

impl Rules {
    pub fn new(options: &Options, precision: u64, now: i128) -> Self {
        let ago = |span: Option<crate::cli::Span>| span.map(|span| now - span.0.as_nanos() as i128);
        Self {
            checksum: options.checksum,
            size_only: options.size_only,
            ignore_times: options.ignore_times,
            update: options.update,
            existing: options.existing,
            ignore_existing: options.ignore_existing,
            keep: Keep::new(options),
            devices: options.preserve_devices,
            skip_links: options.links == Links::Skip,
            min_size: options.min_size.map_or(0, |size| size.0),
            max_size: options.max_size.map_or(u64::MAX, |size| size.0),
            oldest: ago(options.max_age).unwrap_or(i128::MIN),
            newest: ago(options.min_age).unwrap_or(i128::MAX),
            precision,
        }
    }
}

/// What to do, and why; `Err` is a reason to leave the entry alone.
pub type Decision = Result<(What, Reason), Reason>;

/// `source` is anything but a directory; `dest` is what stands under its name, if anything does.
pub fn decide(rules: &Rules, source: &Meta, target: Option<&[u8]>, dest: Option<&Meta>, dest_target: Option<&[u8]>) -> Decision {
    if source.kind.is_special() && !rules.devices || source.kind == Kind::Symlink && rules.skip_links {
        return Err(Reason::NotPreserved);
    }
    if source.kind == Kind::File {
        if source.size < rules.min_size || source.size > rules.max_size {
            return Err(Reason::SizeLimit);
        }
        let mtime = source.mtime.total_nanos();
        let any_age = (rules.oldest, rules.newest) == (i128::MIN, i128::MAX);
        // Its age, and whether it is a link, may leave it out.
        if !source.known.all && (!any_age || rules.skip_links) {
            return Ok((What::Ask, Reason::New));
        }
        if mtime < rules.oldest || mtime > rules.newest {
            return Err(Reason::AgeLimit);
        }
    }
    let Some(dest) = dest else {
        return if rules.existing { Err(Reason::Missing) } else { Ok((What::Copy, Reason::New)) };
    };
    if rules.ignore_existing {
        return Err(Reason::Exists);
    }
    if !source.known.all || !dest.known.all {
        return decide_partly_known(rules, source, dest);
    }
    if source.kind != dest.kind {
        return Ok((What::Copy, Reason::Kind));
    }
    if rules.update
        && source.kind == Kind::File
        && source.known.mtime
        && dest.known.mtime
        && dest.mtime > source.mtime
        && !same_time(source, dest, rules.precision)
    {
        return Err(Reason::DestNewer);
    }
    let same = match source.kind {
        Kind::File => compare_files(rules, source, dest),
        Kind::Symlink => (target == dest_target).then_some(What::Attributes).ok_or(Reason::Target),
        Kind::CharDevice | Kind::BlockDevice => (source.rdev == dest.rdev).then_some(What::Attributes).ok_or(Reason::Target),
        Kind::Fifo | Kind::Socket | Kind::Dir => Ok(What::Attributes),
    };
    match same {
        Err(reason) => Ok((What::Copy, reason)),
        Ok(What::CopyIfDifferent) => Ok((What::CopyIfDifferent, Reason::Content)),
        Ok(_) => same_content(rules, source, dest),
    }
}

/// One side is an object of which only the size is known. A link is an object that is as long as its target.
fn decide_partly_known(rules: &Rules, source: &Meta, dest: &Meta) -> Decision {
    let like_files = |meta: &Meta| meta.kind == Kind::File || meta.kind == Kind::Symlink;
    if !like_files(source) || !like_files(dest) {
        return Ok((What::Copy, Reason::Kind));
    }
    match () {
        () if rules.update => Ok((What::Ask, Reason::Time)),
        () if rules.ignore_times => Ok((What::Copy, Reason::Forced)),
        () if source.size != dest.size => Ok((What::Copy, Reason::Size)),
        () if rules.size_only && source.kind == dest.kind => Err(Reason::Unchanged),
        () => Ok((What::Ask, Reason::Time)),
    }
}

/// What is left to do where the contents are known to be equal.
pub fn same_content(rules: &Rules, source: &Meta, dest: &Meta) -> Decision {
    match () {
        // Its metadata belong to other names as well, which the source does not have: it becomes a file of its own.
        () if source.kind == Kind::File && rules.keep.shares_metadata(source, dest, rules.precision) => Ok((What::Copy, Reason::HardLink)),
        () if rules.keep.differs(source, dest, rules.precision) => Ok((What::Metadata, Reason::Metadata)),
        () if rules.keep.reads_attributes(source.kind) => Ok((What::Attributes, Reason::Metadata)),
        () => Err(Reason::Unchanged),
    }
}

fn compare_files(rules: &Rules, source: &Meta, dest: &Meta) -> Result<What, Reason> {
    if rules.ignore_times {
        Err(Reason::Forced)
    } else if source.size != dest.size {
        Err(Reason::Size)
    } else if rules.checksum || !(rules.size_only || source.known.mtime && dest.known.mtime) {
        // What has no time is compared by what it holds.
        Ok(What::CopyIfDifferent)
    } else if rules.size_only || same_time(source, dest, rules.precision) {
        Ok(What::Attributes)
    } else {
        Err(Reason::Time)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Time;

    fn file(size: u64, seconds: i64) -> Meta {
        crate::transport::sample(size, Time { seconds, nanos: 1 })
    }

    fn with(change: impl FnOnce(&mut Options)) -> Rules {
        let mut options = Options::default();
        change(&mut options);
        Rules::new(&options, 1, 1_000_000_000_000)
    }

    fn verdict(rules: &Rules, source: &Meta, dest: Option<&Meta>) -> Decision {
        decide(rules, source, None, dest, None)
    }

    #[test]
    fn by_size_and_time() {
        let rules = with(|_| {});
        assert_eq!(verdict(&rules, &file(1, 1), None), Ok((What::Copy, Reason::New)));
        assert_eq!(verdict(&rules, &file(1, 1), Some(&file(1, 1))), Err(Reason::Unchanged));
        assert_eq!(verdict(&rules, &file(1, 1), Some(&file(2, 1))), Ok((What::Copy, Reason::Size)));
        assert_eq!(verdict(&rules, &file(1, 1), Some(&file(1, 2))), Ok((What::Copy, Reason::Time)));
    }

    #[test]
    fn by_other_rules() {
        let (old, new) = (file(1, 1), file(1, 2));
        for (rules, expected) in [
            (with(|o| o.checksum = true), Ok((What::CopyIfDifferent, Reason::Content))),
            (with(|o| o.size_only = true), Ok((What::Metadata, Reason::Metadata))),
            (with(|o| o.ignore_times = true), Ok((What::Copy, Reason::Forced))),
            (with(|o| o.update = true), Err(Reason::DestNewer)),
            (with(|o| o.ignore_existing = true), Err(Reason::Exists)),
            (with(|o| o.existing = true), Ok((What::Copy, Reason::Time))),
        ] {
            assert_eq!(verdict(&rules, &old, Some(&new)), expected);
        }
        assert_eq!(verdict(&with(|o| o.existing = true), &old, None), Err(Reason::Missing));
    }

    #[test]
    fn limits_hold_for_files_of_the_source() {
        assert_eq!(verdict(&with(|o| o.max_size = Some(crate::cli::Size(5))), &file(6, 1), None), Err(Reason::SizeLimit));
        assert_eq!(verdict(&with(|o| o.min_size = Some(crate::cli::Size(7))), &file(6, 1), None), Err(Reason::SizeLimit));
        let span = |s| Some(crate::cli::Span(std::time::Duration::from_secs(s)));
        // "Now" is second 1000.
        assert_eq!(verdict(&with(|o| o.min_age = span(10)), &file(6, 995), None), Err(Reason::AgeLimit));
        assert_eq!(verdict(&with(|o| o.max_age = span(10)), &file(6, 985), None), Err(Reason::AgeLimit));
        assert_eq!(verdict(&with(|o| o.max_age = span(10)), &file(6, 995), None), Ok((What::Copy, Reason::New)));
    }

    #[test]
    fn what_may_be_a_link_is_asked_for_where_links_are_left_out() {
        let rules = with(|o| o.links = Links::Skip);
        let unknown = Meta { known: crate::transport::Known::NOTHING, ..file(1, 1) };
        assert_eq!(verdict(&rules, &unknown, None), Ok((What::Ask, Reason::New)));
        assert_eq!(verdict(&with(|_| {}), &unknown, None), Ok((What::Copy, Reason::New)));
        let link = Meta { kind: Kind::Symlink, ..file(1, 1) };
        assert_eq!(verdict(&rules, &link, Some(&link)), Err(Reason::NotPreserved));
    }

    #[test]
    fn coarse_file_systems_agree_within_their_precision() {
        let (mut a, mut b) = (file(1, 11), file(1, 10));
        (a.mtime.nanos, b.mtime.nanos) = (500, 0);
        assert!(same_time(&a, &b, 2_000_000_000));
        assert!(!same_time(&a, &b, 1_000_000_000));
        b.mtime = Time { seconds: 12, nanos: 0 };
        assert!(!same_time(&a, &b, 2_000_000_000), "a change by less than what can be told, but seen");
        b.mtime.seconds = 10;
        assert!(!same_time(&a, &b, 1));
        (b.mtime.seconds, b.ctime.nanos) = (11, 0);
        assert!(same_time(&a, &b, 1), "a side with whole seconds only");
    }
}
