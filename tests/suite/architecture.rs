//! The order of the modules, in `lib.rs` and in every folder, is the order of dependence, and files
//! stay readable.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

const LINES_OF_CODE: usize = 310;

/// Files that are longer, and why.
const LONGER: &[(&str, usize)] = &[
    // One enum: a variant for each thing that can go wrong, with its message and its numbers.
    ("error/kinds.rs", 420),
];

/// A source file without comments and without its `#[cfg(test)]` modules.
struct Source {
    path: PathBuf,
    /// The modules that lead to it: `["data", "csv"]`, and none for `lib.rs`.
    module: Vec<String>,
    code: String,
}

/// What a file declares: its modules in order, and what else can be had there of which of them.
struct Declared {
    modules: Vec<String>,
    shown: BTreeMap<String, String>,
}

/// The lines that are code: no comment, no blank, nothing from a `#[cfg(test)]` module, which ends
/// with the next `}` at the beginning of a line.
fn code(text: &str) -> String {
    let mut lines = Vec::new();
    let mut in_tests = false;
    for line in text.lines() {
        let line = line.split_once("//").map_or(line, |(code, _)| code).trim_end();
        in_tests |= line == "#[cfg(test)]" || line.starts_with("#[cfg(all(test,");
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
                let names = inside.with_extension("");
                let names = names.iter().map(|name| name.to_str().unwrap().to_owned());
                let module = names.filter(|name| name != "lib").collect();
                let code = code(&fs::read_to_string(&path).unwrap());
                sources.push(Source { path: inside.to_owned(), module, code });
            }
        }
    }
    sources
}

fn declared(code: &str) -> Declared {
    let after = |line: &str, word: &str| {
        let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix(word).map(str::to_owned)
    };
    let modules =
        code.lines().filter_map(|line| Some(after(line, "mod ")?.strip_suffix(';')?.to_owned()));
    let modules: Vec<_> = modules.collect();
    let mut shown = BTreeMap::new();
    for (start, _) in code.match_indices("use ") {
        let starts_line = code[..start]
            .rsplit('\n')
            .next()
            .is_some_and(|line| ["", "pub ", "pub(crate) ", "pub(super) "].contains(&line));
        for path in tree(&code[start + "use ".len()..]).into_iter().filter(|_| starts_line) {
            if let [module, .., name] = &path[..]
                && modules.contains(module)
            {
                shown.insert(name.clone(), module.clone());
            }
        }
    }
    Declared { modules, shown }
}

/// The paths at the beginning of `text`: one, or several in braces.
fn tree(text: &str) -> Vec<Vec<String>> {
    let text = text.trim_start();
    if let Some(group) = text.strip_prefix('{') {
        let (mut depth, mut item, mut paths) = (0, String::new(), Vec::new());
        for character in group.chars() {
            match character {
                '}' if depth == 0 => break,
                ',' if depth == 0 => paths.extend(tree(&std::mem::take(&mut item))),
                _ => {
                    depth += i32::from(character == '{') - i32::from(character == '}');
                    item.push(character);
                }
            }
        }
        paths.extend(tree(&item));
        return paths;
    }
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    if name.is_empty() {
        return Vec::new();
    }
    match text[name.len()..].strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => {
            let mut below = tree(rest);
            if below.is_empty() {
                below.push(Vec::new());
            }
            below.iter_mut().for_each(|path| path.insert(0, name.clone()));
            below
        }
        _ => vec![vec![name]],
    }
}

/// The paths that a file names by `crate::` or `super::`, from the crate down.
fn used(module: &[String], code: &str) -> BTreeSet<Vec<String>> {
    let mut paths = BTreeSet::new();
    for start in ["crate::", "super::"] {
        for (at, _) in code.match_indices(start) {
            if code[..at].ends_with("::") {
                continue; // The rest of a path that began further left.
            }
            for path in tree(&code[at..]) {
                let up = path.iter().take_while(|name| *name == "super").count();
                let from = if up == 0 { &[] } else { &module[..module.len() - up] };
                paths.insert(from.iter().chain(&path[up.max(1)..]).cloned().collect());
            }
        }
    }
    paths
}

/// Follows a path from the crate down as far as it goes along with `module`, and asks where they
/// part: is it at a sibling that stands higher? Says what is wrong if it is not.
fn wrong(
    module: &[String],
    path: &[String],
    all: &BTreeMap<Vec<String>, Declared>,
) -> Option<String> {
    let common = module.iter().zip(path).take_while(|(a, b)| a == b).count();
    if common == module.len() {
        return None; // What stands below a file is its own.
    }
    let (parent, own) = (&module[..common], &module[common]);
    let file = if common == 0 { "lib".to_owned() } else { parent.join("/") };
    let Declared { modules, shown } = &all[parent];
    let position = |name: &String| modules.iter().position(|module| module == name);
    let Some(name) = path.get(common) else {
        return Some(format!("all of {file}.rs, which stands below"));
    };
    let Some(of) = position(name).map(|_| name).or_else(|| shown.get(name)) else {
        return Some(format!("{name} of {file}.rs, which stands below"));
    };
    let above = position(of) <= position(own);
    (!above).then(|| format!("{name}, which stands below {own} in {file}.rs"))
}

#[test]
fn a_module_uses_only_those_above_it() {
    let sources = sources();
    let all: BTreeMap<_, _> =
        sources.iter().map(|source| (source.module.clone(), declared(&source.code))).collect();
    let (mut mistakes, mut uses, mut inside) = (Vec::new(), 0, 0);
    for Source { path, module, code } in sources.iter().filter(|source| !source.module.is_empty()) {
        for used in used(module, code) {
            uses += 1;
            inside += usize::from(used.first() == module.first());
            let wrong = wrong(module, &used, &all);
            mistakes.extend(wrong.map(|wrong| format!("{} uses {wrong}", path.display())));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(uses > 400 && inside > 40, "{uses} uses, {inside} of them inside a folder");
}

#[test]
fn paths_are_found_however_they_are_written() {
    let text = "use crate::{\n    a::{B, c::D},\n    e,\n};\nuse crate::f::G; // crate::no\n\
                let x = crate::h_2::new(crate::i::J);\n/// crate::no\n#[cfg(test)]\nmod tests {\n    \
                use crate::no;\n}\nuse super::{l, m::N};\nuse super::super::k;\n";
    let module = ["x", "y", "z"].map(str::to_owned);
    let found: Vec<_> =
        used(&module, &code(text)).into_iter().map(|path| path.join("::")).collect();
    let expected =
        ["a::B", "a::c::D", "e", "f::G", "h_2::new", "i::J", "x::k", "x::y::l", "x::y::m::N"];
    assert_eq!(found, expected);
    assert_eq!(code(text).lines().count(), 8);
}

#[test]
fn what_stands_below_is_found() {
    let names = |path: &str| path.split("::").map(str::to_owned).collect::<Vec<_>>();
    let lib = declared("mod a;\npub mod b;\n");
    let b = declared("mod c;\npub(crate) mod d;\npub use d::{E, f::G};\nuse c::H;\nstruct J;");
    let all = BTreeMap::from([(Vec::new(), lib), (names("b"), b)]);
    let wrong = |module, path| wrong(&names(module), &names(path), &all).is_some();
    for (module, path) in [
        ("b", "a::X"),
        ("b", "b::J"),
        ("b::d", "a"),
        ("b::d", "b::c"),
        ("b::d", "b::H"),
        ("b::d", "b::E"),
    ] {
        assert!(!wrong(module, path), "{module} may use {path}");
    }
    for (module, path) in [
        ("a", "b"),
        ("a::x", "b::E"),
        ("b::c", "b::d::E"),
        ("b::c", "b::E"),
        ("b::c", "b::G"),
        ("b::d", "b::J"),
        ("b::d", "b"),
    ] {
        assert!(wrong(module, path), "{module} must not use {path}");
    }
}

#[test]
fn no_file_is_too_long_to_read_in_one_go() {
    let sources = sources();
    for Source { path, code, .. } in &sources {
        let longer = LONGER.iter().find(|(file, _)| path == Path::new(file));
        let most = longer.map_or(LINES_OF_CODE, |&(_, most)| most);
        let lines = code.lines().count();
        assert!(lines < most, "{} has {lines} lines of code", path.display());
    }
    for (file, _) in LONGER {
        assert!(sources.iter().any(|source| source.path == Path::new(file)), "no {file}");
    }
}
