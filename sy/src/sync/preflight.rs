//! What can be known before the first write: what the two paths mean, and whether the run makes sense at all.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::control::Control;
use super::plan::Start;
use crate::cli::{Links, Options, both_names};
use crate::error::{ErrorKind, Printable, Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::transport::access::{Access, Accesses};
use crate::transport::cloud::{CloudEndpoint, plain_key};
use crate::transport::local::{Aside, Follow, LocalEndpoint};
use crate::transport::open::{self, Opened};
use crate::transport::ssh::connect::Target;
use crate::transport::ssh::{Here, SshConfig, SshEndpoint, boot, deploy, sftp};
use crate::transport::{Capabilities, Endpoint, Kind, Listing, Meta};

/// As `both_names` would name it together with its value.
const FOLLOW: &str = "links=\"follow\" (--links follow)";

/// Both sides, open.
#[derive(Debug)]
pub struct Sides {
    pub source: Opened,
    /// `None` in a dry run into a destination that does not exist.
    pub dest: Option<Opened>,
    /// What the user should know about how they were opened.
    pub notes: Vec<String>,
    start: Intent,
}

#[derive(Debug)]
enum Intent {
    Contents { made: bool },
    One { name: Vec<u8>, as_name: Option<Vec<u8>> },
}

/// Options that this pair of locations can't honour, or that make no sense together.
pub fn check_options(source: &SyncPath, dest: &SyncPath, options: &Options) -> Result<()> {
    for path in [source, dest] {
        open::check(path)?;
    }
    let on_host = source.is_on_host() || dest.is_on_host();
    for (set, name, why) in [
        (options.compress && !on_host, "compress", "only what travels over SSH is compressed"),
        (
            options.daemon_auto && ![source, dest].into_iter().any(|path| path.is_on_host() && !is_sftp(path)),
            "daemon_auto",
            "only connections to an agent over SSH are kept",
        ),
        (options.bidirectional, "bidirectional", "this version of sypy syncs one way only"),
        (options.conflict_resolve != Options::default().conflict_resolve, "conflict_resolve", "this version of sypy syncs one way only"),
        (
            options.trash && !dest.is_local() && (!dest.is_on_host() || is_sftp(dest)),
            "trash",
            "only file systems have a trash; backup_dir (--backup-dir) keeps what is replaced",
        ),
        (options.links == Links::Follow && is_sftp(source), "links", "over SFTP links are not followed"),
        (options.links == Links::Follow && !source.is_local() && !source.is_on_host(), "links", "links in an object store lead nowhere"),
    ] {
        if set {
            return Err(SyncError::unsupported(format!(
                "{} can't be honoured: {why}",
                if name == "links" { FOLLOW.to_owned() } else { both_names(name) }
            )));
        }
    }
    if options.numeric_ids && !(options.preserve_owner || options.archive) {
        return Err(SyncError::config(format!("{} does nothing without {}", both_names("numeric_ids"), both_names("preserve_owner"))));
    }
    let exclusive = [(options.checksum, "checksum"), (options.size_only, "size_only"), (options.ignore_times, "ignore_times")];
    let chosen: Vec<String> = exclusive.iter().filter(|(set, _)| *set).map(|(_, name)| both_names(name)).collect();
    if chosen.len() > 1 {
        return Err(SyncError::config(format!("{} exclude each other", chosen.join(" and "))));
    }
    if options.remove_source_files && options.links == Links::Follow {
        return Err(SyncError::config(format!("{} and {FOLLOW} exclude each other", both_names("remove_source_files")))
            .hint("what a link leads to may be needed under other names, or by others"));
    }
    if options.unsafe_links && options.links != Links::Follow {
        return Err(SyncError::config(format!("{} does nothing without {FOLLOW}", both_names("unsafe_links"))));
    }
    if options.bwlimit.is_some_and(|rate| rate.0 == 0) {
        return Err(SyncError::config("bwlimit must be more than 0 bytes per second").hint("leave it out for no limit"));
    }
    if options.parallel == Some(0) {
        return Err(SyncError::config("parallel must be 1 or more"));
    }
    if options.delete_threshold > 100 {
        return Err(SyncError::config(format!("{} must be a percentage from 0 to 100", both_names("delete_threshold"))));
    }
    if let (Some(min), Some(max)) = (options.min_size, options.max_size)
        && min > max
    {
        return Err(SyncError::config(format!("{} is larger than {}", both_names("min_size"), both_names("max_size"))));
    }
    Ok(())
}

/// What one of both sides can't keep is an error where it was asked for by name, and left out of `archive`.
fn fit(options: &mut Options, source: Option<Capabilities>, dest: Capabilities, path: &SyncPath) -> Result<()> {
    let both = |kept: fn(&Capabilities) -> bool| kept(&dest) && source.as_ref().is_none_or(kept);
    let kept = [both(|c| c.xattrs), both(|c| c.acls), both(|c| c.owner), both(|c| c.hard_links), both(|c| c.devices)];
    let wanted = [
        (&mut options.preserve_xattrs, "preserve_xattrs"),
        (&mut options.preserve_acls, "preserve_acls"),
        (&mut options.preserve_owner, "preserve_owner"),
        (&mut options.preserve_hardlinks, "preserve_hardlinks"),
        (&mut options.preserve_devices, "preserve_devices"),
    ];
    for ((wanted, name), kept) in wanted.into_iter().zip(kept) {
        if *wanted && !kept {
            if !options.archive {
                return Err(
                    SyncError::unsupported(format!("the storage can't honour {}", both_names(name))).at("write to", path.to_bytes())
                );
            }
            *wanted = false;
        }
    }
    Ok(())
}

/// The source, open, and what of it is meant.
struct From {
    opened: Opened,
    /// One entry of it; its contents otherwise.
    one: Option<Vec<u8>>,
    what: Kind,
    /// The path without links, for those on this machine.
    real: PathBuf,
    /// The same directory, where a host turned out to be this machine.
    twin: Option<LocalEndpoint>,
}

/// A local source, open.
pub struct LocalSource {
    pub opened: LocalEndpoint,
    pub one: Option<Vec<u8>>,
    pub what: Kind,
    pub real: PathBuf,
}

/// What the destination has to know of the source.
pub struct Needs<'f> {
    pub what: Kind,
    pub one: Option<&'f [u8]>,
    /// The source where it is on this machine, and its path without links.
    pub local: Option<(&'f LocalEndpoint, &'f Path)>,
    /// What a source elsewhere can tell; a local one tells all.
    pub capabilities: Option<Capabilities>,
    /// Refuses a source that is not there.
    pub holds_something: &'f dyn Fn() -> Result<()>,
}

/// Opens both sides, making the destination, after everything that can be checked has been.
pub fn open(source: &SyncPath, dest: &SyncPath, options: &mut Options, accesses: &Accesses, control: &Control) -> Result<Sides> {
    let follow = match (options.links, options.unsafe_links) {
        (Links::Follow, true) => Follow::Anywhere,
        (Links::Follow, false) => Follow::Within,
        _ => Follow::Never,
    };
    let mut notes = Vec::new();
    let from = match source.as_local() {
        Some(path) => {
            let LocalSource { opened, one, what, real } = open_local_source(path, source.has_trailing_slash(), follow, control)?;
            From::new(Opened::Local(opened), one, what, real)
        }
        None if source.is_on_host() => open_host_source(source, options, &accesses.source, follow, control, &mut notes)?,
        None => open_cloud_source(source, &accesses.source, control)?,
    };
    let (opened, made, as_name) = match dest.as_local() {
        Some(path) => {
            let LocalDest { opened, made, as_name } =
                open_local_dest(path, dest, &from.needs(&|| from.must_hold_something()), options, control)?;
            (opened.map(Opened::Local), made, as_name)
        }
        None if dest.is_on_host() => open_host_dest(dest, &from, options, &accesses.dest, control, &mut notes)?,
        None => open_cloud_dest(dest, &from, options, &accesses.dest, control)?,
    };
    let start = match from.one {
        None => Intent::Contents { made },
        Some(name) => Intent::One { name, as_name },
    };
    Ok(Sides { source: from.opened, dest: opened, notes, start })
}

pub fn open_local_source(from: &Path, trailing_slash: bool, follow: Follow, control: &Control) -> Result<LocalSource> {
    let contents = trailing_slash || !matches!(from.components().next_back(), Some(Component::Normal(_)));
    let (root, one) = if contents {
        (from.to_path_buf(), None)
    } else {
        let name = from.file_name().unwrap_or_default().as_bytes().to_vec();
        (parent_of(from), Some(name))
    };
    let opened = LocalEndpoint::open(&root, follow, control).map_err(|errno| missing_source(errno, from))?;
    let found = match &one {
        Some(name) => Some(opened.stat(b"", name)?.ok_or_else(|| missing_source(Errno::NOENT, from))?.0),
        None => None,
    };
    let what = found.map_or(Kind::Dir, |meta| meta.kind);
    // A link that is followed is where it leads.
    let followed = one.as_deref().filter(|_| follow != Follow::Never && what == Kind::Dir).and_then(|name| opened.real_path_of(name));
    let real = followed.map_or_else(|| real(opened.real_path(), one.as_deref()), |path| real(&path, None));
    Ok(LocalSource { opened, one, what, real })
}

fn open_ssh_source(source: &SyncPath, options: &Options, access: &Access, follow: Follow, control: &Control) -> Result<From> {
    let config = access.ssh.clone().unwrap_or_default();
    let endpoint = SshEndpoint::source(source, &config, follow, options, &control.stop())?;
    let one = endpoint.one().map(<[u8]>::to_vec);
    let what = if endpoint.is_dir() { Kind::Dir } else { Kind::File };
    // On this machine it may overlap the destination.
    let twin = endpoint.here().map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let real = twin
        .as_ref()
        .map_or_else(PathBuf::new, |path| one.as_ref().map_or_else(|| path.clone(), |name| path.join(OsStr::from_bytes(name))));
    let twin = twin.and_then(|path| LocalEndpoint::open(&path, Follow::Never, control).ok());
    Ok(From { twin, ..From::new(Opened::Ssh(Box::new(endpoint)), one, what, real) })
}

fn open_ssh_dest(dest: &SyncPath, from: &From, options: &mut Options, access: &Access, control: &Control) -> Result<Dest> {
    from.must_hold_something()?;
    let config = access.ssh.clone().unwrap_or_default();
    let (one, source) = (from.one.as_deref(), from.opened.endpoint().capabilities());
    let here = from.place(dest, &config)?;
    let opened = SshEndpoint::dest(dest, &config, from.what == Kind::Dir, one, source, options, here, &control.stop())?;
    let Some(endpoint) = opened else { return Ok((None, true, None)) };
    let Some(known) = endpoint.dest_known() else { return Ok((None, true, None)) };
    for (own, theirs) in [
        (&mut options.preserve_xattrs, known.options.preserve_xattrs),
        (&mut options.preserve_acls, known.options.preserve_acls),
        (&mut options.preserve_owner, known.options.preserve_owner),
        (&mut options.preserve_hardlinks, known.options.preserve_hardlinks),
        (&mut options.preserve_devices, known.options.preserve_devices),
    ] {
        *own = theirs;
    }
    let (made, as_name) = (known.made, known.as_name.clone());
    Ok((Some(Opened::Ssh(Box::new(endpoint))), made, as_name))
}

/// A key without a slash at the end may be an object, or a directory that goes as such.
fn open_cloud_source(source: &SyncPath, access: &Access, control: &Control) -> Result<From> {
    let store = open::store(source, access, &control.stop())?;
    let endpoint = |store, path: &[u8]| CloudEndpoint::new(store, path, control.stop(), true);
    let Some(key) = source.path.strip_suffix(b"/").map_or(Some(source.path.as_slice()).filter(|key| !key.is_empty()), |_| None) else {
        let root = source.path.strip_suffix(b"/").unwrap_or_default();
        return Ok(From::new(Opened::Cloud(endpoint(store, root)), None, Kind::Dir, PathBuf::new()));
    };
    let (root, name) = crate::transport::split_key(key);
    let endpoint = endpoint(store, root);
    let gone = || SyncError::new(ErrorKind::NotFound, "nothing is there").at("open the source", source.to_bytes());
    let (meta, _) = endpoint.stat(b"", name)?.ok_or_else(gone)?;
    Ok(From::new(Opened::Cloud(endpoint), Some(name.to_vec()), meta.kind, PathBuf::new()))
}

/// Is it to be reached over SFTP, whatever else the host has?
fn is_sftp(path: &SyncPath) -> bool {
    matches!(path.scheme, Scheme::Ssh { sftp: true, .. })
}

/// What a run over SFTP lacks.
fn over_sftp(path: &SyncPath, why: &SyncError) -> String {
    let host = SyncPath { path: Vec::new(), ..path.clone() };
    format!(
        "{}: {}; going on over SFTP: no differences of changed files, whole seconds, no attributes, no trash",
        Printable(&host.to_bytes()),
        why.message
    )
}

fn open_host_source(
    source: &SyncPath,
    options: &Options,
    access: &Access,
    follow: Follow,
    control: &Control,
    notes: &mut Vec<String>,
) -> Result<From> {
    if !is_sftp(source) {
        match open_ssh_source(source, options, access, follow, control) {
            Err(error)
                if deploy::is_absence(&error)
                    && follow == Follow::Never
                    && access.ssh.as_ref().is_none_or(|ssh| ssh.agent_path.is_none()) =>
            {
                notes.push(over_sftp(source, &error));
            }
            other => return other,
        }
    }
    open_sftp_source(source, options, access, control)
}

fn open_host_dest(
    dest: &SyncPath,
    from: &From,
    options: &mut Options,
    access: &Access,
    control: &Control,
    notes: &mut Vec<String>,
) -> Result<Dest> {
    if !is_sftp(dest) {
        match open_ssh_dest(dest, from, options, access, control) {
            Err(error)
                if deploy::is_absence(&error) && !options.trash && access.ssh.as_ref().is_none_or(|ssh| ssh.agent_path.is_none()) =>
            {
                notes.push(over_sftp(dest, &error));
            }
            other => return other,
        }
    }
    open_sftp_dest(dest, from, options, access, control)
}

fn place(path: &SyncPath, options: &Options, access: &Access, control: &Control) -> Result<sftp::Place> {
    let again = sftp::Again { times: options.retry, delay: options.retry_delay.0 };
    let mut config = access.ssh.clone().unwrap_or_default();
    config.compression |= options.compress;
    sftp::Place::connect(path, &config, again, &control.stop())
}

fn open_sftp_source(source: &SyncPath, options: &Options, access: &Access, control: &Control) -> Result<From> {
    let place = place(source, options, access, control)?;
    let fail = |failure: sftp::Failure| failure.at("open the source", source.to_bytes());
    let one = if source.has_trailing_slash() { None } else { place.parent() };
    let Some((parent, name)) = one else {
        let endpoint = place.open(false).map_err(fail)?;
        return Ok(From::new(Opened::Sftp(endpoint), None, Kind::Dir, PathBuf::new()));
    };
    let endpoint = parent.open(false).map_err(fail)?;
    let gone = || SyncError::os(Errno::NOENT, "open the source", source.to_bytes());
    let (meta, _) = endpoint.stat(b"", &name)?.ok_or_else(gone)?;
    Ok(From::new(Opened::Sftp(endpoint), Some(name), meta.kind, PathBuf::new()))
}

/// The open destination, whether it has yet to be made, and the name there of a single entry.
type Dest = (Option<Opened>, bool, Option<Vec<u8>>);

/// A local destination.
pub struct LocalDest {
    /// `None` where a dry run finds nothing.
    pub opened: Option<LocalEndpoint>,
    /// It was not there.
    pub made: bool,
    /// The name there of a single entry, where that is another.
    pub as_name: Option<Vec<u8>>,
}

pub fn open_local_dest(to: &Path, dest: &SyncPath, from: &Needs<'_>, options: &mut Options, control: &Control) -> Result<LocalDest> {
    let dest_state = match rustix::fs::stat(to) {
        Ok(state) if rustix::fs::FileType::from_raw_mode(state.st_mode).is_dir() => State::Directory,
        Ok(_) => State::Other,
        Err(Errno::NOENT) => State::Absent,
        Err(errno) => return Err(SyncError::os(errno, "open the destination", &dest.path)),
    };
    // A single file takes the destination's very name, unless that is, or is written as, a directory.
    let renamed = from.what != Kind::Dir && !dest.has_trailing_slash() && dest_state != State::Directory && to.file_name().is_some();
    if dest_state == State::Other && !renamed {
        return Err(SyncError::new(ErrorKind::AlreadyExists, "the destination is not a directory").at("write to", &dest.path));
    }
    let (dest_root, as_name) =
        if renamed { (parent_of(to), to.file_name().map(|name| name.as_bytes().to_vec())) } else { (to.to_path_buf(), None) };
    if let Some((source, source_real)) = from.local {
        let dest_real = real(&absolute(&dest_root)?, as_name.as_deref().or(from.one));
        refuse_overlap(source_real, &dest_real, from.what, dest)?;
        check_backup_dir(options, source, from.one, source_real, &absolute(&dest_root)?)?;
    }
    if control.should_stop() {
        return Err(SyncError::cancelled());
    }
    let existed = LocalEndpoint::open(&dest_root, Follow::Never, control);
    // Where nothing is yet, what will be made there is like what it will stand in.
    let nearest = || std::path::absolute(&dest_root).ok()?.ancestors().find_map(|up| LocalEndpoint::open(up, Follow::Never, control).ok());
    let capabilities = existed.as_ref().map(LocalEndpoint::capabilities).ok().or_else(|| nearest().map(|up| up.capabilities()));
    if let Some(capabilities) = capabilities {
        fit(options, from.capabilities, capabilities, dest)?;
    }
    let (opened, made) = match existed {
        Ok(endpoint) => (Some(endpoint), false),
        Err(Errno::NOENT) if options.dry_run => (None, true),
        Err(Errno::NOENT) => {
            (from.holds_something)()?;
            std::fs::create_dir_all(&dest_root).map_err(|error| SyncError::io(&error, "create", &dest_root))?;
            let endpoint = LocalEndpoint::open(&dest_root, Follow::Never, control)
                .map_err(|errno| SyncError::os(errno, "open", dest_root.as_os_str().as_bytes()))?;
            (Some(endpoint), true)
        }
        Err(errno) => return Err(SyncError::os(errno, "open the destination", dest_root.as_os_str().as_bytes())),
    };
    Ok(LocalDest { opened, made, as_name })
}

fn open_cloud_dest(dest: &SyncPath, from: &From, options: &mut Options, access: &Access, control: &Control) -> Result<Dest> {
    let store = open::store(dest, access, &control.stop())?;
    let path = dest.path.strip_suffix(b"/").unwrap_or(&dest.path);
    let mut endpoint = CloudEndpoint::new(store, path, control.stop(), false);
    let mut as_name = None;
    // A single file takes the very name, unless that is, or is written as, a directory.
    if from.what != Kind::Dir && !path.is_empty() && !dest.has_trailing_slash() && !endpoint.holds_anything(b"")? {
        let (root, name) = crate::transport::split_key(path);
        as_name = Some(name.to_vec());
        endpoint = endpoint.at_prefix(root);
    }
    fit(options, from.distant_capabilities(), endpoint.capabilities(), dest)?;
    check_plain_backup_dir(options)?;
    if let Opened::Cloud(source) = &from.opened {
        refuse_distant_overlap(source, &endpoint, from, as_name.as_deref(), dest)?;
    }
    Ok((Some(Opened::Cloud(endpoint)), false, as_name))
}

fn open_sftp_dest(dest: &SyncPath, from: &From, options: &mut Options, access: &Access, control: &Control) -> Result<Dest> {
    let place = place(dest, options, access, control)?;
    let fail = |failure: sftp::Failure| failure.at("open the destination", dest.to_bytes());
    let state = match place.kind().map_err(fail)? {
        Some(Kind::Dir) => State::Directory,
        Some(_) => State::Other,
        None => State::Absent,
    };
    // A single file takes the destination's very name, unless that is, or is written as, a directory.
    let single = from.what != Kind::Dir && !dest.has_trailing_slash() && state != State::Directory;
    let renamed = if single { place.parent() } else { None };
    if state == State::Other && renamed.is_none() {
        return Err(SyncError::new(ErrorKind::AlreadyExists, "the destination is not a directory").at("write to", dest.to_bytes()));
    }
    let (place, as_name) = renamed.map_or((place, None), |(parent, name)| (parent, Some(name)));
    let there = place.kind().map_err(fail)?.is_some();
    let endpoint = if there { place.open(true) } else { place.imagine() }.map_err(fail)?;
    check_plain_backup_dir(options)?;
    if options.durable && !endpoint.can_sync() {
        return Err(SyncError::unsupported("durable can't be honoured: the server lacks the extension fsync@openssh.com"));
    }
    fit(options, from.distant_capabilities(), endpoint.capabilities(), dest)?;
    if matches!(from.opened, Opened::Sftp(_) | Opened::Ssh(_)) {
        refuse_distant_overlap(from.opened.endpoint(), &endpoint, from, as_name.as_deref(), dest)?;
    }
    if control.should_stop() {
        return Err(SyncError::cancelled());
    }
    match there {
        true => Ok((Some(Opened::Sftp(endpoint)), false, as_name)),
        false if options.dry_run => Ok((None, true, as_name)),
        false => {
            from.must_hold_something()?;
            place.make().map_err(|failure| failure.at("create", dest.to_bytes()))?;
            Ok((Some(Opened::Sftp(place.open(true).map_err(fail)?)), true, as_name))
        }
    }
}

/// Where nothing but its own tree can be reached, the backups are below the destination.
fn check_plain_backup_dir(options: &Options) -> Result<()> {
    match &options.backup_dir {
        Some(dir) if dir.is_absolute() || dir.components().any(|part| !matches!(part, Component::Normal(_))) => {
            Err(SyncError::config("backup_dir must be a plain relative path below the destination, where that is not local"))
        }
        _ => Ok(()),
    }
}

/// Neither of two distant sides may be, or lie within, the other, as far as their names tell.
fn refuse_distant_overlap(source: &dyn Endpoint, dest: &dyn Endpoint, from: &From, as_name: Option<&[u8]>, named: &SyncPath) -> Result<()> {
    let whole = |endpoint: &dyn Endpoint, name: Option<&[u8]>| {
        let mut whole = endpoint.identity();
        // One host may be reached both ways.
        if let Some(host) = whole.strip_prefix(b"sftp://") {
            whole = [b"ssh://", host].concat();
        }
        for part in [Some(&b""[..]), name] {
            let Some(part) = part else { continue };
            whole.extend_from_slice(part);
            if whole.last() != Some(&b'/') {
                whole.push(b'/');
            }
        }
        whole
    };
    let (a, b) = (whole(source, from.one.as_deref()), whole(dest, as_name.or(from.one.as_deref())));
    let refuse = |how: &str| Err(SyncError::config(format!("the destination {how}")).at("sync into", named.to_bytes()));
    if a == b {
        return refuse("is the source");
    }
    if from.what == Kind::Dir && b.starts_with(&a) {
        return refuse("lies within the source");
    }
    if from.what == Kind::Dir && a.starts_with(&b) {
        return refuse("holds the source");
    }
    Ok(())
}

impl From {
    fn new(opened: Opened, one: Option<Vec<u8>>, what: Kind, real: PathBuf) -> Self {
        Self { opened, one, what, real, twin: None }
    }

    fn needs<'f>(&'f self, holds_something: &'f dyn Fn() -> Result<()>) -> Needs<'f> {
        Needs {
            what: self.what,
            one: self.one.as_deref(),
            local: self.opened.local().or(self.twin.as_ref()).map(|opened| (opened, self.real.as_path())),
            capabilities: self.distant_capabilities(),
            holds_something,
        }
    }

    /// Where the source is, for a destination on a host, which must not overlap with it.
    fn place(&self, dest: &SyncPath, config: &SshConfig) -> Result<Option<Here>> {
        Ok(match &self.opened {
            Opened::Local(source) => {
                let whole = self.real.as_os_str().as_bytes().to_vec();
                Some(Here { boot: boot(), root: source.real_path().to_vec(), whole, meta: Some(source.root_meta()?) })
            }
            Opened::Ssh(source) => Some(source.place()),
            Opened::Sftp(source) => {
                let (host, root) = source.place();
                let whole = real(root, self.one.as_deref()).into_os_string().into_encoded_bytes();
                let one_host = Target::of(dest).is_some_and(|target| target.id(config) == host);
                one_host.then(|| Here { boot: Vec::new(), root: root.to_vec(), whole, meta: None })
            }
            Opened::Cloud(_) => None,
        })
    }

    /// What a source that is not local can tell; every local one tells all.
    fn distant_capabilities(&self) -> Option<Capabilities> {
        match self.opened {
            Opened::Local(_) => None,
            Opened::Cloud(_) | Opened::Ssh(_) | Opened::Sftp(_) => Some(self.opened.endpoint().capabilities()),
        }
    }

    /// Nothing is made for a source that is not there.
    fn must_hold_something(&self) -> Result<()> {
        match (&self.opened, &self.one) {
            (Opened::Cloud(endpoint), None) => endpoint.list(b"").map(drop),
            _ => Ok(()),
        }
    }
}

/// The directory that holds a path; a bare name stands in the current one.
fn parent_of(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}

#[derive(PartialEq)]
enum State {
    Absent,
    Directory,
    Other,
}

impl Sides {
    /// Where the walk begins.
    pub fn start(&self, source: &dyn Endpoint) -> Result<Start> {
        match &self.start {
            Intent::Contents { made } => Ok(Start::Contents {
                source: source.root_meta()?,
                dest: match &self.dest {
                    Some(dest) if !made => Some(dest.endpoint().root_meta()?),
                    _ => None,
                },
            }),
            Intent::One { name, as_name } => {
                let (source, _) =
                    single(source, name, name)?.ok_or_else(|| missing_source(Errno::NOENT, Path::new(OsStr::from_bytes(name))))?;
                let dest = match &self.dest {
                    Some(dest) => single(dest.endpoint(), as_name.as_ref().unwrap_or(name), name)?,
                    None => None,
                };
                let mut dest = dest.map_or_else(Listing::default, |(listing, _)| listing);
                dest.leftovers = match &self.dest {
                    Some(Opened::Local(dest)) => dest.leftovers(),
                    Some(Opened::Ssh(dest)) => dest.dest_known().map_or_else(Vec::new, |known| known.leftovers.clone()),
                    _ => Vec::new(),
                };
                Ok(Start::One { source, dest, rename: as_name.clone().filter(|other| other != name).map(Vec::into_boxed_slice) })
            }
        }
    }

    /// What the run writes into, if that is one entry of the destination only.
    pub fn only(&self) -> Option<&[u8]> {
        match &self.start {
            Intent::Contents { .. } => None,
            Intent::One { name, as_name } => Some(as_name.as_ref().unwrap_or(name)),
        }
    }

    /// Keys below the destination that are never deleted: the backups, the trash, and our own state.
    pub fn spared(&self, options: &Options) -> Vec<Vec<u8>> {
        match &self.dest {
            Some(Opened::Local(dest)) => spared(dest, options),
            Some(Opened::Cloud(_) | Opened::Sftp(_)) => options.backup_dir.iter().map(|dir| plain_key(dir)).collect(),
            Some(Opened::Ssh(dest)) => dest.dest_known().map_or_else(Vec::new, |known| known.spared.clone()),
            None => Vec::new(),
        }
    }
}

/// Keys below a local destination that are never deleted.
pub fn spared(dest: &LocalEndpoint, options: &Options) -> Vec<Vec<u8>> {
    let root = Path::new(OsStr::from_bytes(dest.real_path()));
    let backups = options.backup_dir.as_ref().map(|dir| root.join(dir));
    let trash = options.trash.then(|| Aside::trash_dir(dest.handle(), dest.real_path(), false).ok()).flatten();
    [backups, trash, crate::state::directory()]
        .into_iter()
        .flatten()
        .filter_map(|path| {
            let path = PathBuf::from(OsStr::from_bytes(&absolute(&path).ok()?));
            let key = path.strip_prefix(root).ok()?.as_os_str().as_bytes().to_vec();
            (!key.is_empty()).then_some(key)
        })
        .collect()
}

/// The backups must not get into the way of what is synced.
fn check_backup_dir(options: &Options, source: &LocalEndpoint, one: Option<&[u8]>, source_real: &Path, dest_root: &[u8]) -> Result<()> {
    let Some(dir) = &options.backup_dir else { return Ok(()) };
    let root = Path::new(OsStr::from_bytes(dest_root));
    let path = PathBuf::from(OsStr::from_bytes(&absolute(&root.join(dir))?));
    let refuse = |why: &str| {
        Err(SyncError::config(format!("{} {why}", both_names("backup_dir"))).at("keep backups in", path.as_os_str().as_bytes()))
    };
    if path.starts_with(source_real) {
        return refuse("lies within the source");
    }
    let Ok(key) = path.strip_prefix(root) else { return Ok(()) };
    let key = key.as_os_str().as_bytes();
    if key.is_empty() {
        return refuse("is the destination itself");
    }
    let taken = |key: &[u8]| {
        let (parent, name) = crate::transport::split_key(key);
        one.is_none_or(|one| key == one || key.strip_prefix(one).is_some_and(|rest| rest.starts_with(b"/")))
            && source.stat(parent, name).is_ok_and(|found| found.is_some())
    };
    if taken(key) { refuse("is a name that the source has too") } else { Ok(()) }
}

/// A listing of one entry, under the name that it goes by in the run.
fn single(endpoint: &dyn Endpoint, name: &[u8], known_as: &[u8]) -> Result<Option<(Listing, Meta)>> {
    let Some((meta, target)) = endpoint.stat(b"", name)? else { return Ok(None) };
    let mut listing = Listing::default();
    listing.push(known_as, meta, target);
    Ok(Some((listing, meta)))
}

fn missing_source(errno: Errno, path: &Path) -> SyncError {
    SyncError::os(errno, "open the source", path.as_os_str().as_bytes())
}

fn real(root: &[u8], name: Option<&[u8]>) -> PathBuf {
    let root = Path::new(OsStr::from_bytes(root));
    name.map_or_else(|| root.to_path_buf(), |name| root.join(OsStr::from_bytes(name)))
}

/// The path without links, as far as it exists; the rest as written.
fn absolute(path: &Path) -> Result<Vec<u8>> {
    let fail = |error: std::io::Error| SyncError::io(&error, "find", path);
    let whole = std::path::absolute(path).map_err(fail)?;
    let mut rest = Vec::new();
    let mut at = whole.as_path();
    loop {
        match at.canonicalize() {
            Ok(mut found) => {
                found.extend(rest.iter().rev());
                return Ok(found.into_os_string().into_encoded_bytes());
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => match (at.parent(), at.file_name()) {
                (Some(parent), Some(name)) => {
                    rest.push(name);
                    at = parent;
                }
                _ => return Err(fail(error)),
            },
            Err(error) => return Err(fail(error)),
        }
    }
}

/// Neither side may be, or lie within, the other.
fn refuse_overlap(source: &Path, dest: &Path, what: Kind, named: &SyncPath) -> Result<()> {
    let refuse = |how: &str| Err(SyncError::config(format!("the destination {how}")).at("sync into", &named.path));
    if what != Kind::Dir {
        // Two names of one file may be what the user has; the same name is not.
        return if source == dest { refuse("is the source") } else { Ok(()) };
    }
    // By identity, not only by name: a bind mount gives a directory a second path.
    let id = |path: &Path| rustix::fs::lstat(path).ok().map(|s| (s.st_dev, s.st_ino));
    let (source_id, dest_id) = (id(source), id(dest));
    let same = |up: &Path, other: &Path, other_id: Option<(u64, u64)>| up == other || other_id.is_some() && id(up) == other_id;
    if source == dest || source_id.is_some() && source_id == dest_id {
        return refuse("is the source");
    }
    if dest.ancestors().skip(1).any(|up| same(up, source, source_id)) {
        return refuse("lies within the source");
    }
    if source.ancestors().skip(1).any(|up| same(up, dest, dest_id)) {
        return refuse("holds the source");
    }
    Ok(())
}
