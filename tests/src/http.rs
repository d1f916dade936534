//! An HTTP client as small as health probes and scrapers need it.

use std::io;

use crate::{server::Server, wire::Wire};

/// One HTTP connection that is kept.
pub struct Http {
    wire: Wire,
}

/// A whole response.
pub struct Response {
    /// RFC 9110 §15.
    pub status: u16,
    /// In lower case; empty where there is none.
    pub content_type: String,
    /// As text.
    pub body: String,
}

impl Http {
    /// Connects to the server's HTTP port.
    ///
    /// # Panics
    /// Where the server is not there.
    pub fn connect(server: &Server) -> Self {
        Self { wire: Wire::connect(server.ports.http).expect("the server accepts") }
    }

    /// The same where the server may not be there.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn try_connect(server: &Server) -> io::Result<Self> {
        Ok(Self { wire: Wire::connect(server.ports.http)? })
    }

    /// Asks for a path and reads the response.
    ///
    /// # Errors
    /// As the operating system says.
    ///
    /// # Panics
    /// Where the response is none.
    pub fn get(&mut self, path: &str) -> io::Result<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        self.wire.try_send(request.as_bytes())?;
        let status = self.wire.try_line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut response = Response {
            status: status.expect("a status"),
            content_type: String::new(),
            body: String::new(),
        };
        let mut length = 0;
        loop {
            let line = self.wire.try_line()?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().expect("a number");
            }
            if let Some(value) = line.strip_prefix("content-type: ") {
                response.content_type = value.to_owned();
            }
        }
        response.body = String::from_utf8(self.wire.bytes(length)).expect("it is text");
        Ok(response)
    }
}

/// One request on a connection of its own.
///
/// # Panics
/// Where the server does not answer.
pub fn get(server: &Server, path: &str) -> Response {
    Http::connect(server).get(path).expect("the server answers")
}
