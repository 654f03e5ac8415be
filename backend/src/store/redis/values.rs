//! What servers answer, taken apart. Whatever is not of the expected shape is `None`.

use edgeway_proto::Seq;
use redis::Value;

use super::keys::{self, RECORD};

/// A number that is not negative.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}

pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

pub(super) fn items(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) => Some(items),
        // Of a key that is not there.
        Value::Nil => Some(Vec::new()),
        _ => None,
    }
}

/// Texts and numbers, as text.
pub(super) fn texts(value: Value) -> Option<Vec<String>> {
    let text = |value| match value {
        Value::Int(n) => Some(n.to_string()),
        value => Some(String::from_utf8_lossy(&bytes(value)?).into_owned()),
    };
    items(value)?.into_iter().map(text).collect()
}

/// The fields of a hash.
pub(super) fn pairs(value: Value) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if let Value::Map(pairs) = value {
        return pairs
            .into_iter()
            .map(|(name, value)| Some((bytes(name)?, bytes(value)?)))
            .collect();
    }
    let mut items = items(value)?.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let Some(name) = items.next() {
        pairs.push((bytes(name)?, bytes(items.next()?)?));
    }
    Some(pairs)
}

/// The places that fields of a hash hold, asked for by name; 0-0 of a field that is not there.
pub(super) fn places<const N: usize>(value: Value) -> Option<[Seq; N]> {
    let place = |value| match value {
        Value::Nil => Some(Seq::ZERO),
        value => keys::seq(&bytes(value)?),
    };
    items(value)?.into_iter().map(place).collect::<Option<Vec<_>>>()?.try_into().ok()
}

/// A place and a number of a hash, asked for by name; zeros for what is not there.
pub(super) fn place_and_number(value: Value) -> Option<(Seq, u64)> {
    let [place, n] = <[Value; 2]>::try_from(items(value)?).ok()?;
    let [place] = places(Value::Array(vec![place]))?;
    Some((place, if n == Value::Nil { 0 } else { number(&n)? }))
}

/// The entries of a stream, each with its record.
pub(super) fn entries(value: Value) -> Option<Vec<(Seq, Vec<u8>)>> {
    let entry = |value| {
        let [id, fields] = <[Value; 2]>::try_from(items(value)?).ok()?;
        let mut fields = pairs(fields)?.into_iter();
        let (_, record) = fields.find(|(name, _)| name == RECORD)?;
        Some((keys::seq(&bytes(id)?)?, record))
    };
    items(value)?.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn the_entries_of_a_stream_are_read_and_what_is_none_is_refused() {
        let entry = |id: &str, field: &str| {
            Value::Array(vec![bulk(id), Value::Array(vec![bulk(field), bulk("x")])])
        };
        let good = Value::Array(vec![entry("1-2", "r"), entry("1-3", "r")]);
        let expected = [(Seq::new(1, 2), b"x".to_vec()), (Seq::new(1, 3), b"x".to_vec())];
        assert_eq!(entries(good).as_deref(), Some(&expected[..]));
        assert_eq!(entries(Value::Nil), Some(Vec::new()));
        for bad in [
            Value::Okay,
            Value::Array(vec![bulk("1-2")]),
            Value::Array(vec![entry("1", "r")]),
            Value::Array(vec![entry("1-2", "other")]),
            Value::Array(vec![Value::Array(vec![bulk("1-2")])]),
        ] {
            assert_eq!(entries(bad), None);
        }
    }

    #[test]
    fn a_hash_is_read_in_both_protocols() {
        let expected = Some(vec![(b"a".to_vec(), b"1".to_vec())]);
        assert_eq!(pairs(Value::Array(vec![bulk("a"), bulk("1")])), expected);
        assert_eq!(pairs(Value::Map(vec![(bulk("a"), bulk("1"))])), expected);
        assert_eq!(pairs(Value::Array(vec![bulk("a")])), None);
    }
}
