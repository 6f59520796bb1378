//! Services that OpenDAL speaks to, behind the trait of the object stores.
//!
//! They keep neither times nor modes nor links. An object is known again by its tag, so a second run rests on the index.

mod body;
mod errors;
mod ftp;
mod http;
mod list;
mod path;
mod requests;
mod settings;
mod work;
mod writes;

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use opendal::{Capability, HttpTransporter, OperationContext, Operator, services};

use self::ftp::Ftp;
use self::http::{Tickets, Transport};
use self::path::Names;
use self::settings::{Service, Settings};
use self::work::Work;
use super::access::Access;
use super::local::TempNames;
use super::opendal_config::OpenDalConfig;
use crate::error::{Result, SyncError};
use crate::sync::Stop;

/// A service, from its root on.
pub struct OpenDal {
    // In this order they go: connections before what drives them.
    operator: Operator,
    ftp: Option<Arc<Ftp>>,
    tickets: Tickets,
    work: Arc<Work>,
    service: &'static Service,
    can: Capability,
    names: Names,
    name: String,
    place: String,
    realm: String,
    temporary: TempNames,
    /// Directories that are there.
    made: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for OpenDal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OpenDal").field("name", &self.name).finish_non_exhaustive()
    }
}

impl OpenDal {
    pub fn open(scheme: &str, authority: &str, access: &Access, stop: Stop) -> Result<Self> {
        let given = access.opendal.as_ref().map(OpenDalConfig::given).unwrap_or_default();
        let settings = Settings::new(scheme, authority, &given, |name| std::env::var(name).ok())?;
        let tickets = Tickets::default();
        let work = Arc::new(Work::new(stop)?);
        let ftp = if settings.service.name == "ftp" { Some(Arc::new(Ftp::new(&settings)?)) } else { None };
        let operator = operator(&settings).map_err(|error| {
            // What it says may hold a value; which one is wrong stands in its message.
            SyncError::config(format!("OpenDAL's {scheme} can't be used: {}", error.message()))
        })?;
        let transport = Transport::new(settings.is_encrypted() && ftp.is_none(), tickets.clone())?;
        let operator = operator.with_context(OperationContext::new().with_http_transport(HttpTransporter::new(transport)));
        Ok(Self {
            can: operator.info().capability(),
            operator,
            names: Names { in_commands: ftp.is_some() },
            ftp,
            tickets,
            work,
            service: settings.service,
            name: format!("opendal+{scheme}://{authority}"),
            place: settings.place().to_owned(),
            realm: settings.realm(),
            temporary: TempNames::new(),
            made: Mutex::default(),
        })
    }
}

fn operator(settings: &Settings) -> opendal::Result<Operator> {
    let pairs = settings.pairs();
    match settings.service.name {
        "webdav" => Operator::from_iter::<services::Webdav>(pairs),
        "ftp" => Operator::from_iter::<services::Ftp>(pairs),
        "sftp" => Operator::from_iter::<services::Sftp>(pairs),
        _ => Operator::from_iter::<services::B2>(pairs),
    }
}
