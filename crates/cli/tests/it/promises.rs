//! docs/promises.md names tests that exist, and leaves out no row of README's table of faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// A promise, and the tests that guard it, each as `path/to/file.rs::name`.
struct Row {
    what: String,
    tests: Vec<String>,
}

fn workspace(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(workspace(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The first cells of all tables' rows with the rest of their lines, heads and rules left out.
fn rows(page: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("|---"));
    let rows = lines
        .iter()
        .enumerate()
        .filter(|(at, line)| line.starts_with('|') && !is_rule(Some(line)) && !is_rule(lines.get(at + 1)));
    rows.map(|(_, line)| {
        let (what, rest) = line.trim_matches('|').split_once('|').unwrap_or_else(|| panic!("one cell: {line}"));
        (what.trim().to_owned(), rest.to_owned())
    })
    .collect()
}

fn promises(page: &str) -> Vec<Row> {
    // What stands between backticks is every second part.
    let quoted = |cells: &str| cells.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    rows(page).into_iter().map(|(what, cells)| Row { what, tests: quoted(&cells) }).collect()
}

/// The names of the functions in a source file that are tests.
fn tests_of(source: &str) -> BTreeSet<String> {
    let (mut names, mut marked) = (BTreeSet::new(), false);
    for line in source.lines().map(str::trim) {
        marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let function = line.trim_start_matches("pub(crate) ").trim_start_matches("async ").strip_prefix("fn ");
        if let Some(function) = function {
            let name = function.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default();
            if std::mem::take(&mut marked) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

/// What is wrong with these rows, as far as files are concerned.
fn faults(rows: &[Row], source: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let (mut faults, mut known) = (Vec::new(), BTreeMap::new());
    for Row { what, tests } in rows {
        if tests.is_empty() {
            faults.push(format!("\"{what}\" is guarded by nothing"));
        }
        for test in tests {
            let Some((file, name)) = test.split_once("::") else {
                faults.push(format!("\"{what}\" names {test}, which is no file.rs::name"));
                continue;
            };
            let names = known.entry(file.to_owned()).or_insert_with(|| source(file).map(|text| tests_of(&text)));
            match names {
                None => faults.push(format!("\"{what}\" names {file}, which is not there")),
                Some(names) if !names.contains(name) => faults.push(format!("{file} has no test {name}")),
                Some(_) => {}
            }
        }
    }
    faults
}

#[test]
fn every_promise_is_guarded_by_a_test_that_exists() {
    let rows = promises(&read("docs/promises.md"));
    assert!(rows.len() > 30, "only {} rows were found", rows.len());
    let faults = faults(&rows, |file| std::fs::read_to_string(workspace(file)).ok());
    assert!(faults.is_empty(), "{faults:#?}");
}

#[test]
fn every_fault_of_the_readme_is_a_promise() {
    let readme = read("README.md");
    let (_, section) = readme.split_once("## When things fail").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let promised: BTreeSet<String> = promises(&read("docs/promises.md")).into_iter().map(|row| row.what).collect();
    let told: Vec<String> = rows(section).into_iter().map(|(what, _)| what).collect();
    assert!(told.len() > 5, "only {} rows were found", told.len());
    let missing: Vec<&String> = told.iter().filter(|what| !promised.contains(*what)).collect();
    assert!(missing.is_empty(), "docs/promises.md does not name {missing:?}");
}

#[test]
fn a_row_without_a_test_and_a_test_that_is_gone_are_noticed() {
    let page = "text\n\n| what | guarded by |\n|---|---|\n| a | `x.rs::one`, `x.rs::two` |\n| b | nobody |\n\
                | c | `y.rs::one` |\n| d | `x.rs::helper` |\n";
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(start_paused = true)]\n    async fn three() {}";
    let found = faults(&promises(page), |file| (file == "x.rs").then(|| source.to_owned()));
    let expected = [
        "x.rs has no test two",
        "\"b\" is guarded by nothing",
        "\"c\" names y.rs, which is not there",
        "x.rs has no test helper",
    ];
    assert_eq!(found, expected);
}
