//! Which files of a repository to fetch: the user's filter, then one format of weights out of several. Pure.

use serde::{Deserialize, Serialize};
use substratus_plugin::{Failure, glob, invalid, loader::Request, params::Params};

use crate::{format::Format, gguf};

/// What the user wants of a repository.
pub(crate) struct Filter {
    include: Vec<String>,
    /// Patterns of `include` that came from `spec.params.files`.
    from_params: usize,
    exclude: Vec<String>,
    format: Option<Format>,
    /// Files called `.bin` are GGUF: the repository says so by its name, as early GGUF repositories did.
    bin_is_gguf: bool,
}

/// What the first page decided, for all pages. Empty: everything that the filter lets through.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    format: Option<Format>,
    /// The one GGUF, by its name without shard numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gguf: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    projector: Option<String>,
    /// The same weights lie there a second time, in one piece.
    #[serde(default)]
    skip_consolidated: bool,
}

/// A choice, and what there is to say about it.
pub(crate) struct Decision {
    pub(crate) choice: Choice,
    /// Of the weights that will be fetched.
    pub(crate) format: Option<Format>,
    pub(crate) entrypoint: Option<String>,
    pub(crate) quantization: Option<String>,
    pub(crate) warnings: Vec<String>,
}

impl Filter {
    /// Reads `spec.files` and the stock image's parameter `files`.
    pub(crate) fn of(request: &Request, id: &str) -> Result<Self, Failure> {
        let format = match request.files.format.as_deref().filter(|name| !name.is_empty()) {
            Some(name) => Some(Format::named(name).ok_or_else(|| unknown_format(name))?),
            None => None,
        };
        let listed = Params::new(&request.params).text("files")?.unwrap_or_default();
        let listed: Vec<String> = listed.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Ok(Self {
            from_params: listed.len(),
            include: listed.into_iter().chain(request.files.include.iter().cloned()).collect(),
            exclude: request.files.exclude.clone(),
            format,
            bin_is_gguf: id.to_ascii_lowercase().contains("gguf"),
        })
    }

    /// Chooses among all names of the repository; `complete` is false where a mirror told only some of them.
    pub(crate) fn decide(&self, names: &[&str], complete: bool) -> Result<Decision, Failure> {
        let wanted: Vec<&str> = names.iter().copied().filter(|path| self.lets_through(path)).collect();
        if complete {
            self.check(names, &wanted)?;
        }
        let best = wanted.iter().filter_map(|path| Format::of(path, self.bin_is_gguf)).min();
        let format = self.format.or(best);
        let user_chose_files = !self.include.is_empty();
        let mut choice = Choice { format: if user_chose_files { self.format } else { format }, ..Choice::default() };
        let mut decision =
            Decision { choice: Choice::default(), format, entrypoint: None, quantization: None, warnings: Vec::new() };
        match format {
            Some(Format::Gguf) => self.decide_gguf(&wanted, &mut choice, &mut decision),
            Some(Format::Safetensors) => choice.skip_consolidated = !user_chose_files && is_doubled(&wanted),
            Some(Format::Pytorch) => decision.warnings.push(
                "the weights are pickles (pytorch), which can run code when they are loaded: prefer a repository or \
                 revision with safetensors"
                    .into(),
            ),
            Some(_) => {}
            None => decision.warnings.push("no weights were recognised by their file names; all files are fetched".into()),
        }
        decision.choice = choice;
        Ok(decision)
    }

    /// Whether a file is fetched.
    pub(crate) fn keeps(&self, choice: &Choice, path: &str) -> bool {
        if !self.lets_through(path) {
            return false;
        }
        let Some(format) = Format::of(path, self.bin_is_gguf) else { return true };
        if choice.format.is_some_and(|chosen| chosen != format) {
            return false;
        }
        if let (Format::Gguf, Some(model)) = (format, &choice.gguf) {
            return choice.projector.as_deref() == Some(path) || gguf::model_name(path) == *model;
        }
        !(choice.skip_consolidated && is_consolidated(path))
    }

    fn decide_gguf(&self, wanted: &[&str], choice: &mut Choice, decision: &mut Decision) {
        let ggufs: Vec<&str> =
            wanted.iter().copied().filter(|path| Format::of(path, self.bin_is_gguf) == Some(Format::Gguf)).collect();
        let Some(pick) = gguf::pick(&ggufs) else { return };
        if !pick.others.is_empty() {
            let chosen = pick.quantization.as_deref().unwrap_or(&pick.model);
            let others = pick.others.join(", ");
            decision.warnings.push(if self.include.is_empty() {
                format!(
                    "{chosen} was chosen; the repository also has {others}: choose with spec.files.include, such as \
                     \"*{}*\"",
                    pick.others.first().map_or("Q8_0", String::as_str)
                )
            } else {
                format!("several GGUF models are fetched; {} is the one that engines open", pick.entrypoint)
            });
        }
        if self.include.is_empty() {
            choice.gguf = Some(pick.model);
            choice.projector = pick.projector;
        }
        decision.entrypoint = Some(pick.entrypoint);
        decision.quantization = pick.quantization;
    }

    fn lets_through(&self, path: &str) -> bool {
        if glob::any_matches(&self.exclude, path) {
            return false;
        }
        if self.include.is_empty() { !is_git_own(path) } else { glob::any_matches(&self.include, path) }
    }

    /// A filter that fits nothing is a mistake, and better told before anything is fetched.
    fn check(&self, names: &[&str], wanted: &[&str]) -> Result<(), Failure> {
        for (position, pattern) in self.include.iter().enumerate() {
            if names.iter().any(|path| glob::matches(pattern, path)) {
                continue;
            }
            let field = if position < self.from_params { "spec.params.files" } else { "spec.files.include" };
            let reason = format!("names {pattern:?}, which fits no file of the repository{}", examples(names));
            return Err(invalid(field, reason));
        }
        if wanted.is_empty() {
            return Err(if self.include.is_empty() && self.exclude.is_empty() {
                Failure::NotFound("the repository has no files at this revision".into())
            } else {
                invalid("spec.files", "leaves no file of the repository")
            });
        }
        if let Some(asked) = self.format {
            let mut found: Vec<Format> = wanted.iter().filter_map(|path| Format::of(path, self.bin_is_gguf)).collect();
            found.sort_unstable();
            found.dedup();
            if !found.contains(&asked) {
                let found: Vec<&str> = found.into_iter().map(Format::name).collect();
                let found = if found.is_empty() { "no weights".into() } else { found.join(", ") };
                return Err(invalid("spec.files.format", format!("is {}, but the repository has {found}", asked.name())));
            }
        }
        Ok(())
    }
}

fn unknown_format(name: &str) -> Failure {
    let known = Format::ALL.map(Format::name).join(", ");
    invalid("spec.files.format", format!("is {name:?}, must be one of {known}"))
}

/// A few names, so that a typing mistake is seen at once.
fn examples(names: &[&str]) -> String {
    let weights: Vec<&str> = names.iter().copied().filter(|path| Format::of(path, true).is_some()).take(5).collect();
    if weights.is_empty() { String::new() } else { format!("; it has {}", weights.join(", ")) }
}

fn is_git_own(path: &str) -> bool {
    matches!(path.rsplit('/').next(), Some(".gitattributes" | ".gitignore"))
}

/// `consolidated.safetensors` beside `model….safetensors` at the root.
fn is_doubled(paths: &[&str]) -> bool {
    let is_model = |path: &&&str| path.starts_with("model") && path.ends_with(".safetensors") && !path.contains('/');
    paths.iter().any(|path| is_consolidated(path)) && paths.iter().any(|path| is_model(&path))
}

fn is_consolidated(path: &str) -> bool {
    path.starts_with("consolidated") && path.ends_with(".safetensors")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use substratus_plugin::testing;

    use super::*;

    fn filter(members: Value, id: &str) -> Filter {
        Filter::of(&testing::request("Model", members), id).unwrap()
    }

    fn kept<'a>(members: Value, id: &str, names: &[&'a str]) -> (Vec<&'a str>, Decision) {
        let filter = filter(members, id);
        let decision = filter.decide(names, true).unwrap_or_else(|failure| panic!("{failure:?}"));
        (names.iter().copied().filter(|path| filter.keeps(&decision.choice, path)).collect(), decision)
    }

    #[test]
    fn the_same_weights_are_fetched_once() {
        let names = [
            ".gitattributes",
            "README.md",
            "config.json",
            "model.safetensors",
            "pytorch_model.bin",
            "tf_model.h5",
            "flax_model.msgpack",
            "onnx/model.onnx",
            "onnx/model.onnx_data",
            "tokenizer.json",
            "model.safetensors.index.json",
            "pytorch_model.bin.index.json",
            "openvino_model.xml",
            "coreml/x.mlpackage/Data/weight",
            "rust_model.ot",
        ];
        let (files, decision) = kept(json!({}), "a/b", &names);
        assert_eq!(files, ["README.md", "config.json", "model.safetensors", "tokenizer.json", "model.safetensors.index.json"]);
        assert_eq!((decision.format, decision.warnings.len()), (Some(Format::Safetensors), 0));
        let (files, _) = kept(json!({"files": {"format": "onnx", "exclude": ["*.md"]}}), "a/b", &names);
        assert_eq!(files, ["config.json", "onnx/model.onnx", "onnx/model.onnx_data", "tokenizer.json"]);
    }

    #[test]
    fn only_pickles_load_with_a_warning() {
        let (files, decision) = kept(json!({}), "a/b", &["config.json", "pytorch_model.bin", "tf_model.h5"]);
        assert_eq!(files, ["config.json", "pytorch_model.bin"]);
        assert!(decision.warnings[0].contains("pickles"), "{:?}", decision.warnings);
    }

    #[test]
    fn named_files_are_taken_as_they_are() {
        let names = ["config.json", "model.bin", "model.safetensors", ".gitattributes"];
        let params = json!({"params": [["files", "\"model.bin\""]]});
        let (files, decision) = kept(params, "org/Llama-2-13B-chat-GGUF", &names);
        assert_eq!(files, ["model.bin"]);
        assert_eq!(decision.format, Some(Format::Gguf));
        assert_eq!(decision.entrypoint.as_deref(), Some("model.bin"));
        let (files, _) = kept(json!({"files": {"include": ["*.json", ".gitattributes"]}}), "a/b", &names);
        assert_eq!(files, ["config.json", ".gitattributes"]);
    }

    #[test]
    fn one_quantisation_is_chosen_and_said() {
        let names = ["README.md", "m.Q2_K.gguf", "m.Q4_K_M.gguf", "m.Q8_0.gguf", "mmproj-f16.gguf"];
        let (files, decision) = kept(json!({}), "a/b-GGUF", &names);
        assert_eq!(files, ["README.md", "m.Q4_K_M.gguf", "mmproj-f16.gguf"]);
        assert_eq!(decision.quantization.as_deref(), Some("Q4_K_M"));
        assert!(decision.warnings[0].starts_with("Q4_K_M was chosen"), "{:?}", decision.warnings);
        let (files, decision) = kept(json!({"files": {"include": ["*Q8_0*"]}}), "a/b-GGUF", &names);
        assert_eq!((files, decision.warnings.len()), (vec!["m.Q8_0.gguf"], 0));
    }

    #[test]
    fn weights_in_one_piece_beside_shards_are_left_out() {
        let names = ["consolidated.safetensors", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(kept(json!({}), "a/b", &names).0, names[1..]);
        assert_eq!(kept(json!({}), "a/b", &names[..1]).0, names[..1]);
    }

    #[test]
    fn a_filter_that_fits_nothing_is_a_mistake() {
        let names = ["config.json", "model.safetensors"];
        for (members, field) in [
            (json!({"files": {"include": ["*.gguf"]}}), "spec.files.include"),
            (json!({"params": [["files", "\"model.bin\""]]}), "spec.params.files"),
            (json!({"files": {"exclude": ["**"]}}), "spec.files"),
            (json!({"files": {"format": "gguf"}}), "spec.files.format"),
        ] {
            match filter(members, "a/b").decide(&names, true) {
                Err(Failure::Invalid(problems)) => assert_eq!(problems[0].field, field),
                _ => panic!("{field} accepted"),
            }
        }
        assert!(matches!(filter(json!({}), "a/b").decide(&[".gitattributes"], true), Err(Failure::NotFound(_))));
        let unknown = testing::request("Model", json!({"files": {"format": "zip"}}));
        assert!(matches!(Filter::of(&unknown, "a/b"), Err(Failure::Invalid(_))));
    }
}
