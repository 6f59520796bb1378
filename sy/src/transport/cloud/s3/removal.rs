//! Deletions: many with one request where they can be.

use http::Method;

use super::super::http::Body;
use super::super::quoted;
use super::super::store::Removal;
use super::super::sums::{self, Kinds};
use super::super::xml::{self, Met};
use super::S3;
use crate::error::{ErrorKind, Result, SyncError};

/// Up to so many go one by one where a request for many may take no notice of tags: more services know the header.
const FEW: usize = 3;

impl S3 {
    pub(super) fn remove(&self, removals: &[Removal<'_>]) -> Vec<Result<()>> {
        let few = !self.settings.amazon && removals.len() <= FEW && removals.iter().any(|one| one.tag.is_some());
        let mut results: Vec<Option<Result<()>>> = removals.iter().map(|_| None).collect();
        // What XML can't write goes by itself.
        let together: Vec<usize> = (0..removals.len()).filter(|&n| xml::escape(removals[n].key).is_some()).collect();
        if together.len() > 1 && !few {
            self.remove_together(removals, &together, &mut results);
        }
        let settle = |(one, result): (&Removal<'_>, Option<Result<()>>)| match result.unwrap_or_else(|| self.remove_one(one)) {
            Err(error) if error.kind == ErrorKind::NotFound && error.hint.is_none() => Ok(()),
            other => other,
        };
        removals.iter().zip(results).map(settle).collect()
    }

    fn remove_one(&self, one: &Removal<'_>) -> Result<()> {
        let request = |tag: Option<&str>| {
            let request = self.request(Method::DELETE, one.key, "")?.maybe("if-match", tag.map(quoted));
            self.send(&request).map(drop)
        };
        match request(one.tag) {
            // Whoever knows no condition has been looked at just before.
            Err(error) if error.kind == ErrorKind::Unsupported && one.tag.is_some() && !self.settings.amazon => request(None),
            other => other,
        }
    }

    /// Leaves `None` where each has to be asked for by itself.
    fn remove_together(&self, removals: &[Removal<'_>], together: &[usize], results: &mut [Option<Result<()>>]) {
        let tagged = together.iter().any(|&n| removals[n].tag.is_some());
        let answers = match self.delete_objects(removals, together, true) {
            // Some services refuse what they don't know.
            Err(error) if error.kind == ErrorKind::Unsupported && tagged && !self.settings.amazon => {
                self.delete_objects(removals, together, false)
            }
            other => other,
        };
        match answers {
            Ok(answers) => {
                let by_key: std::collections::HashMap<Vec<u8>, Result<()>> = answers.into_iter().collect();
                for &n in together {
                    let silent = || Err(SyncError::new(ErrorKind::Io, "the service did not say whether it was removed"));
                    let answer = by_key.get(removals[n].key).cloned().unwrap_or_else(silent);
                    // The header leaves no doubt about what is compared.
                    results[n] = Some(answer).filter(|answer| !answer.as_ref().is_err_and(|error| error.kind == ErrorKind::Conflict));
                }
            }
            // Some services have no such request.
            Err(error) if error.kind == ErrorKind::Unsupported => {}
            Err(error) => together.iter().for_each(|&n| results[n] = Some(Err(error.clone()))),
        }
    }

    fn delete_objects(&self, removals: &[Removal<'_>], together: &[usize], tags: bool) -> Result<Vec<(Vec<u8>, Result<()>)>> {
        let objects: String = together
            .iter()
            .map(|&n| &removals[n])
            .map(|one| {
                let tag = one.tag.filter(|_| tags).and_then(|tag| xml::escape(tag.as_bytes()));
                let tag = tag.map(|tag| format!("<ETag>&quot;{tag}&quot;</ETag>")).unwrap_or_default();
                format!("<Object><Key>{}</Key>{tag}</Object>", xml::escape(one.key).unwrap_or_default())
            })
            .collect();
        let body = format!("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">{objects}</Delete>");
        let sums = sums::of(body.as_bytes(), Kinds::MD5);
        let request = self.with_sums(self.request(Method::POST, b"", "delete")?.body(Body::Bytes(body.as_bytes())), &sums);
        answers(&self.careful(&request)?)
    }
}

/// What became of each key.
fn answers(body: &[u8]) -> Result<Vec<(Vec<u8>, Result<()>)>> {
    let mut all = Vec::new();
    let (mut key, mut code, mut why) = (Vec::new(), String::new(), String::new());
    xml::walk(body, |met| match met {
        Met::Text { parent: "Deleted" | "Error", name: "Key", text } => key = text.as_bytes().to_vec(),
        Met::Text { parent: "Error", name: "Code", text } => text.clone_into(&mut code),
        Met::Text { parent: "Error", name: "Message", text } => text.clone_into(&mut why),
        Met::End { name: "Deleted" } => all.push((std::mem::take(&mut key), Ok(()))),
        Met::End { name: "Error" } => {
            let kind = match code.as_str() {
                "AccessDenied" => ErrorKind::PermissionDenied,
                "NoSuchKey" => ErrorKind::NotFound,
                "PreconditionFailed" | "ConditionalRequestConflict" => ErrorKind::Conflict,
                _ => ErrorKind::Io,
            };
            let text: String = format!("{code}: {why}").chars().filter(|c| !c.is_control()).take(300).collect();
            let error = SyncError::new(kind, text);
            let later = matches!(code.as_str(), "InternalError" | "SlowDown" | "ServiceUnavailable");
            all.push((std::mem::take(&mut key), Err(if later { error.retryable() } else { error })));
        }
        _ => {}
    })?;
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_has_its_answer() {
        let body = b"<DeleteResult><Deleted><Key>a</Key></Deleted><Error><Key>b</Key><Code>PreconditionFailed</Code><Message>m</Message>\
            </Error><Error><Key>c</Key><Code>SlowDown</Code></Error></DeleteResult>";
        let found = answers(body).expect("answers");
        let told: Vec<_> =
            found.iter().map(|(key, answer)| (&key[..], answer.as_ref().err().map(|error| (error.kind, error.retryable)))).collect();
        let expected = [(&b"a"[..], None), (&b"b"[..], Some((ErrorKind::Conflict, false))), (&b"c"[..], Some((ErrorKind::Io, true)))];
        assert_eq!(told, expected);
    }
}
