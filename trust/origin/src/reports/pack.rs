//! Packing and unpacking: gzip (RFC 1952), and of ZIP archives the first file.

use std::{
    borrow::Cow,
    io::{Read, Write},
};

use flate2::{
    Compression,
    read::{DeflateDecoder, MultiGzDecoder},
    write::GzEncoder,
};

use crate::{limits::REPORT_UNPACKED_BYTES_MAX, reports::ReportError};

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

/// Unpacks what is packed, and gives what is not as it is.
///
/// # Errors
/// [`ReportError::TooLarge`] as soon as there is more than
/// [`REPORT_UNPACKED_BYTES_MAX`]; [`ReportError::NotUnpacked`].
pub fn unpack(bytes: &[u8]) -> Result<Cow<'_, [u8]>, ReportError> {
    if bytes.starts_with(GZIP) {
        return read(MultiGzDecoder::new(bytes)).map(Cow::Owned);
    }
    if !bytes.starts_with(ZIP) {
        return Ok(Cow::Borrowed(bytes));
    }
    let header = bytes.get(..ZIP_HEADER_BYTES).ok_or(ReportError::NotUnpacked)?;
    let number = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let from = ZIP_HEADER_BYTES + usize::from(number(26)) + usize::from(number(28));
    let rest = bytes.get(from..).ok_or(ReportError::NotUnpacked)?;
    match number(8) {
        // Deflated data say where they end; where stored ones end may stand behind them only.
        DEFLATED => read(DeflateDecoder::new(rest)).map(Cow::Owned),
        STORED => {
            let length = u32::from_le_bytes([header[18], header[19], header[20], header[21]]);
            let length = usize::try_from(length).map_err(|_| ReportError::NotUnpacked)?;
            rest.get(..length).map(Cow::Borrowed).ok_or(ReportError::NotUnpacked)
        }
        _ => Err(ReportError::NotUnpacked),
    }
}

fn read(decoder: impl Read) -> Result<Vec<u8>, ReportError> {
    let mut out = Vec::new();
    let most = REPORT_UNPACKED_BYTES_MAX as u64 + 1;
    decoder.take(most).read_to_end(&mut out).map_err(|_| ReportError::NotUnpacked)?;
    if out.len() > REPORT_UNPACKED_BYTES_MAX { Err(ReportError::TooLarge) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use flate2::write::DeflateEncoder;
    use proptest::prelude::*;

    use super::*;

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
        assert_eq!(unpack(&zip(STORED, text, 1 << 30)), Err(ReportError::NotUnpacked));
        assert_eq!(unpack(&gzip(text)[..20]), Err(ReportError::NotUnpacked));
    }

    #[test]
    fn a_bomb_is_let_go() {
        let bomb = gzip(&vec![0; REPORT_UNPACKED_BYTES_MAX + 1]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb), Err(ReportError::TooLarge));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(start in 0usize..3, tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [[GZIP, ZIP, b""][start], &tail].concat();
            let _unwanted = unpack(&bytes);
        }
    }
}
