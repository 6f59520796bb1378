//! Which certificates are trusted, and what is wrong with one that is not.

use rustls::{CertificateError, Error};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::CloudClientOptions;
use crate::error::{ErrorKind, Result, SyncError};

pub fn config(options: &CloudClientOptions) -> Result<TlsConfig> {
    Ok(TlsConfig::builder().root_certs(certificates(options)?).build())
}

/// Why no safe connection came about. A certificate will be no better for a second try.
pub fn describe(error: &Error, host: &str) -> SyncError {
    let about = |text: String, hint: &str| SyncError::new(ErrorKind::Network, text).hint(hint);
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => about(
            format!("the certificate of {host} is not trusted: nobody known has issued it"),
            "if it is to be, name its issuer's certificate by ca_bundle of CloudClientOptions (--ca-bundle)",
        ),
        Error::InvalidCertificate(CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }) => {
            about(format!("the certificate that {host} showed is for another host"), "check the name in the endpoint")
        }
        Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => about(
            format!("the certificate of {host} has expired, or is not valid yet"),
            "check the clock of this machine; else the service needs a new one",
        ),
        Error::InvalidCertificate(why) => about(
            format!("the certificate of {host} is not trusted: {why}"),
            "ca_bundle of CloudClientOptions (--ca-bundle) names further ones to trust",
        ),
        Error::InvalidMessage(_) => about(format!("{host} does not speak TLS there"), "check the scheme and the port of the endpoint"),
        other => SyncError::new(ErrorKind::Network, format!("no safe connection to {host}: {other}")).retryable(),
    }
}

/// The system's and those of `ca_bundle`.
fn certificates(options: &CloudClientOptions) -> Result<RootCerts> {
    let mut trusted: Vec<Certificate<'static>> =
        rustls_native_certs::load_native_certs().certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    if let Some(path) = &options.ca_bundle {
        let text = std::fs::read(path).map_err(|error| SyncError::io(&error, "read the certificates in", path))?;
        let before = trusted.len();
        for item in ureq::tls::parse_pem(&text) {
            match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => trusted.push(certificate),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        if trusted.len() == before {
            return Err(SyncError::config("ca_bundle has no certificates in it").hint("it is a PEM file"));
        }
    } else if trusted.is_empty() {
        return Ok(RootCerts::WebPki);
    }
    Ok(RootCerts::new_with_certs(&trusted))
}
