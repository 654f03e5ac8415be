//! Tickets of dispatch, where a gateway wants them: who checks them is told from outside, so that the gateway
//! knows nothing of how they are made.

use std::{fmt, sync::Arc};

use edgeway_proto::CloseCode;
use edgeway_transport::Stop;
use parking_lot::RwLock;

/// Why a ticket does not let anybody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadTicket {
    /// It was good once: dispatch gives another one.
    Expired,
    /// It is none of this cluster; for a person.
    Refused(String),
}

/// Says of a ticket for which user it is; none for anybody.
pub type CheckTicket = Arc<dyn Fn(&[u8]) -> Result<Option<Box<str>>, BadTicket> + Send + Sync>;

/// Whether tickets are wanted, and who checks them.
#[derive(Clone, Default)]
pub struct Tickets(Arc<RwLock<Option<CheckTicket>>>);

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl Tickets {
    /// From now on; `None` for no tickets.
    pub fn set(&self, check: Option<CheckTicket>) {
        *self.0.write() = check;
    }

    /// For which user a ticket is, where tickets are wanted and it says one.
    ///
    /// # Errors
    /// How the connection is closed.
    pub fn check(&self, ticket: &[u8]) -> Result<Option<Box<str>>, Stop> {
        let check = self.0.read().clone();
        let Some(check) = check else { return Ok(None) };
        let (outcome, result) = match check(ticket) {
            Ok(user) => ("good", Ok(user)),
            Err(BadTicket::Expired) => {
                let reason = "the ticket has run out; ask dispatch for another one";
                ("expired", Err(Stop::new(CloseCode::AuthUnavailable, reason)))
            }
            Err(BadTicket::Refused(reason)) => {
                ("refused", Err(Stop::new(CloseCode::LoginFailed, reason)))
            }
        };
        metrics::counter!("edgeway_gateway_tickets_total", "result" => outcome).increment(1);
        result
    }
}
