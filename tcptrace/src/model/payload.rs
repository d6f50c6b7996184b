//! Raw kernel counters → payload: the sequence numbers that SYN and FIN take are not bytes that anybody sent.

use tcptrace_common::record::Counters;

use super::{Connection, Patterns, Role, State};

/// Which of the raw counters count a SYN or a FIN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// `bytes_acked` starts at the own SYN: an active open. None: the role is not known.
    pub syn_counted: Option<bool>,
    /// This end sent (or queued) its FIN.
    pub fin_sent: bool,
    /// The peer's FIN was received in order.
    pub fin_received: bool,
}

impl Shape {
    /// What the timeline of a connection says.
    #[must_use]
    pub fn of(c: &Connection) -> Self {
        let mut shape = Self {
            syn_counted: match c.role {
                Some(Role::Client) => Some(true),
                // A child starts with its SYN acknowledged, but both ends of a simultaneous open sent a SYN.
                Some(Role::Server) => Some(c.patterns.0 & Patterns::SIMULTANEOUS_OPEN != 0),
                Some(Role::Listener) => Some(false),
                None => None,
            },
            ..Self::default()
        };
        for (state, _) in c.states.iter() {
            match state {
                State::FinWait1 | State::FinWait2 => shape.fin_sent = true,
                State::CloseWait => shape.fin_received = true,
                State::Closing | State::LastAck | State::TimeWait => {
                    shape.fin_sent = true;
                    shape.fin_received = true;
                }
                State::Established
                | State::SynSent
                | State::SynRecv
                | State::NewSynRecv
                | State::Listen
                | State::Close => {}
            }
        }
        shape
    }
}

/// Bytes that processes wrote and read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// Bytes sent, retransmitted ones included.
    pub sent: u64,
    /// Bytes that the peer acknowledged; None where it is not known whether the count holds a SYN.
    pub acked: Option<u64>,
    /// Bytes received in order.
    pub received: u64,
    /// Bytes sent again.
    pub retrans: u64,
    /// Bytes received and not read.
    pub unread: u32,
    /// Bytes written and not acknowledged.
    pub unsent: u32,
}

impl Payload {
    /// Take SYN and FIN out of the counters of a connection that is over (or as it is now).
    ///
    /// The own FIN is the last thing in the write queue: it was acknowledged exactly if nothing is left there. The peer's
    /// is the last thing in the read queue: it was consumed exactly if nothing is left there.
    #[must_use]
    pub fn new(c: &Counters, shape: Shape) -> Self {
        let fin_acked = shape.fin_sent && c.unsent == 0;
        // The SYN is acknowledged before anything else is.
        let syn_pending = shape.syn_counted == Some(true) && c.bytes_acked == 0;
        let less = u64::from(shape.syn_counted == Some(true)) + u64::from(fin_acked);
        Self {
            sent: c.bytes_sent,
            acked: shape.syn_counted.map(|_| c.bytes_acked.saturating_sub(less)),
            received: c.bytes_received.saturating_sub(u64::from(shape.fin_received)),
            retrans: c.bytes_retrans,
            unread: c.unread.saturating_sub(u32::from(shape.fin_received)),
            unsent: c.unsent.saturating_sub(u32::from(shape.fin_sent) + u32::from(syn_pending)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Shape = Shape { syn_counted: Some(true), fin_sent: false, fin_received: false };
    const SERVER: Shape = Shape { syn_counted: Some(false), fin_sent: false, fin_received: false };

    fn counters(acked: u64, received: u64, unread: u32, unsent: u32) -> Counters {
        Counters {
            bytes_sent: 100,
            bytes_acked: acked,
            bytes_received: received,
            unread,
            unsent,
            ..Counters::default()
        }
    }

    #[test]
    fn a_client_that_closed_first() {
        // SYN + 100 bytes + FIN acknowledged; 50 bytes and a FIN that a timewait socket saw.
        let shape = Shape { fin_sent: true, fin_received: true, ..CLIENT };
        let p = Payload::new(&counters(102, 51, 0, 0), shape);
        assert_eq!((p.sent, p.acked, p.received, p.unread, p.unsent), (100, Some(100), 50, 0, 0));
    }

    #[test]
    fn a_server_that_closed_last() {
        let shape = Shape { fin_sent: true, fin_received: true, ..SERVER };
        let p = Payload::new(&counters(101, 51, 0, 0), shape);
        assert_eq!((p.acked, p.received), (Some(100), 50));
    }

    #[test]
    fn a_fin_that_was_never_acknowledged_stays_out_of_both_counts() {
        let shape = Shape { fin_sent: true, ..CLIENT };
        // 60 of 100 bytes acknowledged, 40 and the FIN are left.
        let p = Payload::new(&counters(61, 0, 0, 41), shape);
        assert_eq!((p.acked, p.unsent), (Some(60), 40));
    }

    #[test]
    fn unread_data_below_the_peers_fin() {
        let shape = Shape { fin_received: true, ..SERVER };
        assert_eq!(Payload::new(&counters(0, 13, 13, 0), shape).unread, 12);
        // Only the FIN was left, and then not even that.
        assert_eq!(Payload::new(&counters(0, 13, 1, 0), shape).unread, 0);
        assert_eq!(Payload::new(&counters(0, 13, 0, 0), shape).unread, 0);
    }

    #[test]
    fn a_syn_that_was_never_answered() {
        let p = Payload::new(&Counters { unsent: 1, ..Counters::default() }, CLIENT);
        assert_eq!((p.acked, p.unsent), (Some(0), 0));
    }

    #[test]
    fn a_rst_without_fins_changes_nothing_but_the_syn() {
        let p = Payload::new(&counters(11, 20, 5, 90), CLIENT);
        assert_eq!((p.acked, p.received, p.unread, p.unsent), (Some(10), 20, 5, 90));
    }

    #[test]
    fn an_unknown_role_leaves_the_acknowledged_bytes_unknown() {
        let p = Payload::new(&counters(11, 20, 0, 0), Shape { syn_counted: None, ..CLIENT });
        assert_eq!((p.acked, p.received), (None, 20));
    }
}
