//! The parsed form of a schema file, and its parser.

/// Versions `from..=to`; `to` is `i16::MAX` where the schema says `N+`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    pub from: i16,
    pub to: i16,
}

impl Versions {
    pub fn and(self, other: Versions) -> Versions {
        Versions { from: self.from.max(other.from), to: self.to.min(other.to) }
    }
    pub fn is_empty(self) -> bool {
        self.from > self.to
    }
    pub fn has(self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
    pub fn covers(self, other: Versions) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    Bool,
    I8,
    I16,
    U16,
    I32,
    U32,
    I64,
    F64,
    String,
    Bytes,
    Records,
    Uuid,
    Struct(String),
    Array(Box<Type>),
}

#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub ty: Type,
    pub versions: Versions,
    pub null: Option<Versions>,
    pub default: Option<String>,
    pub tag: Option<u32>,
    pub ignorable: bool,
    pub entity: Option<String>,
}

/// A struct with the versions in which it can occur.
#[derive(Debug)]
pub struct Struct {
    pub name: String,
    pub versions: Versions,
    pub fields: Vec<Field>,
}

/// A request, response or record. `structs[0]` is the message itself; the others follow in the order of the file.
#[derive(Debug)]
pub struct Message {
    pub name: String,
    pub key: Option<i16>,
    pub versions: Versions,
    pub flexible: Option<i16>,
    pub structs: Vec<Struct>,
}

pub struct Api {
    pub key: i16,
    pub name: String,
    pub by_hand: bool,
    pub request: Message,
    pub response: Message,
}

pub enum File {
    Api(Api),
    Records(Vec<Message>),
}

struct Line<'a> {
    at: String,
    depth: usize,
    words: Vec<&'a str>,
}

impl Line<'_> {
    fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}: {}", self.at, self.words.join(" "))
    }
}

pub fn parse(file: &str, text: &str) -> File {
    let lines: Vec<Line> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
        .map(|(number, line)| Line {
            at: format!("{file}:{}", number + 1),
            depth: (line.len() - line.trim_start().len()) / 2,
            words: line.split_whitespace().collect(),
        })
        .collect();
    let mut sections: Vec<&[Line]> = Vec::new();
    let mut rest = &lines[..];
    while !rest.is_empty() {
        let end = 1 + rest[1..].iter().take_while(|line| line.depth > 0).count();
        sections.push(&rest[..end]);
        rest = &rest[end..];
    }
    let first = sections.first().unwrap_or_else(|| panic!("{file}: empty"));
    if first[0].words[0] == "record" {
        File::Records(sections.iter().map(|s| record(s)).collect())
    } else {
        File::Api(api(file, &sections))
    }
}

fn api(file: &str, sections: &[&[Line]]) -> Api {
    let [head, request, response] = sections else { panic!("{file}: wants api, request and response") };
    let (key, name, by_hand) = match head[0].words[..] {
        ["api", key, name] => (key, name, false),
        ["api", key, name, "by_hand"] => (key, name, true),
        _ => head[0].fail("wants: api KEY NAME [by_hand]"),
    };
    let key = key.parse().unwrap_or_else(|_| head[0].fail("the key is no number"));
    let part = |section: &[Line], kind: &str, suffix: &str| {
        if section[0].words[0] != kind {
            section[0].fail(&format!("wants {kind}"));
        }
        message(section, format!("{name}{suffix}"), Some(key), &section[0].words[1..])
    };
    let (request, response) = (part(request, "request", "Request"), part(response, "response", "Response"));
    Api { key, name: name.to_string(), by_hand, request, response }
}

fn record(section: &[Line]) -> Message {
    let words = &section[0].words;
    match words.get(1).and_then(|word| word.parse().ok()) {
        Some(key) => message(section, words[2].to_string(), Some(key), &words[3..]),
        None => message(section, words[1].to_string(), None, &words[2..]),
    }
}

fn message(section: &[Line], name: String, key: Option<i16>, words: &[&str]) -> Message {
    let head = &section[0];
    let (versions, flexible) = match words {
        [range] => (versions(head, range), None),
        [range, "flexible", from] => (versions(head, range), Some(versions(head, from).from)),
        _ => head.fail("wants: VERSIONS [flexible N+]"),
    };
    let mut structs = vec![Struct { name: name.clone(), versions, fields: Vec::new() }];
    let mut rest = &section[1..];
    structs[0].fields = fields(&mut rest, 1, versions, &mut structs);
    Message { name, key, versions, flexible, structs }
}

/// Reads the lines at `depth`; structs found on the way are added to `structs`.
fn fields(rest: &mut &[Line], depth: usize, scope: Versions, structs: &mut Vec<Struct>) -> Vec<Field> {
    let mut found = Vec::new();
    while let Some(line) = rest.first() {
        if line.depth < depth {
            break;
        }
        if line.depth > depth {
            line.fail("too deep");
        }
        *rest = &rest[1..];
        let (name, scope) = if let ["struct", name, range] = line.words[..] {
            (Some(name.to_string()), versions(line, range).and(scope))
        } else {
            let field = field(line);
            let scope = field.versions.and(scope);
            let inner = match &field.ty {
                Type::Array(inner) => inner,
                other => other,
            };
            let name = if let Type::Struct(name) = inner { Some(name.clone()) } else { None };
            found.push(field);
            (name, scope)
        };
        if rest.first().is_some_and(|next| next.depth == depth + 1) {
            let name = name.unwrap_or_else(|| line.fail("has fields but is no struct"));
            let at = structs.len();
            structs.push(Struct { name, versions: scope, fields: Vec::new() });
            structs[at].fields = fields(rest, depth + 1, scope, structs);
        }
    }
    found
}

fn field(line: &Line) -> Field {
    let [name, ty, range, attributes @ ..] = &line.words[..] else { line.fail("wants: name type versions") };
    let mut field = Field {
        name: name.to_string(),
        ty: type_of(ty),
        versions: versions(line, range),
        null: None,
        default: None,
        tag: None,
        ignorable: false,
        entity: None,
    };
    let mut words = attributes.iter();
    while let Some(word) = words.next() {
        let mut value = || *words.next().unwrap_or_else(|| line.fail("a value is missing"));
        match *word {
            "null" => field.null = Some(versions(line, value())),
            "default" => field.default = Some(value().to_string()),
            "tag" => field.tag = Some(value().parse().unwrap_or_else(|_| line.fail("the tag is no number"))),
            "entity" => field.entity = Some(value().to_string()),
            "ignorable" => field.ignorable = true,
            _ => line.fail("unknown attribute"),
        }
    }
    field
}

fn type_of(word: &str) -> Type {
    match word {
        "bool" => Type::Bool,
        "i8" => Type::I8,
        "i16" => Type::I16,
        "u16" => Type::U16,
        "i32" => Type::I32,
        "u32" => Type::U32,
        "i64" => Type::I64,
        "f64" => Type::F64,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        "uuid" => Type::Uuid,
        _ => match word.strip_prefix('[').and_then(|word| word.strip_suffix(']')) {
            Some(inner) => Type::Array(Box::new(type_of(inner))),
            None => Type::Struct(word.to_string()),
        },
    }
}

fn versions(line: &Line, word: &str) -> Versions {
    let number =
        |text: &str| text.parse::<i16>().unwrap_or_else(|_| line.fail("wants versions: 3+, 0-2 or 1"));
    if let Some(from) = word.strip_suffix('+') {
        Versions { from: number(from), to: i16::MAX }
    } else if let Some((from, to)) = word.split_once('-') {
        Versions { from: number(from), to: number(to) }
    } else {
        Versions { from: number(word), to: number(word) }
    }
}
