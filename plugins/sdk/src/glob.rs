//! File patterns of `spec.files`: `*` and `?` stay within a folder, `**` crosses folders. It knows no file system.

/// Whether a path in a repository matches. A pattern with a wildcard and without `/` looks at the file name alone, in any
/// folder, so that `*.bin` means what people mean by it; a pattern without a wildcard is an exact path.
pub fn matches(pattern: &str, path: &str) -> bool {
    let pattern = pattern.trim_start_matches("./").trim_start_matches('/');
    if !has_wildcard(pattern) {
        return pattern == path;
    }
    if pattern.contains('/') {
        let pattern: Vec<&str> = pattern.split('/').collect();
        let path: Vec<&str> = path.split('/').collect();
        return folders_match(&pattern, &path);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if pattern == "**" { true } else { name_matches(pattern, name) }
}

/// Whether any of the patterns matches.
pub fn any_matches<S: AsRef<str>>(patterns: &[S], path: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_ref(), path))
}

/// Whether a pattern is more than one exact path.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.contains(['*', '?'])
}

// Both matchers below remember only the last star: linear in memory, at worst quadratic in time, whatever the pattern.

fn folders_match(pattern: &[&str], path: &[&str]) -> bool {
    star_match(pattern, path, |segment| *segment == "**", |segment, name| name_matches(segment, name))
}

fn name_matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    star_match(&pattern, &name, |c| *c == '*', |p, c| *p == '?' || p == c)
}

fn star_match<T>(pattern: &[T], items: &[T], is_star: impl Fn(&T) -> bool, is_same: impl Fn(&T, &T) -> bool) -> bool {
    let (mut p, mut i) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while let Some(item) = items.get(i) {
        match pattern.get(p) {
            Some(star) if is_star(star) => {
                last_star = Some((p, i));
                p += 1;
            }
            Some(one) if is_same(one, item) => {
                p += 1;
                i += 1;
            }
            _ => match last_star {
                Some((star, taken)) => {
                    p = star + 1;
                    i = taken + 1;
                    last_star = Some((star, i));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(is_star)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, path, expected) in [
            ("model.bin", "model.bin", true),
            ("model.bin", "sub/model.bin", false),
            ("*.bin", "model.bin", true),
            ("*.bin", "sub/model.bin", true),
            ("*Q4_K_M*", "a/b-Q4_K_M-00001-of-00002.gguf", true),
            ("*Q4_K_M*", "Q4_K_M/b.gguf", false),
            ("**/*Q4_K_M*/**", "Q4_K_M/b.gguf", true),
            ("onnx/*", "onnx/model.onnx", true),
            ("onnx/*", "onnx/a/model.onnx", false),
            ("onnx/**", "onnx/a/model.onnx", true),
            ("**/*.json", "config.json", true),
            ("**", "a/b/c", true),
            ("model-0000?-of-00002.*", "model-00001-of-00002.safetensors", true),
            ("/config.json", "config.json", true),
            ("", "config.json", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_ends() {
        let path = "a".repeat(2000);
        assert!(!matches(&"*a".repeat(200).replace("*a*a", "*a*b"), &path));
    }
}
