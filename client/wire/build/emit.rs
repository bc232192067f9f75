//! Writes modules, types, defaults and the table of APIs.

use crate::emit_codec::codec;
use crate::schema::{Api, Field, Message, Struct, Type, Versions};
use std::fmt::Write;

macro_rules! line { ($out:expr, $($format:tt)*) => { writeln!($out, $($format)*).expect("a string takes all") } }
pub(crate) use line;

pub fn messages(apis: &[Api]) -> String {
    let mut out = String::new();
    for api in apis {
        for (message, role) in [(&api.request, "request"), (&api.response, "response")] {
            let module = snake(&message.name);
            if api.by_hand {
                line!(out, "#[cfg(feature = \"testing\")]\n#[doc(hidden)]");
            } else {
                line!(out, "pub use {module}::{};", message.name);
                line!(
                    out,
                    "/// {} {role}, versions {} (API key {}).",
                    api.name,
                    range(message.versions),
                    api.key
                );
            }
            line!(out, "pub mod {module} {{\n#[allow(unused_imports)]\nuse super::codegen::*;");
            out += &body(message);
            if role == "response" {
                errors(&mut out, message);
            }
            if role == "request" {
                line!(
                    out,
                    "impl Request for {} {{\n type Response = super::{}::{};",
                    message.name,
                    snake(&api.response.name),
                    api.response.name
                );
            } else {
                line!(out, "impl Response for {} {{", message.name);
                line!(out, "#[allow(unused_variables)]\nfn each_error(&self, visit: &mut dyn FnMut(i16)) {{");
                if bears_errors(message, &message.structs[0]) {
                    line!(out, "self.errors(visit);");
                }
                line!(out, "}}");
            }
            line!(out, "const API_KEY: ApiKey = ApiKey::{};\n}}\n}}", api.name);
        }
    }
    out
}

pub fn records(records: &[Message]) -> String {
    let mut out = String::new();
    for record in records {
        let module = snake(&record.name);
        line!(out, "pub use {module}::{};", record.name);
        line!(out, "/// Versions {} of `{}`.", range(record.versions), record.name);
        line!(out, "pub mod {module} {{\n#[allow(unused_imports)]\nuse crate::messages::codegen::*;");
        out += &body(record);
        if let Some(key) = record.key {
            line!(
                out,
                "impl {} {{\n/// The type id in this record's framing.\npub const RECORD_KEY: i16 = {key};\n}}",
                record.name
            );
        }
        line!(out, "}}");
    }
    out
}

pub fn table(apis: &[Api]) -> String {
    let mut out = String::from("&[\n");
    for api in apis {
        assert_eq!(
            api.request.versions, api.response.versions,
            "{}: request and response differ in versions",
            api.name
        );
        assert_eq!(
            api.request.flexible, api.response.flexible,
            "{}: request and response differ in flexibility",
            api.name
        );
        line!(
            out,
            "ApiInfo {{ key: ApiKey::{0}, name: \"{0}\", min_version: {1}, max_version: {2}, first_flexible: {3:?} }},",
            api.name,
            api.request.versions.from,
            api.request.versions.to,
            api.request.flexible
        );
    }
    out + "]\n"
}

pub fn api_cases(api: &Api) -> Vec<String> {
    let case = |message: &Message, role: &str| {
        let generated = format!("crate::messages::{}::{}", snake(&message.name), message.name);
        let served = if api.by_hand {
            format!("crate::{}::{}", snake(&api.name), message.name)
        } else {
            generated.clone()
        };
        format!("Case::new::<{served}, {generated}>(Role::{role}(ApiKey::{})),\n", api.name)
    };
    vec![case(&api.request, "Request"), case(&api.response, "Response")]
}

pub fn record_case(stem: &str, record: &Message) -> String {
    format!("Case::new::<crate::{stem}::{0}, crate::{stem}::{0}>(Role::Record),\n", record.name)
}

fn body(message: &Message) -> String {
    let mut out = String::new();
    for item in &message.structs {
        definition(&mut out, item);
        out += &codec(message, item);
    }
    line!(out, "impl Message for {} {{", message.name);
    line!(out, "const NAME: &'static str = \"{}\";", message.name);
    line!(
        out,
        "const MIN_VERSION: i16 = {};\nconst MAX_VERSION: i16 = {};",
        message.versions.from,
        message.versions.to
    );
    line!(out, "const FIRST_FLEXIBLE: Option<i16> = {:?};", message.flexible);
    line!(
        out,
        "fn decode(r: &mut Reader, v: i16) -> Result<Self, DecodeError> {{\nr.check_version(Self::NAME, v, Self::VERSIONS)?;\nSelf::read(r, v)\n}}"
    );
    line!(
        out,
        "fn encode(&self, w: &mut Writer, v: i16) -> Result<(), EncodeError> {{\nw.check_version(Self::NAME, v, Self::VERSIONS)?;\nself.write(w, v)\n}}\n}}"
    );
    out
}

/// For each struct of a response, how its error codes are gone through.
fn errors(out: &mut String, message: &Message) {
    for item in message.structs.iter().filter(|item| bears_errors(message, item)) {
        line!(out, "impl {} {{\nfn errors(&self, visit: &mut dyn FnMut(i16)) {{", item.name);
        for field in &item.fields {
            let name = &field.name;
            if is_error(field) {
                line!(out, "if self.{name} != 0 {{ visit(self.{name}); }}");
                continue;
            }
            if part(message, &field.ty).is_none_or(|part| !bears_errors(message, part)) {
                continue;
            }
            let (is_array, is_nullable) = (matches!(field.ty, Type::Array(_)), field.null.is_some());
            match (is_array, is_nullable) {
                (false, false) => line!(out, "self.{name}.errors(visit);"),
                (true, true) => {
                    line!(out, "for part in self.{name}.iter().flatten() {{ part.errors(visit); }}")
                }
                _ => line!(out, "for part in self.{name}.iter() {{ part.errors(visit); }}"),
            }
        }
        line!(out, "}}\n}}");
    }
}

fn is_error(field: &Field) -> bool {
    field.name == "error_code" && field.ty == Type::I16
}

/// The struct that a field holds, once or often.
fn part<'a>(message: &'a Message, ty: &Type) -> Option<&'a Struct> {
    match ty {
        Type::Struct(name) => message.structs.iter().find(|item| item.name == *name),
        Type::Array(inner) => part(message, inner),
        _ => None,
    }
}

/// Whether there is an error code in a struct or below it. Schemas nest without circles.
fn bears_errors(message: &Message, item: &Struct) -> bool {
    item.fields.iter().any(|field| {
        is_error(field) || part(message, &field.ty).is_some_and(|part| bears_errors(message, part))
    })
}

fn definition(out: &mut String, item: &Struct) {
    let derived = item.fields.iter().all(|field| match &field.default {
        None => field.null.is_none() || null_by_default(field),
        Some(default) => default == "null",
    });
    line!(out, "#[derive(Clone, Debug, PartialEq{})]", if derived { ", Default" } else { "" });
    line!(out, "pub struct {} {{", item.name);
    for field in &item.fields {
        line!(out, "/// {}", describe(field, item.versions));
        line!(out, "pub {}: {},", field.name, rust_type(field));
    }
    line!(out, "}}");
    if !derived {
        line!(out, "impl Default for {} {{\nfn default() -> Self {{\nSelf {{", item.name);
        for field in &item.fields {
            line!(out, "{}: {},", field.name, default(field));
        }
        line!(out, "}}\n}}\n}}");
    }

    line!(out, "#[cfg(feature = \"testing\")]\nimpl Arbitrary for {} {{", item.name);
    line!(out, "#[allow(unused_variables)]\nfn arbitrary(g: &mut Gen, v: i16) -> Self {{\nSelf {{");
    for field in &item.fields {
        let value = arbitrary(&field.ty);
        let null = field
            .null
            .map(|null| null.and(field.versions).and(item.versions))
            .filter(|null| !null.is_empty());
        let value = match null.map(|null| condition(null, item.versions)) {
            None if field.null.is_some() => format!("Some({value})"),
            None => value,
            Some(None) => format!("if g.null() {{ None }} else {{ Some({value}) }}"),
            Some(Some(condition)) => {
                format!("if {condition} && g.null() {{ None }} else {{ Some({value}) }}")
            }
        };
        match condition(field.versions, item.versions) {
            None => line!(out, "{}: {value},", field.name),
            Some(condition) => {
                line!(out, "{}: if {condition} {{ {value} }} else {{ {} }},", field.name, default(field))
            }
        }
    }
    line!(out, "}}\n}}\n}}");
}

fn arbitrary(ty: &Type) -> String {
    match ty {
        Type::Bool => "g.bool()".into(),
        Type::I64 => "g.int()".into(),
        Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::U32 => format!("g.int() as {}", rust_base(ty)),
        Type::F64 => "g.int() as f64".into(),
        Type::String => "g.string()".into(),
        Type::Bytes | Type::Records => "g.bytes()".into(),
        Type::Uuid => "g.uuid()".into(),
        Type::Struct(name) => format!("{name}::arbitrary(g, v)"),
        Type::Array(inner) => format!("g.vec(|g| {})", arbitrary(inner)),
    }
}

/// The condition under which `v` is in `versions`, knowing that it is in `scope`; none if it always is.
pub fn condition(versions: Versions, scope: Versions) -> Option<String> {
    let (low, high) = (versions.from > scope.from, versions.to < scope.to);
    match (low, high) {
        (false, false) => None,
        (true, false) => Some(format!("v >= {}", versions.from)),
        (false, true) => Some(format!("v <= {}", versions.to)),
        (true, true) if versions.from == versions.to => Some(format!("v == {}", versions.from)),
        (true, true) => Some(format!("({}..={}).contains(&v)", versions.from, versions.to)),
    }
}

fn describe(field: &Field, scope: Versions) -> String {
    let mut text = format!("Versions {}", range(field.versions));
    if field.versions.covers(scope) {
        text = String::from("All versions");
    }
    if let Some(null) = field.null {
        text += &if null.covers(scope.and(field.versions)) {
            "; may be null".to_string()
        } else {
            format!("; null in versions {}", range(null))
        };
    }
    if field.tag.is_some() {
        text += "; tagged";
    }
    if !field.versions.covers(scope) && field.ignorable {
        text += "; dropped from other versions";
    }
    if let Some(default) = &field.default {
        text += &format!("; default {default}");
    }
    if let Some(entity) = &field.entity {
        text += &format!("; names a {}", entity.replace('_', " "));
    }
    text + "."
}

fn range(versions: Versions) -> String {
    match versions {
        Versions { from, to: i16::MAX } => format!("{from}+"),
        Versions { from, to } if from == to => format!("{from}"),
        Versions { from, to } => format!("{from}-{to}"),
    }
}

pub fn rust_base(ty: &Type) -> String {
    match ty {
        Type::Bool => "bool".into(),
        Type::I8 => "i8".into(),
        Type::I16 => "i16".into(),
        Type::U16 => "u16".into(),
        Type::I32 => "i32".into(),
        Type::U32 => "u32".into(),
        Type::I64 => "i64".into(),
        Type::F64 => "f64".into(),
        Type::String => "Str".into(),
        Type::Bytes | Type::Records => "Bytes".into(),
        Type::Uuid => "Uuid".into(),
        Type::Struct(name) => name.clone(),
        Type::Array(inner) => format!("Vec<{}>", rust_base(inner)),
    }
}

fn rust_type(field: &Field) -> String {
    let base = rust_base(&field.ty);
    if field.null.is_some() { format!("Option<{base}>") } else { base }
}

/// Whether a nullable field starts out null: if the schema says so, and (our rule) if it says nothing and the field has no tag.
/// A tagged field is left off the wire where it has its default, so there Kafka's default must hold.
pub fn null_by_default(field: &Field) -> bool {
    match field.default.as_deref() {
        Some(default) => default == "null",
        None => field.tag.is_none(),
    }
}

pub fn default(field: &Field) -> String {
    if field.null.is_some() && null_by_default(field) {
        return "None".into();
    }
    let value = match (&field.ty, field.default.as_deref()) {
        (Type::Bool, None) => "false".into(),
        (Type::I8 | Type::I16 | Type::U16 | Type::I32 | Type::U32 | Type::I64, None) => "0".into(),
        (Type::F64, None) => "0.0".into(),
        (Type::String, None) => "Str::new()".into(),
        (Type::String, Some(text)) => format!("Str::from_static(\"{text}\")"),
        (Type::Bytes | Type::Records, None) => "Bytes::new()".into(),
        (Type::Uuid, None) => "Uuid::ZERO".into(),
        (Type::Struct(name), None) => format!("{name}::default()"),
        (Type::Array(_), None) => "Vec::new()".into(),
        (_, Some(value)) => value.to_string(),
    };
    if field.null.is_some() { format!("Some({value})") } else { value }
}

pub fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.extend(letter.to_lowercase());
    }
    out
}
