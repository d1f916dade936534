//! How a message wants to be handled: what is offered to whom, and what becomes of what was asked
//! for.
//!
//! - FUTURERELEASE (RFC 4865) is for users. A message that is held back goes into the queue, whether it is
//!   for elsewhere or for a mailbox here.
//! - DELIVERBY (RFC 2852) and REQUIRETLS (RFC 8689) are for users and servers: what a server sends is
//!   forwarded sometimes. A delivery here is in time by itself.
//! - `TLS-Required: No` (RFC 8689 §3) is honoured in whatever leaves here, forwards included.
//! - MT-PRIORITY (RFC 6710) is for users alone: anybody may connect from elsewhere, and §9 has a
//!   server take nobody's word whom it does not know.

use env::Timestamp;
use smtp::{
    DateTime, DeliverByOffer, Extensions, FutureRelease, Hold, HoldSeconds, MailFrom, Offer,
    RequireTls, Role,
};

use crate::{
    config::Outbound,
    deliver::outbound::{Deadline, Handling, TlsWish},
    limits::DELIVER_BY_SECONDS_MIN,
};

/// What a session offers.
pub(super) fn extensions(role: Role, config: &Outbound, now: Timestamp) -> Extensions {
    let deliver_by = Some(DeliverByOffer { seconds_min: DELIVER_BY_SECONDS_MIN });
    match role {
        Role::Submission => Extensions {
            require_tls: Offer::Yes,
            priority: Offer::Yes,
            deliver_by,
            future_release: future_release(config, now),
        },
        Role::Exchange => {
            Extensions { require_tls: Offer::Yes, deliver_by, ..Extensions::default() }
        }
        Role::Lmtp => Extensions::default(),
    }
}

fn future_release(config: &Outbound, now: Timestamp) -> Option<FutureRelease> {
    let seconds = config.hold_seconds_max;
    let interval_max = HoldSeconds::new(u32::try_from(seconds).ok()?)?;
    let until = now.unix_seconds().saturating_add(i64::try_from(seconds).ok()?);
    Some(FutureRelease { interval_max, until_max: DateTime::from_unix_seconds(until)? })
}

/// What MAIL asked for, as points in time.
pub(super) fn asked(mail: &MailFrom, now: Timestamp) -> Handling {
    let after = |seconds: i64| {
        Timestamp::from_unix_ms(now.unix_ms().saturating_add(seconds.saturating_mul(1_000)))
    };
    let hold_until = mail.hold.map(|hold| match hold {
        Hold::For(seconds) => after(seconds.value().into()),
        Hold::Until(time) => Timestamp::from_unix_seconds(time.unix_seconds()),
    });
    Handling {
        // RFC 4865 §4.2: nothing leaves before that time; one that has passed asks for nothing.
        hold_until: hold_until.filter(|until| *until > now),
        priority: mail.priority.unwrap_or_default(),
        deliver_by: mail.deliver_by.map(|by| Deadline {
            at: after(by.seconds().into()),
            late: by.late(),
            trace: by.trace(),
        }),
        tls: match mail.require_tls {
            RequireTls::Yes => TlsWish::Required,
            RequireTls::No => TlsWish::Usual,
        },
    }
}

/// The same with what the header says: RFC 8689 §4.1 has it ignored where MAIL asked for something.
pub(super) fn with_header(handling: Handling, tls: TlsWish) -> Handling {
    match handling.tls {
        TlsWish::Usual => Handling { tls, ..handling },
        TlsWish::Required | TlsWish::Optional => handling,
    }
}

/// What a header wants of TLS (RFC 8689 §3).
pub(super) fn tls_of(fields: &[u8]) -> TlsWish {
    let is_no = |field: message::Field<'_>| {
        field.is("TLS-Required") && field.value.trim_ascii().eq_ignore_ascii_case(b"No")
    };
    if message::Fields::new(fields).any(is_no) { TlsWish::Optional } else { TlsWish::Usual }
}

#[cfg(test)]
mod tests {
    use smtp::{DeliverBy, Late, Priority, ReversePath, Trace};

    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_seconds(1_000_000);

    fn mail(hold: Option<Hold>) -> MailFrom {
        MailFrom {
            sender: ReversePath::Null,
            size: None,
            body: smtp::Body::SevenBit,
            charset: smtp::Charset::Ascii,
            auth: None,
            ret: None,
            envid: None,
            require_tls: RequireTls::Yes,
            priority: Priority::new(3),
            deliver_by: DeliverBy::new(60, Late::Return, Trace::No),
            hold,
        }
    }

    #[test]
    fn what_was_asked_for_is_counted_from_now() {
        let held = asked(&mail(HoldSeconds::new(30).map(Hold::For)), NOW);
        assert_eq!(held.hold_until, Some(Timestamp::from_unix_seconds(1_000_030)));
        assert_eq!(held.deliver_by.unwrap().at, Timestamp::from_unix_seconds(1_000_060));
        assert_eq!((held.priority.value(), held.tls), (3, TlsWish::Required));
        let until = |seconds| DateTime::from_unix_seconds(seconds).map(Hold::Until);
        assert_eq!(asked(&mail(until(999_999)), NOW).hold_until, None);
        let later = Timestamp::from_unix_seconds(1_000_001);
        assert_eq!(asked(&mail(until(1_000_001)), NOW).hold_until, Some(later));
    }

    #[test]
    fn each_role_has_its_extensions() {
        let config = Outbound { hold_seconds_max: 86_400, ..Outbound::default() };
        let users = extensions(Role::Submission, &config, NOW);
        let release = users.future_release.unwrap();
        assert_eq!(release.interval_max.value(), 86_400);
        assert_eq!(release.until_max.unix_seconds(), 1_086_400);
        let none = Outbound { hold_seconds_max: 0, ..config.clone() };
        assert_eq!(extensions(Role::Submission, &none, NOW).future_release, None);
        let servers = extensions(Role::Exchange, &config, NOW);
        assert_eq!((servers.priority, servers.future_release), (Offer::No, None));
        assert!(servers.deliver_by.is_some() && servers.require_tls == Offer::Yes);
        assert_eq!(extensions(Role::Lmtp, &config, NOW), Extensions::default());
    }

    #[test]
    fn what_mail_asked_for_stands_before_the_header() {
        let with = |tls, header| with_header(Handling { tls, ..Handling::default() }, header).tls;
        assert_eq!(with(TlsWish::Required, TlsWish::Optional), TlsWish::Required);
        assert_eq!(with(TlsWish::Usual, TlsWish::Optional), TlsWish::Optional);
        assert_eq!(with(TlsWish::Usual, TlsWish::Usual), TlsWish::Usual);
        assert_eq!(tls_of(b"A: b\r\nTLS-Required : no \r\n\r\n"), TlsWish::Optional);
        assert_eq!(tls_of(b"A: b\r\n\r\nTLS-Required: No\r\n"), TlsWish::Usual);
    }
}
