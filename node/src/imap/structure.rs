//! ENVELOPE and BODYSTRUCTURE (RFC 9051 §7.5.2) from a message's structure.

use imap::{
    WireString,
    response::{Address, BodyExtension, BodyPart, BodyStructure, Envelope, Media},
};
use message::{Content, Part, Structure};

pub(super) fn envelope(envelope: &message::Envelope) -> Envelope {
    Envelope {
        date: wire(envelope.date.as_ref()),
        subject: wire(envelope.subject.as_ref()),
        from: addresses(&envelope.from),
        sender: addresses(&envelope.sender),
        reply_to: addresses(&envelope.reply_to),
        to: addresses(&envelope.to),
        cc: addresses(&envelope.cc),
        bcc: addresses(&envelope.bcc),
        in_reply_to: wire(envelope.in_reply_to.as_ref()),
        message_id: wire(envelope.message_id.as_ref()),
    }
}

fn addresses(list: &[message::Address]) -> Vec<Address> {
    list.iter()
        .map(|address| Address {
            name: wire(address.name.as_ref()),
            route: None,
            mailbox: wire(address.mailbox.as_ref()),
            host: wire(address.host.as_ref()),
        })
        .collect()
}

pub(super) fn body(part: &Part) -> BodyStructure {
    let extension = BodyExtension {
        disposition: part.disposition.as_ref().map(|disposition| {
            (WireString::from(disposition.kind.as_str()), params(&disposition.params))
        }),
        language: part.language.iter().map(|tag| WireString::from(tag.as_str())).collect(),
        location: wire(part.location.as_ref()),
    };
    let content_type = &part.content_type;
    let parameters = params(&content_type.params);
    let subtype = WireString::from(content_type.subtype.as_str());
    let media = match &part.content {
        Content::Multipart(parts) => {
            let parts = parts.iter().map(body).collect();
            return BodyStructure::Multipart { parts, subtype, parameters, extension };
        }
        Content::Message(structure) => {
            let Structure { envelope, root } = &**structure;
            Media::Message {
                subtype,
                envelope: Box::new(self::envelope(envelope)),
                structure: Box::new(body(root)),
                lines: part.lines,
            }
        }
        Content::Leaf if content_type.kind == "text" => Media::Text { subtype, lines: part.lines },
        Content::Leaf => {
            Media::Basic { media_type: WireString::from(content_type.kind.as_str()), subtype }
        }
    };
    BodyStructure::Single(Box::new(BodyPart {
        media,
        parameters,
        id: wire(part.content_id.as_ref()),
        description: wire(part.description.as_ref()),
        encoding: WireString::from(part.transfer_encoding.as_str()),
        size: part.size(),
        md5: wire(part.md5.as_ref()),
        extension,
    }))
}

fn params(list: &[message::Param]) -> Vec<(WireString, WireString)> {
    list.iter()
        .map(|param| {
            (WireString::from(param.name.as_str()), WireString::from(param.value.as_str()))
        })
        .collect()
}

fn wire(text: Option<&String>) -> Option<WireString> {
    text.map(|text| WireString::from(text.as_str()))
}
