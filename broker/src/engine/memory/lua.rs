//! Runs the scripts with Lua 5.1, the version of Redis, and with the parts of its environment that they use.

use std::collections::HashMap;
use std::sync::Arc;

use mlua::{Function, Lua, LuaString, Table, Value as Lv, Variadic};
use parking_lot::Mutex;
use redis::{Script, Value};

use super::{Bytes, Data, Reply};

/// `redis.call` raises the table with `err` that `redis.pcall` returns; the JSON functions raise a text. A script runs under
/// `pcall`, since an error may be a table, of which Rust would receive only a part.
const ENVIRONMENT: &str = "
local call, decode, encode, sha1hex = ...
redis = { pcall = call, sha1hex = sha1hex, call = function(...)
  local reply = call(...)
  if type(reply) == 'table' and reply.err then error(reply, 0) end
  return reply
end }
local function raising(f)
  return function(...)
    local value, fault = f(...)
    if fault then error(fault, 0) end
    return value
  end
end
cjson = { decode = raising(decode), encode = raising(encode), null = NULL }
return function(script)
  local ok, reply = pcall(script)
  if ok then return reply end
  return { err = type(reply) == 'table' and reply.err or 'ERR ' .. tostring(reply) }
end";

/// The scripts that were loaded, by their SHA-1, and the interpreter that runs them.
pub(super) struct Scripts {
    lua: Lua,
    guard: Function,
    loaded: HashMap<Bytes, Function>,
}

impl Scripts {
    /// # Panics
    /// When Lua cannot be set up, which only a fault in this file can cause.
    pub(super) fn new(data: Arc<Mutex<Data>>) -> Self {
        let lua = Lua::new();
        let guard = environment(&lua, data).expect("the environment of scripts is valid Lua");
        Self { lua, guard, loaded: HashMap::new() }
    }

    /// `EVAL script n key … argument …`, `EVALSHA sha n …` and `SCRIPT LOAD script`.
    pub(super) fn run(&mut self, arguments: &[Bytes]) -> Reply {
        match arguments {
            [name, _, source] if name.eq_ignore_ascii_case(b"SCRIPT") => {
                self.load(source).map(Value::BulkString)
            }
            [name, script, count, rest @ ..] => {
                let sha =
                    if name.eq_ignore_ascii_case(b"EVAL") { self.load(script)? } else { script.clone() };
                let count = std::str::from_utf8(count).ok().and_then(|count| count.parse().ok());
                let (keys, arguments) = rest.split_at_checked(count.unwrap_or(0)).unwrap_or((rest, &[]));
                self.call(&sha, keys, arguments)
            }
            _ => Err("ERR wrong number of arguments".to_owned()),
        }
    }

    fn load(&mut self, source: &[u8]) -> Result<Bytes, String> {
        let sha = Script::new(&String::from_utf8_lossy(source)).get_hash().as_bytes().to_vec();
        if !self.loaded.contains_key(&sha) {
            let function = self.lua.load(source).into_function();
            let function = function.map_err(|error| format!("ERR Error compiling script: {error}"))?;
            self.loaded.insert(sha.clone(), function);
        }
        Ok(sha)
    }

    fn call(&self, sha: &[u8], keys: &[Bytes], arguments: &[Bytes]) -> Reply {
        let Some(script) = self.loaded.get(sha) else {
            return Err("NOSCRIPT No matching script.".to_owned());
        };
        let run = || {
            for (name, values) in [("KEYS", keys), ("ARGV", arguments)] {
                let values = values
                    .iter()
                    .map(|value| self.lua.create_string(value))
                    .collect::<Result<Vec<_>, _>>()?;
                self.lua.globals().set(name, values)?;
            }
            self.guard.call::<Lv>(script)
        };
        run().and_then(|reply| from_lua(&reply)).unwrap_or_else(|error| Err(format!("ERR {error}")))
    }
}

fn environment(lua: &Lua, data: Arc<Mutex<Data>>) -> mlua::Result<Function> {
    lua.globals().set("NULL", Lv::NULL)?;
    let call = lua.create_function(move |lua, arguments: Variadic<Lv>| {
        let arguments = arguments.iter().map(argument).collect::<mlua::Result<Vec<_>>>()?;
        let reply = data.lock().call(&arguments);
        to_lua(lua, reply)
    })?;
    let decode = lua.create_function(|lua, text: LuaString| {
        // cjson does not check that a text is UTF-8.
        match serde_json::from_str::<serde_json::Value>(&text.to_string_lossy()) {
            Ok(value) => Ok((json_to_lua(lua, &value)?, None)),
            Err(error) => Ok((Lv::Nil, Some(error.to_string()))),
        }
    })?;
    let encode =
        lua.create_function(|_, value: Lv| Ok((lua_to_json(&value)?.to_string(), None::<String>)))?;
    let sha1hex = lua.create_function(|_, text: LuaString| {
        Ok(Script::new(&text.to_string_lossy()).get_hash().to_owned())
    })?;
    lua.load(ENVIRONMENT).call((call, decode, encode, sha1hex))
}

/// Converts an argument of `redis.call` into bytes, as Redis does.
fn argument(value: &Lv) -> mlua::Result<Bytes> {
    match value {
        Lv::String(text) => Ok(text.as_bytes().to_vec()),
        Lv::Integer(number) => Ok(number.to_string().into_bytes()),
        Lv::Number(number) => Ok(number.to_string().into_bytes()),
        _ => Err(mlua::Error::runtime("Lua redis lib command arguments must be strings or integers")),
    }
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<Lv> {
    let named = |name: &str, text: &str| {
        let table = lua.create_table()?;
        table.set(name, text)?;
        Ok(Lv::Table(table))
    };
    match reply {
        Err(error) => named("err", &error),
        Ok(Value::Nil) => Ok(Lv::Boolean(false)),
        Ok(Value::Int(number)) => Ok(Lv::Number(number as f64)),
        Ok(Value::BulkString(text)) => lua.create_string(text).map(Lv::String),
        Ok(Value::Okay) => named("ok", "OK"),
        Ok(Value::SimpleString(text)) => named("ok", &text),
        Ok(Value::Array(values)) => {
            let values =
                values.into_iter().map(|value| to_lua(lua, Ok(value))).collect::<mlua::Result<Vec<_>>>()?;
            lua.create_sequence_from(values).map(Lv::Table)
        }
        Ok(other) => Err(mlua::Error::runtime(format!("a reply that no command here gives: {other:?}"))),
    }
}

/// Converts the value that a script returns into a reply, as Redis does.
fn from_lua(value: &Lv) -> mlua::Result<Reply> {
    Ok(Ok(match value {
        Lv::Nil | Lv::Boolean(false) => Value::Nil,
        Lv::Boolean(true) => Value::Int(1),
        Lv::Integer(number) => Value::Int(*number),
        Lv::Number(number) => Value::Int(*number as i64),
        Lv::String(text) => Value::BulkString(text.as_bytes().to_vec()),
        Lv::Table(table) => return table_from_lua(table),
        _ => Value::Nil,
    }))
}

fn table_from_lua(table: &Table) -> mlua::Result<Reply> {
    if let Some(error) = table.raw_get::<Option<LuaString>>("err")? {
        return Ok(Err(error.to_string_lossy()));
    }
    if let Some(text) = table.raw_get::<Option<LuaString>>("ok")? {
        return Ok(Ok(Value::SimpleString(text.to_string_lossy())));
    }
    let mut values = Vec::new();
    loop {
        match table.raw_get::<Lv>(values.len() + 1)? {
            Lv::Nil => return Ok(Ok(Value::Array(values))),
            value => match from_lua(&value)? {
                Ok(value) => values.push(value),
                Err(error) => return Ok(Err(error)),
            },
        }
    }
}

fn json_to_lua(lua: &Lua, value: &serde_json::Value) -> mlua::Result<Lv> {
    Ok(match value {
        serde_json::Value::Null => Lv::NULL,
        serde_json::Value::Bool(value) => Lv::Boolean(*value),
        serde_json::Value::Number(number) => Lv::Number(number.as_f64().unwrap_or(f64::INFINITY)),
        serde_json::Value::String(text) => Lv::String(lua.create_string(text)?),
        serde_json::Value::Array(values) => {
            let values =
                values.iter().map(|value| json_to_lua(lua, value)).collect::<mlua::Result<Vec<_>>>()?;
            Lv::Table(lua.create_sequence_from(values)?)
        }
        serde_json::Value::Object(fields) => {
            let table = lua.create_table()?;
            for (field, value) in fields {
                table.raw_set(field.as_str(), json_to_lua(lua, value)?)?;
            }
            Lv::Table(table)
        }
    })
}

fn lua_to_json(value: &Lv) -> mlua::Result<serde_json::Value> {
    Ok(match value {
        Lv::Boolean(value) => (*value).into(),
        Lv::Integer(number) => (*number).into(),
        Lv::Number(number) if number.fract() == 0.0 && number.abs() < 1e15 => (*number as i64).into(),
        Lv::Number(number) => (*number).into(),
        Lv::String(text) => text.to_string_lossy().into(),
        Lv::Table(table) => {
            let fields = table.pairs::<LuaString, Lv>();
            let fields = fields.map(|field| {
                let (name, value) = field?;
                Ok((name.to_string_lossy(), lua_to_json(&value)?))
            });
            serde_json::Value::Object(fields.collect::<mlua::Result<_>>()?)
        }
        _ => serde_json::Value::Null,
    })
}
