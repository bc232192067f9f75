//! What must hold of a schema before code is made from it, and the sizes that bound a decode.

use crate::schema::{Message, Struct, Type};

/// Tagged fields of Corelog's own in Kafka's messages begin here.
const OWN_TAGS: u32 = 10_000;

pub fn message(file: &str, message: &Message) {
    let fail = |what: String| -> ! { panic!("{file}: {}: {what}", message.name) };
    for (at, item) in message.structs.iter().enumerate() {
        if message.structs[..at].iter().any(|other| other.name == item.name) {
            fail(format!("struct {} stands twice", item.name));
        }
        if item.versions.is_empty() {
            fail(format!("struct {} is in no version", item.name));
        }
        let mut tags: Vec<u32> = item.fields.iter().filter_map(|field| field.tag).collect();
        tags.sort_unstable();
        let (kafkas, own): (Vec<u32>, Vec<u32>) = tags.iter().partition(|tag| **tag < OWN_TAGS);
        let has_gaps = |tags: &[u32], from| tags.iter().enumerate().any(|(at, tag)| at as u32 + from != *tag);
        if has_gaps(&kafkas, 0) || has_gaps(&own, OWN_TAGS) {
            fail(format!("the tags of {} do not run from 0, or from {OWN_TAGS}, without gaps", item.name));
        }
        for field in &item.fields {
            let versions = field.versions.and(item.versions);
            if versions.is_empty() {
                fail(format!("{}.{} is in no version", item.name, field.name));
            }
            if field.tag.is_some() && message.flexible.is_none_or(|flexible| versions.from < flexible) {
                fail(format!("{}.{} has a tag in a version that is not flexible", item.name, field.name));
            }
            if field.tag.is_some() && matches!(field.ty, Type::Bytes | Type::Records) {
                fail(format!(
                    "{}.{}: bytes in a tag would be written by reference, before the tag's size is known",
                    item.name, field.name
                ));
            }
            let inner = match &field.ty {
                Type::Array(inner) => inner,
                other => other,
            };
            if let Type::Struct(name) = inner {
                // A struct may only name structs that stand after it: so no message contains itself, and no decode recurses on input.
                let target = message.structs.iter().position(|other| other.name == *name);
                match target {
                    None => fail(format!("no struct {name}")),
                    Some(target) if target <= at => {
                        fail(format!("struct {name} must stand after {}", item.name))
                    }
                    Some(_) => {}
                }
            }
            if let Type::Array(inner) = &field.ty {
                if smallest(message, inner) == 0 {
                    fail(format!(
                        "elements of {}.{} can take no bytes: a count alone could claim memory",
                        item.name, field.name
                    ));
                }
                if matches!(**inner, Type::Array(_)) {
                    fail(format!("{}.{} is an array of arrays", item.name, field.name));
                }
            }
        }
    }
}

/// The fewest bytes that a value of this type takes in any version of the message in which it occurs.
pub fn smallest(message: &Message, ty: &Type) -> usize {
    let versions = match ty {
        Type::Struct(name) => structure(message, name).versions,
        _ => message.versions,
    };
    (versions.from..=versions.to.min(message.versions.to))
        .map(|version| smallest_at(message, ty, version))
        .min()
        .unwrap_or(0)
}

fn smallest_at(message: &Message, ty: &Type, version: i16) -> usize {
    let flexible = message.flexible.is_some_and(|from| version >= from);
    match ty {
        Type::Bool | Type::I8 => 1,
        Type::I16 | Type::U16 => 2,
        Type::I32 | Type::U32 => 4,
        Type::I64 | Type::F64 => 8,
        Type::Uuid => 16,
        Type::String => {
            if flexible {
                1
            } else {
                2
            }
        }
        Type::Bytes | Type::Records | Type::Array(_) => {
            if flexible {
                1
            } else {
                4
            }
        }
        Type::Struct(name) => {
            let fields = structure(message, name)
                .fields
                .iter()
                .filter(|field| field.tag.is_none() && field.versions.has(version));
            let sizes = fields.map(|field| match (&field.ty, field.null) {
                (Type::Struct(_), Some(null)) if null.has(version) => 1,
                (ty, _) => smallest_at(message, ty, version),
            });
            sizes.sum::<usize>() + usize::from(flexible)
        }
    }
}

pub fn structure<'a>(message: &'a Message, name: &str) -> &'a Struct {
    message.structs.iter().find(|item| item.name == name).expect("checked: every named struct exists")
}
