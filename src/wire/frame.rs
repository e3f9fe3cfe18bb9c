//! Where one message ends and the next begins, on a stream of bytes. No I/O: bytes in, frames out.
//!
//! ```text
//!  0        4                    4 + n
//!  +--------+--------------------+--------+----
//!  | n, u32 |  payload, n bytes  | n, u32 | ...
//!  +--------+--------------------+--------+----
//!   little-endian, 1 <= n <= frame_bytes_max
//! ```
//!
//! There is no checksum: QUIC authenticates every packet, so what arrives is what was sent. There is no version either: it is agreed
//! once per link (ALPN), not once per message. An empty frame is refused because nothing is ever said in no bytes, and because a
//! stream that has turned to zeros would otherwise look like endless good frames.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes before each payload.
pub const FRAME_HEADER_BYTES: usize = 4;

/// The default bound on one payload: the largest value (8 MiB) and what travels with it.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 16 << 20;

/// Payloads from this size on are handed over as they are; smaller ones are copied together, because for those a copy costs less
/// than one more piece for everybody below to handle.
const COPY_BELOW_BYTES: usize = 8 << 10;

/// How much room a reader is given at first, and at most, beyond what it already holds.
const READ_BYTES_MIN: usize = 8 << 10;
const READ_BYTES_MAX: usize = 256 << 10;

/// What a message is for. Each class has its own stream and its own bounded queue, so that none holds up another; between classes
/// the earlier one goes first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Class {
    /// Somebody waits: requests and answers.
    Foreground,
    /// Nobody waits, but soon is better: hints, repair, reports.
    Background,
    /// Bulk: full syncs and moves.
    Transfer,
}

impl Class {
    pub const COUNT: usize = 3;
    /// In order of urgency.
    pub const ALL: [Class; Self::COUNT] = [Class::Foreground, Class::Background, Class::Transfer];

    /// Position in [`Class::ALL`].
    pub fn index(self) -> usize {
        self as usize
    }
}

/// Why bytes are no frame. The stream cannot be read on from there: close it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a frame of {len} bytes, but the bound is {max} (setting quic.frame_size_max)")]
    TooLarge { len: usize, max: usize },
    #[error("an empty frame")]
    Empty,
}

/// Puts many frames into few pieces of memory.
#[derive(Debug)]
pub struct FrameWriter {
    frame_bytes_max: usize,
    /// Headers and small payloads since the last piece.
    open: BytesMut,
    pieces: Vec<Bytes>,
    bytes: usize,
    frames: usize,
}

/// What a [`FrameWriter`] had gathered: `pieces`, one after the other, are `frames` frames in `bytes` bytes, headers counted.
#[derive(Debug, Default)]
pub struct Gathered {
    pub pieces: Vec<Bytes>,
    pub bytes: usize,
    pub frames: usize,
}

impl FrameWriter {
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, open: BytesMut::new(), pieces: Vec::new(), bytes: 0, frames: 0 }
    }

    /// Appends one frame. A refused payload leaves everything as it was.
    pub fn push(&mut self, payload: &Bytes) -> Result<(), FrameError> {
        let header = header(payload.len(), self.frame_bytes_max)?;
        self.open.put_u32_le(header);
        if payload.len() < COPY_BELOW_BYTES {
            self.open.put_slice(payload);
        } else {
            self.pieces.push(self.open.split().freeze());
            self.pieces.push(payload.clone());
        }
        self.bytes += FRAME_HEADER_BYTES + payload.len();
        self.frames += 1;
        Ok(())
    }

    /// Everything pushed since the last time.
    pub fn take(&mut self) -> Gathered {
        let mut pieces = std::mem::take(&mut self.pieces);
        if !self.open.is_empty() {
            pieces.push(self.open.split().freeze());
        }
        Gathered { pieces, bytes: std::mem::take(&mut self.bytes), frames: std::mem::take(&mut self.frames) }
    }

    /// Bytes waiting to be taken, headers counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames waiting to be taken.
    pub fn frames(&self) -> usize {
        self.frames
    }

    pub fn is_empty(&self) -> bool {
        self.frames == 0
    }
}

/// Takes bytes as they come and gives back whole frames. Holds at most one incomplete frame and one read.
#[derive(Debug)]
pub struct FrameReader {
    frame_bytes_max: usize,
    buffer: BytesMut,
    read_bytes: usize,
}

impl FrameReader {
    pub fn new(frame_bytes_max: usize) -> Self {
        Self { frame_bytes_max, buffer: BytesMut::new(), read_bytes: READ_BYTES_MIN }
    }

    /// Appends a copy of `bytes`.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Where to read into: at the end of it there is spare room, more of it when the last read filled it. The bytes already
    /// there must be left alone.
    pub fn space(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() == self.buffer.len() {
            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
        }
        // Never the length a header claims: memory is spent on bytes that came, not on bytes that were announced.
        if self.buffer.capacity() - self.buffer.len() < self.read_bytes / 4 {
            self.buffer.reserve(self.read_bytes.max(self.buffer.len()));
        }
        &mut self.buffer
    }

    /// The next whole frame, a slice of what was read; `None`: more bytes are needed. After an error every call gives that error.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(len) = self.buffer.first_chunk::<FRAME_HEADER_BYTES>() else { return Ok(None) };
        let len = u32::from_le_bytes(*len) as usize;
        header(len, self.frame_bytes_max)?;
        if self.buffer.len() < FRAME_HEADER_BYTES + len {
            return Ok(None);
        }
        self.buffer.advance(FRAME_HEADER_BYTES);
        Ok(Some(self.buffer.split_to(len).freeze()))
    }

    /// Bytes held of a frame that is not whole yet (or not asked for yet).
    pub fn bytes_held(&self) -> usize {
        self.buffer.len()
    }
}

fn header(len: usize, max: usize) -> Result<u32, FrameError> {
    match u32::try_from(len) {
        Ok(0) => Err(FrameError::Empty),
        Ok(header) if len <= max => Ok(header),
        _ => Err(FrameError::TooLarge { len, max }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(reader: &mut FrameReader) -> Result<Vec<Bytes>, FrameError> {
        let mut frames = Vec::new();
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame);
        }
        Ok(frames)
    }

    fn payloads() -> impl Strategy<Value = Vec<Bytes>> {
        let size = prop_oneof![9 => 1_usize..300, 1 => COPY_BELOW_BYTES - 2..COPY_BELOW_BYTES + 2];
        prop::collection::vec((size, any::<u8>()).prop_map(|(len, byte)| Bytes::from(vec![byte; len])), 0..40)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_the_cuts_the_frames_come_back(payloads in payloads(), takes in 1_usize..7, cuts in prop::collection::vec(1_usize..20_000, 1..20)) {
            let mut writer = FrameWriter::new(FRAME_BYTES_MAX_DEFAULT);
            let mut stream = Vec::new();
            let mut frames_taken = 0;
            for (at, payload) in payloads.iter().enumerate() {
                writer.push(payload).unwrap();
                if at % takes == 0 {
                    let gathered = writer.take();
                    prop_assert_eq!(gathered.bytes, gathered.pieces.iter().map(Bytes::len).sum::<usize>());
                    frames_taken += gathered.frames;
                    stream.extend(gathered.pieces.concat());
                }
            }
            let gathered = writer.take();
            stream.extend(gathered.pieces.concat());
            prop_assert_eq!(frames_taken + gathered.frames, payloads.len());
            prop_assert!(writer.is_empty());

            let mut reader = FrameReader::new(FRAME_BYTES_MAX_DEFAULT);
            let mut read = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                if cut % 2 == 0 {
                    reader.push(now);
                } else {
                    reader.space().extend_from_slice(now);
                }
                rest = later;
                read.extend(read_all(&mut reader).unwrap());
            }
            prop_assert_eq!(read, payloads);
            prop_assert_eq!(reader.bytes_held(), 0);
        }

        #[test]
        fn hostile_bytes_are_refused_or_wait_but_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096), max in 1_usize..100_000) {
            let mut reader = FrameReader::new(max);
            let mut failed = None;
            for chunk in bytes.chunks(7) {
                reader.push(chunk);
                match read_all(&mut reader) {
                    Ok(frames) => {
                        prop_assert!(failed.is_none(), "a frame after an error");
                        prop_assert!(frames.iter().all(|frame| !frame.is_empty() && frame.len() <= max));
                    }
                    Err(error) => {
                        prop_assert!(failed.is_none_or(|earlier| earlier == error));
                        failed = Some(error);
                    }
                }
            }
        }
    }

    #[test]
    fn oversize_and_empty_are_refused_on_both_sides() {
        let mut writer = FrameWriter::new(10);
        assert_eq!(writer.push(&Bytes::from_static(b"elevenbytes")), Err(FrameError::TooLarge { len: 11, max: 10 }));
        assert_eq!(writer.push(&Bytes::new()), Err(FrameError::Empty));
        assert!(writer.is_empty() && writer.take().pieces.is_empty());

        let mut reader = FrameReader::new(10);
        reader.push(&11_u32.to_le_bytes());
        assert_eq!(reader.next_frame(), Err(FrameError::TooLarge { len: 11, max: 10 }));
        let mut reader = FrameReader::new(10);
        reader.push(&[0; 64]);
        assert_eq!(reader.next_frame(), Err(FrameError::Empty));
    }

    #[test]
    fn a_claimed_length_costs_no_memory() {
        let mut reader = FrameReader::new(FRAME_BYTES_MAX_DEFAULT);
        reader.push(&(FRAME_BYTES_MAX_DEFAULT as u32).to_le_bytes());
        assert_eq!(reader.next_frame(), Ok(None));
        assert!(reader.space().capacity() < 64 << 10);
    }
}
