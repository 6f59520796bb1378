//! What OpenDAL and FTP servers report, as errors of ours.

use std::error::Error as _;

use opendal::{Error, ErrorKind as Kind};
use suppaftp::FtpError;

use crate::error::{ErrorKind, SyncError};

/// A detail is not longer than this: some services answer with whole pages.
const LONGEST: usize = 200;

pub fn of(error: &Error) -> SyncError {
    if let Some(ftp) = error.source().and_then(|source| source.downcast_ref::<FtpError>()) {
        return of_ftp(ftp);
    }
    let status = status(error);
    let kind = match (error.kind(), status) {
        (_, Some(401 | 407)) => ErrorKind::Authentication,
        (_, Some(507)) => ErrorKind::NoSpace,
        (_, Some(408 | 504)) => ErrorKind::Timeout,
        (Kind::NotFound, _) => ErrorKind::NotFound,
        (Kind::PermissionDenied, _) => ErrorKind::PermissionDenied,
        (Kind::AlreadyExists, _) => ErrorKind::AlreadyExists,
        (Kind::ConditionNotMatch | Kind::Conflict | Kind::IsADirectory | Kind::NotADirectory | Kind::IsSameFile, _) => ErrorKind::Conflict,
        (Kind::Unsupported, _) => ErrorKind::Unsupported,
        (Kind::ConfigInvalid, _) => ErrorKind::Config,
        (Kind::RateLimited, _) => ErrorKind::Network,
        _ if error.is_temporary() || cut_off(error) => ErrorKind::Network,
        _ => ErrorKind::Io,
    };
    let mut out = SyncError::new(kind, words(error, status));
    // The service told who may do that; asking again changes nothing.
    let settled = matches!(kind, ErrorKind::PermissionDenied | ErrorKind::Authentication | ErrorKind::NotFound);
    out.retryable = (error.is_temporary() && !settled) || cut_off(error) || matches!(error.kind(), Kind::RateLimited);
    if kind == ErrorKind::Authentication {
        out = out.hint("check the user and the password among the options of the service");
    }
    out
}

/// OpenDAL does not count it among what may pass.
fn cut_off(error: &Error) -> bool {
    error.message() == "reader got too little data"
}

/// Only the text of an error has the status of the answer.
fn status(error: &Error) -> Option<u16> {
    let text = error.to_string();
    let (_, after) = text.split_once("response: Parts { status: ")?;
    after.get(..3)?.parse().ok()
}

fn words(error: &Error, status: Option<u16>) -> String {
    let mut deepest = error.source();
    while let Some(below) = deepest.and_then(|source| source.source()) {
        deepest = Some(below);
    }
    let message = error.message().trim();
    // Pages are for browsers.
    let told = if message.starts_with('<') { "" } else { message };
    let mut words = match status {
        Some(status) => format!("the service answered {status}"),
        None => "the service failed".to_owned(),
    };
    for detail in [told.to_owned(), deepest.map(ToString::to_string).unwrap_or_default()] {
        let line: String = detail.lines().next().unwrap_or_default().chars().take(LONGEST).collect();
        if !line.is_empty() {
            words.push_str(": ");
            words.push_str(&line);
        }
    }
    words
}

pub fn of_ftp(error: &FtpError) -> SyncError {
    match error {
        FtpError::UnexpectedResponse(answer) => {
            let text = String::from_utf8_lossy(&answer.body);
            let line: String = text.lines().next().unwrap_or_default().chars().take(LONGEST).collect();
            // OpenDAL's own reading of 550 is "not found"; a server says it as well of what it does not allow.
            let (kind, again) = match answer.status.code() {
                421 | 425 | 426 => (ErrorKind::Network, true),
                450 | 451 => (ErrorKind::Io, true),
                452 | 552 => (ErrorKind::NoSpace, false),
                430 | 530 | 532 => (ErrorKind::Authentication, false),
                550 => (ErrorKind::NotFound, false),
                553 => (ErrorKind::PermissionDenied, false),
                500..=504 => (ErrorKind::Unsupported, false),
                _ => (ErrorKind::Io, false),
            };
            SyncError { retryable: again, ..SyncError::new(kind, format!("the server answered {}", line.trim())) }
        }
        FtpError::ConnectionError(error) => SyncError::new(ErrorKind::Network, format!("the connection failed: {error}")).retryable(),
        FtpError::BadResponse => SyncError::new(ErrorKind::Network, "the server's answer makes no sense").retryable(),
        FtpError::DataConnectionAlreadyOpen => SyncError::new(ErrorKind::Network, error.to_string()).retryable(),
        other => SyncError::new(ErrorKind::Network, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use suppaftp::Status;
    use suppaftp::types::Response;

    use super::*;

    fn ftp(status: Status, body: &str) -> FtpError {
        FtpError::UnexpectedResponse(Response { status, body: body.into() })
    }

    #[test]
    fn kinds_and_whether_a_second_try_may_help() {
        let seen = |error: Error| {
            let error = of(&error);
            (error.kind, error.retryable)
        };
        assert_eq!(seen(Error::new(Kind::NotFound, "x")), (ErrorKind::NotFound, false));
        assert_eq!(seen(Error::new(Kind::PermissionDenied, "x").set_temporary()), (ErrorKind::PermissionDenied, false));
        assert_eq!(seen(Error::new(Kind::Unexpected, "x").set_temporary()), (ErrorKind::Network, true));
        assert_eq!(seen(Error::new(Kind::Unexpected, "x")), (ErrorKind::Io, false));
        assert_eq!(seen(Error::new(Kind::RateLimited, "x")), (ErrorKind::Network, true));
        let full = Error::new(Kind::Unexpected, "<html>").with_context("response", "Parts { status: 507, version: HTTP/1.1 }");
        assert_eq!(of(&full).message, "the service answered 507");
        assert_eq!(seen(full), (ErrorKind::NoSpace, false));
    }

    #[test]
    fn ftp_errors_say_what_the_server_said() {
        let inner = ftp(Status::NotLoggedIn, "530 Authentication failed.\r\n");
        let error = of(&Error::new(Kind::Unexpected, "ftp error").set_source(inner));
        assert_eq!((error.kind, error.message.as_str()), (ErrorKind::Authentication, "the server answered 530 Authentication failed."));
        assert!(of_ftp(&ftp(Status::NotAvailable, "421 Too many connections")).retryable);
    }
}
