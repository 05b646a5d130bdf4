//! Files that can run code when they are opened, told by their names. Pure. A name is all there is before the first byte, and it is
//! what an opener goes by.

use substratus_crds::FileFilter;
use substratus_crds::conditions::reason;

use super::failure::LoadError;

/// Endings of what Python's `pickle` reads, alone or inside `torch`'s, `joblib`'s and other formats. `bin` is `torch`'s usual one.
const ENDINGS: [&str; 11] = ["bin", "pt", "pth", "ckpt", "pkl", "pickle", "p", "joblib", "dill", "mar", "nemo"];
/// Names of files that a message lists.
const LISTED: usize = 5;

/// Refuses pickles where the filter does.
pub fn refuse<'a>(files: &FileFilter, paths: impl Iterator<Item = &'a str>) -> Result<(), LoadError> {
    if files.allow_pickle != Some(false) {
        return Ok(());
    }
    let pickles: Vec<&str> = paths.filter(|path| is_pickle(path)).collect();
    if pickles.is_empty() {
        return Ok(());
    }
    let listed = pickles.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
    let more = match pickles.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Err(LoadError::new(
        reason::REFUSED,
        format!(
            "pickles can run code when they are opened, and spec.files.allowPickle is false: {listed}{more}; leave them out with \
             spec.files.exclude, or choose a source or revision with safetensors"
        ),
    ))
}

fn is_pickle(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.rsplit_once('.').is_some_and(|(_, ending)| ENDINGS.iter().any(|known| ending.eq_ignore_ascii_case(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: [&str; 5] = ["config.json", "a/pytorch_model.BIN", "x.pt", "model.safetensors", "bin"];

    fn refused(allow_pickle: Option<bool>, paths: &[&str]) -> Option<String> {
        let files = FileFilter { allow_pickle, ..FileFilter::default() };
        refuse(&files, paths.iter().copied()).err().map(|error| error.message)
    }

    #[test]
    fn pickles_are_named_where_they_are_not_wanted() {
        assert_eq!(refused(None, &PATHS), None);
        assert_eq!(refused(Some(true), &PATHS), None);
        assert_eq!(refused(Some(false), &["config.json", "model.safetensors", "bin", "a.bin/x.json"]), None);
        let said = refused(Some(false), &PATHS).unwrap();
        assert!(said.contains("false: a/pytorch_model.BIN, x.pt; leave"), "{said}");
        let said = refused(Some(false), &["a.bin", "b.bin", "c.bin", "d.bin", "e.bin", "f.ckpt", "g.pkl"]).unwrap();
        assert!(said.contains("e.bin and 2 more;"), "{said}");
    }
}
