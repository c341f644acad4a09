//! The order of the modules in `lib.rs` is the order of dependence, and files stay readable.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const LINES_OF_CODE: usize = 420;

/// A source file without comments and without its `#[cfg(test)]` modules.
struct Source {
    path: PathBuf,
    /// The module of `lib.rs` that the file belongs to.
    module: String,
    code: String,
}

/// The lines that are code: no comment, no blank, nothing from a `#[cfg(test)]` module, which ends
/// with the next `}` at the beginning of a line.
fn code(text: &str) -> String {
    let mut lines = Vec::new();
    let mut in_tests = false;
    for line in text.lines() {
        let line = line.split_once("//").map_or(line, |(code, _)| code).trim_end();
        in_tests |= line == "#[cfg(test)]";
        if !in_tests && !line.is_empty() {
            lines.push(line);
        }
        in_tests &= line != "}";
    }
    lines.join("\n")
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut folders, mut sources) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let inside = path.strip_prefix(&root).unwrap();
                let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
                let module = first.trim_end_matches(".rs").to_owned();
                let code = code(&fs::read_to_string(&path).unwrap());
                sources.push(Source { path: inside.to_owned(), module, code });
            }
        }
    }
    sources
}

/// The modules that `lib.rs` declares, in order.
fn order(sources: &[Source]) -> Vec<String> {
    let lib = sources.iter().find(|source| source.module == "lib").unwrap();
    let declared = lib
        .code
        .lines()
        .filter_map(|line| line.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';'));
    declared.map(str::to_owned).collect()
}

/// The first names of all paths `crate::name…` and `crate::{name…, name…}`.
fn used(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, prefix) in code.match_indices("crate::") {
        let rest = &code[start + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(first_name(rest));
            continue;
        };
        let (mut depth, mut item) = (0, String::new());
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => names.extend([first_name(&std::mem::take(&mut item))]),
                _ => item.push(character),
            }
        }
        names.insert(first_name(&item));
    }
    names.remove("");
    names
}

fn first_name(path: &str) -> String {
    path.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_module_uses_only_those_above_it() {
    let sources = sources();
    let order = order(&sources);
    let position = |module: &str| order.iter().position(|name| name == module);
    let mut uses = 0;
    for Source { path, module, code } in sources.iter().filter(|source| source.module != "lib") {
        let path = path.display();
        let own = position(module).unwrap_or_else(|| panic!("{path}: lib.rs declares no {module}"));
        for name in used(code) {
            let other = position(&name)
                .unwrap_or_else(|| panic!("{path} uses crate::{name}, which is no module"));
            let below = other < own || name == *module;
            assert!(below, "{path} uses crate::{name}, which stands below {module} in lib.rs");
            uses += 1;
        }
    }
    assert!(order.len() > 10 && uses > 40, "{} modules, {uses} uses", order.len());
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::{\n    a::{B, c::D},\n    e,\n};\nuse crate::f::G; // crate::no\n\
                let x = crate::h_2::new(crate::i::J);\n/// crate::no\n#[cfg(test)]\nmod tests {\n    \
                use crate::no;\n}\nuse crate::k;\n";
    let expected = ["a", "e", "f", "h_2", "i", "k"].map(str::to_owned);
    assert_eq!(used(&code(text)), BTreeSet::from(expected));
    assert_eq!(code(text).lines().count(), 7);
}

#[test]
fn no_file_is_too_long_to_read_in_one_go() {
    for Source { path, code, .. } in sources() {
        let lines = code.lines().count();
        assert!(lines < LINES_OF_CODE, "{} has {lines} lines of code", path.display());
    }
}
