//! Whether a config fits the roles of a process.

use crate::{
    config::{Config, ConfigProblem, Nodes, Place, StoreConfig},
    roles::{Role, Roles},
};

/// What the config lacks for a process to have these roles. [`super::Backend::start`] asks by itself.
#[must_use]
pub fn check_roles(config: &Config, roles: Roles) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    for (role, nodes) in [(Role::Room, &config.nodes.room), (Role::Peer, &config.nodes.peer)] {
        let passes_on = [Role::Access, Role::Push].into_iter().find(|role| roles.has(*role));
        if let Some(who) = passes_on
            && nodes.is_empty()
            && !roles.has(role)
        {
            let (role, who) = (role.name(), who.name());
            problems.push(ConfigProblem {
                key: format!("nodes.{role}"),
                problem: format!(
                    "is empty, so that {who} has no {role} to pass anything on to; list the \
                     addresses of processes with the role {role}, or give this one the role"
                ),
            });
        }
    }
    problems.extend(check_strokes(config, roles));
    problems
}

/// Whoever passes strokes on, and whoever has the rooms, must find the same owners of strokes.
fn check_strokes(config: &Config, roles: Roles) -> Option<ConfigProblem> {
    let Nodes { room, peer: _, access, binary } = &config.nodes;
    let problem = |problem: &str| {
        Some(ConfigProblem { key: "nodes.binary".to_owned(), problem: problem.to_owned() })
    };
    let others = || room.iter().chain(access);
    let is_one = others().count() < 2 && others().all(Place::is_fixed);
    let alone = roles.has(Role::Access) && roles.has(Role::Room) && is_one;
    if roles.has(Role::Binary) && binary.is_empty() && !alone {
        return problem(
            "is empty, so that nobody would pass strokes on to a process with the role binary; list \
             the addresses of those",
        );
    }
    let here = |place: &Place| {
        let is_own = |addr: &String| addr.parse() == Ok(config.listen);
        roles.has(Role::Binary) && matches!(place, Place::Address(addr) if is_own(addr))
    };
    let elsewhere = binary.iter().any(|place| !here(place));
    let owns = roles.has(Role::Room) || roles.has(Role::Binary);
    if owns && elsewhere && config.store == StoreConfig::Embedded {
        return problem(
            "lists processes of their own, and an owner of rooms must be able to read what they have \
             stored; that needs store.engine = \"redis\"",
        );
    }
    None
}
