//! A DNS server that answers from a list (RFC 1035): A, MX and TXT over UDP.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex},
    thread,
};

const TYPE_A: u16 = 1;
const TYPE_MX: u16 = 15;
const TYPE_TXT: u16 = 16;

/// How long what is told may be remembered, in seconds.
const TTL: u32 = 1;

/// One of a name's records.
#[derive(Debug, Clone)]
enum Record {
    Address(Ipv4Addr),
    Exchange(u16, String),
    Text(String),
}

/// A DNS server; its thread lives as long as the test's process.
#[derive(Debug)]
pub struct Names {
    address: SocketAddr,
    records: Arc<Mutex<BTreeMap<String, Vec<Record>>>>,
}

impl Names {
    /// Starts one that knows no name.
    ///
    /// # Panics
    /// Where no port is free.
    pub fn start() -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = socket.local_addr().expect("it is bound");
        let records = Arc::default();
        let names = Self { address, records: Arc::clone(&records) };
        thread::spawn(move || {
            let mut query = [0; 1_500];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                if let Some(answer) = answer(&query[..length], &records) {
                    // Whoever does not hear it asks again.
                    let _lost = socket.send_to(&answer, from);
                }
            }
        });
        names
    }

    /// The sections of a node's configuration that make it ask here, and send to `port`.
    pub fn sections(&self, port: u16, outbound: &str) -> String {
        format!(
            "[dns]\nservers = [\"{}\"]\ndnssec = \"off\"\n[outbound]\nport = {port}\n{outbound}",
            self.address
        )
    }

    /// Gives a name an address.
    pub fn address(&self, name: &str, address: Ipv4Addr) {
        self.add(name, Record::Address(address));
    }

    /// Gives a domain a mail exchanger.
    pub fn exchange(&self, domain: &str, preference: u16, host: &str) {
        self.add(domain, Record::Exchange(preference, host.to_owned()));
    }

    /// Gives a name a text.
    pub fn text(&self, name: &str, text: &str) {
        self.add(name, Record::Text(text.to_owned()));
    }

    fn add(&self, name: &str, record: Record) {
        let mut records = self.records.lock().expect("nobody panics here");
        records.entry(name.to_owned()).or_default().push(record);
    }
}

/// Each question has one name, as every resolver asks.
fn answer(query: &[u8], records: &Mutex<BTreeMap<String, Vec<Record>>>) -> Option<Vec<u8>> {
    let (name, rest) = question(query.get(12..)?)?;
    let kind = u16::from_be_bytes([*rest.first()?, *rest.get(1)?]);
    let asked = &query[12..query.len() - rest.len() + 4];
    let records = records.lock().expect("nobody panics here");
    let found = records.get(&name);
    let wanted: Vec<_> = found
        .into_iter()
        .flatten()
        .filter_map(|record| match (record, kind) {
            (Record::Address(address), TYPE_A) => Some((TYPE_A, address.octets().to_vec())),
            (Record::Exchange(preference, host), TYPE_MX) => {
                Some((TYPE_MX, [&preference.to_be_bytes()[..], &encoded(host)].concat()))
            }
            (Record::Text(text), TYPE_TXT) => Some((TYPE_TXT, strings(text))),
            _ => None,
        })
        .collect();
    // RFC 1035 §4.1.1: an answer, authoritative, recursion available; NXDOMAIN is 3.
    let code: u8 = if found.is_some() { 0 } else { 3 };
    let mut reply = query[..2].to_vec();
    reply.extend([0x85, 0x80 | code, 0, 1, 0, u8::try_from(wanted.len()).ok()?, 0, 0, 0, 0]);
    reply.extend_from_slice(asked);
    for (kind, data) in wanted {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1]);
        reply.extend(TTL.to_be_bytes());
        reply.extend(u16::try_from(data.len()).ok()?.to_be_bytes());
        reply.extend(data);
    }
    Some(reply)
}

/// A name in lower case, and what follows it.
fn question(mut bytes: &[u8]) -> Option<(String, &[u8])> {
    let mut labels = Vec::new();
    loop {
        let (length, rest) = bytes.split_first()?;
        if *length == 0 {
            return Some((labels.join("."), rest));
        }
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).to_lowercase());
        bytes = rest;
    }
}

/// A text in strings of at most 255 bytes.
fn strings(text: &str) -> Vec<u8> {
    let with_length = |string: &[u8]| {
        let length = u8::try_from(string.len()).expect("at most 255");
        [&[length][..], string].concat()
    };
    text.as_bytes().chunks(255).flat_map(with_length).collect()
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len()).expect("a label is short"));
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
