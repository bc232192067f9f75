//! Writes `read` and `write` of one struct: straight-line code with a condition per version range.

use crate::check::smallest;
use crate::emit::{condition, default, line, null_by_default, rust_base};
use crate::schema::{Field, Message, Struct, Type, Versions};
use std::fmt::Write;

pub fn codec(message: &Message, item: &Struct) -> String {
    let mut out = String::new();
    let scope = item.versions;
    // "flexible" within this struct: a constant, or a comparison made once.
    let (flexible, test) = match message.flexible {
        Some(from) if from <= scope.from => ("true", String::new()),
        Some(from) if from <= scope.to => ("flexible", format!("let flexible = v >= {from};\n")),
        _ => ("false", String::new()),
    };
    let (tagged, plain): (Vec<&Field>, Vec<&Field>) =
        item.fields.iter().partition(|field| field.tag.is_some());
    let coder = Coder { message, item, flexible };

    line!(out, "impl {} {{", item.name);
    line!(
        out,
        "#[allow(unused_variables)]\npub(crate) fn read(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {{"
    );
    out += &test;
    for field in &plain {
        let value = coder.read(field);
        match condition(field.versions, scope) {
            None => line!(out, "let {} = {value};", field.name),
            Some(condition) => {
                line!(out, "let {} = if {condition} {{ {value} }} else {{ {} }};", field.name, default(field))
            }
        }
    }
    for field in &tagged {
        line!(out, "let mut {} = {};", field.name, default(field));
    }
    if flexible != "false" {
        let known = tagged.iter().map(|field| {
            let guard = condition(field.versions, scope)
                .map(|condition| format!(" if {condition}"))
                .unwrap_or_default();
            format!(
                "{}{guard} => {{ {} = {}; Ok(true) }}\n",
                field.tag.expect("tagged"),
                field.name,
                coder.read(field)
            )
        });
        let known: String = known.collect();
        let name = place(message, item);
        let read = if known.is_empty() {
            format!("r.skip_tags(\"{name}\")?;")
        } else {
            format!("r.tags(\"{name}\", |r, tag| match tag {{\n{known}_ => Ok(false),\n}})?;")
        };
        line!(out, "{}", if flexible == "true" { read } else { format!("if flexible {{\n{read}\n}}") });
    }
    let names: Vec<&str> = item.fields.iter().map(|field| field.name.as_str()).collect();
    line!(out, "Ok(Self {{ {} }})\n}}", names.join(", "));

    line!(
        out,
        "#[allow(unused_variables)]\npub(crate) fn write(&self, w: &mut Writer, v: i16) -> Result<(), EncodeError> {{"
    );
    out += &test;
    for field in item.fields.iter() {
        let absent = if field.ignorable {
            String::new()
        } else {
            format!(
                "if {} {{ return Err(EncodeError::not_in_version(\"{}\", v)); }}",
                differs(field),
                path(message, item, field)
            )
        };
        let value = if field.tag.is_some() { String::new() } else { coder.write(field) };
        match condition(field.versions, scope) {
            None => line!(out, "{value}"),
            Some(condition) if absent.is_empty() && value.is_empty() => {
                let _ = condition;
            }
            Some(condition) if absent.is_empty() => line!(out, "if {condition} {{ {value} }}"),
            Some(condition) => {
                line!(out, "if {condition} {{ {value} }} else {absent}", absent = format!("{{ {absent} }}"))
            }
        }
    }
    if flexible != "false" {
        let mut tags = String::new();
        let mut sorted = tagged.clone();
        sorted.sort_by_key(|field| field.tag);
        let present = |field: &Field| match condition(field.versions, scope) {
            None => differs(field),
            Some(condition) => format!("{condition} && {}", differs(field)),
        };
        if sorted.is_empty() {
            line!(tags, "w.uvarint(0);");
        } else {
            let count: Vec<String> =
                sorted.iter().map(|field| format!("u32::from({})", present(field))).collect();
            line!(tags, "w.uvarint({});", count.join(" + "));
            for field in sorted {
                line!(
                    tags,
                    "if {} {{ w.tagged({}, |w| {{ {} Ok(()) }})?; }}",
                    present(field),
                    field.tag.expect("tagged"),
                    coder.write(field)
                );
            }
        }
        line!(out, "{}", if flexible == "true" { tags } else { format!("if flexible {{\n{tags}}}") });
    }
    line!(out, "Ok(())\n}}\n}}");
    out
}

struct Coder<'a> {
    message: &'a Message,
    item: &'a Struct,
    flexible: &'static str,
}

impl Coder<'_> {
    /// The versions of this struct in which the field is on the wire, and those of them in which it may be null.
    fn scopes(&self, field: &Field) -> (Versions, Option<Versions>) {
        let present = field.versions.and(self.item.versions);
        (present, field.null.map(|null| null.and(present)).filter(|null| !null.is_empty()))
    }

    fn read(&self, field: &Field) -> String {
        let path = path(self.message, self.item, field);
        let plain = format!("{}?", self.read_value(&field.ty, &path, ""));
        if field.null.is_none() {
            return plain;
        }
        let nullable = match &field.ty {
            Type::Struct(name) => {
                format!("if r.present(\"{path}\")? {{ Some({name}::read(r, v)?) }} else {{ None }}")
            }
            ty => format!("{}?", self.read_value(ty, &path, "_opt")),
        };
        match self.scopes(field) {
            (_, None) => format!("Some({plain})"),
            (present, Some(null)) => match condition(null, present) {
                None => nullable,
                Some(condition) => format!("if {condition} {{ {nullable} }} else {{ Some({plain}) }}"),
            },
        }
    }

    fn read_value(&self, ty: &Type, path: &str, opt: &str) -> String {
        let flexible = self.flexible;
        match ty {
            Type::String => format!("r.string{opt}(\"{path}\", {flexible})"),
            Type::Bytes | Type::Records => format!("r.bytes{opt}(\"{path}\", {flexible})"),
            Type::Struct(name) => format!("{name}::read(r, v)"),
            Type::Array(inner) => {
                let smallest = smallest(self.message, inner);
                format!(
                    "r.array{opt}(\"{path}\", {flexible}, const {{ smallest::<{}>({smallest}) }}, |r| {})",
                    rust_base(inner),
                    self.read_value(inner, path, "")
                )
            }
            number => format!("r.{}(\"{path}\")", scalar(number)),
        }
    }

    fn write(&self, field: &Field) -> String {
        let path = path(self.message, self.item, field);
        let flexible = self.flexible;
        let place = format!("self.{}", field.name);
        if field.null.is_none() {
            return self.write_value(&field.ty, &path, &place);
        }
        let plain = format!(
            "{{ let value = w.required(\"{path}\", v, &{place})?; {} }}",
            self.write_value(&field.ty, &path, "value")
        );
        let null = match &field.ty {
            Type::Struct(_) => "w.i8(-1);".to_string(),
            Type::String => format!("w.null_string({flexible});"),
            _ => format!("w.null_bytes({flexible});"),
        };
        let prefix = if matches!(field.ty, Type::Struct(_)) { "w.i8(1); " } else { "" };
        let nullable = format!(
            "match &{place} {{ None => {{ {null} }} Some(value) => {{ {prefix}{} }} }}",
            self.write_value(&field.ty, &path, "value")
        );
        match self.scopes(field) {
            (_, None) => plain,
            (present, Some(null)) => match condition(null, present) {
                None => nullable,
                Some(condition) => format!("if {condition} {{ {nullable} }} else {plain}"),
            },
        }
    }

    /// `place` is `self.field`, or a variable that holds a reference.
    fn write_value(&self, ty: &Type, path: &str, place: &str) -> String {
        let flexible = self.flexible;
        let (by_ref, by_value) = if place.starts_with("self.") {
            (format!("&{place}"), place.to_string())
        } else {
            (place.to_string(), format!("*{place}"))
        };
        match ty {
            Type::String => format!("w.string(\"{path}\", {flexible}, {by_ref})?;"),
            Type::Bytes | Type::Records => format!("w.bytes(\"{path}\", {flexible}, {by_ref})?;"),
            Type::Uuid => format!("w.uuid({by_ref});"),
            Type::Struct(_) => format!("{place}.write(w, v)?;"),
            Type::Array(inner) => {
                let element = self.write_value(inner, path, "item");
                format!(
                    "w.array_len(\"{path}\", {flexible}, {place}.len())?; for item in {by_ref} {{ {element} }}"
                )
            }
            number => format!("w.{}({by_value});", scalar(number)),
        }
    }
}

fn scalar(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::I8 => "i8",
        Type::I16 => "i16",
        Type::U16 => "u16",
        Type::I32 => "i32",
        Type::U32 => "u32",
        Type::I64 => "i64",
        Type::F64 => "f64",
        Type::Uuid => "uuid",
        other => panic!("{other:?} is no scalar"),
    }
}

/// Whether the field's value is one that must be on the wire.
fn differs(field: &Field) -> String {
    let place = format!("self.{}", field.name);
    let empties = matches!(field.ty, Type::String | Type::Bytes | Type::Records | Type::Array(_));
    match (&field.ty, field.null.is_some()) {
        (_, true) if null_by_default(field) && field.default.is_none() && empties => {
            format!("{place}.as_ref().is_some_and(|value| !value.is_empty())")
        }
        (_, true) if null_by_default(field) => format!("{place}.is_some()"),
        (_, true) => format!("{place} != {}", default(field)),
        (Type::Bool, false) if field.default.as_deref() == Some("true") => format!("!{place}"),
        (Type::Bool, false) => place,
        (Type::String, false) if field.default.is_some() => format!("{place} != {}", default(field)),
        _ if empties => format!("!{place}.is_empty()"),
        _ => format!("{place} != {}", default(field)),
    }
}

/// How errors name the field: `Message.field` or `Message.Struct.field`.
fn path(message: &Message, item: &Struct, field: &Field) -> String {
    format!("{}.{}", place(message, item), field.name)
}

fn place(message: &Message, item: &Struct) -> String {
    if item.name == message.name { message.name.clone() } else { format!("{}.{}", message.name, item.name) }
}
