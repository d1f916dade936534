//! A part's bytes as they were before they were encoded, some at a time.

use std::io::{self, Read};

use message::TransferDecoder;

/// Bytes that are decoded at once.
const STEP_BYTES: usize = 8 * 1024;

/// Reads a part. What is damaged reads as what there is.
pub(super) struct Decoded<'m> {
    decoder: Option<TransferDecoder>,
    body: &'m [u8],
    ready: Vec<u8>,
    taken: usize,
}

impl<'m> Decoded<'m> {
    pub(super) fn new(decoder: TransferDecoder, body: &'m [u8]) -> Self {
        Self { decoder: Some(decoder), body, ready: Vec::new(), taken: 0 }
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
            let Some(mut decoder) = self.decoder.take() else { return Ok(0) };
            if self.body.is_empty() {
                let _damaged = decoder.finish(&mut self.ready);
                continue;
            }
            let (now, later) = self.body.split_at(self.body.len().min(STEP_BYTES));
            decoder.push(now, &mut self.ready);
            self.body = later;
            self.decoder = Some(decoder);
        }
        let read = (&self.ready[self.taken..]).read(buffer)?;
        self.taken += read;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use message::TransferEncoding;

    use super::*;

    fn read(encoding: TransferEncoding, body: &[u8]) -> Vec<u8> {
        let decoder = TransferDecoder::new(&encoding).unwrap();
        let mut bytes = Vec::new();
        Decoded::new(decoder, body).read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn what_is_read_in_steps_is_the_whole() {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let plain: Vec<u8> = (0..5 * STEP_BYTES).map(|at| (at % 251) as u8).collect();
        let encoded = STANDARD.encode(&plain);
        let lines: Vec<&[u8]> = encoded.as_bytes().chunks(76).collect();
        assert_eq!(read(TransferEncoding::Base64, &lines.join(&b"\r\n"[..])), plain);
        assert_eq!(read(TransferEncoding::Binary, &plain), plain);
        assert_eq!(read(TransferEncoding::Base64, b""), b"");
        assert_eq!(read(TransferEncoding::Base64, b"AAA"), [0, 0]);
    }
}
