//! The structure of the sources: no file needs another that needs it, in however many steps, no struct of
//! the loop or of a source grows without limit, and no text of the library is for Rust alone. All of it is
//! read from the syntax.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use syn::visit::Visit;

/// What a reader keeps in his head of one struct.
const FIELDS_MAX: usize = 12;
const FLAGS_MAX: usize = 3;

/// A module's path, such as `source::sql::link`.
type Module = Vec<String>;

#[test]
fn no_two_files_need_each_other() {
    let circles = circles(&needs(&modules("src")));
    assert!(circles.is_empty(), "these files lie in circles: {circles:#?}");
}

#[test]
fn the_structs_of_the_loop_and_of_sources_fit_in_a_head() {
    let mut large = Vec::new();
    for (module, file) in modules("src") {
        if ["source", "event_loop"].contains(&module.first().map_or("", String::as_str)) {
            large.extend(
                structs(&file)
                    .into_iter()
                    .filter(|(_, fields, flags)| *fields > FIELDS_MAX || *flags > FLAGS_MAX),
            );
        }
    }
    assert!(large.is_empty(), "a name, its fields, its flags: {large:?}");
}

/// Hosts in C and those who type the command read the same errors and the same log.
#[test]
fn texts_of_the_library_name_nothing_of_rust() {
    let library = modules("src").into_iter().filter(|(module, _)| module.first().is_none_or(|m| m != "cli"));
    let found: Vec<_> = library.flat_map(|(_, file)| rust_in_texts(&file)).collect();
    assert!(found.is_empty(), "say it for every language: {found:#?}");
}

#[test]
fn a_circle_and_a_large_struct_are_found() {
    let of = |files: &[(&str, &str)]| -> BTreeMap<Module, syn::File> {
        let parsed = files.iter().map(|(name, text)| (path_of(name), syn::parse_file(text).unwrap()));
        parsed.collect()
    };
    let straight = of(&[("", ""), ("a", "use crate::b::B; mod c;"), ("a::c", ""), ("b", "pub struct B;")]);
    assert!(circles(&needs(&straight)).is_empty());
    let by_import = of(&[("", ""), ("a", "use crate::b::{self, B};"), ("b", "fn f() { crate::a::g() }")]);
    assert_eq!(circles(&needs(&by_import)).len(), 2);
    // Through a name that the parent hands on: what needs it needs the file that has it.
    let handed_on = of(&[
        ("", ""),
        ("a", "mod b; mod c; pub use b::B;"),
        ("a::b", "use super::c::C; pub struct B;"),
        ("a::c", "use super::B; pub struct C;"),
    ]);
    assert_eq!(circles(&needs(&handed_on)).len(), 2);
    let file = syn::parse_file("struct S { a: bool, b: bool, c: u8 }").unwrap();
    assert_eq!(structs(&file), [("S".to_string(), 3, 2)]);
}

#[test]
fn rust_in_a_text_is_found() {
    let of = |text: &str| rust_in_texts(&syn::parse_file(text).unwrap());
    let good = "/// `next`\nfn f() { g(\"run `pgwake install`\", x::Y::z()); h!(\"a::oid\", b::C::d()) }";
    assert_eq!(of(good), Vec::<String>::new());
    assert_eq!(
        of("fn f() { g(\"call `next`\"); h!(\"until `Sent` comes\"); i(\"see Loop::ack\") }").len(),
        3
    );
}

fn path_of(name: &str) -> Module {
    name.split("::").filter(|part| !part.is_empty()).map(String::from).collect()
}

/// Every file below a directory, by its module; what is compiled for tests alone is left out.
fn modules(directory: &str) -> BTreeMap<Module, syn::File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let (mut found, mut directories) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.extension().is_some_and(|e| e == "rs") && !entry.ends_with("tests.rs") {
                let inside = entry.strip_prefix(&root).unwrap().with_extension("");
                let name = inside.to_str().unwrap().replace('/', "::");
                let name = name.strip_suffix("::mod").unwrap_or(&name);
                let name = if matches!(name, "lib" | "main") { "" } else { name };
                let mut file = syn::parse_file(&fs::read_to_string(&entry).unwrap()).unwrap();
                file.items.retain(|item| !is_for_tests(item));
                found.entry(path_of(name)).or_insert(file);
            }
        }
    }
    found
}

fn is_for_tests(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else { return false };
    module
        .attrs
        .iter()
        .any(|a| a.path().is_ident("cfg") && a.parse_args::<syn::Ident>().is_ok_and(|i| i == "test"))
}

/// Which files each file needs.
fn needs(modules: &BTreeMap<Module, syn::File>) -> BTreeMap<Module, BTreeSet<Module>> {
    let handed_on: BTreeMap<_, _> =
        modules.iter().map(|(module, file)| (module, Names::of(file, true))).collect();
    let resolve = |from: &Module, name: &[String]| -> Option<Module> {
        let mut name = absolute(modules, from, name)?;
        // A few modules may hand a name on to one another.
        for _ in 0..4 {
            let depth = (0..=name.len()).rev().find(|depth| modules.contains_key(&name[..*depth]))?;
            let (module, item) = (name[..depth].to_vec(), name.get(depth));
            let source = item.and_then(|item| handed_on[&module].iter().find(|n| n.last() == Some(item)));
            match source.and_then(|source| absolute(modules, &module, source)) {
                Some(further) => name = further,
                None => return Some(module),
            }
        }
        None
    };
    let of = |module: &Module, file: &syn::File| -> BTreeSet<Module> {
        let names = Names::of(file, false);
        let found = names.iter().filter_map(|name| resolve(module, name));
        // The root stands for no file: it only names the others.
        found.filter(|found| found != module && !found.is_empty()).collect()
    };
    modules
        .iter()
        .filter(|(module, _)| !module.is_empty())
        .map(|(m, file)| (m.clone(), of(m, file)))
        .collect()
}

/// A name as seen from the root of the crate, if it is of this crate.
fn absolute(modules: &BTreeMap<Module, syn::File>, from: &Module, name: &[String]) -> Option<Module> {
    let (first, rest) = name.split_first()?;
    let ups = name.iter().take_while(|part| *part == "super").count();
    match first.as_str() {
        "crate" => Some(rest.to_vec()),
        "self" => Some([from, rest].concat()),
        "super" => Some([&from[..from.len().checked_sub(ups)?], &name[ups..]].concat()),
        _ => {
            let child = [from.as_slice(), name].concat();
            modules.contains_key(&child[..=from.len()]).then_some(child)
        }
    }
}

/// What files of a circle need of one another: those that come back to where they started.
fn circles(needs: &BTreeMap<Module, BTreeSet<Module>>) -> Vec<String> {
    let reach = |from: &Module| -> BTreeSet<Module> {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            let further = needs.get(module).into_iter().flatten();
            next.extend(further.filter(|further| seen.insert((*further).clone())));
        }
        seen
    };
    let reached: BTreeMap<_, _> = needs.keys().map(|module| (module, reach(module))).collect();
    let text = |module: &Module| module.join("::");
    let mut found = Vec::new();
    for (module, needed) in needs {
        let back = needed.iter().filter(|other| reached.get(other).is_some_and(|r| r.contains(module)));
        let back: Vec<_> = back.map(text).collect();
        found.extend((!back.is_empty()).then(|| format!("{} -> {}", text(module), back.join(", "))));
    }
    found
}

/// The names with more than one part that a file uses; or those alone that it hands on.
struct Names {
    found: BTreeSet<Vec<String>>,
    only_handed_on: bool,
}

impl Names {
    fn of(file: &syn::File, only_handed_on: bool) -> BTreeSet<Vec<String>> {
        let mut names = Names { found: BTreeSet::new(), only_handed_on };
        names.visit_file(file);
        names.found
    }

    fn take(&mut self, tree: &syn::UseTree, before: &[String]) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.take(&path.tree, &with(&path.ident)),
            syn::UseTree::Group(group) => group.items.iter().for_each(|tree| self.take(tree, before)),
            syn::UseTree::Name(name) if name.ident == "self" => _ = self.found.insert(before.to_vec()),
            syn::UseTree::Name(name) => _ = self.found.insert(with(&name.ident)),
            syn::UseTree::Rename(name) => _ = self.found.insert(with(&name.ident)),
            syn::UseTree::Glob(_) => _ = self.found.insert(before.to_vec()),
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let is_handed_on = !matches!(item.vis, syn::Visibility::Inherited);
        if is_handed_on || !self.only_handed_on {
            self.take(&item.tree, &[]);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.segments.len() > 1 && !self.only_handed_on {
            self.found.insert(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        }
        syn::visit::visit_path(self, path);
    }
}

/// The structs of a file: the name, how many fields, how many of them flags.
fn structs(file: &syn::File) -> Vec<(String, usize, usize)> {
    let is_flag = |field: &&syn::Field| matches!(&field.ty, syn::Type::Path(ty) if ty.path.is_ident("bool"));
    let structs = file.items.iter().filter_map(|item| match item {
        syn::Item::Struct(item) => Some(item),
        _ => None,
    });
    structs.map(|s| (s.ident.to_string(), s.fields.len(), s.fields.iter().filter(is_flag).count())).collect()
}

/// The texts of a file that name a function or a type, in backquotes or by a path.
fn rust_in_texts(file: &syn::File) -> Vec<String> {
    let is_name = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
    // `NULL::text` is none.
    let is_type = |name: &str| name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
    let is_path = |word: &str| word.split_once("::").is_some_and(|(name, _)| is_name(name) && is_type(name));
    let mut texts = Texts(Vec::new());
    texts.visit_file(file);
    texts.0.retain(|text| {
        text.split('`').skip(1).step_by(2).any(is_name) || text.split_whitespace().any(is_path)
    });
    texts.0
}

struct Texts(Vec<String>);

impl<'ast> Visit<'ast> for Texts {
    /// Documentation is an attribute.
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}

    fn visit_lit_str(&mut self, text: &'ast syn::LitStr) {
        self.0.push(text.value());
    }

    /// What a macro is given is no syntax: its words stand apart, but for those of a text.
    fn visit_macro(&mut self, made: &'ast syn::Macro) {
        self.0.push(made.tokens.to_string());
    }
}
