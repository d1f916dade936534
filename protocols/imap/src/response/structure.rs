//! ENVELOPE, BODY and BODYSTRUCTURE (RFC 9051 §7.5.2).

use crate::limits::STRUCTURE_DEPTH_MAX;
use crate::text::WireString;
use crate::wire::Writer;

/// The envelope of a message. An empty address list is written as NIL; the caller fills `sender`
/// and `reply_to` from `from` where the message has none (RFC 9051 §7.5.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    /// `Date:` as written.
    pub date: Option<WireString>,
    /// `Subject:` as written.
    pub subject: Option<WireString>,
    /// `From:`
    pub from: Vec<Address>,
    /// `Sender:`, or `From:` where there is none.
    pub sender: Vec<Address>,
    /// `Reply-To:`, or `From:` where there is none.
    pub reply_to: Vec<Address>,
    /// `To:`
    pub to: Vec<Address>,
    /// `Cc:`
    pub cc: Vec<Address>,
    /// `Bcc:`
    pub bcc: Vec<Address>,
    /// `In-Reply-To:` as written.
    pub in_reply_to: Option<WireString>,
    /// `Message-ID:` as written.
    pub message_id: Option<WireString>,
}

/// One address, or the start (`mailbox` only) or end (nothing) of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// Display name.
    pub name: Option<WireString>,
    /// Source route, obsolete.
    pub route: Option<WireString>,
    /// Local part, or name of the group.
    pub mailbox: Option<WireString>,
    /// Domain.
    pub host: Option<WireString>,
}

/// A body part and all below it. A multipart without parts is written with one empty text part,
/// parts below [`STRUCTURE_DEPTH_MAX`] as plain octets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyStructure {
    /// `multipart/*`
    Multipart {
        /// In order.
        parts: Vec<BodyStructure>,
        /// `mixed` for one.
        subtype: WireString,
        /// Parameters of the content type.
        parameters: Vec<(WireString, WireString)>,
        /// Extension data.
        extension: BodyExtension,
    },
    /// Everything else.
    Single(Box<BodyPart>),
}

/// A part that is not multipart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyPart {
    /// Media type, with what only some types have.
    pub media: Media,
    /// Parameters of the content type.
    pub parameters: Vec<(WireString, WireString)>,
    /// `Content-ID:`
    pub id: Option<WireString>,
    /// `Content-Description:`
    pub description: Option<WireString>,
    /// `Content-Transfer-Encoding:`, `7BIT` where there is none.
    pub encoding: WireString,
    /// Octets as transferred.
    pub size: u64,
    /// `Content-MD5:`
    pub md5: Option<WireString>,
    /// Extension data.
    pub extension: BodyExtension,
}

/// Media type of a part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Media {
    /// `text/*`
    Text {
        /// `plain` for one.
        subtype: WireString,
        /// Lines as transferred.
        lines: u64,
    },
    /// `message/rfc822` or `message/global`, parsed.
    Message {
        /// `RFC822` or `GLOBAL`.
        subtype: WireString,
        /// Of the enclosed message.
        envelope: Box<Envelope>,
        /// Of the enclosed message.
        structure: Box<BodyStructure>,
        /// Lines as transferred.
        lines: u64,
    },
    /// Any other. Not `text`, whose clients expect lines; `message/rfc822` that is not parsed is
    /// given as `application/octet-stream`.
    Basic {
        /// `application` for one.
        media_type: WireString,
        /// `pdf` for one.
        subtype: WireString,
    },
}

/// What BODYSTRUCTURE has and BODY has not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BodyExtension {
    /// `Content-Disposition:` with its parameters.
    pub disposition: Option<(WireString, Vec<(WireString, WireString)>)>,
    /// `Content-Language:`
    pub language: Vec<WireString>,
    /// `Content-Location:`
    pub location: Option<WireString>,
}

/// Whether extension data is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extensions {
    Included,
    LeftOut,
}

impl Envelope {
    pub(crate) fn write(&self, w: &mut Writer<'_>) {
        w.raw("(");
        w.nstring(self.date.as_ref());
        w.raw(" ");
        w.nstring(self.subject.as_ref());
        for list in [&self.from, &self.sender, &self.reply_to, &self.to, &self.cc, &self.bcc] {
            w.raw(" ");
            write_addresses(w, list);
        }
        w.raw(" ");
        w.nstring(self.in_reply_to.as_ref());
        w.raw(" ");
        w.nstring(self.message_id.as_ref());
        w.raw(")");
    }
}

fn write_addresses(w: &mut Writer<'_>, addresses: &[Address]) {
    if addresses.is_empty() {
        return w.raw("NIL");
    }
    w.raw("(");
    for address in addresses {
        w.raw("(");
        w.nstring(address.name.as_ref());
        for field in [&address.route, &address.mailbox, &address.host] {
            w.raw(" ");
            w.nstring(field.as_ref());
        }
        w.raw(")");
    }
    w.raw(")");
}

impl BodyStructure {
    pub(crate) fn write(&self, w: &mut Writer<'_>, extensions: Extensions) {
        self.write_at(w, extensions, 1);
    }

    fn write_at(&self, w: &mut Writer<'_>, extensions: Extensions, depth: usize) {
        w.raw("(");
        match self {
            _ if depth > STRUCTURE_DEPTH_MAX => {
                w.raw("\"application\" \"octet-stream\" NIL NIL NIL \"8BIT\" 0");
            }
            Self::Multipart { parts, subtype, parameters, extension } => {
                for part in parts {
                    part.write_at(w, extensions, depth + 1);
                }
                if parts.is_empty() {
                    w.raw("(\"text\" \"plain\" NIL NIL NIL \"7BIT\" 0 0)");
                }
                w.raw(" ");
                w.string(subtype);
                if extensions == Extensions::Included {
                    w.raw(" ");
                    write_parameters(w, parameters);
                    extension.write(w);
                }
            }
            Self::Single(part) => part.write(w, extensions, depth),
        }
        w.raw(")");
    }
}

impl BodyPart {
    fn write(&self, w: &mut Writer<'_>, extensions: Extensions, depth: usize) {
        match &self.media {
            Media::Text { subtype, .. } => {
                w.raw("\"text\" ");
                w.string(subtype);
            }
            Media::Message { subtype, .. } => {
                w.raw("\"message\" ");
                w.string(subtype);
            }
            Media::Basic { media_type, subtype } => {
                w.string(media_type);
                w.raw(" ");
                w.string(subtype);
            }
        }
        w.raw(" ");
        write_parameters(w, &self.parameters);
        w.raw(" ");
        w.nstring(self.id.as_ref());
        w.raw(" ");
        w.nstring(self.description.as_ref());
        w.raw(" ");
        w.string(&self.encoding);
        w.raw_fmt(format_args!(" {}", self.size));
        match &self.media {
            Media::Text { lines, .. } => w.raw_fmt(format_args!(" {lines}")),
            Media::Message { envelope, structure, lines, .. } => {
                w.raw(" ");
                envelope.write(w);
                w.raw(" ");
                structure.write_at(w, extensions, depth + 1);
                w.raw_fmt(format_args!(" {lines}"));
            }
            Media::Basic { .. } => {}
        }
        if extensions == Extensions::Included {
            w.raw(" ");
            w.nstring(self.md5.as_ref());
            self.extension.write(w);
        }
    }
}

impl BodyExtension {
    fn write(&self, w: &mut Writer<'_>) {
        w.raw(" ");
        match &self.disposition {
            Some((kind, parameters)) => {
                w.raw("(");
                w.string(kind);
                w.raw(" ");
                write_parameters(w, parameters);
                w.raw(")");
            }
            None => w.raw("NIL"),
        }
        w.raw(" ");
        match &self.language[..] {
            [] => w.raw("NIL"),
            [language] => w.string(language),
            [first, rest @ ..] => {
                w.raw("(");
                w.string(first);
                for language in rest {
                    w.raw(" ");
                    w.string(language);
                }
                w.raw(")");
            }
        }
        w.raw(" ");
        w.nstring(self.location.as_ref());
    }
}

fn write_parameters(w: &mut Writer<'_>, parameters: &[(WireString, WireString)]) {
    if parameters.is_empty() {
        return w.raw("NIL");
    }
    for (index, (name, value)) in parameters.iter().enumerate() {
        w.raw(if index == 0 { "(" } else { " " });
        w.string(name);
        w.raw(" ");
        w.string(value);
    }
    w.raw(")");
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::wire::Dialect;

    fn check(dialect: Dialect, write: impl FnOnce(&mut Writer<'_>), wire: &str) {
        let mut out = BytesMut::new();
        write(&mut Writer::server(&mut out, dialect));
        assert_eq!(String::from_utf8_lossy(&out), wire);
    }

    fn address(name: Option<&str>, mailbox: &str, host: &str) -> Address {
        let (mailbox, host) = (Some(mailbox.into()), Some(host.into()));
        Address { name: name.map(Into::into), route: None, mailbox, host }
    }

    fn text_part(subtype: &str, size: u64, lines: u64) -> BodyPart {
        BodyPart {
            media: Media::Text { subtype: subtype.into(), lines },
            parameters: vec![("CHARSET".into(), "US-ASCII".into())],
            id: None,
            description: None,
            encoding: "7BIT".into(),
            size,
            md5: None,
            extension: BodyExtension::default(),
        }
    }

    fn single(part: BodyPart) -> BodyStructure {
        BodyStructure::Single(Box::new(part))
    }

    #[test]
    fn envelopes() {
        let terry = vec![address(Some("Terry Gray"), "gray", "cac.washington.edu")];
        let envelope = Envelope {
            date: Some("Wed, 17 Jul 1996 02:23:25 -0700 (PDT)".into()),
            subject: Some("IMAP4rev2 WG mtg summary and \"minutes\"".into()),
            from: terry.clone(),
            sender: terry.clone(),
            reply_to: terry,
            to: vec![address(None, "imap", "cac.washington.edu")],
            cc: vec![
                address(None, "minutes", "CNRI.Reston.VA.US"),
                address(Some("John Klensin"), "KLENSIN", "MIT.EDU"),
            ],
            bcc: vec![],
            in_reply_to: None,
            message_id: Some("<B27397-0100000@cac.washington.edu>".into()),
        };
        check(
            Dialect::Ascii,
            |w| envelope.write(w),
            "(\"Wed, 17 Jul 1996 02:23:25 -0700 (PDT)\" \
             \"IMAP4rev2 WG mtg summary and \\\"minutes\\\"\" \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((\"Terry Gray\" NIL \"gray\" \"cac.washington.edu\")) \
             ((NIL NIL \"imap\" \"cac.washington.edu\")) \
             ((NIL NIL \"minutes\" \"CNRI.Reston.VA.US\")\
             (\"John Klensin\" NIL \"KLENSIN\" \"MIT.EDU\")) NIL NIL \
             \"<B27397-0100000@cac.washington.edu>\")",
        );
    }

    #[test]
    fn strings_that_cannot_be_quoted_are_literals() {
        let name = WireString::from("Jürgen\0");
        check(Dialect::Ascii, |w| w.nstring(Some(&name)), "{7}\r\nJürgen");
        check(Dialect::Utf8, |w| w.nstring(Some(&name)), "\"Jürgen\"");
        let lines = WireString::from("a\r\nb");
        check(Dialect::Utf8, |w| w.nstring(Some(&lines)), "{4}\r\na\r\nb");
        check(Dialect::Utf8, |w| w.nstring(None), "NIL");
        let long = "x".repeat(crate::limits::QUOTED_BYTES_MAX + 1);
        check(
            Dialect::Ascii,
            |w| w.astring(&(long.clone() + " ")),
            &format!("{{2050}}\r\n{long} "),
        );
    }

    #[test]
    fn structures() {
        let mut attached = text_part("PLAIN", 4554, 73);
        attached.parameters.push(("NAME".into(), "cc.diff".into()));
        attached.id = Some("<960723163407.20117h@cac.washington.edu>".into());
        attached.description = Some("Compiler diff".into());
        attached.extension.disposition =
            Some(("attachment".into(), vec![("filename".into(), "cc.diff".into())]));
        attached.extension.language = vec!["en".into(), "de".into()];
        let mixed = BodyStructure::Multipart {
            parts: vec![single(text_part("PLAIN", 1152, 23)), single(attached)],
            subtype: "MIXED".into(),
            parameters: vec![("boundary".into(), "x y".into())],
            extension: BodyExtension { language: vec!["en".into()], ..Default::default() },
        };
        check(
            Dialect::Ascii,
            |w| mixed.write(w, Extensions::LeftOut),
            "((\"text\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 1152 23)\
             (\"text\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\" \"NAME\" \"cc.diff\") \
             \"<960723163407.20117h@cac.washington.edu>\" \"Compiler diff\" \"7BIT\" 4554 73) \
             \"MIXED\")",
        );
        check(
            Dialect::Ascii,
            |w| mixed.write(w, Extensions::Included),
            "((\"text\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 1152 23 NIL NIL NIL \
             NIL)(\"text\" \"PLAIN\" (\"CHARSET\" \"US-ASCII\" \"NAME\" \"cc.diff\") \
             \"<960723163407.20117h@cac.washington.edu>\" \"Compiler diff\" \"7BIT\" 4554 73 NIL \
             (\"attachment\" (\"filename\" \"cc.diff\")) (\"en\" \"de\") NIL) \"MIXED\" \
             (\"boundary\" \"x y\") NIL \"en\" NIL)",
        );
        let mut message = text_part("x", 342, 0);
        message.parameters.clear();
        message.media = Media::Message {
            subtype: "RFC822".into(),
            envelope: Box::default(),
            structure: Box::new(single(text_part("HTML", 1, 1))),
            lines: 7,
        };
        check(
            Dialect::Ascii,
            |w| single(message).write(w, Extensions::LeftOut),
            "(\"message\" \"RFC822\" NIL NIL NIL \"7BIT\" 342 (NIL NIL NIL NIL NIL NIL NIL NIL NIL \
             NIL) (\"text\" \"HTML\" (\"CHARSET\" \"US-ASCII\") NIL NIL \"7BIT\" 1 1) 7)",
        );
    }

    #[test]
    fn deep_structures_are_cut() {
        let mut structure = single(text_part("PLAIN", 1, 1));
        for _ in 0..2 * STRUCTURE_DEPTH_MAX {
            structure = BodyStructure::Multipart {
                parts: vec![structure],
                subtype: "mixed".into(),
                parameters: vec![],
                extension: BodyExtension::default(),
            };
        }
        let wire = "(".repeat(STRUCTURE_DEPTH_MAX)
            + "(\"application\" \"octet-stream\" NIL NIL NIL \"8BIT\" 0)"
            + &" \"mixed\")".repeat(STRUCTURE_DEPTH_MAX);
        check(Dialect::Ascii, |w| structure.write(w, Extensions::LeftOut), &wire);
    }
}
