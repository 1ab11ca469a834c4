//! Replays the corpora.

use std::path::{Path, PathBuf};

use super::TARGETS;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz"))
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    files
}

fn stems(directory: &Path) -> Vec<String> {
    files(directory).iter().map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

#[test]
fn every_input_of_every_corpus_is_taken_as_it_must_be() {
    let mut failed = Vec::new();
    for (name, target) in TARGETS {
        let (mut accepted, mut refused) = (0, 0);
        for path in files(&root().join("corpus").join(name)) {
            let input = std::fs::read(&path).unwrap();
            match std::panic::catch_unwind(|| target(&input)) {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(_) => failed.push(path),
            }
        }
        assert!(
            !failed.is_empty() || (accepted > 0 && refused > 0),
            "{name}: {accepted} accepted, {refused} refused"
        );
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let names: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(stems(&root().join("fuzz_targets")), names);
    assert_eq!(stems(&root().join("corpus")), names);
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(
            manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
        let program = std::fs::read_to_string(root().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("bursar::fuzz::{name}(input)")), "{name}");
    }
}

#[test]
fn the_corpora_are_small() {
    let inputs = TARGETS.iter().flat_map(|(name, _)| files(&root().join("corpus").join(name)));
    let bytes: u64 = inputs.map(|path| path.metadata().unwrap().len()).sum();
    assert!(bytes < 200_000, "{bytes} bytes: keep what reaches something new, and drop the rest");
}
