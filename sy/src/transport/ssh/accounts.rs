//! Users and groups of a host.

use super::SshEndpoint;
use super::wire::{Get, Kind, Put, body, garbled};
use crate::error::Result;
use crate::transport::accounts::{Accounts, Here, LONGEST, MOST, Who};

const KINDS: [(Who, bool); 4] = [(Who::User, false), (Who::Group, false), (Who::User, true), (Who::Group, true)];

fn request(who: Who, by_name: bool) -> Put {
    let mut request = body();
    request.u8(KINDS.iter().position(|kind| *kind == (who, by_name)).unwrap_or(0) as u8);
    request
}

impl Accounts for SshEndpoint {
    fn names(&self, who: Who, ids: &[u32]) -> Result<Vec<Option<String>>> {
        let mut request = request(who, false);
        for &id in ids {
            request.u32(id);
        }
        let answer = self.ask(Kind::Accounts, request)?;
        let mut get = Get(&answer);
        let names = ids.iter().map(|_| if get.bool()? { name(&mut get).map(Some) } else { Ok(None) }).collect::<Result<_>>()?;
        get.end()?;
        Ok(names)
    }

    fn ids(&self, who: Who, names: &[&str]) -> Result<Vec<Option<u32>>> {
        let mut request = request(who, true);
        for name in names {
            request.bytes(name.as_bytes());
        }
        let answer = self.ask(Kind::Accounts, request)?;
        let mut get = Get(&answer);
        let ids = names.iter().map(|_| if get.bool()? { get.u32().map(Some) } else { Ok(None) }).collect::<Result<_>>()?;
        get.end()?;
        Ok(ids)
    }
}

/// A name that an account can have.
fn name(get: &mut Get<'_>) -> Result<String> {
    match std::str::from_utf8(get.bytes()?) {
        Ok(name) if !name.is_empty() && name.len() <= LONGEST && !name.contains('\0') => Ok(name.to_owned()),
        _ => Err(garbled("a name that no account can have")),
    }
}

/// What the agent answers.
pub fn answer(request: &[u8]) -> Result<Put> {
    let mut get = Get(request);
    let &(who, by_name) = KINDS.get(usize::from(get.u8()?)).ok_or_else(|| garbled("another kind of account"))?;
    let mut answer = body();
    let mut left = MOST;
    while !get.is_empty() {
        left = left.checked_sub(1).ok_or_else(|| garbled("too many accounts"))?;
        if by_name {
            let id = Here.ids(who, &[&name(&mut get)?])?.pop().flatten();
            answer.bool(id.is_some());
            if let Some(id) = id {
                answer.u32(id);
            }
        } else {
            let name = Here.names(who, &[get.u32()?])?.pop().flatten();
            answer.option(name.as_deref().map(str::as_bytes));
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_knows_root_by_name_and_number() {
        let mut asked = request(Who::User, false);
        asked.u32(0).u32(4_000_000_000);
        let told = answer(&asked.0[body().0.len()..]).expect("an answer");
        let mut get = Get(&told.0[body().0.len()..]);
        assert_eq!((get.option().expect("one"), get.option().expect("none")), (Some(&b"root"[..]), None));
        let mut asked = request(Who::Group, true);
        asked.bytes(b"root").bytes(b"no such group");
        let told = answer(&asked.0[body().0.len()..]).expect("an answer");
        assert_eq!(told.0[body().0.len()..], [1, 0, 0]);
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(answer(&[9]).is_err());
        assert!(answer(&[2, 1, 0]).is_err(), "a name with a zero byte");
        let many: Vec<u8> = std::iter::once(0).chain(std::iter::repeat_n(5, MOST + 1)).collect();
        assert!(answer(&many).is_err());
    }
}
