//! Frames: how a piece of a durable file lies on the disk, with a version and a checksum.
//!
//! Layout: magic (4 bytes), version (u16), kind (u8), 0 (u8), length of the body (u32), body,
//! xxh3-64 of all before it.

use xxhash_rust::xxh3::xxh3_64;

const MAGIC: &[u8; 4] = b"HWF1";
/// Bytes of a frame in front of its body.
pub const HEADER: usize = 12;
const CHECKSUM: usize = 8;

/// The version of the frames that this program writes, the newest that it reads.
pub const VERSION: u16 = 1;

/// Bytes that a frame takes beside its body.
pub const OVERHEAD: usize = HEADER + CHECKSUM;

/// A frame that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What its body is.
    pub kind: u8,
    /// Its body.
    pub body: &'a [u8],
    /// Its checksum.
    pub checksum: u64,
}

/// Why there is no frame in a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Nothing was written there: zeros, or the end of the file.
    Nothing,
    /// Something that is no whole frame: torn or damaged.
    Damaged,
    /// A frame of a newer program.
    Newer(u16),
}

/// Appends a frame to `out`; returns its checksum.
pub fn encode(kind: u8, body: &[u8], out: &mut Vec<u8>) -> u64 {
    let from = out.len();
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[kind, 0]);
    // Who makes a body keeps it below VALUE_BYTES_MAX and a group of them below 4 GiB.
    out.extend_from_slice(&(body.len() as u32).to_le_bytes());
    out.extend_from_slice(body);
    let checksum = xxh3_64(&out[from..]);
    out.extend_from_slice(&checksum.to_le_bytes());
    checksum
}

/// How many bytes a frame with this header says that it takes.
pub fn whole(header: &[u8; HEADER]) -> usize {
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
    OVERHEAD + length as usize
}

/// The frame at the beginning of some bytes, and how many it takes.
pub fn decode(bytes: &[u8]) -> Result<(Frame<'_>, usize), Absent> {
    let Some((header, rest)) = bytes.split_at_checked(HEADER) else {
        return Err(if bytes.iter().all(|b| *b == 0) { Absent::Nothing } else { Absent::Damaged });
    };
    if header.iter().all(|b| *b == 0) {
        return Err(Absent::Nothing);
    }
    if &header[..4] != MAGIC {
        return Err(Absent::Damaged);
    }
    let version = u16::from_le_bytes([header[4], header[5]]);
    let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let whole = HEADER + length;
    let checksum = rest.get(length..length + CHECKSUM).and_then(|b| b.try_into().ok());
    let Some(checksum) = checksum.map(u64::from_le_bytes) else { return Err(Absent::Damaged) };
    if xxh3_64(&bytes[..whole]) != checksum {
        return Err(Absent::Damaged);
    }
    if version != VERSION {
        return Err(Absent::Newer(version));
    }
    let frame = Frame { kind: header[6], body: &bytes[HEADER..whole], checksum };
    Ok((frame, whole + CHECKSUM))
}

/// The first place at or behind `from` where a whole frame begins.
pub fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let starts = memchr::memmem::find_iter(rest, MAGIC).map(|at| from + at);
    starts.into_iter().find(|at| !matches!(decode(&bytes[*at..]), Err(Absent::Damaged)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_back_and_each_damaged_byte_is_found() {
        let mut bytes = Vec::new();
        let checksum = encode(7, b"some body", &mut bytes);
        let length = bytes.len();
        assert_eq!(length, OVERHEAD + 9);
        bytes.extend_from_slice(&[0; 40]);
        let (frame, used) = decode(&bytes).expect("whole");
        assert_eq!((frame.kind, frame.body, frame.checksum), (7, &b"some body"[..], checksum));
        assert_eq!(decode(&bytes[used..]), Err(Absent::Nothing));
        for at in 0..length {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                assert_eq!(decode(&bad), Err(Absent::Damaged), "byte {at}, bit {bit}");
            }
            assert_eq!(
                decode(&bytes[..at]).err(),
                Some(if at == 0 { Absent::Nothing } else { Absent::Damaged })
            );
        }
    }

    #[test]
    fn a_newer_frame_is_told_apart_from_damage() {
        let mut bytes = Vec::new();
        encode(1, b"x", &mut bytes);
        bytes[4] = 9;
        let end = bytes.len() - CHECKSUM;
        let checksum = xxh3_64(&bytes[..end]);
        bytes[end..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(decode(&bytes), Err(Absent::Newer(9)));
        assert_eq!(find(&bytes, 0), Some(0));
        assert_eq!(find(&bytes, 1), None);
    }
}
