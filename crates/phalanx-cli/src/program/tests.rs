use std::fs;

use super::*;

fn resolve(command: &[&str], cwd: &Path) -> Outcome<Program> {
    let command: Vec<OsString> = command.iter().map(OsString::from).collect();
    Words {
        command: &command,
        node: Some(OsStr::new("sh")),
        cwd: Some(cwd),
        env: &[],
    }
    .resolve()
}

fn directory_with(files: &[&str]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for file in files {
        fs::write(directory.path().join(file), "").unwrap();
    }
    directory
}

#[test]
fn an_empty_word_is_no_program_and_no_directory() {
    let place = directory_with(&["package.json"]);
    let failure = resolve(&[""], place.path()).unwrap_err();
    assert_eq!(failure.exit, Exit::NotFound);
    assert!(
        failure.reason.contains("an empty word"),
        "{}",
        failure.reason
    );
}

#[test]
fn scripts_are_run_by_node_and_programs_by_themselves() {
    let directory = directory_with(&["server.js", "app.mjs"]);
    let program = resolve(&["server.js", "--port", "1"], directory.path()).unwrap();
    assert_eq!(program.exec, "sh");
    assert_eq!(program.args, ["server.js", "--port", "1"]);
    assert_eq!(program.name.as_str(), "server");
    let program = resolve(&["cat", "-n"], directory.path()).unwrap();
    assert_eq!(
        (program.exec, program.args),
        ("cat".into(), vec!["-n".into()])
    );
}

fn make_executable(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_first_word_may_be_a_file_a_directory_or_a_package() {
    let place = directory_with(&["app.py", "tool.sh", "app.js"]);
    let sub = place.path().join("dist");
    fs::create_dir(&sub).unwrap();
    fs::write(sub.join("index.js"), "").unwrap();
    fs::write(place.path().join("plain.txt"), "").unwrap();
    make_executable(&place.path().join("server"), "#!/bin/sh\n");
    fs::write(place.path().join("run.txt"), "#!/bin/sh -e\n").unwrap();
    fs::write(
        place.path().join("package.json"),
        r#"{"name": "@a/web", "main": "app"}"#,
    )
    .unwrap();
    for (word, exec, first) in [
        ("app.py", "python3", Some("./app.py")),
        ("./app.py", "python3", Some("./app.py")),
        ("tool.sh", "sh", Some("./tool.sh")),
        ("server", "./server", None),
        ("run.txt", "/bin/sh", Some("-e")),
        (".", "sh", Some("././app.js")),
        ("./dist/", "sh", Some("././dist/index.js")),
        ("dist", "sh", Some("./dist/index.js")),
        ("package.json", "sh", Some("./app.js")),
    ] {
        let program = resolve(&[word, "x"], place.path()).unwrap();
        assert_eq!(program.exec, exec, "{word}");
        let at = usize::from(first.is_some());
        assert_eq!(
            program.args.first().filter(|_| at == 1),
            first.map(OsString::from).as_ref(),
            "{word}"
        );
        assert_eq!(program.args.last().unwrap(), "x", "{word}");
    }
    let empty = tempfile::tempdir().unwrap();
    let failure = resolve(&["."], empty.path()).unwrap_err();
    assert!(
        failure.reason.contains("looked for package.json"),
        "{failure}"
    );
    assert_eq!(failure.exit, Exit::NotExecutable);
    fs::write(empty.path().join("package.json"), "{}").unwrap();
    let failure = resolve(&["."], empty.path()).unwrap_err();
    assert!(failure.reason.contains("scripts.start"), "{failure}");
    assert_eq!(failure.exit, Exit::NotExecutable);
}

#[test]
fn an_app_is_called_after_what_tells_it_from_others() {
    let place = tempfile::tempdir().unwrap();
    let shop = place.path().join("shop");
    fs::create_dir_all(shop.join("src")).unwrap();
    fs::create_dir(shop.join("bin")).unwrap();
    for file in ["index.js", "src/main.js", "web.js", "app.py", "early.js"] {
        fs::write(shop.join(file), "").unwrap();
    }
    let name = |words: &[&str]| resolve(words, &shop).unwrap().name.to_string();
    assert_eq!(name(&["index.js"]), "shop");
    assert_eq!(name(&["src/main.js"]), "src");
    assert_eq!(name(&["web.js"]), "web");
    assert_eq!(name(&["app.py"]), "app");
    assert_eq!(name(&["sh", "-c", "exit"]), "sh");
    fs::write(shop.join("package.json"), r#"{"name": "@acme/store.v2"}"#).unwrap();
    assert_eq!(name(&["src/main.js"]), "store.v2");
}

#[test]
fn what_is_not_there_is_refused_with_its_place() {
    let directory = directory_with(&["plain"]);
    for (command, exit) in [
        ("missing.js", Exit::NotFound),
        ("no-such-program-anywhere", Exit::NotFound),
        ("./missing", Exit::NotFound),
        ("./plain", Exit::NotExecutable),
    ] {
        let failure = resolve(&[command], directory.path()).unwrap_err();
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(
            failure.reason.contains(command.trim_start_matches("./")),
            "{failure}"
        );
    }
    let failure = resolve(&["cat"], &directory.path().join("nowhere")).unwrap_err();
    assert_eq!(failure.exit, Exit::Usage, "{failure}");
}

#[test]
fn typescript_needs_a_node_that_strips_types() {
    assert_eq!(parse_version("v22.18.0"), Some((22, 18)));
    assert_eq!(parse_version("Python 3"), None);
    for (version, runs) in [
        ((20, 99), false),
        ((22, 17), false),
        ((22, 18), true),
        ((23, 5), false),
        ((24, 0), true),
    ] {
        assert_eq!(runs_types(version), runs, "{version:?}");
    }
}
