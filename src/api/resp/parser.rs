//! Commands out of a byte buffer, sans-IO: multibulk and inline, with Redis's own words for what is malformed.
//!
//! Arguments are slices of the buffer, not copies. A command that came in part is kept in part: nothing is read twice. An argument
//! above the limit is counted and thrown away as it arrives, so that the command can be refused and the connection live on.

use bytes::{Buf, Bytes, BytesMut};
use thiserror::Error;

/// Longest inline command, and longest line that holds a length. Redis's limit.
const INLINE_MAX: usize = 64 * 1024;
/// Most arguments of one command; Redis allows 2^31, which nobody can pay for.
const ARGUMENTS_MAX: i64 = 1024 * 1024;
/// Above this an announced length is not a value too large but nonsense. Redis's `proto-max-bulk-len`.
const BULK_MAX: i64 = 512 * 1024 * 1024;

/// What ends a connection: after it the stream's position is unknown. Texts are Redis's.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum ProtocolError {
    #[error("ERR Protocol error: too big inline request")]
    InlineTooBig,
    #[error("ERR Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("ERR Protocol error: too big mbulk count string")]
    CountTooBig,
    #[error("ERR Protocol error: invalid multibulk length")]
    InvalidCount,
    #[error("ERR Protocol error: unauthenticated multibulk length")]
    UnauthenticatedCount,
    #[error("ERR Protocol error: too big bulk count string")]
    LengthTooBig,
    #[error("ERR Protocol error: expected '$', got '{}'", printable(*.got))]
    NoDollar { got: u8 },
    #[error("ERR Protocol error: invalid bulk length")]
    InvalidLength,
    #[error("ERR Protocol error: unauthenticated bulk length")]
    UnauthenticatedLength,
    /// A browser can be made to send such lines to any port its user reaches, with commands in the body. Redis hangs up, too.
    #[error("ERR Protocol error: this is HTTP, and this door speaks RESP")]
    Http,
}

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() { char::from(byte) } else { ' ' }
}

/// One command as it came: at least one argument, the first being its name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    pub arguments: Vec<Bytes>,
    /// An argument that was thrown away for its size; it stands empty in `arguments`.
    pub oversize: Option<Oversize>,
}

/// The first argument of a command that was above a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Oversize {
    /// The argument at this place had so many bytes.
    Argument { at: usize, size: u64 },
    /// The arguments together exceed the limit on one command.
    Command { limit: u64 },
}

/// Bounds of one parser.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Largest argument that is kept, in bytes.
    pub argument_bytes_max: usize,
    /// Largest sum of the arguments of one command that is kept, in bytes.
    pub command_bytes_max: usize,
}

/// What is known of a command that has not come whole.
#[derive(Debug, Default)]
struct Partial {
    arguments: Vec<Bytes>,
    /// Arguments yet to come; 0: between commands.
    left: usize,
    /// Length of the argument under way.
    length: Option<usize>,
    /// Bytes (line end included) of the argument under way that are yet to be thrown away.
    skip: Option<usize>,
    bytes: usize,
    oversize: Option<Oversize>,
}

/// A resumable parser for one connection.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    partial: Partial,
    /// How far the line at the buffer's start was searched for its end.
    searched: usize,
}

impl Parser {
    pub fn new(limits: Limits) -> Self {
        Self { limits, partial: Partial::default(), searched: 0 }
    }

    /// Bytes missing of the argument under way, a hint for reading; 0 when unknown.
    pub fn wanted(&self, buffered: usize) -> usize {
        match (self.partial.length, self.partial.skip) {
            (Some(length), None) => (length + 2).saturating_sub(buffered),
            _ => 0,
        }
    }

    /// Is a command under way?
    pub fn is_between_commands(&self) -> bool {
        self.partial.left == 0
    }

    /// Takes the next whole command from `buffer`; `None` when more bytes are needed. With `authenticated` false the counts are
    /// bounded as in Redis (10 arguments, 16 KiB), so that strangers cannot fill the memory. After an error the stream is lost.
    pub fn next(&mut self, buffer: &mut BytesMut, authenticated: bool) -> Result<Option<Command>, ProtocolError> {
        loop {
            if self.partial.left > 0 {
                if !self.arguments(buffer, authenticated)? {
                    return Ok(None);
                }
                let partial = std::mem::take(&mut self.partial);
                return Ok(Some(Command { arguments: partial.arguments, oversize: partial.oversize }));
            }
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    let Some(line) = self.line(buffer, ProtocolError::CountTooBig)? else { return Ok(None) };
                    let count = integer(&line[1..]).filter(|count| *count <= ARGUMENTS_MAX);
                    let count = count.ok_or(ProtocolError::InvalidCount)?;
                    if count > 10 && !authenticated {
                        return Err(ProtocolError::UnauthenticatedCount);
                    }
                    // An empty command is nothing, as in Redis.
                    if count > 0 {
                        self.partial.left = count as usize;
                        self.partial.arguments.reserve(self.partial.left.min(64));
                    }
                }
                Some(_) => match self.inline(buffer)? {
                    None => return Ok(None),
                    Some(arguments) if arguments.is_empty() => {}
                    Some(arguments) => return Ok(Some(Command { arguments, oversize: None })),
                },
            }
        }
    }

    /// Goes on with the arguments of the command under way. True when it is whole.
    fn arguments(&mut self, buffer: &mut BytesMut, authenticated: bool) -> Result<bool, ProtocolError> {
        while self.partial.left > 0 {
            if let Some(skip) = self.partial.skip {
                let now = skip.min(buffer.len());
                buffer.advance(now);
                if now < skip {
                    self.partial.skip = Some(skip - now);
                    return Ok(false);
                }
                self.partial.skip = None;
                self.take(Bytes::new());
                continue;
            }
            let length = match self.partial.length {
                Some(length) => length,
                None => {
                    match buffer.first() {
                        None => return Ok(false),
                        Some(b'$') => {}
                        Some(&got) => return Err(ProtocolError::NoDollar { got }),
                    }
                    let Some(line) = self.line(buffer, ProtocolError::LengthTooBig)? else { return Ok(false) };
                    let length = integer(&line[1..]).filter(|length| (0..=BULK_MAX).contains(length));
                    let length = length.ok_or(ProtocolError::InvalidLength)? as usize;
                    if length > 16 * 1024 && !authenticated {
                        return Err(ProtocolError::UnauthenticatedLength);
                    }
                    self.partial.length = Some(length);
                    self.partial.bytes = self.partial.bytes.saturating_add(length);
                    let at = self.partial.arguments.len();
                    let over = if length > self.limits.argument_bytes_max {
                        Some(Oversize::Argument { at, size: length as u64 })
                    } else if self.partial.bytes > self.limits.command_bytes_max {
                        Some(Oversize::Command { limit: self.limits.command_bytes_max as u64 })
                    } else {
                        None
                    };
                    if over.is_some() {
                        self.partial.oversize = self.partial.oversize.or(over);
                        self.partial.skip = Some(length + 2);
                        continue;
                    }
                    length
                }
            };
            if buffer.len() < length + 2 {
                return Ok(false);
            }
            // Redis does not look at the two bytes after an argument, and clients exist that rely on nothing here; nor do we.
            let argument = buffer.split_to(length).freeze();
            buffer.advance(2);
            self.take(argument);
        }
        Ok(true)
    }

    fn take(&mut self, argument: Bytes) {
        self.partial.arguments.push(argument);
        self.partial.left -= 1;
        self.partial.length = None;
    }

    /// The line at the start of the buffer without its `\r\n`, taken out.
    fn line(&mut self, buffer: &mut BytesMut, too_big: ProtocolError) -> Result<Option<BytesMut>, ProtocolError> {
        let end = buffer[self.searched..].iter().position(|byte| *byte == b'\r').map(|at| at + self.searched);
        match end {
            Some(end) if end + 1 < buffer.len() => {
                self.searched = 0;
                let line = buffer.split_to(end);
                buffer.advance(2);
                Ok(Some(line))
            }
            _ if buffer.len() > INLINE_MAX => Err(too_big),
            Some(end) => {
                self.searched = end;
                Ok(None)
            }
            None => {
                self.searched = buffer.len();
                Ok(None)
            }
        }
    }

    /// The inline command at the start of the buffer.
    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let end = buffer[self.searched..].iter().position(|byte| *byte == b'\n').map(|at| at + self.searched);
        let Some(end) = end else {
            if buffer.len() > INLINE_MAX {
                return Err(ProtocolError::InlineTooBig);
            }
            self.searched = buffer.len();
            return Ok(None);
        };
        self.searched = 0;
        if end > INLINE_MAX {
            return Err(ProtocolError::InlineTooBig);
        }
        let line = buffer.split_to(end);
        buffer.advance(1);
        let words = words(line.strip_suffix(b"\r").unwrap_or(&line)).ok_or(ProtocolError::UnbalancedQuotes)?;
        let is_http = |word: &Bytes| word.eq_ignore_ascii_case(b"post") || word.eq_ignore_ascii_case(b"host:");
        if words.first().is_some_and(is_http) { Err(ProtocolError::Http) } else { Ok(Some(words)) }
    }
}

/// A length as Redis reads it: a 64-bit decimal number without plus, spaces or leading zeros.
fn integer(digits: &[u8]) -> Option<i64> {
    let unsigned = digits.strip_prefix(b"-").unwrap_or(digits);
    let canonical = match unsigned {
        [b'0'] => digits.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Splits a line into words as Redis's `sdssplitargs`: double quotes know `\xHH \n \r \t \b \a \\ \"`, single quotes know `\'`. `None`
/// when quotes do not close or do not end a word.
fn words(line: &[u8]) -> Option<Vec<Bytes>> {
    let mut words = Vec::new();
    let mut at = 0;
    loop {
        while line.get(at).is_some_and(|byte| is_space(*byte)) {
            at += 1;
        }
        if at >= line.len() {
            return Some(words);
        }
        let mut word = Vec::new();
        while let Some(&byte) = line.get(at) {
            match byte {
                b'"' | b'\'' => {
                    at = quoted(line, at, &mut word)?;
                    if line.get(at).is_some_and(|byte| !is_space(*byte)) {
                        return None;
                    }
                    break;
                }
                byte if is_space(byte) => break,
                byte => {
                    word.push(byte);
                    at += 1;
                }
            }
        }
        words.push(Bytes::from(word));
    }
}

/// Reads from the opening quote at `at`; returns the place after the closing one.
fn quoted(line: &[u8], mut at: usize, word: &mut Vec<u8>) -> Option<usize> {
    let quote = line[at];
    at += 1;
    loop {
        let byte = *line.get(at)?;
        if byte == quote {
            return Some(at + 1);
        }
        if byte != b'\\' {
            word.push(byte);
            at += 1;
            continue;
        }
        if quote == b'\'' {
            let escaped = line.get(at + 1) == Some(&b'\'');
            word.push(if escaped { b'\'' } else { b'\\' });
            at += if escaped { 2 } else { 1 };
            continue;
        }
        if let Some([b'x', high, low]) = line.get(at + 1..at + 4)
            && let (Some(high), Some(low)) = (char::from(*high).to_digit(16), char::from(*low).to_digit(16))
        {
            word.push((high * 16 + low) as u8);
            at += 4;
            continue;
        }
        word.push(match *line.get(at + 1)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'b' => 0x08,
            b'a' => 0x07,
            other => other,
        });
        at += 2;
    }
}

fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b || byte == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { argument_bytes_max: 100, command_bytes_max: 250 };

    /// All commands in `bytes` as texts, then what stopped it.
    fn parse(bytes: &[u8], step: usize) -> (Vec<Vec<String>>, Option<ProtocolError>) {
        let mut parser = Parser::new(LIMITS);
        let mut buffer = BytesMut::new();
        let mut found = Vec::new();
        for piece in bytes.chunks(step) {
            buffer.extend_from_slice(piece);
            loop {
                match parser.next(&mut buffer, true) {
                    Ok(Some(command)) => found.push(
                        command.arguments.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect(),
                    ),
                    Ok(None) => break,
                    Err(error) => return (found, Some(error)),
                }
            }
        }
        (found, None)
    }

    #[test]
    fn commands_come_out_the_same_however_the_bytes_arrive() {
        let bytes =
            b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n*0\r\n*-1\r\n\r\nset x \"a\\x41\\n\"\n*1\r\n$3\r\nfooXXPING\r\n";
        let whole = parse(bytes, bytes.len());
        let expected: Vec<Vec<String>> =
            [vec!["GET", "a"], vec!["PING"], vec!["set", "x", "aA\n"], vec!["foo"], vec!["PING"]]
                .into_iter()
                .map(|words| words.into_iter().map(String::from).collect())
                .collect();
        assert_eq!(whole, (expected, None));
        for step in 1..bytes.len() {
            assert_eq!(parse(bytes, step), whole, "in steps of {step}");
        }
    }

    #[test]
    fn malformed_bytes_get_the_words_of_redis() {
        for (bytes, text) in [
            (&b"*1\r\nx5\r\n"[..], "expected '$', got 'x'"),
            (b"*1\r\n\r\n", "expected '$', got ' '"),
            (b"*1\r\n$-5\r\n", "invalid bulk length"),
            (b"*1\r\n$\r\n", "invalid bulk length"),
            (b"*1\r\n$+4\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*abc\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*2147483648\r\n", "invalid multibulk length"),
            (b"*1\n$4\r\n", "invalid multibulk length"),
            (b"set a \"b\r\n", "unbalanced quotes in request"),
            (b"set a \"b\"d\r\n", "unbalanced quotes in request"),
            (b"set a 'b\r\n", "unbalanced quotes in request"),
            (b"POST / HTTP/1.1\r\nfoo: bar\r\n\r\nset a b\r\n", "this is HTTP, and this door speaks RESP"),
            (b"get / HTTP/1.1\r\nHost: a\r\n\r\nset a b\r\n", "this is HTTP, and this door speaks RESP"),
            (&[b'a'; 70_000], "too big inline request"),
            (&[b'*'; 70_000], "too big mbulk count string"),
        ] {
            let error = parse(bytes, 7).1.expect(text);
            assert_eq!(error.to_string(), format!("ERR Protocol error: {text}"));
        }
        let mut long = b"*1\r\n$".to_vec();
        long.extend([b'1'; 70_000]);
        assert_eq!(parse(&long, 1_000).1, Some(ProtocolError::LengthTooBig));
    }

    #[test]
    fn an_oversized_argument_is_skipped_and_the_next_command_stands() {
        let mut bytes = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$5000\r\n".to_vec();
        bytes.extend([b'v'; 5000]);
        bytes.extend(b"\r\n*1\r\n$4\r\nPING\r\n");
        for step in [1, 3, 1000, 10_000] {
            let mut parser = Parser::new(LIMITS);
            let mut buffer = BytesMut::new();
            let mut found = Vec::new();
            for piece in bytes.chunks(step) {
                buffer.extend_from_slice(piece);
                while let Some(command) = parser.next(&mut buffer, true).expect("well-formed") {
                    found.push(command);
                }
                assert!(buffer.len() < 10_000 && (step > 10 || buffer.len() < 20), "nothing piles up");
            }
            assert_eq!(found.len(), 2);
            assert_eq!(found[0].oversize, Some(Oversize::Argument { at: 2, size: 5000 }));
            assert_eq!(found[1].arguments, vec![Bytes::from_static(b"PING")]);
            assert_eq!(found[1].oversize, None);
        }
    }

    #[test]
    fn strangers_are_held_short() {
        let mut parser = Parser::new(LIMITS);
        let error = parser.next(&mut BytesMut::from(&b"*11\r\n"[..]), false);
        assert_eq!(error, Err(ProtocolError::UnauthenticatedCount));
        let error = Parser::new(LIMITS).next(&mut BytesMut::from(&b"*2\r\n$16385\r\n"[..]), false);
        assert_eq!(error, Err(ProtocolError::UnauthenticatedLength));
    }

    proptest::proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>, step in 1_usize..20) {
            let _ = parse(&bytes, step);
        }

        #[test]
        fn near_misses_never_panic(bytes in "[*$0-9a-z\r\n\"'\\\\ -]{0,80}", step in 1_usize..20) {
            let _ = parse(bytes.as_bytes(), step);
        }
    }
}
