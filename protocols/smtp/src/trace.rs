//! The trace header fields a server adds (RFC 5321 §4.4).
//!
//! Invariant: each is a whole header field of printable characters with its CRLF, folded to
//! lines below RFC 5322's limit, whatever strings it was made from.

use std::net::IpAddr;

use crate::address::{Domain, ForwardPath, HeloName, ReversePath};
use crate::call::{Charset, QueueId};
use crate::config::TlsInfo;

/// How a peer greeted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// HELO: no extensions.
    Smtp,
    /// EHLO.
    Esmtp,
    /// LHLO.
    Lmtp,
}

/// Whether the connection is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// No TLS.
    Clear,
    /// TLS.
    Tls,
}

/// Whether the peer authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// Not by AUTH.
    Anonymous,
    /// By AUTH.
    Authenticated,
}

/// How a message arrived: what the `with` clause says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// How the peer greeted.
    pub dialect: Dialect,
    /// Whether the transaction used SMTPUTF8.
    pub charset: Charset,
    /// Whether the connection was encrypted.
    pub encryption: Encryption,
    /// Whether the peer authenticated.
    pub authentication: Authentication,
}

impl Protocol {
    /// The registered keyword: RFC 3848 and RFC 6531 §4.3.
    pub fn keyword(self) -> &'static str {
        use Authentication::{Anonymous, Authenticated};
        use Encryption::{Clear, Tls};
        let index = match (self.encryption, self.authentication) {
            (Clear, Anonymous) => 0,
            (Clear, Authenticated) => 1,
            (Tls, Anonymous) => 2,
            (Tls, Authenticated) => 3,
        };
        let family = match (self.dialect, self.charset) {
            // No keyword tells HELO with TLS apart.
            (Dialect::Smtp, _) => ["SMTP"; 4],
            (Dialect::Esmtp, Charset::Ascii) => ["ESMTP", "ESMTPA", "ESMTPS", "ESMTPSA"],
            (Dialect::Esmtp, Charset::Utf8) => ["UTF8SMTP", "UTF8SMTPA", "UTF8SMTPS", "UTF8SMTPSA"],
            (Dialect::Lmtp, Charset::Ascii) => ["LMTP", "LMTPA", "LMTPS", "LMTPSA"],
            (Dialect::Lmtp, Charset::Utf8) => ["UTF8LMTP", "UTF8LMTPA", "UTF8LMTPS", "UTF8LMTPSA"],
        };
        family[index]
    }
}

/// What a `Received` field is made from.
#[derive(Clone, Debug)]
pub struct TraceInfo<'a> {
    /// The name the peer greeted with.
    pub helo: &'a HeloName,
    /// The peer's address; `None` keeps it out of the header, as a submission service may wish.
    pub peer: Option<IpAddr>,
    /// The peer's verified name, if it has one.
    pub peer_name: Option<&'a Domain>,
    /// This server.
    pub hostname: &'a Domain,
    /// How the message arrived.
    pub protocol: Protocol,
    /// What the handshake agreed upon, if there was one.
    pub tls: Option<&'a TlsInfo>,
    /// What this server calls the message.
    pub id: &'a QueueId,
    /// All accepted recipients; named only if there is a single one, since a header is read by
    /// each of them (RFC 5321 §7.6).
    pub recipients: &'a [ForwardPath],
    /// The date and time of RFC 5322 §3.3.
    pub date: &'a str,
}

/// A `Received` field with its CRLF.
pub fn received_header(info: &TraceInfo<'_>) -> String {
    let mut header = format!("Received: from {}", info.helo);
    if let Some(peer) = info.peer {
        let literal = Domain::from(peer);
        let name = info.peer_name.map(|name| format!("{name} ")).unwrap_or_default();
        header.push_str(&format!("\r\n\t({name}{literal})"));
    }
    header.push_str(&format!("\r\n\tby {}", info.hostname));
    header.push_str(&format!("\r\n\twith {} id {}", info.protocol.keyword(), info.id));
    if let Some(tls) = info.tls {
        let (version, cipher) = (comment_text(&tls.version), comment_text(&tls.cipher));
        header.push_str(&format!("\r\n\t(using {version} with cipher {cipher})"));
    }
    if let [recipient] = info.recipients {
        header.push_str(&format!("\r\n\tfor {}", for_clause(recipient)));
    }
    let date: String = info.date.chars().filter(|c| matches!(c, ' '..='~')).take(64).collect();
    header.push_str(&format!(";\r\n\t{date}\r\n"));
    header
}

/// A `Return-Path` field with its CRLF, for final delivery (RFC 5321 §4.4).
pub fn return_path(sender: &ReversePath) -> String {
    format!("Return-Path: {sender}\r\n")
}

/// The grammar wants a mailbox, which the bare postmaster is not.
fn for_clause(recipient: &ForwardPath) -> String {
    match recipient {
        ForwardPath::Postmaster => "Postmaster".to_owned(),
        ForwardPath::Mailbox(_) => recipient.to_string(),
    }
}

/// Short, and without what ends a comment or a line.
fn comment_text(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '!'..='~') && !"()\\".contains(*c)).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ChannelBinding;

    fn path(text: &str) -> ForwardPath {
        ForwardPath::parse(text).expect("valid")
    }

    fn check<'a>(change: impl FnOnce(&mut TraceInfo<'a>), expected: &str) {
        // Leaked, so that a test may put its own shorter-lived parts beside them.
        let mut info = TraceInfo {
            helo: Box::leak(Box::new(HeloName::parse("client.example").expect("valid"))),
            peer: Some(IpAddr::from([192, 0, 2, 1])),
            peer_name: None,
            hostname: Box::leak(Box::new(Domain::parse("mx.example").expect("valid"))),
            protocol: Protocol {
                dialect: Dialect::Esmtp,
                charset: Charset::Ascii,
                encryption: Encryption::Clear,
                authentication: Authentication::Anonymous,
            },
            tls: None,
            id: Box::leak(Box::new(QueueId::new("7-1").expect("valid"))),
            recipients: Box::leak(Box::new([path("<a@b>"), path("<c@d>")])),
            date: "Mon, 1 Jan 2024 00:00:00 +0000",
        };
        change(&mut info);
        assert_eq!(received_header(&info), expected);
    }

    #[test]
    fn received() {
        check(
            |_| {},
            "Received: from client.example\r\n\t([192.0.2.1])\r\n\tby mx.example\r\n\
             \twith ESMTP id 7-1;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n",
        );
        let name = Domain::parse("rdns.example").expect("valid");
        let tls = TlsInfo {
            version: "TLSv1.3".to_owned(),
            cipher: "TLS13_AES_256\r\n(evil)".to_owned(),
            channel_binding: ChannelBinding::Absent,
        };
        let single = [path("<\"a b\"@c>")];
        check(
            |info| {
                info.peer_name = Some(&name);
                info.peer = Some("2001:db8::1".parse().expect("valid"));
                info.protocol.encryption = Encryption::Tls;
                info.protocol.authentication = Authentication::Authenticated;
                info.tls = Some(&tls);
                info.recipients = &single;
                info.date = "today\r\nX: y";
            },
            "Received: from client.example\r\n\t(rdns.example [IPv6:2001:db8::1])\r\n\
             \tby mx.example\r\n\twith ESMTPSA id 7-1\r\n\
             \t(using TLSv1.3 with cipher TLS13_AES_256evil)\r\n\tfor <\"a b\"@c>;\r\n\
             \ttodayX: y\r\n",
        );
        let postmaster = [path("<postmaster>")];
        check(
            |info| {
                info.peer = None;
                info.protocol.dialect = Dialect::Lmtp;
                info.protocol.charset = Charset::Utf8;
                info.recipients = &postmaster;
            },
            "Received: from client.example\r\n\tby mx.example\r\n\twith UTF8LMTP id 7-1\r\n\
             \tfor Postmaster;\r\n\tMon, 1 Jan 2024 00:00:00 +0000\r\n",
        );
    }

    #[test]
    fn keywords() {
        let keyword = |dialect, charset, encryption, authentication| {
            Protocol { dialect, charset, encryption, authentication }.keyword()
        };
        use Authentication::{Anonymous, Authenticated};
        use Charset::{Ascii, Utf8};
        use Encryption::{Clear, Tls};
        assert_eq!(keyword(Dialect::Smtp, Ascii, Tls, Anonymous), "SMTP");
        assert_eq!(keyword(Dialect::Esmtp, Ascii, Tls, Anonymous), "ESMTPS");
        assert_eq!(keyword(Dialect::Esmtp, Utf8, Tls, Authenticated), "UTF8SMTPSA");
        assert_eq!(keyword(Dialect::Lmtp, Ascii, Clear, Anonymous), "LMTP");
        assert_eq!(keyword(Dialect::Lmtp, Utf8, Tls, Anonymous), "UTF8LMTPS");
    }

    #[test]
    fn return_paths() {
        assert_eq!(return_path(&ReversePath::Null), "Return-Path: <>\r\n");
        let sender = ReversePath::parse("<A@B>").expect("valid");
        assert_eq!(return_path(&sender), "Return-Path: <A@b>\r\n");
    }
}
