//! Uploads in parts as S3 and Google speak of them: lists in XML, both ways.

use super::bare;
use super::store::Part;
use super::sums::{Sums, base64, from_base64, md5_from_hex};
use super::xml::{self, Met};
use crate::error::Result;

/// The parts of an upload, and the number after which to go on.
pub fn parts(body: &[u8]) -> Result<(Vec<Part>, Option<String>)> {
    let blank = || Part { number: 0, size: 0, tag: String::new(), sums: Sums::default() };
    let (mut parts, mut part, mut next, mut truncated) = (Vec::new(), blank(), None, false);
    xml::walk(body, |met| match met {
        Met::Text { parent: "Part", name, text } => match name {
            "PartNumber" => part.number = text.trim().parse().unwrap_or(0),
            "Size" => part.size = text.trim().parse().unwrap_or(0),
            "ETag" => {
                part.tag = bare(text);
                part.sums.md5 = md5_from_hex(&part.tag);
            }
            "ChecksumCRC64NVME" => part.sums.crc64 = from_base64(text).map(u64::from_be_bytes),
            _ => {}
        },
        Met::Text { name: "NextPartNumberMarker", text, .. } => next = Some(text.to_owned()),
        Met::Text { name: "IsTruncated", text, .. } => truncated = text.trim() == "true",
        Met::End { name: "Part" } => parts.push(std::mem::replace(&mut part, blank())),
        _ => {}
    })?;
    Ok((parts, next.filter(|_| truncated)))
}

/// All parts of an upload. `ask` gets one page of their list, given what its query ends with; `None` if there is no such upload.
pub fn all(mut ask: impl FnMut(&str) -> Result<Option<Vec<u8>>>) -> Result<Option<Vec<Part>>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let Some(body) = ask(&after)? else { return Ok(None) };
        let (parts, next) = parts(&body)?;
        all.extend(parts);
        match next {
            Some(next) => after = format!("&part-number-marker={}", super::uri::encode_value(next.as_bytes())),
            None => return Ok(Some(all)),
        }
    }
}

/// What an object is to be made from.
pub fn list(parts: &[Part]) -> String {
    let one = |part: &Part| {
        let sum = part.sums.crc64.map(|sum| format!("<ChecksumCRC64NVME>{}</ChecksumCRC64NVME>", base64(&sum.to_be_bytes())));
        let tag = &part.tag;
        format!("<Part><PartNumber>{}</PartNumber><ETag>&quot;{tag}&quot;</ETag>{}</Part>", part.number, sum.unwrap_or_default())
    };
    parts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_sums() {
        let body = b"<ListPartsResult><IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>\
            <Part><PartNumber>1</PartNumber><ETag>\"25f9e794323b453885f5181f1b624d0b\"</ETag><Size>9</Size>\
            <ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME></Part></ListPartsResult>";
        let (parts, next) = parts(body).expect("parts");
        assert_eq!((parts.len(), next.as_deref(), parts[0].number, parts[0].size), (1, Some("1"), 1, 9));
        assert_eq!(parts[0].sums.crc64, Some(0xae8b_1486_0a79_9888));
        assert!(parts[0].sums.md5.is_some());
        let expected = "<Part><PartNumber>1</PartNumber><ETag>&quot;25f9e794323b453885f5181f1b624d0b&quot;</ETag>\
            <ChecksumCRC64NVME>rosUhgp5mIg=</ChecksumCRC64NVME></Part>";
        assert_eq!(list(&parts), expected);
    }

    #[test]
    fn pages_are_asked_for_until_the_last() {
        let mut asked = Vec::new();
        let found = all(|after| {
            asked.push(after.to_owned());
            let more = if after.is_empty() { "<IsTruncated>true</IsTruncated><NextPartNumberMarker>7</NextPartNumberMarker>" } else { "" };
            Ok(Some(format!("<L>{more}<Part><PartNumber>1</PartNumber></Part></L>").into_bytes()))
        });
        assert_eq!(found.ok().flatten().map(|parts| parts.len()), Some(2));
        assert_eq!(asked, ["", "&part-number-marker=7"]);
        assert!(all(|_| Ok(None)).is_ok_and(|parts| parts.is_none()));
    }
}
