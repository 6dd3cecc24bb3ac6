//! Which file of a crate takes names from which: read from the syntax, tests left out. A name that a module passes on (`pub use`)
//! counts for the file that defines it. What a module takes from those that it is a part of (`super`) is not counted: a module that has
//! grown into a directory is still one. Methods are not followed: `impl Hub` in ten files is no import of one by another.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all kinds of items, a few have a name or matter here"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::Visit;
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, UseTree};

/// From each file to those that it imports from, with the names.
pub(crate) type Imports = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

type Names = Vec<String>;

/// What a name stands for in a module.
#[derive(Clone)]
enum Meaning {
    Here,
    Module,
    Import(Names),
}

/// One module: its file, its names, and the paths that its code says.
#[derive(Default)]
struct Module {
    file: PathBuf,
    meanings: BTreeMap<String, Meaning>,
    globs: Vec<Names>,
    said: Vec<Names>,
}

type Modules = BTreeMap<Names, Module>;

pub(crate) fn of(root: &Path) -> Imports {
    let mut modules = Modules::new();
    read_file(root, root.parent().unwrap(), Names::new(), &mut modules);
    let mut imports = Imports::new();
    for (place, module) in &modules {
        for said in &module.said {
            let Some((origin, name)) = definition(&modules, place, said, 0) else {
                continue;
            };
            let is_own = origin.starts_with(place) && modules[&origin].file == module.file;
            if !place.starts_with(&origin) && !is_own {
                let file = modules[&origin].file.clone();
                let from = imports.entry(module.file.clone()).or_default();
                from.entry(file).or_default().insert(name);
            }
        }
    }
    imports
}

/// Reads a module from its file; `directory` is where its children have theirs.
fn read_file(file: &Path, directory: &Path, place: Names, modules: &mut Modules) {
    let text = fs::read_to_string(file).unwrap();
    let syntax = syn::parse_file(&text).unwrap();
    read_items(&syntax.items, file, directory, place, modules);
}

fn read_items(items: &[Item], file: &Path, directory: &Path, place: Names, modules: &mut Modules) {
    let mut module = Module {
        file: file.to_owned(),
        ..Module::default()
    };
    for item in items.iter().filter(|item| !is_test(attributes(item))) {
        match item {
            Item::Mod(child) => {
                let name = child.ident.to_string();
                module.meanings.insert(name, Meaning::Module);
                read_child(child, file, directory, &place, modules);
            }
            Item::Use(import) => module.add_import(import),
            other => {
                if let Some(name) = defined(other) {
                    module.meanings.insert(name, Meaning::Here);
                }
                Paths(&mut module).visit_item(other);
            }
        }
    }
    modules.insert(place, module);
}

fn read_child(
    child: &ItemMod,
    file: &Path,
    directory: &Path,
    place: &Names,
    modules: &mut Modules,
) {
    let name = child.ident.to_string();
    let mut inside = place.clone();
    inside.push(name.clone());
    let below = directory.join(&name);
    if let Some((_, items)) = &child.content {
        return read_items(items, file, &below, inside, modules);
    }
    let beside = directory.join(format!("{name}.rs"));
    let own = if beside.is_file() {
        beside
    } else {
        below.join("mod.rs")
    };
    read_file(&own, &below, inside, modules);
}

impl Module {
    fn add_import(&mut self, import: &ItemUse) {
        for (path, name) in leaves(&import.tree) {
            match name {
                Some(name) => {
                    self.meanings.insert(name, Meaning::Import(path.clone()));
                }
                None => self.globs.push(path.clone()),
            }
            self.said.push(path);
        }
    }
}

/// The paths of a `use`, each with the name that it gets; none for `*`.
fn leaves(tree: &UseTree) -> Vec<(Names, Option<String>)> {
    match tree {
        UseTree::Path(path) => {
            let first = path.ident.to_string();
            let with_first = |(rest, name): (Names, Option<String>)| {
                let name = name.map(|name| if name == "self" { first.clone() } else { name });
                let rest = rest.into_iter().filter(|segment| segment != "self");
                (std::iter::once(first.clone()).chain(rest).collect(), name)
            };
            leaves(&path.tree).into_iter().map(with_first).collect()
        }
        UseTree::Name(name) => {
            let name = name.ident.to_string();
            vec![(vec![name.clone()], Some(name))]
        }
        UseTree::Rename(rename) => {
            vec![(
                vec![rename.ident.to_string()],
                Some(rename.rename.to_string()),
            )]
        }
        UseTree::Glob(_) => vec![(Names::new(), None)],
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
    }
}

/// Collects the paths in a module's code.
struct Paths<'a>(&'a mut Module);

impl<'ast> Visit<'ast> for Paths<'_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.0.said.push(segments.collect());
        syn::visit::visit_path(self, path);
    }

    fn visit_item_use(&mut self, import: &'ast ItemUse) {
        self.0
            .said
            .extend(leaves(&import.tree).into_iter().map(|(path, _)| path));
    }

    fn visit_macro(&mut self, invoked: &'ast Macro) {
        self.visit_path(&invoked.path);
        said_in(invoked.tokens.clone(), &mut self.0.said);
    }
}

/// The paths in what a macro is given, which is no syntax yet.
fn said_in(tokens: TokenStream, said: &mut Vec<Names>) {
    let mut path = Names::new();
    let mut colons = 0;
    for token in tokens {
        match token {
            TokenTree::Punct(mark) if mark.as_char() == ':' => {
                colons += 1;
                continue;
            }
            TokenTree::Ident(name) => {
                if colons != 2 {
                    said.push(std::mem::take(&mut path));
                }
                path.push(name.to_string());
            }
            TokenTree::Group(group) => {
                said.push(std::mem::take(&mut path));
                said_in(group.stream(), said);
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => said.push(std::mem::take(&mut path)),
        }
        colons = 0;
    }
    said.push(path);
    said.retain(|path| !path.is_empty());
}

/// The module that defines what a path means, and the name there; none for other crates and for what the code itself binds.
fn definition(
    modules: &Modules,
    place: &Names,
    path: &[String],
    depth: usize,
) -> Option<(Names, String)> {
    assert!(depth < 20, "{path:?} leads round and round");
    let (mut at, rest) = start(modules, place, path)?;
    for (index, name) in rest.iter().enumerate() {
        let module = &modules[&at];
        match module.meanings.get(name) {
            Some(Meaning::Module) => at.push(name.clone()),
            Some(Meaning::Here) => return Some((at, name.clone())),
            Some(Meaning::Import(import)) => {
                let full: Names = import.iter().chain(&rest[index + 1..]).cloned().collect();
                return definition(modules, &at, &full, depth + 1);
            }
            None => {
                return module.globs.iter().find_map(|glob| {
                    let full: Names = glob.iter().chain(&rest[index..]).cloned().collect();
                    definition(modules, &at, &full, depth + 1)
                });
            }
        }
    }
    None
}

/// The module where a path begins, and what follows.
fn start<'a>(
    modules: &Modules,
    place: &Names,
    path: &'a [String],
) -> Option<(Names, &'a [String])> {
    let mut at = place.clone();
    match path.first()?.as_str() {
        "crate" => Some((Names::new(), &path[1..])),
        "self" => Some((at, &path[1..])),
        "super" => {
            let ups = path
                .iter()
                .take_while(|segment| *segment == "super")
                .count();
            at.truncate(at.len().checked_sub(ups)?);
            Some((at, &path[ups..]))
        }
        // An import of the same name as its crate (`use tokio::…`) is not this crate's.
        first => match modules[place].meanings.get(first) {
            Some(Meaning::Import(import)) if import.first().is_some_and(|start| start == first) => {
                None
            }
            Some(_) => Some((at, path)),
            None => (!modules[place].globs.is_empty()).then_some((at, path)),
        },
    }
}

/// The name that an item defines, if it has one.
fn defined(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::TraitAlias(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    let is_test = |attribute: &Attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string() == "test")
    };
    attributes.iter().any(is_test)
}
