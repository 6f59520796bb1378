//! Opens locations, and finds the lane between two of them. Here, and nowhere else, kinds of storage are told apart.

use super::access::Access;
use super::accounts::Here;
use super::cloud::{CloudEndpoint, DownloadLane, LocalSource, ObjectSource, RelayLane, Store, UploadLane};
use super::local::{LocalEndpoint, LocalLane, Reader};
use super::ssh::sftp::{self, SftpEndpoint, SftpReader};
use super::ssh::{PullLane, PushLane, RelayLane as HostRelayLane, SshEndpoint, SshReader, pace, relay_pace};
use super::{Endpoint, Lane};
use crate::cli::Options;
use crate::error::{Result, SyncError};
use crate::path::{Scheme, SyncPath};
use crate::sync::{Control, Owners, Stop, Tally};

/// An open location.
#[derive(Debug)]
pub enum Opened {
    Local(LocalEndpoint),
    Cloud(CloudEndpoint),
    Ssh(Box<SshEndpoint>),
    Sftp(SftpEndpoint),
}

impl Opened {
    pub fn endpoint(&self) -> &dyn Endpoint {
        match self {
            Self::Local(endpoint) => endpoint,
            Self::Cloud(endpoint) => endpoint,
            Self::Ssh(endpoint) => &**endpoint,
            Self::Sftp(endpoint) => endpoint,
        }
    }

    pub fn local(&self) -> Option<&LocalEndpoint> {
        match self {
            Self::Local(endpoint) => Some(endpoint),
            Self::Cloud(_) | Self::Ssh(_) | Self::Sftp(_) => None,
        }
    }
}

/// Whose users and groups both sides have, where these may go by different numbers and both know names.
pub fn owners<'r>(source: &'r Opened, dest: &'r Opened) -> Option<Owners<'r>> {
    match (source, dest) {
        (Opened::Ssh(source), Opened::Ssh(dest)) => Some(Owners::new(&**source, &**dest)),
        (Opened::Ssh(source), Opened::Local(_)) => Some(Owners::new(&**source, &Here)),
        (Opened::Local(_), Opened::Ssh(dest)) => Some(Owners::new(&Here, &**dest)),
        _ => None,
    }
}

/// The store that a location names, if it is in one.
pub fn store(path: &SyncPath, access: &Access, stop: &Stop) -> Result<Box<dyn Store>> {
    #[allow(unused_variables, reason = "depends on the features of the build")]
    let (access, stop) = (access, stop);
    match &path.scheme {
        #[cfg(feature = "s3")]
        Scheme::S3 { bucket } => {
            let login = access.s3.clone().unwrap_or_default();
            Ok(Box::new(super::cloud::S3::open(bucket, &login, stop.clone())?))
        }
        #[cfg(feature = "gcs")]
        Scheme::Gcs { bucket } => {
            let login = access.gcs.clone().unwrap_or_default();
            Ok(Box::new(super::cloud::Gcs::open(bucket, &login, stop.clone())?))
        }
        #[cfg(feature = "azure")]
        Scheme::Azure { container } => {
            let login = access.azure.clone().unwrap_or_default();
            Ok(Box::new(super::cloud::Azure::open(container, &login, stop.clone())?))
        }
        #[cfg(feature = "opendal")]
        Scheme::OpenDal { scheme, authority } => Ok(Box::new(super::opendal::OpenDal::open(scheme, authority, access, stop.clone())?)),
        other => Err(not_here(path, other)),
    }
}

/// Why a location can't be opened by this build.
fn not_here(path: &SyncPath, scheme: &Scheme) -> SyncError {
    let storage = match scheme {
        Scheme::Local => "local files as a bucket",
        Scheme::Ssh { .. } => "hosts as buckets",
        Scheme::S3 { .. } => "S3 buckets (feature s3)",
        Scheme::Gcs { .. } => "Google Cloud Storage buckets (feature gcs)",
        Scheme::Azure { .. } => "Azure containers (feature azure)",
        Scheme::OpenDal { .. } => "OpenDAL services (feature opendal)",
    };
    SyncError::unsupported(format!("this build of sypy does not know {storage}"))
        .at("open", path.to_bytes())
        .hint("a local name with a colon can be written ./NAME")
}

/// Refuses what this build can't open, before anything is done.
pub fn check(path: &SyncPath) -> Result<()> {
    let known = match &path.scheme {
        Scheme::Local | Scheme::Ssh { .. } => true,
        Scheme::S3 { .. } => cfg!(feature = "s3"),
        Scheme::Gcs { .. } => cfg!(feature = "gcs"),
        Scheme::Azure { .. } => cfg!(feature = "azure"),
        Scheme::OpenDal { .. } => cfg!(feature = "opendal"),
    };
    if known { Ok(()) } else { Err(not_here(path, &path.scheme)) }
}

/// What carries entries from one to the other.
pub fn lane<'r>(
    source: &'r Opened,
    dest: &'r Opened,
    options: &Options,
    precision: u64,
    control: &'r Control,
    tally: &'r Tally,
) -> Result<Box<dyn Lane + 'r>> {
    let local = |source: &'r LocalEndpoint| LocalSource(Reader::new(source), tally);
    let host = |source: &'r SftpEndpoint| SftpReader { at: source, tally };
    let objects = |source: &'r CloudEndpoint| ObjectSource::new(source, options, precision, control, tally);
    Ok(match (source, dest) {
        (Opened::Local(source), Opened::Local(dest)) => Box::new(LocalLane::new(source, dest, options, precision, control, tally)?),
        (Opened::Local(source), Opened::Cloud(dest)) => Box::new(UploadLane::new(local(source), dest, options, control, tally)),
        (Opened::Cloud(source), Opened::Local(dest)) => Box::new(DownloadLane::new(source, dest, options, precision, control, tally)?),
        (Opened::Cloud(source), Opened::Cloud(dest)) => Box::new(RelayLane::new(source, dest, options, control, tally)),
        (Opened::Local(source), Opened::Ssh(dest)) => Box::new(PushLane::new(source, dest, options, precision, control, tally)),
        (Opened::Ssh(source), Opened::Local(dest)) => Box::new(PullLane::new(source, dest, options, precision, control, tally)?),
        (Opened::Ssh(source), Opened::Ssh(dest)) => {
            Box::new(HostRelayLane::new(SshReader::new(source, tally), dest, options, precision, pace(options), control, tally))
        }
        (Opened::Sftp(source), Opened::Ssh(dest)) => {
            Box::new(HostRelayLane::new(host(source), dest, options, precision, relay_pace(options, None), control, tally))
        }
        (Opened::Ssh(source), Opened::Cloud(dest)) => {
            Box::new(UploadLane::new(SshReader::new(source, tally), dest, options, control, tally))
        }
        (Opened::Ssh(source), Opened::Sftp(dest)) => {
            Box::new(sftp::PushLane::new(SshReader::new(source, tally), dest, options, precision, control, tally))
        }
        (Opened::Cloud(source), Opened::Ssh(dest)) => {
            let pace = relay_pace(options, source.connections());
            Box::new(HostRelayLane::new(objects(source), dest, options, precision, pace, control, tally))
        }
        (Opened::Local(source), Opened::Sftp(dest)) => {
            Box::new(sftp::PushLane::new(local(source), dest, options, precision, control, tally))
        }
        (Opened::Sftp(source), Opened::Local(dest)) => Box::new(sftp::PullLane::new(source, dest, options, precision, control, tally)?),
        (Opened::Sftp(source), Opened::Sftp(dest)) => Box::new(sftp::PushLane::new(host(source), dest, options, precision, control, tally)),
        (Opened::Sftp(source), Opened::Cloud(dest)) => Box::new(UploadLane::new(host(source), dest, options, control, tally)),
        (Opened::Cloud(source), Opened::Sftp(dest)) => {
            Box::new(sftp::PushLane::new(objects(source), dest, options, precision, control, tally))
        }
    })
}
