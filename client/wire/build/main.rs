//! Turns `schema/*.txt` into Rust: in `OUT_DIR` `messages.rs`, `apis.rs`, `cases.rs`, and a file for each family of records.
//! The language is described in `schema/README.md`.

mod check;
mod emit;
mod emit_codec;
mod schema;

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    println!("cargo:rerun-if-changed=schema");
    println!("cargo:rerun-if-changed=build");
    let mut paths: Vec<PathBuf> = fs::read_dir("schema")
        .expect("client/wire/schema is readable")
        .map(|entry| entry.expect("client/wire/schema is readable").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    paths.sort();

    let mut apis = Vec::new();
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut cases = Vec::new();
    for path in &paths {
        let name = path.display().to_string();
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
        match schema::parse(&name, &text) {
            schema::File::Api(api) => {
                check::message(&name, &api.request);
                check::message(&name, &api.response);
                apis.push(api);
            }
            schema::File::Records(records) => {
                let stem = path.file_stem().expect("a file name").to_string_lossy().into_owned();
                records.iter().for_each(|record| check::message(&name, record));
                cases.extend(records.iter().map(|record| emit::record_case(&stem, record)));
                write(&out.join(format!("{stem}.rs")), &emit::records(&records));
            }
        }
    }
    apis.sort_by_key(|api| api.key);
    cases.extend(apis.iter().flat_map(emit::api_cases));
    write(&out.join("messages.rs"), &emit::messages(&apis));
    write(&out.join("apis.rs"), &emit::table(&apis));
    write(&out.join("cases.rs"), &format!("&[\n{}]\n", cases.concat()));
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
