//! What is known of where instances are, and what follows for a list of places. Pure.

use std::{collections::HashMap, sync::Arc};

use edgeway_backend::{config::Place, registry::View};

/// What the registry and name servers have said last.
#[derive(Debug, Default)]
pub struct Known {
    pub view: Option<Arc<View>>,
    /// Addresses by name and port.
    pub names: HashMap<(String, u16), Vec<String>>,
}

/// The instances of a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// In order, each once.
    pub addresses: Vec<String>,
    /// Whether all that are in the registry are among them.
    pub is_registered: bool,
    /// Whether each place has been found out.
    pub is_known: bool,
}

impl Known {
    /// Where the instances of a backend are.
    pub fn find(&self, name: &str, places: &[Place]) -> Found {
        let mut found = Found { addresses: Vec::new(), is_registered: false, is_known: true };
        for place in places {
            match place {
                Place::Address(address) => found.addresses.push(address.clone()),
                Place::Dns { host, port } => match self.names.get(&(host.clone(), *port)) {
                    Some(addresses) => found.addresses.extend(addresses.iter().cloned()),
                    None => found.is_known = false,
                },
                Place::Registry => {
                    found.is_registered = true;
                    match &self.view {
                        Some(view) => found.addresses.extend(view.addresses(name)),
                        None => found.is_known = false,
                    }
                }
            }
        }
        found.addresses.sort_unstable();
        found.addresses.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn find(known: &Known, items: &[&str]) -> (Vec<String>, bool, bool) {
        let places: Vec<_> = items.iter().map(|item| Place::parse(item).unwrap()).collect();
        let Found { addresses, is_registered, is_known } = known.find("room", &places);
        (addresses, is_registered, is_known)
    }

    #[test]
    fn places_become_addresses_as_they_are_found_out() {
        let mut known = Known::default();
        let items = ["10.0.0.3:1", "dns:rooms:2", "registry"];
        assert_eq!(find(&known, &items[..1]), (vec!["10.0.0.3:1".to_owned()], false, true));
        assert_eq!(find(&known, &items), (vec!["10.0.0.3:1".to_owned()], true, false));
        let addresses = ["10.0.0.1:2", "10.0.0.3:1"].map(str::to_owned);
        known.names.insert(("rooms".to_owned(), 2), addresses.to_vec());
        known.view = Some(Arc::default());
        assert_eq!(find(&known, &items), (addresses.to_vec(), true, true));
        assert_eq!(find(&known, &["registry"]), (vec![], true, true));
    }
}
