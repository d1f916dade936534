//! Packing and unpacking: gzip (RFC 1952), and of ZIP archives the first file.

use std::{
    cell::Cell,
    io::{self, Cursor, Read, Write},
    rc::Rc,
};

use flate2::{
    Compression,
    read::{DeflateDecoder, MultiGzDecoder},
    write::GzEncoder,
};

use crate::{limits::REPORT_BYTES_MAX, reports::ReportError};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZIP: &[u8] = b"PK\x03\x04";
/// Bytes of a ZIP file's header before its name (APPNOTE 4.3.7).
const ZIP_HEADER_BYTES: usize = 30;
const STORED: u16 = 0;
const DEFLATED: u16 = 8;

/// Packs bytes.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("writing into memory does not fail")
}

/// What is packed, unpacked while it is read, or read as it is; so it is never in memory as a whole.
///
/// Once there is more than a bound, or it cannot be unpacked, reading fails; [`Unpacking::fault`] says why.
pub(super) struct Unpacking<'r> {
    bytes: Limited<Box<dyn Read + 'r>>,
    fault: Fault,
}

/// The first thing that went wrong below a parser, whose own error says less.
type Fault = Rc<Cell<Option<ReportError>>>;

impl<'r> Unpacking<'r> {
    /// Begins to read what has at most [`REPORT_BYTES_MAX`] packed, and `most` unpacked.
    pub(super) fn new(packed: impl Read + 'r, most: usize) -> Self {
        let fault = Fault::default();
        let packed = Limited { inner: packed, left: REPORT_BYTES_MAX, fault: Rc::clone(&fault) };
        let inner = match unpacked(packed) {
            Ok(inner) => inner,
            Err(error) => {
                note(&fault, ReportError::NotUnpacked);
                Box::new(Failed(Some(error)))
            }
        };
        let bytes = Limited { inner, left: most, fault: Rc::clone(&fault) };
        Self { bytes, fault }
    }

    /// Why reading failed, where it did.
    pub(super) fn fault(&self) -> Option<ReportError> {
        self.fault.get()
    }
}

impl Read for Unpacking<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.bytes.read(buffer).inspect_err(|_| note(&self.fault, ReportError::NotUnpacked))
    }
}

fn note(fault: &Fault, error: ReportError) {
    if fault.get().is_none() {
        fault.set(Some(error));
    }
}

/// Fails beyond a number of bytes.
struct Limited<R> {
    inner: R,
    left: usize,
    fault: Fault,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        match self.left.checked_sub(read) {
            Some(left) => self.left = left,
            None => {
                note(&self.fault, ReportError::TooLarge);
                return Err(io::ErrorKind::FileTooLarge.into());
            }
        }
        Ok(read)
    }
}

/// Fails, once as it failed before.
struct Failed(Option<io::Error>);

impl Read for Failed {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(self.0.take().unwrap_or_else(|| io::ErrorKind::InvalidData.into()))
    }
}

fn unpacked<'r>(mut packed: impl Read + 'r) -> io::Result<Box<dyn Read + 'r>> {
    let mut begin = Vec::with_capacity(ZIP_HEADER_BYTES);
    packed.by_ref().take(ZIP_HEADER_BYTES as u64).read_to_end(&mut begin)?;
    if !begin.starts_with(ZIP) {
        let is_gzip = begin.starts_with(GZIP);
        let whole = Cursor::new(begin).chain(packed);
        return Ok(if is_gzip { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) });
    }
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let header: [u8; ZIP_HEADER_BYTES] = begin.try_into().map_err(|_| damaged())?;
    let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let names = u64::from(number(26)) + u64::from(number(28));
    if io::copy(&mut packed.by_ref().take(names), &mut io::sink())? < names {
        return Err(damaged());
    }
    match number(8) {
        // Deflated data say where they end; where stored ones end may stand behind them only.
        DEFLATED => Ok(Box::new(DeflateDecoder::new(packed))),
        STORED => {
            let length = u32::from_le_bytes([header[18], header[19], header[20], header[21]]);
            Ok(Box::new(packed.take(u64::from(length))))
        }
        _ => Err(damaged()),
    }
}

#[cfg(test)]
mod tests {
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;
    use crate::limits::REPORT_UNPACKED_BYTES_MAX;

    fn unpack(bytes: &[u8]) -> Result<Vec<u8>, ReportError> {
        let mut unpacking = Unpacking::new(bytes, REPORT_UNPACKED_BYTES_MAX);
        let mut unpacked = Vec::new();
        let read = unpacking.read_to_end(&mut unpacked);
        match unpacking.fault() {
            Some(fault) => Err(fault),
            None => Ok(read.map(|_| unpacked).unwrap()),
        }
    }

    fn zip(method: u16, contents: &[u8], length: usize) -> Vec<u8> {
        let mut bytes = ZIP.to_vec();
        bytes.extend([20, 0, 0, 0]);
        bytes.extend(method.to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend((length as u32).to_le_bytes());
        bytes.extend((length as u32).to_le_bytes());
        bytes.extend([5, 0, 0, 0]);
        bytes.extend(b"a.xml");
        bytes.extend(contents);
        bytes.extend(b"PK\x01\x02 and so on");
        bytes
    }

    #[test]
    fn what_is_packed_is_unpacked() {
        let text = b"some text, some text".as_slice();
        assert_eq!(unpack(text).unwrap(), text);
        assert_eq!(unpack(&gzip(text)).unwrap(), text);
        assert_eq!(unpack(&[gzip(text), gzip(text)].concat()).unwrap(), text.repeat(2));
        assert_eq!(unpack(&zip(STORED, text, text.len())).unwrap(), text);
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        let packed = encoder.finish().unwrap();
        assert_eq!(unpack(&zip(DEFLATED, &packed, packed.len())).unwrap(), text);
        assert_eq!(unpack(&zip(DEFLATED, &packed, 0)).unwrap(), text);
        assert_eq!(unpack(&zip(99, text, 3)), Err(ReportError::NotUnpacked));
        assert_eq!(unpack(&zip(STORED, text, text.len())[..25]), Err(ReportError::NotUnpacked));
        assert_eq!(unpack(&zip(STORED, text, text.len())[..33]), Err(ReportError::NotUnpacked));
        assert_eq!(unpack(&gzip(text)[..20]), Err(ReportError::NotUnpacked));
    }

    #[test]
    fn a_bomb_is_let_go() {
        let bomb = gzip(&vec![0; REPORT_UNPACKED_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb), Err(ReportError::TooLarge));
        let long = vec![b'x'; REPORT_BYTES_MAX + 1];
        assert_eq!(unpack(&long), Err(ReportError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in 0usize..3, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [[GZIP, ZIP, b""][start], &tail].concat();
            let _unwanted = unpack(&bytes);
        }
    }
}
