//! Commands of any state and of login: ID, AUTHENTICATE, LOGIN, ENABLE.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::Command;
use super::parser::{Parsed, Parser, SyntaxError};
use crate::limits::{ENABLE_NAMES_MAX, ID_FIELDS_MAX, ID_VALUE_BYTES_MAX};
use crate::response::ResponseCode;
use crate::text::Secret;
use crate::wire::Writer;

/// What a client says of itself (RFC 2971): fields with their values, in its order.
pub type IdFields = Vec<(String, Option<String>)>;

pub(super) fn id(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    if p.take("NIL") {
        return Ok(Command::Id(Vec::new()));
    }
    let mut fields = IdFields::new();
    p.list_or_empty(|p| {
        let name = p.string("a field name of ID")?;
        p.space()?;
        let value = if p.take("NIL") { None } else { Some(p.string("a value of ID")?) };
        let value_length = value.as_ref().map_or(0, String::len);
        if fields.len() == ID_FIELDS_MAX || name.len() > 30 || value_length > ID_VALUE_BYTES_MAX {
            return Err(SyntaxError::bad("ID is limited to 30 fields of 1024 octets"));
        }
        fields.push((name, value));
        Ok(())
    })?;
    Ok(Command::Id(fields))
}

pub(super) fn write_id(w: &mut Writer<'_>, fields: &IdFields) {
    if fields.is_empty() {
        return w.raw("NIL");
    }
    for (index, (name, value)) in fields.iter().enumerate() {
        w.raw(if index == 0 { "(" } else { " " });
        w.string_bytes(name.as_bytes());
        w.raw(" ");
        match value {
            Some(value) => w.string_bytes(value.as_bytes()),
            None => w.raw("NIL"),
        }
    }
    w.raw(")");
}

pub(super) fn authenticate(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let mechanism = p.atom("a SASL mechanism")?.to_ascii_uppercase();
    let initial = match p.take(" ") {
        true => Some(sasl_decode(p.take_while(|byte| byte != b' '))?),
        false => None,
    };
    Ok(Command::Authenticate { mechanism, initial })
}

pub(super) fn write_authenticate(w: &mut Writer<'_>, mechanism: &str, initial: Option<&Secret>) {
    w.raw(mechanism);
    if let Some(initial) = initial {
        w.raw(" ");
        match initial.expose() {
            [] => w.raw("="),
            bytes => w.raw(&STANDARD.encode(bytes)),
        }
    }
}

/// A SASL message of the client. `=` is an empty initial response (RFC 9051 §6.2.2).
pub(crate) fn sasl_decode(text: &[u8]) -> Parsed<Secret> {
    let text = if text == b"=" { b"" } else { text };
    match STANDARD.decode(text) {
        Ok(bytes) => Ok(Secret::new(bytes)),
        Err(_) => Err(SyntaxError::bad("the SASL response is not valid base64")),
    }
}

pub(super) fn login(p: &mut Parser<'_>) -> Parsed<Command> {
    p.space()?;
    let user = p.astring("a user name")?;
    p.space()?;
    let password = Secret::new(p.astring_bytes("a password")?.into_owned());
    Ok(Command::Login { user, password })
}

pub(super) fn write_login(w: &mut Writer<'_>, user: &str, password: &Secret) {
    w.astring(user);
    w.raw(" ");
    w.string_bytes(password.expose());
}

pub(super) fn enable(p: &mut Parser<'_>) -> Parsed<Command> {
    let mut names = Vec::new();
    p.space()?;
    loop {
        names.push(p.atom("the name of a capability")?.to_ascii_uppercase());
        if names.len() > ENABLE_NAMES_MAX {
            return Err(SyntaxError::no(ResponseCode::Limit, "too many names in ENABLE"));
        }
        if !p.take(" ") {
            return Ok(Command::Enable(names));
        }
    }
}
