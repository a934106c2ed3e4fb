use std::collections::{BTreeMap, VecDeque};

use redis::Value;

use super::{Bytes, Reply};

/// A stream of Redis: entries with rising ids, and the last id that was given out, also when its entry was removed.
#[derive(Clone, Default)]
pub(super) struct Stream {
    entries: BTreeMap<Id, Vec<Bytes>>,
    last: Id,
}

type Id = (u64, u64);

/// Roughly what Redis adds for each entry.
const ENTRY_BYTES: usize = 64;

impl Stream {
    /// `XADD key [MAXLEN|MINID [=|~] n] id field value …`, without its key.
    pub(super) fn add(&mut self, arguments: &[Bytes], now_ms: u64) -> Reply {
        let mut arguments: VecDeque<_> = arguments.iter().cloned().collect();
        let trim = take_trim(&mut arguments);
        let Some(id) = arguments.pop_front() else { return Err(wrong_arguments("xadd")) };
        let id = if id == b"*" {
            if now_ms > self.last.0 { (now_ms, 0) } else { (self.last.0, self.last.1 + 1) }
        } else {
            parse(&id, 0).ok_or("ERR Invalid stream ID specified as stream command argument")?
        };
        if id <= self.last {
            let smaller = "The ID specified in XADD is equal or smaller than the target stream top item";
            return Err(format!("ERR {smaller}"));
        }
        self.last = id;
        self.entries.insert(id, arguments.into());
        if let Some(trim) = trim {
            self.trim_by(&trim);
        }
        Ok(bulk(write(id)))
    }

    /// `XTRIM key MAXLEN|MINID [=|~] n`, without its key.
    pub(super) fn trim(&mut self, arguments: &[Bytes]) -> Reply {
        let trim =
            take_trim(&mut arguments.iter().cloned().collect()).ok_or_else(|| wrong_arguments("xtrim"))?;
        let before = self.entries.len();
        self.trim_by(&trim);
        Ok(Value::Int((before - self.entries.len()) as i64))
    }

    fn trim_by(&mut self, trim: &Trim) {
        match trim {
            Trim::Length(most) => {
                while self.entries.len() > *most {
                    self.entries.pop_first();
                }
            }
            Trim::Least(least) => self.entries = self.entries.split_off(least),
        }
    }

    pub(super) fn remove(&mut self, ids: &[Bytes]) -> Value {
        let removed =
            ids.iter().filter(|id| parse(id, 0).is_some_and(|id| self.entries.remove(&id).is_some()));
        Value::Int(removed.count() as i64)
    }

    /// `XRANGE key start end [COUNT n]`, without its key; backwards with `end start`, as XREVRANGE.
    pub(super) fn range(&self, arguments: &[Bytes], backwards: bool) -> Reply {
        let [a, b, rest @ ..] = arguments else { return Err(wrong_arguments("xrange")) };
        let (start, end) = if backwards { (b, a) } else { (a, b) };
        let count = rest.get(1).and_then(|count| number(count)).unwrap_or(usize::MAX as u64);
        let bound = |text: &[u8], rest| match text.strip_prefix(b"(") {
            Some(text) => parse(text, rest).map(|id| (id, true)),
            None => parse(text, rest).map(|id| (id, false)),
        };
        let (from, to) = (bound(start, 0), bound(end, u64::MAX));
        let ((from, after), (to, before)) = from.zip(to).ok_or("ERR Invalid stream ID specified")?;
        let within = |id: &Id| {
            (if after { *id > from } else { *id >= from }) && (if before { *id < to } else { *id <= to })
        };
        let rows = self.entries.iter().filter(|(id, _)| within(id)).map(|(id, fields)| row(*id, fields));
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let rows: Vec<_> = if backwards {
            let mut rows: Vec<_> = rows.collect();
            rows.reverse();
            rows.into_iter().take(count).collect()
        } else {
            rows.take(count).collect()
        };
        Ok(Value::Array(rows))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The fields of XINFO STREAM that the scripts read.
    pub(super) fn info(&self) -> Value {
        let entry =
            |entry: Option<(&Id, &Vec<Bytes>)>| entry.map_or(Value::Nil, |(id, fields)| row(*id, fields));
        Value::Array(vec![
            bulk("length"),
            Value::Int(self.entries.len() as i64),
            bulk("last-generated-id"),
            bulk(write(self.last)),
            bulk("first-entry"),
            entry(self.entries.first_key_value()),
            bulk("last-entry"),
            entry(self.entries.last_key_value()),
        ])
    }

    pub(super) fn bytes(&self) -> usize {
        let of = |fields: &Vec<Bytes>| fields.iter().map(Vec::len).sum::<usize>() + ENTRY_BYTES;
        self.entries.values().map(of).sum()
    }
}

enum Trim {
    Length(usize),
    Least(Id),
}

/// Takes `MAXLEN|MINID [=|~] n` from the front, if it is there. Where Redis trims approximately, this trims exactly.
fn take_trim(arguments: &mut VecDeque<Bytes>) -> Option<Trim> {
    let by_length = match arguments.front()?.to_ascii_uppercase().as_slice() {
        b"MAXLEN" => true,
        b"MINID" => false,
        _ => return None,
    };
    arguments.pop_front();
    if matches!(arguments.front()?.as_slice(), b"~" | b"=") {
        arguments.pop_front();
    }
    let threshold = arguments.pop_front()?;
    if by_length {
        number(&threshold).map(|most| Trim::Length(usize::try_from(most).unwrap_or(usize::MAX)))
    } else {
        parse(&threshold, 0).map(Trim::Least)
    }
}

fn row(id: Id, fields: &[Bytes]) -> Value {
    let fields = fields.iter().map(|field| Value::BulkString(field.clone())).collect();
    Value::Array(vec![bulk(write(id)), Value::Array(fields)])
}

/// Reads an id, whose part behind the dash may be left out.
fn parse(text: &[u8], rest: u64) -> Option<Id> {
    match text {
        b"-" => return Some((0, 0)),
        b"+" => return Some((u64::MAX, u64::MAX)),
        _ => {}
    }
    match std::str::from_utf8(text).ok()?.split_once('-') {
        Some((ms, n)) => Some((ms.parse().ok()?, n.parse().ok()?)),
        None => Some((number(text)?, rest)),
    }
}

fn write((ms, n): Id) -> String {
    format!("{ms}-{n}")
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

pub(super) fn bulk(text: impl Into<Vec<u8>>) -> Value {
    Value::BulkString(text.into())
}

pub(super) fn wrong_arguments(command: &str) -> String {
    format!("ERR wrong number of arguments for '{command}' command")
}
