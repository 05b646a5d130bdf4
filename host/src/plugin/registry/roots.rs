//! Certificates of authorities that registries are checked by besides the system's. Knows nothing of where they come from.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Certificates that an administrator trusts, for the registries of one source. Empty trusts the system's alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(Vec<Vec<u8>>);

impl Roots {
    /// Reads a bundle in PEM format; one without a certificate is a mistake.
    pub fn from_pem(bundle: &[u8]) -> Result<Self, String> {
        let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(bundle)
            .map(|certificate| certificate.map(|der| der.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| format!("it is no bundle of certificates in PEM format: {error}"))?;
        if certificates.is_empty() {
            return Err("it holds no certificate; give a bundle in PEM format".to_owned());
        }
        for certificate in &certificates {
            reqwest::Certificate::from_der(certificate)
                .map_err(|error| format!("a certificate of it cannot be used: {error}"))?;
        }
        Ok(Self(certificates))
    }

    /// In the words of the client that talks to registries.
    pub(super) fn for_oci(&self) -> Vec<oci_client::client::Certificate> {
        let encoding = || oci_client::client::CertificateEncoding::Der;
        self.0.iter().map(|data| oci_client::client::Certificate { encoding: encoding(), data: data.clone() }).collect()
    }

    /// In the words of our own client. What does not parse was refused when it was read.
    pub(super) fn for_http(&self) -> Vec<reqwest::Certificate> {
        self.0.iter().filter_map(|data| reqwest::Certificate::from_der(data).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_bundle_is_refused() {
        assert!(Roots::from_pem(b"").unwrap_err().contains("holds no certificate"));
        assert!(Roots::from_pem(b"hello").unwrap_err().contains("holds no certificate"));
        let broken = b"-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
        assert!(Roots::from_pem(broken).unwrap_err().contains("PEM"));
    }
}
