//! The arguments of MAIL and RCPT: a path, then ESMTP parameters (RFC 5321 §4.1.2).

use super::number;
use crate::address::{Address, take_forward_path, take_reverse_path};
use crate::call::{Body, Charset, MailFrom, RcptTo, Submitter};
use crate::config::{Extensions, Offer};
use crate::dsn::{EnvelopeId, Notify, OriginalRecipient, Ret, decode_xtext};
use crate::handling::{DateTime, DeliverBy, Hold, HoldSeconds, Priority, RequireTls};
use crate::response::Response;
use crate::trace::{Dialect, Encryption};

/// `FROM:<reverse-path> [SP parameters]`. The size is not compared with any limit.
pub(crate) fn mail(
    arguments: &str,
    dialect: Dialect,
    offered: &Offered<'_>,
) -> Result<MailFrom, Response> {
    let path = after_keyword(arguments, "FROM:")?;
    let (sender, rest) = take_reverse_path(path).map_err(|_| Response::BadSender)?;
    let mut slots = MailSlots::default();
    for parameter in parameters(rest, dialect)? {
        slots.set(parameter?, offered)?;
    }
    let charset = slots.charset.unwrap_or_default();
    let submitter_ascii = match &slots.auth {
        Some(Submitter::Mailbox(address)) => address.is_ascii(),
        Some(Submitter::Unknown) | None => true,
    };
    let ascii = sender.address().is_none_or(Address::is_ascii) && submitter_ascii;
    if charset == Charset::Ascii && !ascii {
        return Err(Response::Utf8Required);
    }
    Ok(MailFrom {
        sender,
        size: slots.size,
        body: slots.body.unwrap_or_default(),
        charset,
        auth: slots.auth,
        ret: slots.ret,
        envid: slots.envid,
        require_tls: slots.require_tls.unwrap_or_default(),
        priority: slots.priority,
        deliver_by: slots.deliver_by,
        hold: slots.hold,
    })
}

/// `TO:<forward-path> [SP parameters]`, in a transaction of the given charset.
pub(crate) fn rcpt(
    arguments: &str,
    dialect: Dialect,
    charset: Charset,
) -> Result<RcptTo, Response> {
    let path = after_keyword(arguments, "TO:")?;
    let (recipient, rest) = take_forward_path(path).map_err(|_| Response::BadRecipient)?;
    let mut notify = None;
    let mut orcpt = None;
    for parameter in parameters(rest, dialect)? {
        let Parameter { keyword, value } = parameter?;
        match keyword.to_ascii_uppercase().as_str() {
            "NOTIFY" => set(&mut notify, Notify::parse(required(value)?))?,
            "ORCPT" => set(&mut orcpt, OriginalRecipient::parse(required(value)?))?,
            _ => return Err(Response::UnknownParameter),
        }
    }
    let ascii = recipient.address().is_none_or(Address::is_ascii)
        && orcpt.as_ref().is_none_or(OriginalRecipient::is_ascii);
    if charset == Charset::Ascii && !ascii {
        return Err(Response::Utf8Required);
    }
    Ok(RcptTo { recipient, notify: notify.unwrap_or_default(), orcpt })
}

#[derive(Default)]
struct MailSlots {
    size: Option<u64>,
    body: Option<Body>,
    charset: Option<Charset>,
    auth: Option<Submitter>,
    ret: Option<Ret>,
    envid: Option<EnvelopeId>,
    require_tls: Option<RequireTls>,
    priority: Option<Priority>,
    deliver_by: Option<DeliverBy>,
    hold: Option<Hold>,
}

impl MailSlots {
    fn set(
        &mut self,
        Parameter { keyword, value }: Parameter<'_>,
        offered: &Offered<'_>,
    ) -> Result<(), Response> {
        let extensions = offered.extensions;
        let holds = extensions.future_release.is_some();
        match keyword.to_ascii_uppercase().as_str() {
            "SIZE" => set(&mut self.size, number(required(value)?)),
            "BODY" => set(&mut self.body, parse_body(required(value)?)),
            "SMTPUTF8" => set(&mut self.charset, value.is_none().then_some(Charset::Utf8)),
            "AUTH" => set(&mut self.auth, parse_submitter(required(value)?)),
            "RET" => set(&mut self.ret, Ret::parse(required(value)?)),
            "ENVID" => set(&mut self.envid, EnvelopeId::parse(required(value)?)),
            "REQUIRETLS" if offered.require_tls() => {
                set(&mut self.require_tls, value.is_none().then_some(RequireTls::Yes))
            }
            "MT-PRIORITY" if extensions.priority == Offer::Yes => {
                set(&mut self.priority, Priority::parse(required(value)?))
            }
            "BY" if extensions.deliver_by.is_some() => {
                set(&mut self.deliver_by, DeliverBy::parse(required(value)?))
            }
            // RFC 4865 §3: one of the two, and once.
            "HOLDFOR" if holds => {
                set(&mut self.hold, HoldSeconds::parse(required(value)?).map(Hold::For))
            }
            "HOLDUNTIL" if holds => {
                set(&mut self.hold, DateTime::parse(required(value)?).map(Hold::Until))
            }
            _ => Err(Response::UnknownParameter),
        }
    }
}

/// Which parameters of MAIL are known beyond those always offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered<'a> {
    pub(crate) extensions: &'a Extensions,
    pub(crate) encryption: Encryption,
}

impl Offered<'_> {
    /// RFC 8689 §2: over TLS only.
    pub(crate) fn require_tls(&self) -> bool {
        self.extensions.require_tls == Offer::Yes && self.encryption == Encryption::Tls
    }
}

struct Parameter<'a> {
    keyword: &'a str,
    value: Option<&'a str>,
}

/// What follows a path: nothing, or space and parameters.
fn parameters(
    rest: &str,
    dialect: Dialect,
) -> Result<impl Iterator<Item = Result<Parameter<'_>, Response>>, Response> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return Err(Response::BadArguments);
    }
    // RFC 5321 §4.1.1.11: without EHLO no extension was agreed upon.
    if dialect == Dialect::Smtp && !rest.trim().is_empty() {
        return Err(Response::UnknownParameter);
    }
    Ok(rest.split(' ').filter(|word| !word.is_empty()).map(parameter))
}

fn parameter(word: &str) -> Result<Parameter<'_>, Response> {
    let (keyword, value) = match word.split_once('=') {
        None => (word, None),
        Some((keyword, value)) => (keyword, Some(value)),
    };
    let keyword_valid = keyword.starts_with(|c: char| c.is_ascii_alphanumeric())
        && keyword.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    let value_valid = value.is_none_or(|text| !text.is_empty() && !text.contains('='));
    if keyword_valid && value_valid {
        Ok(Parameter { keyword, value })
    } else {
        Err(Response::BadArguments)
    }
}

/// The arguments after `FROM:` or `TO:`.
fn after_keyword<'a>(arguments: &'a str, keyword: &str) -> Result<&'a str, Response> {
    match arguments.split_at_checked(keyword.len()) {
        Some((word, rest)) if word.eq_ignore_ascii_case(keyword) => Ok(rest),
        _ => Err(Response::BadArguments),
    }
}

fn required(value: Option<&str>) -> Result<&str, Response> {
    value.ok_or(Response::BadArguments)
}

/// Fills a slot once; a second or an invalid value is an error.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> Result<(), Response> {
    match (slot.is_none(), value) {
        (true, Some(value)) => {
            *slot = Some(value);
            Ok(())
        }
        _ => Err(Response::BadArguments),
    }
}

fn parse_body(text: &str) -> Option<Body> {
    match text {
        _ if text.eq_ignore_ascii_case("7BIT") => Some(Body::SevenBit),
        _ if text.eq_ignore_ascii_case("8BITMIME") => Some(Body::EightBitMime),
        _ if text.eq_ignore_ascii_case("BINARYMIME") => Some(Body::BinaryMime),
        _ => None,
    }
}

/// RFC 4954 §5: `<>`, or a mailbox in xtext.
fn parse_submitter(text: &str) -> Option<Submitter> {
    if text == "<>" {
        return Some(Submitter::Unknown);
    }
    let address = Address::parse(&decode_xtext(text)?).ok()?;
    Some(Submitter::Mailbox(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_mail(arguments: &str, expected: Result<MailFrom, Response>) {
        let extensions = Extensions::default();
        let offered = Offered { extensions: &extensions, encryption: Encryption::Tls };
        assert_eq!(mail(arguments, Dialect::Esmtp, &offered), expected, "{arguments:?}");
    }

    fn plain(sender: &str) -> MailFrom {
        MailFrom {
            sender: crate::ReversePath::parse(sender).expect("valid"),
            size: None,
            body: Body::SevenBit,
            charset: Charset::Ascii,
            auth: None,
            ret: None,
            envid: None,
            require_tls: RequireTls::No,
            priority: None,
            deliver_by: None,
            hold: None,
        }
    }

    #[test]
    fn mail_parameters() {
        check_mail("from:<a@b>", Ok(plain("<a@b>")));
        check_mail("FROM:<> size=5", Ok(MailFrom { size: Some(5), ..plain("<>") }));
        check_mail(
            "FROM:<a@b> BODY=binarymime SMTPUTF8 AUTH=a+2Bb@c RET=HDRS ENVID=x+2By",
            Ok(MailFrom {
                body: Body::BinaryMime,
                charset: Charset::Utf8,
                auth: Some(Submitter::Mailbox(Address::parse("a+b@c").expect("valid"))),
                ret: Some(Ret::Headers),
                envid: EnvelopeId::parse("x+2By"),
                ..plain("<a@b>")
            }),
        );
        check_mail(
            "FROM:<> AUTH=<>",
            Ok(MailFrom { auth: Some(Submitter::Unknown), ..plain("<>") }),
        );
        for bad in ["SIZE", "SIZE=", "SIZE=x", "SIZE=1 SIZE=1", "BODY=9BIT", "SMTPUTF8=1", "RET=x"]
        {
            check_mail(&format!("FROM:<> {bad}"), Err(Response::BadArguments));
        }
        for bad in ["ENVID=+0A", "AUTH=a", "AUTH=<a@b>", "=1", "-X=1", "X==", "SIZE=1=2"] {
            check_mail(&format!("FROM:<> {bad}"), Err(Response::BadArguments));
        }
        for absent in ["REQUIRETLS", "MT-PRIORITY=1", "BY=9;R", "HOLDFOR=1"] {
            check_mail(&format!("FROM:<> {absent}"), Err(Response::UnknownParameter));
        }
        check_mail("FROM:<> NOTIFY=NEVER", Err(Response::UnknownParameter));
        check_mail("FROM:<a@b>SIZE=1", Err(Response::BadArguments));
        check_mail("FROM: <a@b>", Err(Response::BadSender));
        check_mail("FROM:a@b", Err(Response::BadSender));
        check_mail("", Err(Response::BadArguments));
        check_mail("TO:<a@b>", Err(Response::BadArguments));
        check_mail("FROM:<j\u{f6}@b>", Err(Response::Utf8Required));
    }

    #[test]
    fn rcpt_parameters() {
        let parsed = |text| rcpt(text, Dialect::Esmtp, Charset::Ascii);
        let full = parsed("TO:<a@b> NOTIFY=DELAY ORCPT=rfc822;x+2By").expect("valid");
        assert_ne!(full.notify, Notify::Default);
        assert_eq!(full.orcpt, OriginalRecipient::parse("rfc822;x+2By"));
        assert_eq!(parsed("TO:<a@b> NOTIFY=x"), Err(Response::BadArguments));
        assert_eq!(parsed("TO:<a@b> SIZE=1"), Err(Response::UnknownParameter));
        assert_eq!(parsed("TO:<>"), Err(Response::BadRecipient));
        assert_eq!(parsed("TO:<\u{e9}@b>"), Err(Response::Utf8Required));
        assert_eq!(parsed("TO:<a@b> ORCPT=utf-8;\u{e9}"), Err(Response::Utf8Required));
        assert!(rcpt("TO:<\u{e9}@b>", Dialect::Esmtp, Charset::Utf8).is_ok());
        let helo = rcpt("TO:<a@b> NOTIFY=NEVER", Dialect::Smtp, Charset::Ascii);
        assert_eq!(helo, Err(Response::UnknownParameter));
    }
}
