//! A batch frame is how a batch of records lies on disk: a header with a checksum, then the records.

use bytes::{BufMut, Bytes, BytesMut};

/// Version of this layout. A reader refuses any other.
const VERSION: u8 = 1;
/// version, count, appended at, bytes before, checksum.
const HEADER_BYTES: usize = 1 + 4 + 8 + 8 + 4;
/// Each record is preceded by its length.
const LENGTH_BYTES: usize = 4;

/// A batch of records as read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BatchFrame {
    /// When it was appended, microseconds since 1970.
    pub(crate) appended_us: i64,
    /// Bytes of the frames before this one in its segment, so that a segment's size is known from its last frame.
    pub(crate) bytes_before: u64,
    /// The records, sharing one buffer.
    pub(crate) records: Vec<Bytes>,
}

/// What a frame says about itself without its records being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    /// Number of records.
    pub(crate) count: u32,
    /// When it was appended, microseconds since 1970.
    pub(crate) appended_us: i64,
    /// Bytes of the frames before this one in its segment.
    pub(crate) bytes_before: u64,
}

/// Writes a frame.
pub(crate) fn encode<'a>(appended_us: i64, bytes_before: u64, records: impl Iterator<Item = &'a Bytes>) -> Vec<u8> {
    let mut count: u32 = 0;
    let mut body = BytesMut::new();
    for record in records {
        let length = u32::try_from(record.len()).expect("an append is limited to far less than 4 GiB");
        body.put_u32_le(length);
        body.extend_from_slice(record);
        count += 1;
    }
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.push(VERSION);
    frame.extend_from_slice(&count.to_le_bytes());
    frame.extend_from_slice(&appended_us.to_le_bytes());
    frame.extend_from_slice(&bytes_before.to_le_bytes());
    let checksum = checksum(&frame, &body);
    frame.extend_from_slice(&checksum.to_le_bytes());
    frame.extend_from_slice(&body);
    frame
}

/// Reads the header alone; its checksum is not looked at.
///
/// # Errors
/// Says in words why this is no frame.
pub(crate) fn decode_header(frame: &[u8]) -> Result<FrameHeader, String> {
    if frame.len() < HEADER_BYTES {
        return Err(format!("{} bytes are too few for a batch", frame.len()));
    }
    if frame[0] != VERSION {
        return Err(format!(
            "batch format {} is unknown, this program knows {VERSION}",
            frame[0]
        ));
    }
    Ok(FrameHeader {
        count: u32::from_le_bytes(array(&frame[1..5])),
        appended_us: i64::from_le_bytes(array(&frame[5..13])),
        bytes_before: u64::from_le_bytes(array(&frame[13..21])),
    })
}

/// Reads a frame and checks every byte of it.
///
/// # Errors
/// Says in words what is broken.
pub(crate) fn decode(frame: Bytes) -> Result<BatchFrame, String> {
    let header = decode_header(&frame)?;
    let written = u32::from_le_bytes(array(&frame[21..HEADER_BYTES]));
    let body = frame.slice(HEADER_BYTES..);
    let found = checksum(&frame[..21], &body);
    if written != found {
        return Err(format!("its checksum is {found:08x} where {written:08x} was written"));
    }
    let mut records = Vec::with_capacity(header.count as usize);
    let mut at = 0;
    for _ in 0..header.count {
        let end_of_length = at + LENGTH_BYTES;
        let length = body.get(at..end_of_length).ok_or("a record's length is cut off")?;
        let end = end_of_length + u32::from_le_bytes(array(length)) as usize;
        if end > body.len() {
            return Err("a record is cut off".to_owned());
        }
        records.push(body.slice(end_of_length..end));
        at = end;
    }
    if at != body.len() {
        return Err(format!("{} bytes follow the last record", body.len() - at));
    }
    Ok(BatchFrame {
        appended_us: header.appended_us,
        bytes_before: header.bytes_before,
        records,
    })
}

fn checksum(head: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(body);
    hasher.finalize()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice was cut to this length")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> (Vec<Bytes>, Vec<u8>) {
        let records = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from(vec![7; 5000])];
        let frame = encode(1_700_000_000_000_000, 42, records.iter());
        (records, frame)
    }

    #[test]
    fn a_frame_comes_back_as_it_was_written() {
        let (records, frame) = frame();
        let read = decode(Bytes::from(frame)).expect("it was just written");
        assert_eq!(
            read,
            BatchFrame {
                appended_us: 1_700_000_000_000_000,
                bytes_before: 42,
                records
            }
        );
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let (_, whole) = frame();
        for at in (0..whole.len()).step_by(7).chain(0..HEADER_BYTES) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            assert!(decode(Bytes::from(flipped)).is_err(), "bit flipped in byte {at}");
            assert!(
                decode(Bytes::copy_from_slice(&whole[..at])).is_err(),
                "cut to {at} bytes"
            );
        }
    }
}
