//! The commands, with the options that the scripts and callers of this crate use.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use redis::Value;

use super::keyspace::{SortedSet, Stored};
use super::stream::{Stream, bulk, wrong_arguments};
use super::{Bytes, Data, Reply};

type Hash = BTreeMap<Bytes, Bytes>;
type Set = BTreeSet<Bytes>;
type List = VecDeque<Bytes>;

/// Commands that a server refuses when its memory is used up.
const NEED_MEMORY: [&[u8]; 11] = [
    b"SET", b"HSET", b"HSETNX", b"HINCRBY", b"SADD", b"LPUSH", b"RPUSH", b"ZADD", b"XADD", b"INCRBY",
    b"SETNX",
];

impl Data {
    /// Carries out one command.
    pub(super) fn call(&mut self, arguments: &[Bytes]) -> Reply {
        let Some((name, rest)) = arguments.split_first() else { return Err("ERR no command".to_owned()) };
        let name = name.to_ascii_uppercase();
        if self.faults.full && NEED_MEMORY.contains(&name.as_slice()) {
            return Err("OOM command not allowed when used memory > 'maxmemory'.".to_owned());
        }
        if let Some(reply) = self.of_server(&name, rest) {
            return reply;
        }
        let Some((key, rest)) = rest.split_first() else {
            return Err(wrong_arguments(&String::from_utf8_lossy(&name)));
        };
        let reply = self
            .of_keys(&name, key, rest)
            .or_else(|| self.of_texts(&name, key, rest))
            .or_else(|| self.of_hashes(&name, key, rest))
            .or_else(|| self.of_lists(&name, key, rest))
            .or_else(|| self.of_sets(&name, key, rest))
            .or_else(|| self.of_sorted_sets(&name, key, rest))
            .or_else(|| self.of_streams(&name, key, rest))
            .unwrap_or_else(|| Err(format!("ERR unknown command '{}'", String::from_utf8_lossy(&name))));
        self.keys.drop_empty(key);
        reply
    }

    fn of_server(&mut self, name: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(Ok(match (name, rest) {
            (b"PING", _) => Value::SimpleString("PONG".to_owned()),
            (b"TIME", _) => {
                let now_us = self.keys.now_us();
                Value::Array(
                    [now_us / 1_000_000, now_us % 1_000_000].map(|part| bulk(part.to_string())).into(),
                )
            }
            (b"INFO", [section]) if section == b"memory" => {
                let (used, most) = (self.keys.bytes(), if self.faults.full { self.keys.bytes() } else { 0 });
                bulk(format!("used_memory:{used}\r\nmaxmemory:{most}\r\n"))
            }
            (b"INFO", _) => bulk(format!("role:master\r\nmaster_replid:{}\r\n", self.replid)),
            (b"CONFIG", _) => Value::Array(vec![bulk("maxmemory-policy"), bulk("noeviction")]),
            (b"PUBLISH", [channel, message]) => Value::Int(self.subscribers.publish(channel, message)),
            (b"MEMORY", [_, key, ..]) => self.keys.bytes_of(key).map_or(Value::Nil, integer),
            (b"SCAN", [_, _, pattern, ..]) => {
                let prefix = pattern.strip_suffix(b"*").unwrap_or(pattern);
                let found = self.keys.with_prefix(prefix).into_iter().map(Value::BulkString);
                Value::Array(vec![bulk("0"), Value::Array(found.collect())])
            }
            (b"UNLINK" | b"DEL", keys) => integer(keys.iter().filter(|key| self.keys.remove(key)).count()),
            (b"EXISTS", keys) => integer(keys.iter().filter(|key| self.keys.has(key)).count()),
            (b"FLUSHALL" | b"FLUSHDB", _) => {
                self.keys.clear();
                Value::Okay
            }
            _ => return None,
        }))
    }

    fn of_keys(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(match (name, rest) {
            (b"PEXPIRE", [ms, options @ ..]) => {
                let only_new = options.first().is_some_and(|option| option.eq_ignore_ascii_case(b"NX"));
                if only_new && self.keys.time_left(key) >= 0 {
                    return Some(Ok(Value::Int(0)));
                }
                parse::<i64>(ms).map(|ms| {
                    let at_ms = self.keys.now_ms().saturating_add_signed(ms);
                    Value::Int(self.keys.expire_at(key, at_ms).into())
                })
            }
            (b"PTTL", _) => Ok(Value::Int(self.keys.time_left(key))),
            _ => return None,
        })
    }

    fn of_texts(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(match (name, rest) {
            (b"GET", _) => self.keys.get::<Bytes>(key).map(|text| optional(text)),
            (b"SET", [value, options @ ..]) => self.set(key, value, options),
            (b"INCRBY", [by]) => self.add_to(key, by),
            _ => return None,
        })
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[Bytes]) -> Reply {
        let given = |name: &[u8]| options.iter().position(|option| option.eq_ignore_ascii_case(name));
        let before = self.keys.get::<Bytes>(key)?.cloned();
        if before.is_some() && given(b"NX").is_some() {
            return Ok(Value::Nil);
        }
        let keep = given(b"PX").and_then(|at| options.get(at + 1)).map(|ms| parse::<u64>(ms)).transpose()?;
        let until_ms = keep.map(|ms| self.keys.now_ms().saturating_add(ms));
        self.keys.set(key, Stored::Text(value.to_vec()), until_ms);
        Ok(if given(b"GET").is_some() { optional(before.as_ref()) } else { Value::Okay })
    }

    fn add_to(&mut self, key: &[u8], by: &[u8]) -> Reply {
        let text = self.keys.get_mut::<Bytes>(key)?;
        let sum = if text.is_empty() { 0 } else { parse::<i64>(text)? } + parse::<i64>(by)?;
        *text = sum.to_string().into_bytes();
        Ok(Value::Int(sum))
    }

    fn of_hashes(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        let found = |hash: Option<&Hash>, field: &Bytes| optional(hash.and_then(|hash| hash.get(field)));
        Some(match (name, rest) {
            (b"HGET", [field]) => self.keys.get(key).map(|hash| found(hash, field)),
            (b"HMGET", fields) => self
                .keys
                .get(key)
                .map(|hash| Value::Array(fields.iter().map(|field| found(hash, field)).collect())),
            (b"HEXISTS", [field]) => self
                .keys
                .get::<Hash>(key)
                .map(|hash| Value::Int(hash.is_some_and(|hash| hash.contains_key(field)).into())),
            (b"HLEN", _) => self.keys.get::<Hash>(key).map(|hash| integer(hash.map_or(0, BTreeMap::len))),
            (b"HGETALL", _) => self.keys.get::<Hash>(key).map(|hash| {
                let fields = hash.into_iter().flatten().flat_map(|(field, value)| [field, value]);
                Value::Array(fields.cloned().map(Value::BulkString).collect())
            }),
            (b"HSET", pairs) if pairs.len() % 2 == 0 && !pairs.is_empty() => {
                self.keys.get_mut::<Hash>(key).map(|hash| {
                    let new = pairs
                        .chunks_exact(2)
                        .filter(|pair| hash.insert(pair[0].clone(), pair[1].clone()).is_none());
                    integer(new.count())
                })
            }
            (b"HSETNX", [field, value]) => self.keys.get_mut::<Hash>(key).map(|hash| {
                let is_new = !hash.contains_key(field);
                hash.entry(field.clone()).or_insert_with(|| value.clone());
                Value::Int(is_new.into())
            }),
            (b"HINCRBY", [field, by]) => self.keys.get_mut::<Hash>(key).and_then(|hash| {
                let before = hash.get(field).map_or(Ok(0), |value| parse::<i64>(value))?;
                let sum = before + parse::<i64>(by)?;
                hash.insert(field.clone(), sum.to_string().into_bytes());
                Ok(Value::Int(sum))
            }),
            (b"HDEL", fields) => self
                .keys
                .get_mut::<Hash>(key)
                .map(|hash| integer(fields.iter().filter(|field| hash.remove(*field).is_some()).count())),
            _ => return None,
        })
    }

    fn of_lists(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(match (name, rest) {
            (b"LLEN", _) => self.keys.get::<List>(key).map(|list| integer(list.map_or(0, VecDeque::len))),
            (b"LPUSH", values) => self.keys.get_mut::<List>(key).map(|list| {
                values.iter().for_each(|value| list.push_front(value.clone()));
                integer(list.len())
            }),
            (b"RPUSH", values) => self.keys.get_mut::<List>(key).map(|list| {
                list.extend(values.iter().cloned());
                integer(list.len())
            }),
            (b"LPOP", _) => self.keys.get_mut::<List>(key).map(|list| optional(list.pop_front().as_ref())),
            (b"LINDEX", [at]) => parse::<i64>(at).and_then(|at| {
                let list = self.keys.get::<List>(key)?;
                Ok(optional(list.and_then(|list| list.get(place(at, list.len())?))))
            }),
            (b"LRANGE", [from, to]) => self
                .list_range(key, from, to)
                .map(|values| Value::Array(values.into_iter().map(Value::BulkString).collect())),
            (b"LTRIM", [from, to]) => self.list_range(key, from, to).and_then(|values| {
                *self.keys.get_mut::<List>(key)? = values.into();
                Ok(Value::Okay)
            }),
            _ => return None,
        })
    }

    fn list_range(&mut self, key: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<Bytes>, String> {
        let (from, to) = (parse::<i64>(from)?, parse::<i64>(to)?);
        let Some(list) = self.keys.get::<List>(key)? else { return Ok(vec![]) };
        let from = place(from, list.len()).unwrap_or(if from < 0 { 0 } else { list.len() });
        let end = match place(to, list.len()) {
            Some(to) => to + 1,
            None if to < 0 => 0,
            None => list.len(),
        };
        Ok(list.iter().take(end).skip(from).cloned().collect())
    }

    fn of_sets(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(match (name, rest) {
            (b"SADD", members) => self
                .keys
                .get_mut::<Set>(key)
                .map(|set| integer(members.iter().filter(|member| set.insert((*member).clone())).count())),
            (b"SREM", members) => self
                .keys
                .get_mut::<Set>(key)
                .map(|set| integer(members.iter().filter(|member| set.remove(*member)).count())),
            (b"SCARD", _) => self.keys.get::<Set>(key).map(|set| integer(set.map_or(0, BTreeSet::len))),
            (b"SISMEMBER", [member]) => self
                .keys
                .get::<Set>(key)
                .map(|set| Value::Int(set.is_some_and(|set| set.contains(member)).into())),
            (b"SMEMBERS", _) => self
                .keys
                .get::<Set>(key)
                .map(|set| Value::Array(set.into_iter().flatten().cloned().map(Value::BulkString).collect())),
            (b"SPOP", [count]) => parse::<usize>(count).and_then(|count| {
                let set = self.keys.get_mut::<Set>(key)?;
                let popped = (0..count).map_while(|_| set.pop_first()).map(Value::BulkString);
                Ok(Value::Array(popped.collect()))
            }),
            (b"SRANDMEMBER", [count]) => parse::<usize>(count).and_then(|count| {
                let set = self.keys.get::<Set>(key)?;
                let chosen = fastrand::choose_multiple(set.into_iter().flatten().cloned(), count);
                Ok(Value::Array(chosen.into_iter().map(Value::BulkString).collect()))
            }),
            _ => return None,
        })
    }

    fn of_sorted_sets(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        Some(match (name, rest) {
            (b"ZADD", arguments) => self.add_scores(key, arguments),
            (b"ZREM", members) => self
                .keys
                .get_mut::<SortedSet>(key)
                .map(|set| integer(members.iter().filter(|member| set.remove(member)).count())),
            (b"ZCARD", _) => self
                .keys
                .get(key)
                .map(|set: Option<&SortedSet>| integer(set.map_or(0, |set| set.scores.len()))),
            (b"ZSCORE", [member]) => self.keys.get(key).map(|set: Option<&SortedSet>| {
                let score = set.and_then(|set| set.scores.get(member));
                score.map_or(Value::Nil, |score| bulk(score.to_string()))
            }),
            (b"ZINCRBY", [by, member]) => parse::<f64>(by).and_then(|by| {
                let set = self.keys.get_mut::<SortedSet>(key)?;
                let score = set.scores.get(member).copied().unwrap_or_default() + by;
                set.insert(member, score);
                Ok(bulk(score.to_string()))
            }),
            (b"ZCOUNT", [from, to]) => self.scores_between(key, from, to).map(|found| integer(found.len())),
            (b"ZRANGEBYSCORE", [from, to, options @ ..]) => {
                self.scores_between(key, from, to).and_then(|found| {
                    let limit = options.iter().position(|option| option == b"LIMIT");
                    let limit = limit.map(|at| (options.get(at + 1), options.get(at + 2)));
                    let (skip, take) = match limit {
                        Some((Some(skip), Some(take))) => (parse(skip)?, parse(take)?),
                        _ => (0, usize::MAX),
                    };
                    Ok(scored(found.into_iter().skip(skip).take(take), options))
                })
            }
            (b"ZREMRANGEBYSCORE", [from, to]) => self.scores_between(key, from, to).and_then(|found| {
                let set = self.keys.get_mut::<SortedSet>(key)?;
                Ok(integer(found.iter().filter(|(member, _)| set.remove(member)).count()))
            }),
            (b"ZRANGE", [from, to, options @ ..]) => {
                self.scores_between(key, b"-inf", b"+inf").and_then(|all| {
                    let (from, to) = (parse::<i64>(from)?, parse::<i64>(to)?);
                    let from = place(from, all.len()).unwrap_or(0);
                    let end = place(to, all.len()).map_or(all.len(), |to| to + 1);
                    Ok(scored(all.into_iter().take(end).skip(from), options))
                })
            }
            _ => return None,
        })
    }

    /// `ZADD key [NX] [GT] score member …`
    fn add_scores(&mut self, key: &[u8], arguments: &[Bytes]) -> Reply {
        let options =
            arguments.iter().take_while(|word| matches!(word.as_slice(), b"NX" | b"GT" | b"XX")).count();
        let (options, pairs) = arguments.split_at(options);
        let has = |name: &[u8]| options.iter().any(|option| option == name);
        let set = self.keys.get_mut::<SortedSet>(key)?;
        let mut added = 0;
        for pair in pairs.chunks_exact(2) {
            let (score, member) = (parse::<f64>(&pair[0])?, &pair[1]);
            let is_refused = match set.scores.get(member) {
                Some(known) => has(b"NX") || (has(b"GT") && score <= *known),
                None => has(b"XX"),
            };
            if !is_refused {
                added += usize::from(set.insert(member, score));
            }
        }
        Ok(integer(added))
    }

    fn scores_between(&mut self, key: &[u8], from: &[u8], to: &[u8]) -> Result<Vec<(Bytes, f64)>, String> {
        let bound = |text: &[u8]| match text.strip_prefix(b"(") {
            Some(text) => parse::<f64>(text).map(|score| (score, true)),
            None => parse::<f64>(text).map(|score| (score, false)),
        };
        let ((from, after), (to, before)) = (bound(from)?, bound(to)?);
        let within = |score: f64| {
            (if after { score > from } else { score >= from })
                && (if before { score < to } else { score <= to })
        };
        let set = self.keys.get::<SortedSet>(key)?;
        let all = set.into_iter().flat_map(SortedSet::in_order);
        Ok(all.filter(|(_, score)| within(*score)).map(|(member, score)| (member.clone(), score)).collect())
    }

    fn of_streams(&mut self, name: &[u8], key: &[u8], rest: &[Bytes]) -> Option<Reply> {
        let nothing = || Ok(Value::Array(vec![]));
        Some(match name {
            b"XADD" => {
                let now_ms = self.keys.now_ms();
                self.keys.get_mut::<Stream>(key).and_then(|stream| stream.add(rest, now_ms))
            }
            b"XTRIM" if self.keys.has(key) => self.keys.get_mut::<Stream>(key).and_then(|one| one.trim(rest)),
            b"XTRIM" => Ok(Value::Int(0)),
            b"XDEL" => self.keys.get_mut::<Stream>(key).map(|stream| stream.remove(rest)),
            b"XLEN" => self.keys.get(key).map(|one: Option<&Stream>| integer(one.map_or(0, Stream::len))),
            b"XRANGE" | b"XREVRANGE" => self.keys.get(key).and_then(|one: Option<&Stream>| {
                one.map_or_else(nothing, |one| one.range(rest, name == b"XREVRANGE"))
            }),
            b"XINFO" => {
                // The key follows the word STREAM.
                let key = rest.first().map_or(&b""[..], Vec::as_slice);
                let stream = self.keys.get(key);
                stream.and_then(|one: Option<&Stream>| {
                    one.map(Stream::info).ok_or("ERR no such key".to_owned())
                })
            }
            _ => return None,
        })
    }
}

fn integer(number: usize) -> Value {
    Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
}

fn optional(text: Option<&Bytes>) -> Value {
    text.map_or(Value::Nil, |text| Value::BulkString(text.clone()))
}

fn scored(members: impl Iterator<Item = (Bytes, f64)>, options: &[Bytes]) -> Value {
    let with_scores = options.iter().any(|option| option == b"WITHSCORES");
    let score = |score: f64| with_scores.then(|| bulk(score.to_string()));
    let rows = members.flat_map(|(member, at)| [Some(Value::BulkString(member)), score(at)]);
    Value::Array(rows.flatten().collect())
}

/// An index that may count from the end.
fn place(at: i64, len: usize) -> Option<usize> {
    let at = if at < 0 { i64::try_from(len).ok()? + at } else { at };
    usize::try_from(at).ok().filter(|at| *at < len)
}

fn parse<T: std::str::FromStr>(text: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| "ERR value is not an integer or out of range".to_owned())
}
