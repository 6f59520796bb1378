//! Keys and values as they stand in URLs. Dots and double slashes stay as they are: they are part of a key.

/// A key: everything but letters, digits, `-._~` and `/` as `%XX`.
pub fn encode_key(key: &[u8]) -> String {
    encode(key, b"/")
}

/// A value of a query.
pub fn encode_value(value: &[u8]) -> String {
    encode(value, b"")
}

fn encode(bytes: &[u8], kept: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(bytes.len() + 8);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.extend(['%', char::from(HEX[usize::from(byte >> 4)]), char::from(HEX[usize::from(byte & 15)])]);
        }
    }
    out
}

/// The bytes that `%XX` and, in answers of some services, `+` stand for.
pub fn decode(text: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::with_capacity(text.len()), text.as_bytes());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let hex = |n: usize| tail.get(n).and_then(|&b| char::from(b).to_digit(16));
        match (byte, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (b'+', ..) => out.push(b' '),
            _ => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_kept_as_they_are() {
        assert_eq!(encode_key(b"a//../b c+\xc3\xa4?"), "a//../b%20c%2B%C3%A4%3F");
    }

    proptest::proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(bytes: Vec<u8>) {
            proptest::prop_assert_eq!(decode(&encode_value(&bytes)), bytes.clone());
            proptest::prop_assert_eq!(decode(&encode_key(&bytes)), bytes);
        }
    }
}
