use proptest::prelude::*;

use super::*;

fn packet(kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[kind, 0, 0, 0, 7][..], rest].concat()
}

fn text(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

#[test]
fn a_request_is_length_kind_id_and_fields() {
    let mut request = Request::path(OPEN, b"a").u32(open::READ).attrs(&Attrs::mode(0o600));
    assert_eq!(request.sealed(9), [0, 0, 0, 22, OPEN, 0, 0, 0, 9, 0, 0, 0, 1, b'a', 0, 0, 0, 1, 0, 0, 0, 4, 0, 0, 1, 0x80]);
    assert_eq!(init(), [0, 0, 0, 5, INIT, 0, 0, 0, 3]);
}

#[test]
fn content_is_read_into_the_packet() {
    let request = Request::write(b"hh", 5, 10, |buffer| {
        buffer[..3].copy_from_slice(b"abc");
        Ok::<_, Malformed>(3)
    });
    let mut request = request.expect("filled").expect("not empty");
    assert_eq!(request.content(b"hh"), b"abc");
    assert_eq!(&request.sealed(1)[9..], [0, 0, 0, 2, b'h', b'h', 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 3, b'a', b'b', b'c']);
    assert!(Request::write(b"hh", 5, 10, |_| Ok::<_, Malformed>(0)).expect("nothing").is_none());
}

#[test]
fn counts_and_lengths_beyond_the_packet_are_refused() {
    for bad in [
        packet(NAME, &u32::MAX.to_be_bytes()),
        packet(DATA, &[0xff, 0xff, 0xff, 0xff, 1]),
        packet(HANDLE, &text(&[0; 257])),
        packet(ATTRS, &[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        packet(77, b""),
        vec![STATUS],
        Vec::new(),
    ] {
        assert_eq!(reply(&bad), Err(Malformed), "{bad:?}");
    }
}

#[test]
fn the_number_of_names_is_read_from_the_line() {
    let name = |line: &'static str| Name { name: b"n", line: line.as_bytes(), attrs: Attrs::default() }.links();
    assert_eq!(name("-rw-r--r--    3 root     root           12 Nov 24 19:09 n"), 3);
    assert_eq!(name("-rw-r--r--+   2 0 0 12 Nov 24 19:09 n"), 2);
    for odd in ["", "n", "-rw-r--r-- x root", "12 3", "-rw-r--r-- 0 a", "-rw-r--r-- 99999999999 a", "hello there you 5"] {
        assert_eq!(name(odd), 1, "{odd}");
    }
}

proptest! {
    #[test]
    fn attributes_come_back_as_they_went(
        size: Option<u64>, owner: Option<(u32, u32)>, mode: Option<u32>, times: Option<(u32, u32)>
    ) {
        let attrs = Attrs { size, owner, mode, times };
        let mut request = Request::new(ATTRS).attrs(&attrs);
        prop_assert_eq!(reply(&request.sealed(1)[4..]), Ok(Reply::Attrs(attrs)));
    }

    #[test]
    fn names_come_back_as_they_went(names in prop::collection::vec((".{0,20}", ".{0,20}"), 0..20)) {
        let mut body = (names.len() as u32).to_be_bytes().to_vec();
        for (name, line) in &names {
            body.extend(text(name.as_bytes()));
            body.extend(text(line.as_bytes()));
            body.extend([0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
        }
        let whole = packet(NAME, &body);
        let Ok(Reply::Names(found)) = reply(&whole) else { return Err(TestCaseError::fail("not names")) };
        let found: Vec<_> = found.iter().map(|one| (one.name, one.line, one.attrs.size)).collect();
        let wanted: Vec<_> = names.iter().map(|(name, line)| (name.as_bytes(), line.as_bytes(), Some(5))).collect();
        prop_assert_eq!(found, wanted);
        // Cut anywhere, it is refused.
        for end in 0..whole.len() {
            prop_assert!(reply(&whole[..end]).is_err());
        }
    }

    #[test]
    fn nothing_that_a_server_sends_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400), kind in 100u8..106) {
        let _ = reply(&bytes);
        let _ = version(&bytes);
        let _ = id_of(&bytes);
        let _ = reply(&packet(kind, &bytes));
        if let Ok(Reply::Names(names)) = reply(&packet(NAME, &bytes)) {
            for name in names {
                let _ = name.links();
            }
        }
    }
}
