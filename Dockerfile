# syntax=docker/dockerfile:1
# One static binary and the bundled plugins, on nothing: the operator, its workers and the command line are the same image.

FROM docker.io/library/rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake musl-tools \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The toolchain and its targets change less often than the sources.
COPY rust-toolchain.toml ./
RUN rustup show active-toolchain || rustup toolchain install
# The binary lists its crates in a section that scanners of images read.
RUN cargo install --locked --version 0.7.7 cargo-auditable
COPY . .
ARG TARGETARCH=amd64
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,id=target-${TARGETARCH} \
    --mount=type=cache,target=/src/plugins/target <<'EOF'
set -eu
case "$TARGETARCH" in
  amd64) target=x86_64-unknown-linux-musl ;;
  arm64) target=aarch64-unknown-linux-musl ;;
  *) echo "no build for $TARGETARCH" >&2; exit 1 ;;
esac
rustup target add "$target"
cargo auditable build --locked --release --package substratus --target "$target"
mkdir -p /out /tmp/plugins
cp "target/$target/release/substratus" /out/substratus
# A plugin is a folder with a manifest; the binary that will run them makes them.
for manifest in plugins/*/plugin.yaml; do
  folder=$(dirname "$manifest")
  /out/substratus plugin build "$folder" --output "/tmp/plugins/$(basename "$folder").wasm"
done
# As an OCI layout: a cluster without any registry has them, and the operator hashes each before it reads it.
/out/substratus plugin export /tmp/plugins/*.wasm --to /out/plugins
EOF

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /
USER 65532:65532
ENTRYPOINT ["/substratus"]
