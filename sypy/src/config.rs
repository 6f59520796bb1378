//! Configs as Python classes: frozen values whose fields come by name from the engine's own.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyDict, PyMapping, PyString, PyTuple};
use sy::SyncError;
use sy::transport::cloud::{AzureConfig, CloudClientOptions, GcsConfig, S3Config};
use sy::transport::config::Config;
use sy::transport::opendal_config::OpenDalConfig;
use sy::transport::ssh::SshConfig;

use crate::credentials::Function;
use crate::error;
use crate::value::{self, REDACTED, Reduced};

const CLIENT: &str = "client_options";
/// Of all that have a client.
const CREDENTIALS: &str = "credentials";
/// Fields that say who asks, so that a function can't say it too.
const WHO: [&str; 10] = [
    "access_key_id",
    "profile",
    "anonymous",
    "credentials_file",
    "credentials_json",
    "token",
    "key",
    "sas_token",
    "client_id",
    "connection_string",
];
const PICKLE: &str = "pickle_secrets";

impl PyCloudClientOptions {
    fn of(config: CloudClientOptions) -> Self {
        Self(Fields { config, ..Fields::default() })
    }
}

/// A config, the function that gives its credentials, and whether its secrets may be pickled.
#[derive(Clone, Default, PartialEq)]
pub struct Fields<C> {
    pub config: C,
    pub credentials: Option<Function>,
    pickle_secrets: bool,
}

impl<C: Config> Fields<C> {
    /// All names: the engine's fields, then those that only Python has.
    fn names() -> impl Iterator<Item = &'static str> {
        C::NAMES.iter().copied().chain(C::HAS_CLIENT.then_some([CREDENTIALS, CLIENT]).into_iter().flatten()).chain([PICKLE])
    }

    fn update(&mut self, class: &str, changes: Option<&Bound<'_, PyDict>>) -> PyResult<()> {
        let Some(changes) = changes else { return Ok(()) };
        for (name, object) in changes {
            let name = name.cast::<PyString>()?;
            self.assign(class, name.to_str()?, &object)?;
        }
        self.validate().map_err(|failure| error::raise(changes.py(), &failure))
    }

    fn validate(&self) -> sy::Result<()> {
        self.config.validate()?;
        let default = C::default();
        let other = C::NAMES.iter().find(|name| WHO.contains(name) && self.config.get(name) != default.get(name));
        match (&self.credentials, other) {
            (Some(_), Some(other)) => Err(SyncError::config(format!("{other} and credentials are both set")).hint("set one of them")),
            _ => Ok(()),
        }
    }

    fn assign(&mut self, class: &str, name: &str, object: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = object.py();
        if name == PICKLE {
            self.pickle_secrets =
                object.cast::<PyBool>().map_err(|_| PyTypeError::new_err("pickle_secrets must be True or False"))?.is_true();
        } else if name == CLIENT && C::HAS_CLIENT {
            let client = match object.is_none() {
                true => None,
                false => Some(object.cast::<PyCloudClientOptions>().map_err(|_| {
                    PyTypeError::new_err(format!("client_options must be a CloudClientOptions or None, not {}", type_name(object)))
                })?),
            };
            self.config.set_client(client.map(|client| client.get().0.config.clone()));
        } else if name == CREDENTIALS && C::HAS_CLIENT {
            self.credentials = if object.is_none() { None } else { Some(Function::new(object)?) };
        } else if C::NAMES.contains(&name) {
            if object.extract().is_ok_and(|text: &str| text == REDACTED) {
                let failure = SyncError::config(format!("{name} was left out of the dict or text that this comes from"))
                    .hint("to_dict(secrets=True) puts it in");
                return Err(error::raise(py, &failure));
            }
            value::assign(&mut self.config, name, object, C::set, C::get)?;
        } else {
            return Err(value::unknown_keyword(py, class, name, &Self::names().collect::<Vec<_>>()));
        }
        Ok(())
    }

    fn get<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        if name == PICKLE {
            return Ok(PyBool::new(py, self.pickle_secrets).to_owned().into_any());
        }
        if name == CLIENT {
            return match self.config.client() {
                Some(client) => {
                    let client = Fields { config: client.clone(), credentials: None, pickle_secrets: self.pickle_secrets };
                    Ok(Bound::new(py, PyCloudClientOptions(client))?.into_any())
                }
                None => Ok(py.None().into_bound(py)),
            };
        }
        if name == CREDENTIALS {
            return Ok(self.credentials.as_ref().map_or_else(|| py.None().into_bound(py), |function| function.get(py).clone()));
        }
        let stored = value::to_py(py, self.config.get(name).unwrap_or(sy::cli::Value::None))?;
        if !C::is_map(name) {
            return Ok(stored);
        }
        let map = PyDict::new(py);
        for pair in stored.try_iter()? {
            let pair = pair?;
            let (key, value) = pair.extract::<&str>()?.split_once('=').unwrap_or_default();
            map.set_item(key, value)?;
        }
        Ok(map.into_any())
    }

    fn secrets(&self) -> Vec<&'static str> {
        let client = self.config.client().filter(|client| CloudClientOptions::NAMES.iter().any(|name| client.is_secret(name)));
        C::NAMES.iter().copied().filter(|name| self.config.is_secret(name)).chain(client.map(|_| CLIENT)).collect()
    }

    /// The fields that are not as they are by default.
    fn set_fields(&self) -> Vec<&'static str> {
        let default = Self::default();
        let differs = |name: &str| match name {
            PICKLE => self.pickle_secrets,
            CLIENT => self.config.client().is_some(),
            CREDENTIALS => self.credentials.is_some(),
            _ => self.config.get(name) != default.config.get(name),
        };
        Self::names().filter(|name| differs(name)).collect()
    }

    fn repr(&self, py: Python<'_>, class: &str) -> PyResult<String> {
        let shown = self.set_fields().into_iter().map(|name| {
            let text = match self.config.is_secret(name) {
                true => REDACTED.to_owned(),
                // What a function is made of may show what it knows.
                false if name == CREDENTIALS => "<function>".to_owned(),
                false => self.get(py, name)?.repr()?.to_string(),
            };
            Ok((name.to_owned(), text))
        });
        Ok(value::repr(class, &shown.collect::<PyResult<Vec<_>>>()?))
    }

    fn to_dict<'py>(&self, py: Python<'py>, secrets: bool) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for name in Self::names() {
            match (name, self.config.client()) {
                (CLIENT, Some(_)) => {
                    dict.set_item(name, self.get(py, name)?.cast::<PyCloudClientOptions>()?.get().0.to_dict(py, secrets)?)?
                }
                _ if !secrets && self.config.is_secret(name) => dict.set_item(name, REDACTED)?,
                _ => dict.set_item(name, self.get(py, name)?)?,
            }
        }
        Ok(dict)
    }

    /// The keywords that make it again, or an error if secrets would go into a pickle unasked.
    fn to_pickle<'py>(&self, py: Python<'py>, class: &str) -> PyResult<Bound<'py, PyDict>> {
        let secrets = self.secrets();
        if !secrets.is_empty() && !self.pickle_secrets {
            return Err(PyTypeError::new_err(format!(
                "this {class} holds secrets ({}), which a pickle would store as plain text; \
                 config.replace(pickle_secrets=True) allows it",
                secrets.join(", ")
            )));
        }
        if let Some(function) = &self.credentials
            && let Err(failure) = py.import("pickle")?.call_method1("dumps", (function.get(py),))
        {
            let error = PyTypeError::new_err(format!(
                "this {class} can't be pickled, because its credentials are a function that can't; one at the top of a module can"
            ));
            error.set_cause(py, Some(failure));
            return Err(error);
        }
        let fields = PyDict::new(py);
        for name in self.set_fields() {
            fields.set_item(name, self.get(py, name)?)?;
        }
        Ok(fields)
    }

    fn hash(&self, py: Python<'_>) -> PyResult<isize> {
        let values = Self::names().map(|name| match C::is_map(name) {
            true => Ok(self.get(py, name)?.cast::<PyMapping>()?.items()?.to_tuple().into_any()),
            // By identity, as they are compared.
            false if name == CREDENTIALS => {
                Ok(self.credentials.as_ref().map_or(0, |function| function.get(py).as_ptr() as usize).into_pyobject(py)?.into_any())
            }
            false => self.get(py, name),
        });
        PyTuple::new(py, values.collect::<PyResult<Vec<_>>>()?)?.hash()
    }
}

fn type_name(object: &Bound<'_, PyAny>) -> String {
    object.get_type().name().map_or_else(|_| "this".to_owned(), |name| name.to_string())
}

macro_rules! config_class {
    ($(#[doc = $doc:expr])* $py:ident($name:literal): $config:ty, $docs:ident $({ $($extra:tt)* })?) => {
        $(#[doc = $doc])*
        #[pyclass(name = $name, module = "sypy", frozen, eq)]
        #[derive(Clone, PartialEq)]
        pub struct $py(pub Fields<$config>);

        impl $py {
            /// Puts the fields on the class, with their texts.
            fn install(py: Python<'_>) -> PyResult<()> {
                let doc = |name: &str| value::doc_of($docs, name).or_else(|| value::doc_of(SHARED_DOCS, name)).unwrap_or_default();
                value::properties(&py.get_type::<Self>(), Fields::<$config>::names(), doc, |this, name| {
                    Ok(this.cast::<Self>()?.get().0.get(this.py(), name)?.unbind())
                })
            }
        }

        #[pymethods]
        impl $py {
            #[new]
            #[pyo3(signature = (**fields))]
            fn new(fields: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
                let mut this = Self(Fields::default());
                this.0.update($name, fields)?;
                Ok(this)
            }

            /// The same with `changes`.
            #[pyo3(signature = (**changes))]
            fn replace(&self, changes: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
                let mut this = self.clone();
                this.0.update("replace", changes)?;
                Ok(this)
            }

            /// All fields by name. A secret is `"***"`, unless `secrets=True` asks for it.
            #[pyo3(signature = (*, secrets = false))]
            fn to_dict<'py>(&self, py: Python<'py>, secrets: bool) -> PyResult<Bound<'py, PyDict>> {
                self.0.to_dict(py, secrets)
            }

            /// What `to_dict(secrets=True)` gave, as a config again. A secret that was left out is a `ConfigError`.
            #[staticmethod]
            fn from_dict(fields: &Bound<'_, PyDict>) -> PyResult<Self> {
                let mut this = Self(Fields::default());
                let fields = fields.copy()?;
                if let Some(client) = fields.get_item(CLIENT)? && let Ok(client) = client.cast::<PyDict>() {
                    fields.set_item(CLIENT, PyCloudClientOptions::from_dict(client)?)?;
                }
                this.0.update($name, Some(&fields))?;
                Ok(this)
            }

            fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
                self.0.repr(py, $name)
            }

            fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
                self.0.hash(py)
            }

            fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
                value::reduce(slf.as_any(), slf.get().0.to_pickle(slf.py(), $name)?)
            }

            fn __copy__(slf: Py<Self>) -> Py<Self> {
                slf
            }

            fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
                slf
            }

            $($($extra)*)?
        }
    };
}

config_class! {
    /// Who asks for access to Amazon S3, or to a service that speaks its protocol.
    ///
    /// All fields are keywords and are `None` unless said otherwise; what is not set comes from the profile, the environment or the
    /// machine's identity. A config is a frozen value: `==`, `hash()`, `replace()`, `to_dict()`, `from_dict()`. Its `repr` never
    /// shows a secret, and a config with secrets is pickled only after `replace(pickle_secrets=True)`. Raises `ConfigError` (a
    /// `ValueError`) for values that can't be or don't go together, `TypeError` for wrong types and unknown names.
    ///
    /// >>> S3Config(access_key_id="AKID", secret_access_key="secret", region="eu-west-1")
    /// S3Config(access_key_id='AKID', secret_access_key=***, region='eu-west-1')
    /// >>> S3Config(credentials=lambda: {"access_key_id": "AKID", "secret_access_key": "secret"})
    /// S3Config(credentials=<function>)
    PyS3Config("S3Config"): S3Config, S3_DOCS {
        /// Makes a config that has its credentials, region and endpoint from a session of boto3.
        ///
        /// `session` is a `boto3.Session`, a botocore session, or credentials of botocore. Credentials that run out are asked for
        /// again during a run. The endpoint is that of the session's configuration, if it has one. Further `fields` are those of
        /// `S3Config`, and count more than the session's. Raises `TypeError` for something else, `AuthenticationError` if the
        /// session has no credentials.
        ///
        /// >>> class Credentials:  # In place of boto3.Session().get_credentials()
        /// ...     def get_frozen_credentials(self): ...
        /// >>> S3Config.from_boto3(Credentials(), region="eu-west-1")
        /// S3Config(region='eu-west-1', credentials=<function>)
        #[staticmethod]
        #[pyo3(signature = (session, /, **fields))]
        fn from_boto3<'py>(session: &Bound<'py, PyAny>, fields: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
            session.py().import("sypy._credentials")?.call_method("from_boto3", (session,), fields)
        }
    }
}

config_class! {
    /// Who asks for access to Google Cloud Storage.
    ///
    /// All fields are keywords and are `None` unless said otherwise; what is not set comes from the environment or the machine's
    /// identity. A frozen value like `S3Config`, with the same care for secrets, methods and errors.
    ///
    /// >>> GcsConfig(credentials_file="key.json").replace(project_id="p")
    /// GcsConfig(credentials_file='key.json', project_id='p')
    PyGcsConfig("GcsConfig"): GcsConfig, GCS_DOCS {
        /// Makes a config that has its tokens from credentials of `google.auth`.
        ///
        /// `credentials` are what `google.auth.default()` returns first, or any of its classes; they are refreshed when they run
        /// out. Further `fields` are those of `GcsConfig`. Raises `TypeError` for something else.
        ///
        /// >>> class Credentials:  # In place of google.auth.default()[0]
        /// ...     token, expiry, valid = "t", None, True
        /// ...     def refresh(self, request): ...
        /// >>> GcsConfig.from_google_auth(Credentials())
        /// GcsConfig(credentials=<function>)
        #[staticmethod]
        #[pyo3(signature = (credentials, /, **fields))]
        fn from_google_auth<'py>(credentials: &Bound<'py, PyAny>, fields: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
            credentials.py().import("sypy._credentials")?.call_method("from_google_auth", (credentials,), fields)
        }
    }
}

config_class! {
    /// Who asks for access to Azure Blob Storage.
    ///
    /// All fields are keywords and are `None` unless said otherwise; what is not set comes from the environment or the machine's
    /// identity. A frozen value like `S3Config`, with the same care for secrets, methods and errors.
    ///
    /// >>> AzureConfig(account="photos", key="secret")
    /// AzureConfig(account='photos', key=***)
    PyAzureConfig("AzureConfig"): AzureConfig, AZURE_DOCS
}

config_class! {
    /// How to reach an SSH host, beside what `~/.ssh/config` says.
    ///
    /// All fields are keywords and are `None` unless said otherwise. A frozen value like `S3Config`, with the same care for secrets,
    /// methods and errors.
    ///
    /// >>> SshConfig(user="me", port=2222, password="secret")
    /// SshConfig(port=2222, password=***, user='me')
    PySshConfig("SshConfig"): SshConfig, SSH_DOCS
}

config_class! {
    /// Options of a service that OpenDAL speaks to, for `opendal+SERVICE://` locations.
    ///
    /// All fields are keywords and are `None` unless said otherwise; what is not set comes from the location, then from the
    /// environment (`SYPY_OPENDAL_<SERVICE>_<OPTION>`). Each service has some of them, and a run refuses the others. A frozen value
    /// like `S3Config`, with the same care for secrets, methods and errors.
    ///
    /// >>> OpenDalConfig(endpoint="https://host/dav", user="me", password="secret")
    /// OpenDalConfig(endpoint='https://host/dav', user='me', password=***)
    PyOpenDalConfig("OpenDalConfig"): OpenDalConfig, OPENDAL_DOCS
}

config_class! {
    /// The HTTP client of an object store: times in seconds, retries and connection pool.
    ///
    /// All fields are keywords. A frozen value like `S3Config`, with the same methods and errors.
    ///
    /// >>> CloudClientOptions(max_retries=5).request_timeout_secs
    /// 60
    /// >>> CloudClientOptions.low_latency()
    /// CloudClientOptions(pool_max_idle_per_host=20, request_timeout_secs=30, max_retries=2)
    PyCloudClientOptions("CloudClientOptions"): CloudClientOptions, CLIENT_DOCS {
        /// For large files over fast lines: 100 idle connections a host, 120 seconds a request, 3 retries.
        #[staticmethod]
        fn high_throughput() -> Self {
            Self::of(CloudClientOptions::high_throughput())
        }

        /// For many small requests whose failure should be known soon: 20 idle connections a host, 30 seconds a request, 2 retries.
        #[staticmethod]
        fn low_latency() -> Self {
            Self::of(CloudClientOptions::low_latency())
        }
    }
}

/// Puts the fields on all config classes.
pub fn install(py: Python<'_>) -> PyResult<()> {
    PyS3Config::install(py)?;
    PyGcsConfig::install(py)?;
    PyAzureConfig::install(py)?;
    PySshConfig::install(py)?;
    PyOpenDalConfig::install(py)?;
    PyCloudClientOptions::install(py)
}

const SHARED_DOCS: &[(&str, &str)] = &[
    (
        CREDENTIALS,
        "A function that returns a mapping of credentials by the names of the fields here (for Azure also `token`) and their \
         `expires`: an aware `datetime`, RFC 3339 text or `None`. It is called on the thread that waits for the run, when \
         credentials are first needed and again before they run out; an exception in it ends the run and is raised.",
    ),
    (CLIENT, "A `CloudClientOptions`: timeouts, retries and connection pool; `None` for the defaults."),
    (PICKLE, "May a pickle of this config, and of its `client_options`, hold secrets as plain text? `False` by default."),
    ("endpoint", "URL of a service that is not the provider's own, without a user or password; `None` for the provider's."),
    ("anonymous", "Send requests without credentials, as public buckets allow; `False` by default."),
];

const S3_DOCS: &[(&str, &str)] = &[
    ("access_key_id", "The public half of an access key; goes with `secret_access_key`."),
    ("secret_access_key", "The secret half of an access key; never shown."),
    ("session_token", "What comes with temporary credentials, beside the two halves of the key; never shown."),
    ("region", "The bucket's region, such as `\"eu-west-1\"`."),
    ("profile", "Section of the shared credentials and config files."),
    ("bucket_style", "Where a bucket's name stands in its URL: `\"auto\"` (default), `\"path\"` or `\"virtual\"`."),
    ("storage_class", "Storage class of new objects, such as `\"STANDARD_IA\"`; `None` for the bucket's."),
    ("sse", "Server-side encryption of new objects, such as `\"AES256\"` or `\"aws:kms\"`; `None` for the bucket's."),
    ("part_size", "Bytes in one part of an upload, 5 MiB to 5 GiB, as int or text such as `\"16MiB\"`; `None`: by file size."),
    ("request_payer", "Agree to be charged for requests to someone else's bucket; `False` by default."),
    ("tags", "Tags of new objects by name, such as `{\"project\": \"x\"}`; empty by default."),
];

const GCS_DOCS: &[(&str, &str)] = &[
    ("credentials_file", "Path of a JSON key file."),
    ("project_id", "The project, where the credentials don't name one."),
    ("credentials_json", "The text of a JSON key file, in place of `credentials_file`; never shown."),
    ("token", "An OAuth 2.0 access token, in place of a key; never shown."),
];

const AZURE_DOCS: &[(&str, &str)] = &[
    ("account", "Name of the storage account."),
    ("key", "Key of the storage account; never shown."),
    ("sas_token", "A shared access signature, in place of a key; never shown."),
    ("tenant_id", "Directory of a service principal."),
    ("client_id", "A service principal, or a managed identity."),
    ("client_secret", "Password of the service principal; goes with `tenant_id` and `client_id`; never shown."),
    ("connection_string", "Account, key and endpoint in one text, as the portal shows it; never shown."),
];

const SSH_DOCS: &[(&str, &str)] = &[
    ("key_file", "Path of a private key; `None`: those of ssh's configuration and its agent."),
    ("port", "Port of the host, 1 to 65535; `None`: that of ssh's configuration, else 22."),
    ("password", "Password of the user on the host; a key is better; never shown."),
    ("compression", "Compress what goes over the line; `False` by default."),
    ("proxy_jump", "Hosts to go through, as `[user@]host[:port]`, separated by commas."),
    ("connect_timeout", "Seconds to wait for the connection; a number, a `timedelta` or text such as `\"10s\"`."),
    ("pool_size", "Connections side by side, at least 1; `None`: as many as pay."),
    ("user", "User on the host, where the location names none."),
    ("key_data", "The text of a private key, in place of `key_file`; never shown."),
    ("passphrase", "Opens the private key; never shown."),
    ("known_hosts", "File of known host keys; `None`: ssh's own."),
    (
        "host_key_policy",
        "`\"strict\"` (default): the host's key must be known. `\"accept-new\"`: a new host's key is noted; a changed one is refused.",
    ),
    ("config_file", "Configuration file of ssh; `None`: the user's."),
    ("agent_path", "Where the `sy` program is on the host; `None`: found on its PATH."),
    ("options", "ssh's own options by name, such as `{\"ServerAliveInterval\": \"30\"}`; empty by default."),
];

const OPENDAL_DOCS: &[(&str, &str)] = &[
    ("endpoint", "URL of the service, where the location does not say enough, such as `\"http://host/dav\"`; no user or password in it."),
    ("user", "Who asks, whatever the service calls it (webdav, ftp, sftp)."),
    ("password", "Password of the user (webdav, ftp); never shown."),
    ("token", "A bearer token, in place of user and password (webdav); never shown."),
    ("root", "Directory that locations begin in."),
    ("disable_create_dir", "Make no directories (webdav)."),
    ("user_metadata_prefix", "Prefix of the properties that hold metadata (webdav)."),
    ("user_metadata_uri", "Namespace of the properties that hold metadata (webdav)."),
    ("key", "Path of a private key (sftp)."),
    ("known_hosts_strategy", "Whether the host's key must be known: `\"strict\"`, `\"accept\"` or `\"add\"` (sftp)."),
    ("bucket", "The bucket, where the location does not name it (b2)."),
    ("bucket_id", "Id of the bucket (b2)."),
    ("application_key_id", "The public half of an application key (b2)."),
    ("application_key", "The secret half of an application key (b2); never shown."),
];

const CLIENT_DOCS: &[(&str, &str)] = &[
    ("pool_max_idle_per_host", "Idle connections kept for each host; 50 by default."),
    ("pool_idle_timeout_secs", "Seconds after which an idle connection is closed; 30 by default."),
    ("connect_timeout_secs", "Seconds to wait for a connection; 5 by default."),
    ("request_timeout_secs", "Seconds in which a request must move a byte, or it has failed; 60 by default."),
    ("max_retries", "Further tries of a failed request; 3 by default."),
    ("retry_timeout_secs", "Seconds after the first try in which another is begun; 15 by default."),
    ("allow_http", "Allow plain HTTP; `False` by default."),
    ("proxy_url", "Proxy, `http://` or `socks5://`; a user and password in it are never shown."),
    ("ca_bundle", "PEM file of certificates to trust beside the system's."),
    ("user_agent", "What the client calls itself; `None`: sypy and its version."),
    ("max_connections", "Connections at a time to all hosts together, at least 1; `None`: no limit."),
];
