//! Accounts of a build: docker's own settings merged from Secrets, and a repository's Secret as git and ssh want it. It writes them
//! where only this container reads, and never shows one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};
use url::Url;

/// Who is asked for where a token stands alone: hosts of git want some name and take any.
const ANYBODY: &str = "x-access-token";

/// Writes one docker configuration with the accounts of every `*.json` in these folders; those of a later one count.
pub(super) fn merge(folders: &[PathBuf], to: &Path) -> anyhow::Result<()> {
    let mut accounts = Map::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(folder) else { continue };
        let mut files: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
        // The first of those that pull counts, as with pods: it is written last.
        files.sort_by(|a, b| b.cmp(a));
        for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "json")) {
            let text = fs::read(file).with_context(|| format!("read {}", file.display()))?;
            let known: Value =
                serde_json::from_slice(&text).with_context(|| format!("{} is no docker configuration", file.display()))?;
            accounts
                .extend(known.get("auths").and_then(Value::as_object).into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    secret_file(to, json!({"auths": accounts}).to_string().as_bytes())
}

/// What opens a repository.
#[derive(Debug, Default)]
pub(super) struct Opener {
    /// Configuration of git.
    pub(super) config: Vec<(String, String)>,
    /// The program that reaches servers by ssh, with its arguments.
    pub(super) ssh: Option<String>,
    /// What no log may show.
    pub(super) secrets: Vec<String>,
    /// There is a Secret, with something in it.
    pub(super) is_there: bool,
}

/// Reads the Secret in `folder` for the repository at `url`, and puts what git wants to read into `private`.
pub(super) fn opener(url: &str, folder: Option<&Path>, private: &Path) -> anyhow::Result<Opener> {
    let mut opener = Opener::default();
    let Some(folder) = folder else { return Ok(opener) };
    let read = |key: &str| fs::read_to_string(folder.join(key)).ok().map(|text| text.trim_end_matches(['\n', '\r']).to_owned());
    let password = read("token").or_else(|| read("password")).filter(|password| !password.is_empty());
    if let (Some(password), Some(url)) = (password, Url::parse(url).ok().filter(|url| url.scheme().starts_with("http"))) {
        let user = read("username").filter(|user| !user.is_empty()).unwrap_or_else(|| ANYBODY.to_owned());
        let coded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let host = url.host_str().unwrap_or_default();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        // Git shows it to this scheme, host and port, and to nobody that those lead to.
        let line = format!("{}://{}:{}@{host}{port}\n", url.scheme(), coded(&user), coded(&password));
        let file = private.join("git-credentials");
        secret_file(&file, line.as_bytes())?;
        opener.config.push(("credential.helper".to_owned(), format!("store --file={}", file.display())));
        opener.secrets.extend([coded(&password), password]);
        opener.is_there = true;
    }
    if let Some(key) = read("ssh-privatekey") {
        let (own, hosts) = (private.join("ssh-key"), folder.join("known_hosts"));
        secret_file(&own, format!("{key}\n").as_bytes())?;
        // Without known hosts there is nobody to trust: ssh refuses, and says so.
        opener.ssh = Some(format!(
            "ssh -F /dev/null -i {} -o IdentitiesOnly=yes -o BatchMode=yes -o ConnectTimeout=20 -o StrictHostKeyChecking=yes -o UserKnownHostsFile={}",
            own.display(),
            hosts.display()
        ));
        opener.is_there = true;
    }
    Ok(opener)
}

/// Writes a file that nobody else reads.
fn secret_file(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(content).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_of_several_secrets_are_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let (pull, push) = (folder.path().join("pull"), folder.path().join("push"));
        for (file, auth) in
            [(pull.join("000.json"), "first"), (pull.join("001.json"), "second"), (push.join("config.json"), "push")]
        {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            let host = if auth == "push" { "out.test" } else { "in.test" };
            fs::write(&file, json!({"auths": {host: {"auth": auth}}}).to_string()).unwrap();
        }
        let to = folder.path().join("docker/config.json");
        merge(&[pull, push, folder.path().join("none")], &to).unwrap();
        let merged: Value = serde_json::from_slice(&fs::read(&to).unwrap()).unwrap();
        assert_eq!(merged, json!({"auths": {"in.test": {"auth": "first"}, "out.test": {"auth": "push"}}}));
        fs::write(folder.path().join("broken.json"), "{").unwrap();
        assert!(merge(&[folder.path().to_owned()], &to).is_err());
    }

    #[test]
    fn a_token_is_for_its_host_alone_and_never_on_a_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, private) = (folder.path().join("secret"), folder.path().join("private"));
        fs::create_dir_all(&secret).unwrap();
        fs::write(secret.join("token"), "p@ss\n").unwrap();
        let found = opener("https://git.test:8443/org/x", Some(&secret), &private).unwrap();
        assert_eq!(
            fs::read_to_string(private.join("git-credentials")).unwrap(),
            "https://x%2Daccess%2Dtoken:p%40ss@git.test:8443\n"
        );
        assert!(found.is_there && found.secrets.contains(&"p@ss".to_owned()));
        assert!(found.config.iter().all(|(_, value)| !value.contains("p@ss") && !value.contains("p%40ss")));
        // A key for ssh opens nothing by https, and the other way round.
        assert!(!opener("git@git.test:org/x", Some(&secret), &private).unwrap().is_there);
        assert!(!opener("https://git.test/x", None, &private).unwrap().is_there);
        fs::write(secret.join("ssh-privatekey"), "key").unwrap();
        let ssh = opener("git@git.test:org/x", Some(&secret), &private).unwrap().ssh.unwrap();
        assert!(ssh.contains("StrictHostKeyChecking=yes") && ssh.contains("known_hosts"), "{ssh}");
    }
}
