use std::path::Path;

use tempfile::TempDir;

use crate::entropy::SeededEntropy;
use crate::settings::{Problem, Settings};
use crate::store::seal::generate_key;

thread_local! {
    /// With a key in it, for a configuration without one is none.
    static FILES: TempDir = {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        std::fs::write(&key, generate_key(&SeededEntropy::new(1)).expose()).unwrap();
        std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        directory
    };
}

/// A configuration's text, in which `KEY_FILE` stands for a file with a key.
pub fn configuration(input: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(input) else { return false };
    // Files that it names are read, and these may have no end.
    if ["dev", "proc", "sys", "\\"].iter().any(|place| text.contains(place)) {
        return false;
    }
    let text = FILES.with(|files| text.replace("KEY_FILE", &path(files.path())));
    match Settings::parse(&text) {
        Ok(settings) => {
            // Nothing in it but what stands there, and nothing that stands there is passed over.
            assert_eq!(format!("{settings:?}"), format!("{:?}", Settings::parse(&text).unwrap()));
            let problems = Settings::parse(&format!("unheard_of = 1\n{text}")).unwrap_err();
            let [problem] = problems.as_slice() else { panic!("{problems:?}") };
            assert_eq!((problem.line, problem.key.as_str()), (1, "unheard_of"));
            true
        }
        Err(problems) => {
            assert!(!problems.is_empty());
            for problem in &problems {
                assert_can_be_found(problem, &text);
            }
            assert!(problems.is_sorted_by_key(|problem| problem.line));
            false
        }
    }
}

fn path(directory: &Path) -> String {
    directory.join("key").to_str().unwrap().to_owned()
}

/// A problem names a line that there is, and says something.
fn assert_can_be_found(problem: &Problem, text: &str) {
    let lines = text.matches('\n').count() + 1;
    assert!(problem.line <= lines, "line {} of {lines}: {problem}", problem.line);
    assert!(!problem.message.trim().is_empty());
    assert!(problem.line > 0 || !problem.key.is_empty(), "nowhere: {problem}");
}
