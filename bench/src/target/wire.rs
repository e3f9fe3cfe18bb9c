//! Redis's protocol on one connection: commands out in one write, replies in as they come.

use std::io;

use bytes::BytesMut;
use redis_protocol::resp2::decode::decode_range;
use redis_protocol::resp2::types::RangeFrame;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A reply longer than this is not one.
const REPLY_BYTES_MAX: usize = 64 << 20;

/// A connection. After an error it must be thrown away: replies no longer fit their commands.
pub struct Wire {
    stream: TcpStream,
    out: Vec<u8>,
    input: BytesMut,
    /// Bytes of `input` that belong to replies which have been taken.
    taken: usize,
}

impl Wire {
    pub async fn open(address: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, out: Vec::with_capacity(1 << 10), input: BytesMut::with_capacity(16 << 10), taken: 0 })
    }

    /// Where commands are put before they are sent.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    pub async fn send(&mut self) -> io::Result<()> {
        let sent = self.stream.write_all(&self.out).await;
        self.out.clear();
        sent
    }

    /// The next reply, whose ranges are those of [`bytes`](Self::bytes) until the next call.
    pub async fn reply(&mut self) -> io::Result<RangeFrame> {
        loop {
            if self.taken == self.input.len() {
                self.input.clear();
                self.taken = 0;
            }
            let decoded = match self.input.len() {
                0 => None,
                _ => decode_range(&self.input[self.taken..])
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?,
            };
            if let Some((frame, length)) = decoded {
                let frame = moved(frame, self.taken);
                self.taken += length;
                return Ok(frame);
            }
            if self.input.len() - self.taken > REPLY_BYTES_MAX {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a reply without end"));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    pub fn bytes(&self, range: (usize, usize)) -> &[u8] {
        &self.input[range.0..range.1]
    }

    /// One command with its reply, for what is not asked often.
    pub async fn ask(&mut self, words: &[&[u8]]) -> io::Result<RangeFrame> {
        command(&mut self.out, words);
        self.send().await?;
        self.reply().await
    }

    /// The same as text, or the error as text.
    pub async fn ask_text(&mut self, words: &[&[u8]]) -> io::Result<Result<String, String>> {
        Ok(match self.ask(words).await? {
            RangeFrame::Error(range) => Err(self.text(range)),
            RangeFrame::SimpleString(range) | RangeFrame::BulkString(range) => Ok(self.text(range)),
            other => Ok(format!("{other:?}")),
        })
    }

    pub fn text(&self, range: (usize, usize)) -> String {
        String::from_utf8_lossy(self.bytes(range)).into_owned()
    }
}

/// Ranges are told from where decoding began.
fn moved(frame: RangeFrame, by: usize) -> RangeFrame {
    let shift = |(from, to): (usize, usize)| (from + by, to + by);
    match frame {
        _ if by == 0 => frame,
        RangeFrame::SimpleString(range) => RangeFrame::SimpleString(shift(range)),
        RangeFrame::Error(range) => RangeFrame::Error(shift(range)),
        RangeFrame::BulkString(range) => RangeFrame::BulkString(shift(range)),
        RangeFrame::Array(frames) => RangeFrame::Array(frames.into_iter().map(|frame| moved(frame, by)).collect()),
        RangeFrame::Integer(_) | RangeFrame::Null => frame,
    }
}

/// Appends a command.
pub fn command(out: &mut Vec<u8>, words: &[&[u8]]) {
    header(out, b'*', words.len());
    for word in words {
        bulk(out, word);
    }
}

/// Appends how many words follow, or how long the next is.
pub fn header(out: &mut Vec<u8>, sign: u8, number: usize) {
    out.push(sign);
    let mut digits = [0; 10];
    let length = crate::load::values::write_number(&mut digits, number as u32);
    out.extend_from_slice(&digits[..length]);
    out.extend_from_slice(b"\r\n");
}

pub fn bulk(out: &mut Vec<u8>, word: &[u8]) {
    header(out, b'$', word.len());
    out.extend_from_slice(word);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn commands_are_arrays_of_words() {
        let mut out = Vec::new();
        command(&mut out, &[b"SET", b"a", b""]);
        assert_eq!(out, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$0\r\n\r\n");
    }

    #[tokio::test]
    async fn replies_are_taken_one_by_one_however_they_are_cut() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            for part in [&b"+OK\r\n$5\r\nhe"[..], b"llo\r\n*2\r\n:7\r\n$-1\r", b"\n-MOVED 1 b:2\r\n"] {
                stream.write_all(part).await.expect("a reader");
                tokio::task::yield_now().await;
            }
        });
        let mut wire = Wire::open(&address).await.expect("a server");
        assert!(matches!(wire.reply().await, Ok(RangeFrame::SimpleString(range)) if wire.bytes(range) == b"OK"));
        assert!(matches!(wire.reply().await, Ok(RangeFrame::BulkString(range)) if wire.bytes(range) == b"hello"));
        let array = RangeFrame::Array(vec![RangeFrame::Integer(7), RangeFrame::Null]);
        assert_eq!(wire.reply().await.expect("an array"), array);
        assert!(matches!(wire.reply().await, Ok(RangeFrame::Error(range)) if wire.text(range) == "MOVED 1 b:2"));
        assert_eq!(wire.reply().await.expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
        server.await.expect("a server");
    }
}
