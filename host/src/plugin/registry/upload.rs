//! Puts blobs and manifests into a repository, byte for byte, so that digests and signatures stay what they are. Knows nothing of
//! what they hold.

use oci_client::RegistryOperation;

use super::{Registry, RegistryError};
use crate::plugin::cache::digest_of;

impl Registry {
    /// Puts a blob, unless it is there.
    pub(in crate::plugin) async fn put_blob(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let (client, name, digest) = (&self.client, &self.reference, digest_of(bytes));
        let failed = |error| self.translate(&error);
        client.auth(name, &self.oci_auth(), RegistryOperation::Push).await.map_err(failed)?;
        if !client.blob_exists(name, &digest).await.unwrap_or(false) {
            client.push_blob(name, bytes.to_vec(), &digest).await.map_err(failed)?;
        }
        Ok(())
    }

    /// Puts a manifest or an index under a tag or its digest.
    pub(in crate::plugin) async fn put_manifest(&self, name: &str, media_type: &str, bytes: &[u8]) -> Result<(), RegistryError> {
        let request = self.http.put(format!("{}/manifests/{name}", self.base));
        let request = request.header("content-type", media_type).body(bytes.to_vec());
        let response = self.send(request, true).await?;
        self.check_status(response.status())
    }
}
