//! Any decoded message as a tree of named values, so that two answers can be compared field by field.
//!
//! The tree is read from the message's `Debug` form: the codec's structs are plain data, and their derived `Debug` names every field.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Null,
    /// A number, truth value or id, or a mark such as `<now>` in place of one.
    Scalar(String),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Struct(Vec<(String, Value)>),
}

impl Value {
    /// Panics on a form that the derived `Debug` of plain data cannot have.
    pub fn of(message: &impl fmt::Debug) -> Value {
        let text = format!("{message:?}");
        let mut parser = Parser { rest: text.chars().peekable() };
        let value = parser.value();
        assert!(parser.rest.next().is_none(), "more than one value in {text}");
        value
    }

    pub fn scalar(value: impl fmt::Display) -> Value {
        Value::Scalar(value.to_string())
    }

    pub fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Value::Struct(fields) => fields.iter().find(|field| field.0 == name).map(|field| &field.1),
            _ => None,
        }
    }

    pub fn number(&self) -> Option<i64> {
        match self {
            Value::Scalar(text) => text.parse().ok(),
            _ => None,
        }
    }

    pub fn is_empty(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Scalar(_) => false,
            Value::Text(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::List(list) => list.is_empty(),
            Value::Struct(fields) => fields.is_empty(),
        }
    }
}

/// As people read it, in one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Scalar(text) => f.write_str(text),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Bytes(bytes) => write!(f, "b\"{}\"", bytes.escape_ascii()),
            Value::List(list) => {
                f.write_str("[")?;
                for (i, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("]")
            }
            Value::Struct(fields) => {
                f.write_str("{")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if i > 0 { ", " } else { "" })?;
                }
                f.write_str("}")
            }
        }
    }
}

struct Parser<'a> {
    rest: Peekable<Chars<'a>>,
}

impl Parser<'_> {
    fn skip(&mut self, wanted: &[char]) {
        while self.rest.next_if(|c| wanted.contains(c)).is_some() {}
    }

    fn expect(&mut self, wanted: char) {
        let found = self.rest.next();
        assert_eq!(found, Some(wanted), "in the Debug form of a message");
    }

    fn value(&mut self) -> Value {
        match self.rest.peek() {
            Some('"') => Value::Text(String::from_utf8(self.quoted()).expect("Debug of text is text")),
            Some('[') => Value::List(self.list('[', ']')),
            _ => self.word(),
        }
    }

    /// What begins with a bare word: a scalar, bytes, `None`, `Some(..)`, a struct.
    fn word(&mut self) -> Value {
        let mut word = String::new();
        while let Some(c) = self.rest.next_if(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.')) {
            word.push(c);
        }
        match self.rest.peek().copied() {
            Some('"') if word == "b" => Value::Bytes(self.quoted()),
            Some('(') if word == "Some" => {
                self.expect('(');
                let value = self.value();
                self.expect(')');
                value
            }
            // A scalar may be followed by ` }`.
            Some(' ') if self.rest.clone().nth(1) == Some('{') => {
                self.expect(' ');
                self.fields()
            }
            _ if word == "None" => Value::Null,
            _ => Value::Scalar(word),
        }
    }

    fn fields(&mut self) -> Value {
        self.expect('{');
        let mut fields = Vec::new();
        loop {
            self.skip(&[' ', ',']);
            if self.rest.next_if_eq(&'}').is_some() {
                return Value::Struct(fields);
            }
            let mut name = String::new();
            while let Some(c) = self.rest.next_if(|c| *c != ':') {
                name.push(c);
            }
            self.expect(':');
            self.expect(' ');
            fields.push((name, self.value()));
        }
    }

    fn list(&mut self, open: char, close: char) -> Vec<Value> {
        self.expect(open);
        let mut list = Vec::new();
        loop {
            self.skip(&[' ', ',']);
            if self.rest.next_if_eq(&close).is_some() {
                return list;
            }
            list.push(self.value());
        }
    }

    fn quoted(&mut self) -> Vec<u8> {
        self.expect('"');
        let mut bytes = Vec::new();
        loop {
            let c = self.rest.next().expect("quotes are closed");
            let literal = match c {
                '"' => return bytes,
                '\\' => match self.rest.next().expect("an escape has a letter") {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    '0' => '\0',
                    'x' => {
                        let digits: String = self.rest.by_ref().take(2).collect();
                        bytes.push(u8::from_str_radix(&digits, 16).expect("two digits"));
                        continue;
                    }
                    'u' => {
                        self.expect('{');
                        let mut code = 0;
                        while let Some(c) = self.rest.next_if(|c| *c != '}') {
                            code = code * 16 + c.to_digit(16).expect("a hex digit");
                        }
                        self.expect('}');
                        char::from_u32(code).expect("a character")
                    }
                    other => other,
                },
                c => c,
            };
            bytes.extend_from_slice(literal.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::messages::join_group_response::{JoinGroupResponse, Member};
    use corelog_wire::{Str, Uuid};

    #[test]
    fn messages_become_trees() {
        let message = JoinGroupResponse {
            protocol_type: Some(Str::from("a \"b\"\n\u{7f}é{x: 1}")),
            members: vec![Member { metadata: b"\x00\"\xff,]"[..].into(), ..Default::default() }],
            ..Default::default()
        };
        let value = Value::of(&message);
        assert_eq!(value.field("generation_id").and_then(Value::number), Some(-1));
        assert_eq!(value.field("protocol_name"), Some(&Value::Null));
        assert_eq!(value.field("protocol_type"), Some(&Value::Text("a \"b\"\n\u{7f}é{x: 1}".into())));
        let Some(Value::List(members)) = value.field("members") else { panic!("{value}") };
        assert_eq!(members[0].field("metadata"), Some(&Value::Bytes(b"\x00\"\xff,]".to_vec())));
        assert_eq!(
            Value::of(&vec![Uuid::from_halves(-1, 5)]).to_string(),
            format!("[{}]", Uuid::from_halves(-1, 5))
        );
        assert_eq!(Value::of(&Vec::<i32>::new()), Value::List(Vec::new()));
    }

    /// Whatever the codec can hold, the tree can.
    #[test]
    fn every_response_can_be_read() {
        for case in corelog_wire::testing::CASES {
            for seed in 0..40 {
                let bytes = (case.sample)(&mut corelog_wire::testing::Gen::new(seed), case.max_version);
                let (shown, _) = (case.show)(bytes, case.max_version).unwrap();
                Parser { rest: shown.chars().peekable() }.value();
            }
        }
    }
}
