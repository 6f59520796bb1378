//! Users and groups of one side of a run: numbers and names.

use nix::unistd::{Gid, Group, Uid, User};

use crate::error::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    User,
    Group,
}

/// Bytes of a name, at most.
pub const LONGEST: usize = 256;
/// So many are asked for at a time, at most.
pub const MOST: usize = 1000;

/// One side's users and groups. Answers are in the order of what was asked.
pub trait Accounts: Send + Sync {
    fn names(&self, who: Who, ids: &[u32]) -> Result<Vec<Option<String>>>;

    fn ids(&self, who: Who, names: &[&str]) -> Result<Vec<Option<u32>>>;
}

/// Those that this machine knows, from whichever source it has them.
#[derive(Debug)]
pub struct Here;

impl Accounts for Here {
    fn names(&self, who: Who, ids: &[u32]) -> Result<Vec<Option<String>>> {
        let name = |&id: &u32| match who {
            Who::User => User::from_uid(Uid::from_raw(id)).ok().flatten().map(|user| user.name),
            Who::Group => Group::from_gid(Gid::from_raw(id)).ok().flatten().map(|group| group.name),
        };
        Ok(ids.iter().map(|id| name(id).filter(|name| !name.is_empty() && name.len() <= LONGEST)).collect())
    }

    fn ids(&self, who: Who, names: &[&str]) -> Result<Vec<Option<u32>>> {
        let id = |name: &str| match who {
            Who::User => User::from_name(name).ok().flatten().map(|user| user.uid.as_raw()),
            Who::Group => Group::from_name(name).ok().flatten().map(|group| group.gid.as_raw()),
        };
        Ok(names.iter().map(|name| id(name)).collect())
    }
}
