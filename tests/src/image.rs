//! Container images from plain files, without a container engine: same files, same digest. It must not know who runs them.

mod artifact;
mod layer;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::cluster::settings::Settings;

pub use artifact::Artifact;
pub use layer::Layer;

use crate::bundle;

/// Where the operator's image has its program: probes name it.
const OPERATOR: &str = "/substratus";

/// Certificates that let the operator's image speak to public hubs; a machine without the file builds an image without.
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Numbers of capabilities.
const CAP_SETGID: u32 = 6;
const CAP_SETUID: u32 = 7;

/// An image of this machine's architecture.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// Its file system, the lowest layer first.
    pub layers: Vec<Layer>,
    /// What runs.
    pub entrypoint: Vec<String>,
    /// Arguments that a pod's `args` replace.
    pub command: Vec<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// User or `user:group`; empty is root.
    pub user: String,
    /// Working directory; empty is `/`.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Image {
    /// Packs layers, configuration and manifest.
    pub fn build(&self) -> Result<Artifact> {
        let mut artifact = Artifact::default();
        let mut layers = Vec::new();
        let mut diffs = Vec::new();
        for layer in &self.layers {
            // Not compressed: it only ever travels over loopback, and the digest depends on no compressor's version.
            let packed = layer.pack()?;
            let descriptor = artifact.add("application/vnd.oci.image.layer.v1.tar", packed);
            diffs.push(descriptor.digest.clone());
            layers.push(descriptor);
        }
        let env: Vec<String> = self.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint,
                "Cmd": self.command,
                "Env": env,
                "User": self.user,
                "WorkingDir": self.working_dir,
                "Labels": self.labels,
            },
            // One for each layer, as builders write it: one that finds none makes it up, and another the next time.
            "history": diffs.iter().map(|_| json!({"created_by": "substratus-tests"})).collect::<Vec<_>>(),
            "rootfs": {"type": "layers", "diff_ids": diffs},
        });
        let config = artifact.add("application/vnd.oci.image.config.v1+json", serde_json::to_vec(&config)?);
        artifact.finish(&config, &layers)?;
        Ok(artifact)
    }
}

/// Busybox with all its commands in `/bin`, for helper containers. Some builds of it crash when they look up a name (`wget`,
/// `nc`); [`visitor`] has a program that does not.
pub fn busybox() -> Result<Image> {
    let program = Path::new("/bin/busybox");
    let listed =
        Command::new(program).arg("--list").output().context("running /bin/busybox; it is in the package busybox-static")?;
    ensure!(listed.status.success(), "`busybox --list` failed with {}", listed.status);
    let names = String::from_utf8(listed.stdout).context("reading the list of busybox commands")?;
    let mut layer = Layer::default()
        .file("bin/busybox", program, 0o755)?
        .bytes("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644)
        .dir("tmp", 0o1777)
        .dir("root", 0o700);
    for name in names.lines().filter(|name| *name != "busybox") {
        layer = layer.link(&format!("bin/{name}"), "/bin/busybox");
    }
    Ok(Image {
        layers: vec![layer],
        command: vec!["/bin/sh".to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/bin".to_owned())]),
        ..Image::default()
    })
}

/// Busybox and this harness's static program, for pods that visit others: `substratus-cluster fetch URL`.
pub fn visitor() -> Result<Image> {
    let mut image = busybox()?;
    image.layers.push(Layer::default().file("bin/substratus-cluster", &crate::cluster::start::program()?, 0o755)?);
    Ok(image)
}

/// `BuildKit` that runs without root, as its own image has it: on the root file system that `tests/buildkit/root.sh` makes, with a user
/// 1000 that may have ids of its own, and programs that may give them to it.
pub fn builder(root: &Path) -> Result<Image> {
    let settings = Settings::from_environment()?;
    let mut own = Layer::default()
        .bytes("etc/passwd", "root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n", 0o644)
        .bytes("etc/group", "root:x:0:\nuser:x:1000:\n", 0o644)
        .bytes("etc/subuid", "user:100000:65536\n", 0o644)
        .bytes("etc/subgid", "user:100000:65536\n", 0o644)
        .capable("usr/bin/newuidmap", &root.join("usr/bin/newuidmap"), CAP_SETUID)?
        .capable("usr/bin/newgidmap", &root.join("usr/bin/newgidmap"), CAP_SETGID)?;
    for program in ["buildkitd", "buildctl", "rootlesskit"] {
        own = own.file(&format!("usr/bin/{program}"), &settings.require(program)?, 0o755)?;
    }
    Ok(Image {
        layers: vec![Layer::default().tree("", root)?, own],
        entrypoint: vec!["/usr/bin/rootlesskit".to_owned(), "buildkitd".to_owned()],
        env: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
        user: "1000:1000".to_owned(),
        ..Image::default()
    })
}

/// The operator's own image, as the Dockerfile makes it: the static program, and the components of the folder `plugins` as an OCI
/// layout that the program writes. Its other names beside that, for who looks around in it.
pub fn operator(program: &Path, plugins: Option<&Path>) -> Result<Image> {
    let mut base = Layer::default()
        .file(OPERATOR, program, 0o755)?
        .bytes("etc/passwd", "substratus:x:65532:65532:substratus:/:/sbin/nologin\n", 0o644)
        .dir("tmp", 0o1777);
    for name in ["sub", "kubectl-substratus", "kubectl-open-notebook"] {
        base = base.link(&format!("usr/local/bin/{name}"), OPERATOR);
    }
    let certificates = Path::new(CERTIFICATES);
    if certificates.is_file() {
        base = base.file("etc/ssl/certs/ca-certificates.crt", certificates, 0o644)?;
    }
    let mut layers = vec![base];
    if let Some(folder) = plugins {
        let work = tempfile::tempdir().context("making a folder for plugins")?;
        let layout = work.path().join("plugins");
        bundle::write(program, &bundle::components(folder)?, &layout)?;
        layers.push(Layer::default().copy("plugins", &layout)?);
    }
    Ok(Image {
        layers,
        entrypoint: vec![OPERATOR.to_owned()],
        env: BTreeMap::from([("PATH".to_owned(), "/usr/local/bin".to_owned())]),
        user: "65532:65532".to_owned(),
        ..Image::default()
    })
}

/// This machine's architecture, as container images spell it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
