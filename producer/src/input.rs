use carillon_protocol::limits::ENTRY_MAX_BYTES;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Maximum bytes of input that are read ahead.
const BUFFER_BYTES: usize = 128 * 1024;

/// A line or its fault, with its number, counted from 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: Result<String, String>,
}

/// An input, line by line. A line that is too long is skipped without being stored.
pub(crate) struct Input<R> {
    reader: BufReader<R>,
    number: u64,
}

impl<R: AsyncRead + Unpin> Input<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader: BufReader::with_capacity(BUFFER_BYTES, reader), number: 0 }
    }

    /// Returns the number of the last line that was returned.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the next line is complete in the buffer.
    pub(crate) fn has_line(&self) -> bool {
        self.reader.buffer().contains(&b'\n')
    }

    /// Returns the next line without its end; `None` at the end of the input. If the future is dropped, the received part of
    /// a line is lost.
    pub(crate) async fn next(&mut self) -> std::io::Result<Option<Line>> {
        let mut line = Vec::new();
        let mut length = 0_u64;
        loop {
            let buffer = self.reader.fill_buf().await?;
            if buffer.is_empty() && length == 0 {
                return Ok(None);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            let room = (ENTRY_MAX_BYTES + 1).saturating_sub(line.len());
            line.extend_from_slice(&part[..part.len().min(room)]);
            length += part.len() as u64 + u64::from(end.is_some());
            let is_done = end.is_some() || buffer.is_empty();
            let consumed = end.map_or(buffer.len(), |end| end + 1);
            self.reader.consume(consumed);
            if is_done {
                self.number += 1;
                return Ok(Some(Line { number: self.number, text: text(line) }));
            }
        }
    }
}

fn text(mut line: Vec<u8>) -> Result<String, String> {
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    if line.len() > ENTRY_MAX_BYTES {
        return Err(format!("longer than {ENTRY_MAX_BYTES} bytes"));
    }
    // Windows shells write UTF-16 by default.
    if line.starts_with(&[0xff, 0xfe]) || line.starts_with(&[0xfe, 0xff]) || line.contains(&0) {
        return Err("UTF-16, or bytes of 0: write it as UTF-8".to_owned());
    }
    String::from_utf8(line).map_err(|error| format!("not UTF-8: {}", error.utf8_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(bytes: &[u8]) -> Vec<Result<String, String>> {
        let mut input = Input::new(bytes);
        let mut lines = Vec::new();
        while let Some(line) = input.next().await.unwrap() {
            lines.push(line.text);
            assert_eq!(line.number, lines.len() as u64);
        }
        lines
    }

    #[tokio::test]
    async fn ends_may_be_of_any_system_and_the_last_may_be_missing() {
        let ok = |texts: &[&str]| texts.iter().map(|text| Ok((*text).to_owned())).collect::<Vec<_>>();
        assert_eq!(lines(b"a\r\nb\n\nc").await, ok(&["a", "b", "", "c"]));
        assert_eq!(lines(b"a\n").await, ok(&["a"]));
        assert_eq!(lines(b"\n").await, ok(&[""]));
        assert_eq!(lines(b"").await, ok(&[]));
    }

    #[tokio::test]
    async fn a_bad_line_does_not_hide_the_next() {
        let longest = "x".repeat(ENTRY_MAX_BYTES);
        let mut bytes = format!("{longest}\n{longest}y\n").into_bytes();
        bytes.extend_from_slice(&vec![b'z'; 5 * BUFFER_BYTES]);
        bytes.extend_from_slice(b"\n\xff\nlast");
        let lines = lines(&bytes).await;
        assert_eq!(lines[0], Ok(longest));
        let too_long = Err("longer than 65536 bytes".to_owned());
        assert_eq!(lines[1..3], [too_long.clone(), too_long]);
        assert!(lines[3].as_ref().unwrap_err().starts_with("not UTF-8: "));
        assert_eq!(lines[4..], [Ok("last".to_owned())]);
    }

    #[tokio::test]
    async fn utf_16_is_named() {
        let utf_16: Vec<u8> = "\u{feff}{}\r\n{}".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for line in lines(&utf_16).await {
            assert!(line.as_ref().unwrap_err().contains("UTF-16"), "{line:?}");
        }
    }

    #[tokio::test]
    async fn knows_whether_a_line_is_complete() {
        let mut input = Input::new(&b"a\nb\nc"[..]);
        assert!(!input.has_line(), "nothing was read yet");
        input.next().await.unwrap();
        assert!(input.has_line());
        input.next().await.unwrap();
        assert!(!input.has_line(), "the last one may still go on");
    }
}
