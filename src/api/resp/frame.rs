//! Replies as values, and their bytes in RESP2 and RESP3.
//!
//! Own code rather than the `redis-protocol` crate: the server's half of RESP is this page and the parser beside it, while the
//! crate's decoder knows neither inline commands nor Redis's error texts, cannot skip an oversized argument and go on, and builds a
//! tree of frames where a command is a flat list.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};

/// Which RESP a connection speaks; chosen by `HELLO`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Version {
    #[default]
    Two,
    Three,
}

/// One reply. The types that RESP2 lacks are told in it as Redis tells them: maps and sets as arrays, doubles as bulk strings,
/// booleans as integers.
#[derive(Clone, PartialEq, Debug)]
pub enum Frame {
    /// A status line such as `OK`. Never holds a line break.
    Simple(&'static str),
    /// An error line, its first word being its kind. Line breaks are told as spaces.
    Error(Cow<'static, str>),
    Integer(i64),
    Bulk(Bytes),
    /// A bulk string from text.
    Text(Cow<'static, str>),
    /// Text for people: `verbatim` in RESP3.
    Verbatim(String),
    Null,
    /// The absent array of RESP2; `Null` in RESP3.
    NullArray,
    Boolean(bool),
    /// A number already printed as Redis prints doubles.
    Double(String),
    Array(Vec<Frame>),
    Set(Vec<Frame>),
    Map(Vec<(Frame, Frame)>),
    /// Field and value pairs in one level: a map in RESP3, a flat array in RESP2; cheaper than [`Frame::Map`].
    Pairs(Vec<(Bytes, Bytes)>),
}

impl Frame {
    pub const OK: Frame = Frame::Simple("OK");

    pub fn error(text: impl Into<Cow<'static, str>>) -> Self {
        Frame::Error(text.into())
    }

    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Frame::Text(text.into())
    }

    /// A bulk string, or null.
    pub fn bulk(value: Option<Bytes>) -> Self {
        value.map_or(Frame::Null, Frame::Bulk)
    }

    pub fn bulks(values: impl IntoIterator<Item = Bytes>) -> Vec<Frame> {
        values.into_iter().map(Frame::Bulk).collect()
    }

    /// A map of names and replies.
    pub fn map(entries: Vec<(&'static str, Frame)>) -> Self {
        Frame::Map(entries.into_iter().map(|(name, frame)| (Frame::text(name), frame)).collect())
    }

    /// About how many bytes this reply holds in memory, for the bound on unsent answers.
    pub fn weight(&self) -> usize {
        let own = size_of::<Frame>();
        own + match self {
            Frame::Bulk(bytes) => bytes.len(),
            Frame::Error(text) | Frame::Text(text) => text.len(),
            Frame::Verbatim(text) | Frame::Double(text) => text.len(),
            Frame::Array(frames) | Frame::Set(frames) => frames.iter().map(Frame::weight).sum(),
            Frame::Map(entries) => entries.iter().map(|(name, frame)| name.weight() + frame.weight()).sum(),
            Frame::Pairs(pairs) => {
                pairs.iter().map(|(field, value)| 2 * size_of::<Bytes>() + field.len() + value.len()).sum()
            }
            _ => 0,
        }
    }

    /// Appends this reply to `out`.
    pub fn encode(&self, version: Version, out: &mut BytesMut) {
        let three = version == Version::Three;
        match self {
            Frame::Simple(line) => {
                out.put_u8(b'+');
                out.put_slice(line.as_bytes());
                out.put_slice(b"\r\n");
            }
            Frame::Error(line) => {
                out.put_u8(b'-');
                out.extend(line.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
                out.put_slice(b"\r\n");
            }
            Frame::Integer(number) => head(b':', *number, out),
            Frame::Bulk(bytes) => bulk(bytes, out),
            Frame::Text(text) => bulk(text.as_bytes(), out),
            Frame::Verbatim(text) if three => {
                head(b'=', text.len() as i64 + 4, out);
                out.put_slice(b"txt:");
                out.put_slice(text.as_bytes());
                out.put_slice(b"\r\n");
            }
            Frame::Verbatim(text) => bulk(text.as_bytes(), out),
            Frame::Null | Frame::NullArray if three => out.put_slice(b"_\r\n"),
            Frame::Null => out.put_slice(b"$-1\r\n"),
            Frame::NullArray => out.put_slice(b"*-1\r\n"),
            Frame::Boolean(yes) if three => out.put_slice(if *yes { b"#t\r\n" } else { b"#f\r\n" }),
            Frame::Boolean(yes) => head(b':', i64::from(*yes), out),
            Frame::Double(text) if three => {
                out.put_u8(b',');
                out.put_slice(text.as_bytes());
                out.put_slice(b"\r\n");
            }
            Frame::Double(text) => bulk(text.as_bytes(), out),
            Frame::Array(frames) => {
                head(b'*', frames.len() as i64, out);
                frames.iter().for_each(|frame| frame.encode(version, out));
            }
            Frame::Set(frames) => {
                head(if three { b'~' } else { b'*' }, frames.len() as i64, out);
                frames.iter().for_each(|frame| frame.encode(version, out));
            }
            Frame::Map(entries) => {
                let length = entries.len() as i64;
                if three {
                    head(b'%', length, out)
                } else {
                    head(b'*', 2 * length, out)
                }
                for (name, frame) in entries {
                    name.encode(version, out);
                    frame.encode(version, out);
                }
            }
            Frame::Pairs(pairs) => {
                let length = pairs.len() as i64;
                if three {
                    head(b'%', length, out)
                } else {
                    head(b'*', 2 * length, out)
                }
                for (field, value) in pairs {
                    bulk(field, out);
                    bulk(value, out);
                }
            }
        }
    }
}

fn bulk(bytes: &[u8], out: &mut BytesMut) {
    out.reserve(bytes.len() + 24);
    head(b'$', bytes.len() as i64, out);
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// A type byte, a number and a line end: what `write!` would do without its machinery, since every reply starts so.
fn head(kind: u8, number: i64, out: &mut BytesMut) {
    let mut line = [0; 24];
    let mut at = line.len() - 2;
    line[at..].copy_from_slice(b"\r\n");
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        line[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        line[at] = b'-';
    }
    at -= 1;
    line[at] = kind;
    out.put_slice(&line[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(frame: Frame) -> (String, String) {
        let mut two = BytesMut::new();
        let mut three = BytesMut::new();
        frame.encode(Version::Two, &mut two);
        frame.encode(Version::Three, &mut three);
        (String::from_utf8_lossy(&two).into_owned(), String::from_utf8_lossy(&three).into_owned())
    }

    #[test]
    fn every_type_has_its_bytes_in_both_versions() {
        let a = || Frame::Bulk(Bytes::from_static(b"a"));
        for (frame, two, three) in [
            (Frame::OK, "+OK\r\n", "+OK\r\n"),
            (Frame::error("ERR a\r\nb"), "-ERR a  b\r\n", "-ERR a  b\r\n"),
            (Frame::Integer(i64::MIN), ":-9223372036854775808\r\n", ":-9223372036854775808\r\n"),
            (Frame::Integer(0), ":0\r\n", ":0\r\n"),
            (a(), "$1\r\na\r\n", "$1\r\na\r\n"),
            (Frame::text(""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Frame::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (Frame::Null, "$-1\r\n", "_\r\n"),
            (Frame::NullArray, "*-1\r\n", "_\r\n"),
            (Frame::Boolean(true), ":1\r\n", "#t\r\n"),
            (Frame::Double("1.5".into()), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Frame::Array(vec![a(), Frame::Null]), "*2\r\n$1\r\na\r\n$-1\r\n", "*2\r\n$1\r\na\r\n_\r\n"),
            (Frame::Set(vec![a()]), "*1\r\n$1\r\na\r\n", "~1\r\n$1\r\na\r\n"),
            (Frame::map(vec![("k", Frame::Integer(1))]), "*2\r\n$1\r\nk\r\n:1\r\n", "%1\r\n$1\r\nk\r\n:1\r\n"),
            (
                Frame::Pairs(vec![(Bytes::from_static(b"f"), Bytes::from_static(b"v"))]),
                "*2\r\n$1\r\nf\r\n$1\r\nv\r\n",
                "%1\r\n$1\r\nf\r\n$1\r\nv\r\n",
            ),
        ] {
            assert_eq!(both(frame), (two.to_string(), three.to_string()));
        }
    }
}
